"""DNS for tests: a small real server on loopback, and a helper that runs Debian's knotd.

`DNSServer` answers over UDP and TCP on 127.0.0.1, one port for both, from a table the test gives. It runs in threads
of its own, so it serves worker processes as well as a loop in the test.

    with DNSServer({"example.org": {"MX": "10 mx.example.org"}, "mx.example.org": {"A": "127.0.0.1"}}) as dns:
        config = EngineConfig(..., resolver=(dns.address,))      # "127.0.0.1@40123"

Rules
- Names and targets are written without the trailing dot ("." is the root: `{"MX": "0 ."}` is a null MX).
- A name that is not in the table is NXDOMAIN; a name that has other types, or names below it, is NODATA.
- Both carry an SOA, whose TTL and minimum are `negative_ttl`.
- A CNAME in the table is followed inside the table, unless `is_chasing` is False.
- Knobs may be changed while it runs; each is read once a query.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

Records = Mapping[str, Mapping[str, str | Sequence[str]]]

_TARGETS = {"MX", "CNAME", "NS", "SRV", "PTR"}  # types whose last word is a name


class DNSServer:
    """A DNS server over a table: name -> type -> text or texts."""

    def __init__(self, records: Records | None = None, *, ttl: int = 300, negative_ttl: int = 60) -> None:
        self.ttl = ttl
        self.negative_ttl = negative_ttl
        self.delay = 0.0  # seconds before each answer
        self.is_away = False  # take queries, answer nothing
        self.is_chasing = True  # put the records a CNAME leads to into the same answer
        self.is_truncating = False  # over UDP: TC and no records, so that the client must come by TCP
        self.is_forging = False  # before the true answer, one with a wrong id and one with a wrong question
        self.knows_edns = True  # False: FORMERR for a query with an OPT record
        self.failing: set[str] = set()  # SERVFAIL for these names; "*" = all
        self.refusing: set[str] = set()  # REFUSED for these names; "*" = all
        self.dropping: set[str] = set()  # silence for these names
        self.drop_first = 0  # leave that many queries without an answer
        self.queries: list[tuple[str, str, str]] = []  # (name, type, "udp" | "tcp") as they came
        self.port = 0
        self._records: dict[str, dict[str, list[str]]] = {}
        self._lock = threading.Lock()
        self._is_closing = False
        self._threads: list[threading.Thread] = []
        for name, types in (records or {}).items():
            for kind, texts in types.items():
                self.set(name, kind, *([texts] if isinstance(texts, str) else texts))

    @property
    def address(self) -> str:
        """For EngineConfig.resolver."""
        return f"127.0.0.1@{self.port}"

    def set(self, name: str, kind: str, *texts: str) -> None:
        """Replace the records of one name and type; no text removes them."""
        with self._lock:
            types = self._records.setdefault(_key(name), {})
            if texts:
                types[kind.upper()] = [_absolute(kind.upper(), text) for text in texts]
            else:
                types.pop(kind.upper(), None)

    def remove(self, name: str) -> None:
        """Forget a name: NXDOMAIN from now on."""
        with self._lock:
            self._records.pop(_key(name), None)

    def asked(self, name: str, kind: str = "") -> int:
        """How often this name (and type) was asked for."""
        with self._lock:
            return sum(1 for n, k, _ in self.queries if n == _key(name) and kind.upper() in ("", k))

    def __enter__(self) -> DNSServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Bind one port for UDP and TCP, and serve."""
        self._udp, self._tcp = _bind_both(self.port)
        self.port = self._udp.getsockname()[1]
        self._is_closing = False
        for serve in (self._serve_udp, self._serve_tcp):
            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop serving and free the port; `start` binds the same port again."""
        self._is_closing = True
        with contextlib.suppress(OSError):
            self._tcp.shutdown(socket.SHUT_RDWR)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wake:
            wake.sendto(b"", ("127.0.0.1", self.port))
        for thread in self._threads:
            thread.join(5)
        self._threads.clear()
        self._udp.close()
        self._tcp.close()

    def _serve_udp(self) -> None:
        while True:
            data, peer = self._udp.recvfrom(65535)
            if self._is_closing:
                return
            if self.delay:
                timer = threading.Timer(self.delay, self._answer_udp, (data, peer))
                timer.daemon = True
                timer.start()
            else:
                self._answer_udp(data, peer)

    def _answer_udp(self, data: bytes, peer: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):  # the socket may be closed by then
            for reply in self._replies(data, "udp"):
                self._udp.sendto(reply, peer)

    def _serve_tcp(self) -> None:
        while not self._is_closing:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._answer_tcp, args=(connection,), daemon=True).start()

    def _answer_tcp(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, struct.error):
            connection.settimeout(10)
            while True:
                (length,) = struct.unpack("!H", _receive(connection, 2))
                data = _receive(connection, length)
                time.sleep(self.delay)
                for reply in self._replies(data, "tcp"):
                    connection.sendall(struct.pack("!H", len(reply)) + reply)

    def _replies(self, data: bytes, transport: str) -> list[bytes]:
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return []
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        with self._lock:
            self.queries.append((name, dns.rdatatype.to_text(question.rdtype), transport))
            if self.drop_first > 0:
                self.drop_first -= 1
                return []
            if self.is_away or name in self.dropping:
                return []
            reply = self._answer(query, name, transport)
        wires = [reply.to_wire(max_size=65535)]
        if self.is_forging:
            wires[:0] = _forgeries(query)
        return wires

    def _answer(self, query: dns.message.Message, name: str, transport: str) -> dns.message.Message:
        reply = dns.message.make_response(query, recursion_available=True)
        for names, rcode in ((self.failing, dns.rcode.SERVFAIL), (self.refusing, dns.rcode.REFUSED)):
            if name in names or "*" in names:
                reply.set_rcode(rcode)
                return reply
        if query.edns >= 0 and not self.knows_edns:
            reply = dns.message.make_response(query)
            reply.use_edns(-1)
            reply.set_rcode(dns.rcode.FORMERR)
            return reply
        if self.is_truncating and transport == "udp":
            reply.flags |= dns.flags.TC
            return reply
        self._fill(reply, name, dns.rdatatype.to_text(query.question[0].rdtype))
        if transport == "udp" and len(reply.to_wire(max_size=65535)) > max(query.payload, 512):
            reply.answer.clear()
            reply.authority.clear()
            reply.flags |= dns.flags.TC
        return reply

    def _fill(self, reply: dns.message.Message, name: str, kind: str) -> None:
        seen: set[str] = set()
        while name not in seen:
            seen.add(name)
            types = self._records.get(name)
            if types is None:
                below = any(known.endswith("." + name) for known in self._records)
                reply.set_rcode(dns.rcode.NOERROR if below else dns.rcode.NXDOMAIN)
                break
            if kind in types:
                reply.answer.append(self._rrset(name, kind, types[kind]))
                return
            if "CNAME" not in types:
                break
            reply.answer.append(self._rrset(name, "CNAME", types["CNAME"]))
            if not self.is_chasing:
                return
            name = _key(types["CNAME"][0])
        soa = f"ns.invalid. hostmaster.invalid. 1 3600 600 86400 {self.negative_ttl}"
        reply.authority.append(dns.rrset.from_text(".", self.negative_ttl, "IN", "SOA", soa))

    def _rrset(self, name: str, kind: str, texts: Sequence[str]) -> dns.rrset.RRset:
        return dns.rrset.from_text(name + "." if name else ".", self.ttl, "IN", kind, *texts)


def _forgeries(query: dns.message.Message) -> list[bytes]:
    """What an attacker who cannot see the query would send: a wrong id, and a wrong question with the right id."""
    question = query.question[0]
    forged = dns.message.make_response(query)
    forged.id = (query.id + 1) & 0xFFFF
    text = "6.6.6.6" if question.rdtype == dns.rdatatype.A else "10 evil.invalid."
    kind = "A" if question.rdtype == dns.rdatatype.A else "MX"
    forged.answer.append(dns.rrset.from_text(question.name, 300, "IN", kind, text))
    other = dns.message.make_response(dns.message.make_query("evil.invalid.", question.rdtype))
    other.id = query.id
    return [forged.to_wire(), other.to_wire(), b"\x00", b""]


def _key(name: str) -> str:
    return name.rstrip(".").lower()


def _absolute(kind: str, text: str) -> str:
    if kind in _TARGETS and not text.endswith("."):
        return text + "."
    return text


def _receive(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        chunk = connection.recv(length - len(data))
        if not chunk:
            raise OSError("closed")
        data += chunk
    return data


def _bind_both(port: int) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on the same port (0: any)."""
    for _ in range(50):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            udp.bind(("127.0.0.1", port))
            tcp.bind(("127.0.0.1", udp.getsockname()[1]))
            tcp.listen(16)
        except OSError:
            udp.close()
            tcp.close()
            if port:
                raise
            continue
        return udp, tcp
    raise OSError("no port that is free for UDP and TCP")


