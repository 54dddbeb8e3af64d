"""A signed DNS of our own: knotd signs a root and the zones below it, unbound validates from that root on.

    zones = {"test": "mx.a A 127.0.1.1", "plain": "..."}
    with secure_world(folder, zones, unsigned={"plain"}, bogus={"broken"}) as resolver: ...   # "127.0.0.1@port"

Rules
- A zone's text has neither SOA nor NS. `unsigned`: delegated without DS, so insecure. `bogus`: signed, and the DS in
  its parent is of another key, so every answer from it is SERVFAIL.
- The caller skips first: `peers.require("knotd", "keymgr", "unbound")`.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode

from kit.dns import _bind_both
from kit.peers import find

_SOA = "@ 300 SOA ns. hostmaster. 1 3600 600 86400 60\n@ 300 NS ns.\n"


@contextlib.contextmanager
def secure_world(
    folder: Path, zones: Mapping[str, str], *, unsigned: Set[str] = frozenset(), bogus: Set[str] = frozenset()
) -> Iterator[str]:
    """Yields the validating resolver's address for EngineConfig.resolver."""
    folder.mkdir(parents=True, exist_ok=True)
    authority, resolver = _port(), _port()
    _write_knot(folder, zones, unsigned, authority)
    signed = [zone for zone in ("", *zones) if zone not in unsigned]
    digests = {zone: _make_keys(folder, zone) for zone in signed}
    for zone, text in {"": "ns A 127.0.0.1\n", **zones}.items():
        children = [child for child in zones if child != zone and _parent(child, zones) == zone]
        lines = [_delegation(child, digests, unsigned, bogus) for child in children]
        content = f"$ORIGIN {zone}.\n$TTL 300\n{_SOA}{text}\n{''.join(lines)}"
        (folder / f"{zone or 'root'}.zone").write_text(content)
    _write_unbound(folder, zones, authority, resolver, digests[""])
    with contextlib.ExitStack() as stack:
        stack.enter_context(_running(folder, "knotd", "-c", str(folder / "knot.conf")))
        _wait(authority, dns.flags.AA, folder)
        stack.enter_context(_running(folder, "unbound", "-d", "-p", "-c", str(folder / "unbound.conf")))
        _wait(resolver, dns.flags.AD, folder)
        yield f"127.0.0.1@{resolver}"


def _port() -> int:
    udp, tcp = _bind_both(0)
    port: int = udp.getsockname()[1]
    udp.close()
    tcp.close()
    return port


def _parent(child: str, zones: Mapping[str, str]) -> str:
    """The zone that delegates it."""
    above = [zone for zone in zones if child.endswith(f".{zone}")]
    return max(above, key=len, default="")


def _delegation(child: str, digests: Mapping[str, str], unsigned: Set[str], bogus: Set[str]) -> str:
    lines = f"{child}. NS ns.\n"
    if child in unsigned:
        return lines
    digest = digests[child]
    if child in bogus:
        tag, algorithm, kind, text = digest.split()
        digest = f"{(int(tag) + 1) % 65536} {algorithm} {kind} {'0' * len(text)}"
    return f"{lines}{child}. DS {digest}\n"


def _write_knot(folder: Path, zones: Mapping[str, str], unsigned: Set[str], port: int) -> None:
    lines = [
        f'server:\n    rundir: "{folder}"\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    tcp-workers: 1',
        f'database:\n    storage: "{folder}/db"\n    journal-db-max-size: 16M\n    kasp-db-max-size: 16M',
        "log:\n  - target: stderr\n    any: info",
        "policy:\n  - id: sign\n    algorithm: ecdsap256sha256\n    single-type-signing: on\n    ksk-lifetime: 0",
        f'template:\n  - id: default\n    storage: "{folder}"\n    zonefile-sync: -1\nzone:',
    ]
    for zone in ("", *zones):
        lines.append(f'  - domain: {zone}.\n    file: "{zone or "root"}.zone"')
        if zone not in unsigned:
            lines.append("    dnssec-signing: on\n    dnssec-policy: sign")
    (folder / "db").mkdir(exist_ok=True)
    (folder / "knot.conf").write_text("\n".join(lines) + "\n")


def _make_keys(folder: Path, zone: str) -> str:
    """A signing key; returns the text of its DS."""
    keymgr = [find("keymgr") or "keymgr", "-c", str(folder / "knot.conf"), f"{zone}."]
    make = [*keymgr, "generate", "algorithm=ecdsap256sha256", "ksk=yes", "zsk=yes"]
    subprocess.run(make, check=True, capture_output=True)
    shown = subprocess.run([*keymgr, "ds"], check=True, capture_output=True, text=True).stdout
    found = next(line.split(" DS ", 1)[1] for line in shown.splitlines() if " 13 2 " in line)
    return found.strip()


def _write_unbound(folder: Path, zones: Mapping[str, str], authority: int, port: int, root: str) -> None:
    (folder / "root.anchor").write_text(f". IN DS {root}\n")
    lines = [
        "server:",
        f'    directory: "{folder}"\n    chroot: ""\n    username: ""\n    pidfile: ""\n    use-syslog: no',
        f'    interface: 127.0.0.1@{port}\n    logfile: ""\n    verbosity: 1\n    val-log-level: 2',
        "    do-ip6: no\n    do-not-query-localhost: no\n    num-threads: 1\n    so-reuseport: no",
        '    module-config: "validator iterator"\n    trust-anchor-file: "root.anchor"',
        "    access-control: 127.0.0.0/8 allow",
        "    local-zone: test. nodefault\n    local-zone: invalid. nodefault",
        "remote-control:\n    control-enable: no",
    ]
    for zone in ("", *zones):
        stub = f'stub-zone:\n    name: "{zone}."\n    stub-addr: 127.0.0.1@{authority}\n    stub-prime: no'
        lines.append(f"{stub}\n    stub-no-cache: no")
    (folder / "unbound.conf").write_text("\n".join(lines) + "\n")


@contextlib.contextmanager
def _running(folder: Path, program: str, *arguments: str) -> Iterator[None]:
    with (folder / f"{program}.log").open("wb") as log:
        process = subprocess.Popen([find(program) or program, *arguments], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _wait(port: int, flag: int, folder: Path) -> None:
    """Until the root is answered with this flag."""
    query = dns.message.make_query(".", "NS", want_dnssec=True)
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        with contextlib.suppress(dns.exception.DNSException, OSError):
            reply = dns.query.udp(query, "127.0.0.1", port=port, timeout=0.5)
            if reply.rcode() == dns.rcode.NOERROR and reply.flags & flag and len(reply.answer) > 1:
                return
        time.sleep(0.05)
    logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(folder.glob("*.log")))
    raise AssertionError(f"DNS did not come up on port {port}:\n{logs}")
