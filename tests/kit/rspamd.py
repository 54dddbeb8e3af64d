"""Debian's rspamd as somebody else's judge of a mail: SPF, DKIM and DMARC alone, its DNS the test's own server.

    with rspamd(resolver=zone.address) as judge:
        assert judge.verdict(content, client="192.0.2.1", sender="a@x.test", helo="mx.x.test") == "spf=pass ..."

    python -m kit.rspamd ADDRESS@PORT CLIENT SENDER HELO < MAIL        prints the same; the e2e asks so

Its list of public suffixes is a short one of ours: the true one takes it minutes to read.
"""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from kit.peers import Program, folder, free_port, require

SUFFIXES = ("com", "net", "org", "test", "example")

CONFIG = """
options {{
  pidfile = "{home}/pid"; cache_file = "{home}/cache"; hs_cache_dir = "{home}/"; tempdir = "{home}";
  history_file = "{home}/history"; stats_file = "{home}/stats"; control_socket = "{home}/sock mode=0600";
  url_tld = "{home}/suffixes"; filters = "dkim"; local_addrs = [];
  dns {{ timeout = 5s; retransmits = 2; nameserver = ["{nameserver}"]; }}
}}
logging {{ type = "console"; level = "info"; }}
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; }}
lua = "/usr/share/rspamd/rules/rspamd.lua";
spf {{ }}
dkim {{ time_jitter = 6h; trusted_only = false; }}
dmarc {{ }}
modules {{ path = "/usr/share/rspamd/plugins/"; }}
metric "default" {{ actions {{ reject = 1000; }} }}
"""

SPF = {
    "R_SPF_ALLOW": "pass",
    "R_SPF_FAIL": "fail",
    "R_SPF_SOFTFAIL": "softfail",
    "R_SPF_NEUTRAL": "neutral",
    "R_SPF_NA": "none",
    "R_SPF_DNSFAIL": "temperror",
    "R_SPF_PERMFAIL": "permerror",
}
DKIM = {
    "R_DKIM_ALLOW": "pass",
    "R_DKIM_REJECT": "fail",
    "R_DKIM_NA": "none",
    "R_DKIM_TEMPFAIL": "temperror",
    "R_DKIM_PERMFAIL": "permerror",
}
DMARC = {
    "DMARC_POLICY_ALLOW": "pass",
    "DMARC_POLICY_ALLOW_WITH_FAILURES": "pass",
    "DMARC_POLICY_REJECT": "fail",
    "DMARC_POLICY_QUARANTINE": "fail",
    "DMARC_POLICY_SOFTFAIL": "fail",
    "DMARC_NA": "none",
    "DMARC_BAD_POLICY": "permerror",
    "DMARC_DNSFAIL": "temperror",
}


class Rspamd:
    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def listens(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self._url}/ping", timeout=5) as reply:
            return bool(reply.status == 200)
        return False

    def symbols(self, content: bytes, *, client: str, sender: str, helo: str) -> list[str]:
        """The names of what it found; several for the signatures of one mail."""
        told = {"IP": client, "From": sender, "Helo": helo, "Rcpt": "someone@far.test"}
        question = urllib.request.Request(f"{self._url}/checkv2", data=content, headers=told)
        with urllib.request.urlopen(question, timeout=60) as reply:
            return list(json.load(reply)["symbols"])

    def verdict(self, content: bytes, *, client: str, sender: str, helo: str) -> str:
        """In the words of RFC 8601: "spf=pass dkim=pass dmarc=pass"; of several signatures the best."""
        found = self.symbols(content, client=client, sender=sender, helo=helo)
        words = []
        for method, table in (("spf", SPF), ("dkim", DKIM), ("dmarc", DMARC)):
            results = [result for symbol, result in table.items() if symbol in found]
            words.append(f"{method}={results[0] if results else 'nothing'}")
        return " ".join(words)


@contextlib.contextmanager
def rspamd(*, resolver: str) -> Iterator[Rspamd]:
    """A process of its own. `resolver`: "address@port". Skips the test where it is not installed."""
    require("rspamd")
    with folder("rspamd") as home:
        home.chmod(0o777)
        (home / "suffixes").write_text("".join(f"{one}\n" for one in SUFFIXES))
        port = free_port()
        values = {"home": home, "port": port, "nameserver": resolver.replace("@", ":")}
        (home / "rspamd.conf").write_text(CONFIG.format(**values))
        program = Program(_command(home), home / "log")
        judge = Rspamd(port)
        try:
            program.until(judge.listens, "rspamd answers", timeout=60)
            yield judge
        finally:
            program.stop()


def _command(home: Path) -> list[str]:
    return ["rspamd", "-u", "_rspamd", "-g", "_rspamd", "-f", "-c", str(home / "rspamd.conf")]


def main() -> None:
    resolver, client, sender, helo = sys.argv[1:]
    with rspamd(resolver=resolver) as judge:
        print(judge.verdict(sys.stdin.buffer.read(), client=client, sender=sender, helo=helo))


if __name__ == "__main__":
    main()
