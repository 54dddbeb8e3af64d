"""DKIM: Posthof signing and verifying beside Postfix with OpenDKIM as its milter, both with one RSA-2048 key and DKIM
alone (no SPF, no DMARC), relaxed/relaxed, 4 KiB, reused sessions; and the CPU of one signature and one verdict.

OpenDKIM runs with its defaults (threads as it likes, a milter on a unix socket); the record it verifies with is in a
file (TestPublicKeys), so that neither side waits for DNS. Posthof asks a DNS server on loopback once.
"""

from __future__ import annotations

import contextlib
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench import accounting, place, throughput
from bench.systems import HOLDER, PosthofSystem
from bench.throughput import Result
from bench.tools import Load, Sink, Source, sink
from kit import peers, postfix
from kit.dkim import at_once, pem, signing_key, table
from kit.dns import DNSServer
from kit.judging import microseconds
from kit.posthof import to_host
from posthof_pod.mailauth import canon
from posthof_pod.mailauth.dkim import keys
from posthof_pod.mailauth.dkim.sign import SigningKey, sign
from posthof_pod.mailauth.dkim.verify import verify

DOMAIN, SELECTOR = "source.bench", "bench"
LOAD = Load(4096, is_reused=True)
NAME = f"{SELECTOR}._domainkey.{DOMAIN}"
WANTED = 4.0  # times Postfix with OpenDKIM
SIGN_WANTED, VERIFY_WANTED = 600.0, 400.0  # us of CPU at 4 KiB: RSA-2048 and Ed25519 signed; SPF, DKIM, DMARC judged
PATIENCE = 60.0


class Row(NamedTuple):
    posthof: Result
    postfix: Result

    @property
    def ratio(self) -> float:
        return round(self.posthof.msgs_per_s / self.postfix.msgs_per_s, 2)


class DKIM(NamedTuple):
    """`sign` and `verify`: end to end. `*_us`: CPU of one call in this process."""

    sign: Row
    verify: Row
    sign_us: float  # RSA-2048 and Ed25519
    verify_us: float  # one RSA-2048, the key known
    judge_us: float  # SPF, one RSA-2048 and DMARC, all answers of DNS known


def missing() -> str:
    """Why it cannot be measured here; "" if it can."""
    return "" if peers.find("opendkim") and peers.find(f"{postfix.SBIN}/master") else "opendkim is not installed"


def measure(seconds: float, folder: Path, say: Callable[[str], None]) -> DKIM:
    """Both rows. Stalled when mail stops coming."""
    rows: dict[str, Row] = {}
    for what in ("sign", "verify"):
        found = {}
        for name, run in (("posthof", _posthof), ("postfix", _postfix)):
            with place.below(folder, f"dkim-{what}-{name}-{time.monotonic_ns()}") as own:
                result = found[name] = run(what, seconds, own)
            say(f"dkim {what:7} {name:10} {result.msgs_per_s:8,.0f} messages/s {result.cpu_us_per_msg:7,.0f} us")
        rows[what] = Row(found["posthof"], found["postfix"])
    return DKIM(rows["sign"], rows["verify"], _sign_us(), _verify_us(), microseconds())


# ---- one call


def _content() -> bytes:
    line = b"The quick brown fox jumps over the lazy dog, again and again.\r\n"
    head = (
        f"From: <from@{DOMAIN}>\r\nTo: <to@sink.bench>\r\nDate: Tue, 24 Nov 2026 01:00:00 +0000\r\n"
        f"Message-Id: <1@{DOMAIN}>\r\nSubject: one of many\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
    )
    return head.encode() + line * ((4096 - len(head)) // len(line))


def _key(algorithm: str) -> SigningKey:
    return signing_key(algorithm, DOMAIN, SELECTOR)


def _each(call: Callable[[], object], times: int = 300) -> float:
    """CPU microseconds of one."""
    for _ in range(20):
        call()
    begun = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - begun) / times * 1e6


def _signed(*signers: SigningKey) -> bytes:
    content = _content()
    head, body = canon.parted(content)
    return sign(canon.fields(head), body, signers, time.time()) + content


def _sign_us() -> float:
    signers = _key("rsa2048"), _key("ed25519")
    return _each(lambda: _signed(*signers))


def _verify_us() -> float:
    signer = _key("rsa2048")
    message, lookup = _signed(signer), table(signer)

    def call() -> None:
        head, body = canon.parted(message)
        (found,) = at_once(verify(canon.fields(head), body, lookup, time.time()))
        assert found.result == "pass", found.reason

    return _each(call)


# ---- end to end


