"""Pebble, Let's Encrypt's ACME server for tests, built by scripts/pebble from its Go module into a cache.

    with pebble(dns=server.address) as ca:           # server: kit.dns.DNSServer, which says where names are
        account = acme.Account(ca.directory, acme.account_key(), roots=ca.roots)
        ... HTTP-01 is asked for at port ca.http_port of a name's address

Needs Go 1.26 and, once, the modules: without them the test skips, in CI it fails.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from kit.peers import Program, absent, folder, free_port, listens
from posthof_certs import issue
from posthof_certs.issue import ECDSA, Order

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "pebble"


class Pebble:
    """`directory`: URL; `roots`: PEM that its own certificate chains to; `issuing`: PEM that what it issues chains
    to; `http_port`: where it asks for HTTP-01."""

    def __init__(self, port: int, management: int, http_port: int, roots: str) -> None:
        self.directory = f"https://localhost:{port}/dir"
        self.roots = roots
        self.http_port = http_port
        self._management = f"https://localhost:{management}"

    @property
    def issuing(self) -> str:
        context = ssl.create_default_context(cadata=self.roots)
        with urllib.request.urlopen(f"{self._management}/roots/0", context=context, timeout=30) as answer:
            return str(answer.read().decode())


@contextlib.contextmanager
def pebble(*, dns: str, eab: tuple[str, bytes] | None = None, valid: int = 90 * 86400) -> Iterator[Pebble]:
    """A fresh authority that asks the DNS server `dns` ("address@port"). `eab`: it wants this external account.
    `valid`: seconds that its certificates last."""
    program = _binary()
    with folder("pebble") as home:
        made = issue.self_signed(Order(("localhost",), ECDSA, 86400.0), time.time())
        (home / "cert.pem").write_bytes(made.chain)
        (home / "key.pem").write_bytes(made.key)
        port, management, http_port = free_port(), free_port(), free_port()
        settings = {
            "listenAddress": f"127.0.0.1:{port}",
            "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": str(home / "cert.pem"),
            "privateKey": str(home / "key.pem"),
            "httpPort": http_port,
            "tlsPort": free_port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": eab is not None,
            "certificateValidityPeriod": valid,
            "retryAfter": {"authz": 1, "order": 1},
        }
        if eab is not None:
            settings["externalAccountMACKeys"] = {eab[0]: base64.urlsafe_b64encode(eab[1]).decode().rstrip("=")}
        (home / "config.json").write_text(json.dumps({"pebble": settings}))
        command = [program, "-config", home / "config.json", "-dnsserver", dns.replace("@", ":"), "-strict"]
        server = Program(command, home / "log", env={"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"})
        try:
            server.until(lambda: listens(port) and listens(management), "Pebble listens")
            yield Pebble(port, management, http_port, made.chain.decode())
        finally:
            server.stop()


def _binary() -> str:
    """Built once for each go.sum."""
    built = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    if built.returncode != 0:
        absent(
            f"Pebble cannot be built ({built.stderr.strip()[-300:]}); install Go 1.26 or newer (https://go.dev/dl)"
        )
    return built.stdout.strip()