KNOT_MISSING = "knotd is missing: apt-get install knot"


def find_knot() -> str | None:
    """The path of knotd, or None."""
    return shutil.which("knotd", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")


@contextlib.contextmanager
def knot(
    folder: Path, zones: Mapping[str, str], *, key: tuple[str, str] | None = None, at: str = "127.0.0.1@0"
) -> Iterator[str]:
    """Run a real knotd below `folder` with these zones (name -> lines of a zone file, without SOA and NS).
    `key`: name and secret (base64) of an hmac-sha256 TSIG key that may update them. `at`: port 0 is any that is free.

    Yields "address@port". Knot answers with authority only: a name outside its zones is REFUSED. The caller
    checks `find_knot()` first and skips the test without it.
    """
    binary = find_knot()
    if binary is None:
        raise FileNotFoundError(KNOT_MISSING)
    address, _, wanted = at.partition("@")
    for _ in range(5):
        port = int(wanted) or _free_port()
        process = _start_knot(binary, folder, zones, (address, port), key)
        try:
            if _wait_for_knot(process, (address, port), next(iter(zones))):
                yield f"{address}@{port}"
                return
        finally:
            process.terminate()
            process.wait(10)
    raise OSError("knotd did not start: " + (folder / "knot.log").read_text(errors="replace"))


def _free_port() -> int:
    udp, tcp = _bind_both(0)
    with udp, tcp:
        return int(udp.getsockname()[1])


def _start_knot(
    binary: str, folder: Path, zones: Mapping[str, str], at: tuple[str, int], key: tuple[str, str] | None
) -> subprocess.Popen[bytes]:
    (folder / "db").mkdir(parents=True, exist_ok=True)
    keys, may_update = "", ""
    if key is not None:
        keys = f"key:\n  - id: {key[0]}\n    algorithm: hmac-sha256\n    secret: {key[1]}\n"
        keys += f"acl:\n  - id: updates\n    key: {key[0]}\n    action: update\n"
        may_update = "\n    acl: updates"
    lines = [
        f'server:\n    rundir: "{folder}"\n    listen: {at[0]}@{at[1]}\n    udp-workers: 1\n    tcp-workers: 1',
        f'database:\n    storage: "{folder}/db"\n    journal-db-max-size: 16M',
        f'{keys}log:\n  - target: stderr\n    any: info\ntemplate:\n  - id: default\n    storage: "{folder}"\nzone:',
    ]
    for zone, text in zones.items():
        (folder / f"{zone}.zone").write_text(
            f"$ORIGIN {zone}.\n$TTL 300\n@ SOA ns.{zone}. hostmaster.{zone}. 1 3600 600 86400 60\n"
            f"@ NS ns.{zone}.\nns A {at[0]}\n{text}\n"
        )
        lines.append(f'  - domain: {zone}\n    file: "{zone}.zone"{may_update}')
    (folder / "knot.conf").write_text("\n".join(lines) + "\n")
    with (folder / "knot.log").open("wb") as log:
        return subprocess.Popen([binary, "-c", str(folder / "knot.conf")], stdout=log, stderr=log)


def _wait_for_knot(process: subprocess.Popen[bytes], at: tuple[str, int], zone: str) -> bool:
    """True when it answers for `zone`, False when it ended first (another process may have taken the port)."""
    query = dns.message.make_query(zone + ".", "SOA")
    while process.poll() is None:
        with contextlib.suppress(dns.exception.DNSException, OSError):
            reply = dns.query.udp(query, at[0], port=at[1], timeout=0.2)
            if reply.rcode() == dns.rcode.NOERROR and reply.answer:
                return True
        time.sleep(0.02)
    return False