def _run(port: int, cpu: Callable[[], float], count: int, target: Sink, *, letter: Path | None) -> Result:
    before, used = target.count(), cpu()
    started = time.time()
    source = Source(LOAD, count, port, content=letter)
    source.wait(PATIENCE + count / 50)
    accepted = time.time() - started
    elapsed = target.wait_for(before + count) - started
    time.sleep(throughput.TRAILING)
    return Result(count / elapsed, (cpu() - used) / count * 1e6, count, elapsed, accepted)


def _letter(what: str, folder: Path) -> Path | None:
    """A signed message as smtp-source reads it, lines that end with LF; None: it makes one up."""
    if what == "sign":
        return None
    path = folder / "letter"
    path.write_bytes(_signed(_key("rsa2048")).replace(b"\r\n", b"\n"))
    return path


def _warmed(run: Callable[[int], Result], seconds: float) -> Result:
    run(100)
    pace = run(300).msgs_per_s
    return run(max(100, int(pace * seconds) // 100 * 100))


def _posthof(what: str, seconds: float, folder: Path) -> Result:
    record = {NAME: {"TXT": keys.record(_key("rsa2048").key)}}
    with DNSServer(record) as dns, sink() as target:
        documents = [to_host("out", "127.0.0.1", target.port)]
        documents += _signing() if what == "sign" else [_judging()]
        letter = _letter(what, folder)
        system = PosthofSystem(folder, target.port, documents=documents, mta={"resolver": [dns.address]})
        try:
            system.start()
            return _warmed(lambda n: _run(system.port, system.cpu_seconds, n, target, letter=letter), seconds)
        finally:
            system.stop()


def _signing() -> list[dict[str, Any]]:
    base = {"apiVersion": "posthof.dev/v1alpha1"}
    secret = {"name": "bench", "key": "private.pem"}
    return [
        {
            **base,
            "kind": "MailDomain",
            "metadata": {"name": "source"},
            "spec": {
                "domain": DOMAIN,
                "inbound": {"mode": "Reject"},
                "outbound": {"dkim": {"keyRefs": [{"name": "bench"}]}},
            },
        },
        {
            **base,
            "kind": "DKIMKey",
            "metadata": {"name": "bench"},
            "spec": {"domainRef": {"name": "source"}, "selector": SELECTOR, "secretRef": secret},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "bench"},
            "stringData": {"private.pem": pem("rsa2048").decode()},
        },
    ]


def _judging() -> dict[str, Any]:
    """DKIM alone."""
    return {
        "apiVersion": "posthof.dev/v1alpha1",
        "kind": "AccessPolicy",
        "metadata": {"name": "bench"},
        "spec": {"spf": {"check": False}, "dmarc": {"check": False, "aggregateReports": False}},
    }


def _postfix(what: str, seconds: float, folder: Path) -> Result:
    with sink() as target, _opendkim(what, folder) as filter_:
        port = peers.free_port()
        extra = {"smtpd_milters": f"inet:127.0.0.1:{filter_.port}", "milter_default_action": "tempfail"}
        config = postfix.write_folder(
            folder, port=port, hostname="postfix.bench", relay_to=f"[127.0.0.1]:{target.port}", extra=extra
        )
        letter = _letter(what, folder)
        server = postfix.Postfix(folder, config, port, "postfix.bench")
        program = server.start(HOLDER)

        def cpu() -> float:
            return accounting.cpu_seconds(program.pid) + accounting.cpu_seconds(filter_.program.pid)

        try:
            return _warmed(lambda n: _run(port, cpu, n, target, letter=letter), seconds)
        finally:
            server.stop()


class _Filter(NamedTuple):
    program: peers.Program
    port: int


@contextlib.contextmanager
def _opendkim(what: str, folder: Path) -> Iterator[_Filter]:
    port = peers.free_port()
    key, records, config = folder / "bench.pem", folder / "records", folder / "opendkim.conf"
    key.write_bytes(pem("rsa2048"))
    key.chmod(0o600)
    records.write_text(f"{NAME} {keys.record(_key('rsa2048').key)}\n")
    mode = f"Mode s\nDomain {DOMAIN}\nSelector {SELECTOR}\nKeyFile {key}\nInternalHosts 127.0.0.1"
    if what == "verify":
        mode = f"Mode v\nTestPublicKeys {records}\nInternalHosts 192.0.2.1"
    config.write_text(
        textwrap.dedent(f"""\
            Socket inet:{port}@127.0.0.1
            Background no
            Syslog no
            Canonicalization relaxed/relaxed
            RequireSafeKeys no
            """)
        + mode
        + "\n"
    )
    program = peers.Program([*HOLDER, str(peers.find("opendkim")), "-f", "-x", str(config)], folder / "opendkim.log")
    try:
        program.until(lambda: peers.listens(port), f"opendkim on port {port}")
        yield _Filter(program, port)
    finally:
        program.stop()


__all__ = ["DKIM", "SIGN_WANTED", "VERIFY_WANTED", "WANTED", "Row", "measure", "missing"]
