"""A zone beside the cluster: Debian's knotd on node-a's network, its primary and only server, which takes updates.

with zone(stage, "traffic.test") as primary:
    stage.install(*primary.settings)                     # the operator asks it for the zone's servers
    stage.apply(primary.secret())                        # the TSIG key
    ... "rfc2136": primary.rfc2136
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kit.acme import NODE
from kit.api import Object
from kit.place import ROOT
from kit.stage import Stage

PORT = 5300
ASK = """
import sys, dns.message, dns.query
name, kind, address, port = sys.argv[1:]
reply = dns.query.tcp(dns.message.make_query(name, kind), address, port=int(port), timeout=5)
for one in (each for answer in reply.answer for each in answer):
    print(b"".join(one.strings).decode() if kind == "TXT" else one.to_text())
"""
TELL = """
import sys, dns.query, dns.tsigkeyring, dns.update
zone, name, kind, text, address, port, secret = sys.argv[1:]
update = dns.update.UpdateMessage(zone, keyring=dns.tsigkeyring.from_text({"updates": secret}))
update.add(name + ".", 30, kind, text)
sys.exit(dns.query.tcp(update, address, port=int(port), timeout=5).rcode())
"""
SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


class Zone:
    """`address`: "address@port"."""

    address = f"{NODE}@{PORT}"

    @property
    def settings(self) -> list[str]:
        """For the chart: whom the operator asks, and where authoritative servers listen."""
        return [
            f"operator.resolver={{{self.address}}}",
            "operator.env[0].name=POSTHOF_DNS_PORT",
            f"operator.env[0].value={PORT}",
        ]

    @property
    def rfc2136(self) -> Object:
        return {"server": self.address, "tsig": {"name": "updates", "secretName": "tsig"}}

    def secret(self) -> Object:
        data = {"secret": base64.b64encode(SECRET.encode()).decode()}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tsig"}, "data": data}

    def texts(self, stage: Stage, name: str, kind: str) -> list[str]:
        """The data it answers with, one text each; the strings of a TXT record are joined."""
        command = [*stage.place.beside(), sys.executable, "-c", ASK, name, kind, NODE, str(PORT)]
        answered = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        return [line for line in answered.splitlines() if line]

    def publish(self, stage: Stage, zone: str, name: str, kind: str, text: str) -> None:
        """As a person does by hand. `text` as in a zone file."""
        words = [zone, name, kind, text, NODE, str(PORT), SECRET]
        subprocess.run([*stage.place.beside(), sys.executable, "-c", TELL, *words], check=True, timeout=30)


@contextlib.contextmanager
def zone(stage: Stage, *names: str) -> Iterator[Zone]:
    """A fresh one; it ends with the block."""
    if shutil.which("knotd", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
        subprocess.run([ROOT / "scripts" / "apt-quietly", "install", "--no-install-recommends", "knot"], check=True)
    home = Path(tempfile.mkdtemp(prefix="posthof-zone-"))
    for name in names:
        lines = [f"$ORIGIN {name}.", "$TTL 30", f"@ SOA ns.{name}. hostmaster.{name}. 1 3600 600 86400 30"]
        lines += [f"@ NS ns.{name}.", f"ns A {NODE}"]
        (home / f"{name}.zone").write_text("\n".join([*lines, ""]))
    zones = "".join(f'  - domain: {name}\n    file: "{name}.zone"\n    acl: updates\n' for name in names)
    (home / "knot.conf").write_text(
        f'server:\n    rundir: "{home}"\n    listen: {NODE}@{PORT}\n    udp-workers: 1\n    tcp-workers: 1\n'
        f'database:\n    storage: "{home}/db"\n    journal-db-max-size: 16M\n'
        f"key:\n  - id: updates\n    algorithm: hmac-sha256\n    secret: {SECRET}\n"
        f"acl:\n  - id: updates\n    key: updates\n    action: update\n"
        f'log:\n  - target: stderr\n    any: info\ntemplate:\n  - id: default\n    storage: "{home}"\n'
        f"zone:\n{zones}"
    )
    (home / "db").mkdir()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [*stage.place.beside(), "knotd", "-c", str(home / "knot.conf")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin"},
            start_new_session=True,
        )
    made = Zone()
    try:
        stage.until("the zone is served", lambda: made.texts(stage, names[0], "SOA"))
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)
        shutil.rmtree(home, ignore_errors=True)
