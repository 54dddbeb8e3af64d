"""DNS questions on the wire: UDP, TCP where the answer was cut, several servers, time-outs. Only here is dnspython.

Owns: sockets to the resolvers, what a reply must have to be believed, and resolv.conf. Keeps nothing: see cache.py.

Rules
- A socket of its own, so a random port, and a random id for every question (RFC 5452); only the server asked may
  answer (the socket is connected), and id and question must match. What does not is ignored, not an error.
- EDNS0 with 1232 bytes (RFC 6891, DNS Flag Day 2020); without it when a server answers FORMERR or NOTIMP.
- SERVFAIL and REFUSED of one server say nothing of the name: the next server is asked, then all once more.
- Names are text in lower case without the final dot; the root is ".".
- dnspython is imported at the first question (15 MB a worker that resolves nothing does without).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import struct
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from posthof_pod.resolve.tlsa import TLSA

if TYPE_CHECKING:
    import dns.message
    import dns.name

RESOLV_CONF = "/etc/resolv.conf"
_EDNS_SIZE = 1232
_NEGATIVE_TTL = 60.0  # for a negative answer without SOA
_RECHECK = 5.0  # seconds between looks at resolv.conf

Data = str | bytes | tuple[int, str] | tuple[int, int, int, str] | TLSA
"""What a record holds: A, AAAA, CNAME, NS, PTR: text; TXT: bytes; MX: (preference, host); SRV: (priority, weight,
port, host); TLSA: a resolve.tlsa.TLSA."""


class Record(NamedTuple):
    name: str
    kind: str  # "MX"
    ttl: int
    data: Data


class Answer(NamedTuple):
    """What a server said. `exists` is False for NXDOMAIN; no record of the kind asked for: NODATA."""

    exists: bool
    records: tuple[Record, ...]
    negative_ttl: float  # how long "there is none" holds (RFC 2308 section 5)
    is_secure: bool = False  # the AD bit: worth as much as the path to the resolver


class Unanswered(Exception):
    """No server gave an answer that can be used. The text says what each did."""


class BadName(Exception):
    """Not a name DNS can be asked for: a label over 63 bytes, an empty one, over 255 in all."""


class Server(NamedTuple):
    address: str
    port: int


class Settings(NamedTuple):
    """Whom to ask and how patiently."""

    servers: tuple[Server, ...]
    search: tuple[str, ...] = ()  # only for names of next hops, never for domains of addresses
    ndots: int = 1
    timeout: float = 2.0  # of the first question to a server, seconds; doubled in the second round
    rounds: int = 2


def parse_server(text: str) -> Server:
    """ "address" or "address@port"."""
    address, _, port = text.partition("@")
    return Server(address, int(port) if port else 53)


def parse_resolv_conf(text: str) -> Settings:
    """resolv.conf(5): nameserver, search, domain, options ndots, timeout and attempts."""
    servers: list[Server] = []
    search: tuple[str, ...] = ()
    options: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(Server(words[1], 53))
        elif words[0] in ("search", "domain"):
            search = tuple(word.rstrip(".").lower() for word in words[1:] if word != ".")
        elif words[0] == "options":
            options.update(word.partition(":")[::2] for word in words[1:])
    return Settings(
        servers=tuple(servers[:3]) or (Server("127.0.0.1", 53),),
        search=search,
        ndots=_number(options, "ndots", 1, 15),
        timeout=float(max(1, _number(options, "timeout", 2, 30))),
        rounds=max(1, _number(options, "attempts", 2, 5)),
    )


def _number(options: dict[str, str], name: str, default: int, most: int) -> int:
    text = options.get(name, "")
    return min(int(text), most) if text.isdigit() else default


class Wire:
    """Asks the configured servers, or those of resolv.conf, which is read again when it changes."""

    def __init__(self, servers: Sequence[str] = (), *, timeout: float = 2.0, path: str = RESOLV_CONF) -> None:
        self._path = path
        self._is_fixed = bool(servers)
        self._settings = Settings(tuple(parse_server(text) for text in servers), timeout=timeout)
        self._stamp: tuple[int, int] | None = None
        self._looked = float("-inf")

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        if not self._is_fixed:
            self._look()
        return self._settings

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._looked < _RECHECK:
            return
        self._looked = now
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._settings = parse_resolv_conf(file.read())
                self._stamp = stamp
        except OSError:
            if not self._settings.servers:  # no resolv.conf: resolver(3) asks this machine
                self._settings = parse_resolv_conf("")

    async def query(self, name: str, kind: str) -> Answer:
        """Ask for one name and type. Raises Unanswered or BadName."""
        settings = self.settings
        complaints: list[str] = []
        for past in range(settings.rounds):
            for server in settings.servers:
                try:
                    return await self._ask(server, name, kind, settings.timeout * 2**past)
                except TimeoutError:
                    complaint = "no answer"
                except OSError as error:
                    complaint = error.strerror or str(error)
                except _Refused as error:
                    complaint = str(error)
                complaints.append(f"{server.address}@{server.port}: {complaint}")
        raise Unanswered(f"{name} {kind}: " + "; ".join(dict.fromkeys(complaints)))

    async def _ask(self, server: Server, name: str, kind: str, patience: float) -> Answer:
        """One server, by UDP and if need be by TCP, each within `patience` seconds."""
        question = _Question(name, kind)
        async with asyncio.timeout(patience):
            reply = await _ask_udp(server, question)
        if question.is_cut(reply):
            async with asyncio.timeout(patience):
                reply = await _ask_tcp(server, question)
        return question.answer(reply)


class _Refused(Exception):
    """The server answered that it cannot answer."""


class _Question:
    """One question and the reading of its replies."""

    def __init__(self, name: str, kind: str) -> None:
        import dns.exception
        import dns.flags
        import dns.message
        import dns.name
        import dns.rdatatype

        try:
            absolute = dns.name.from_text(name.rstrip(".") + ".", idna_codec=dns.name.IDNA_2008)
        except (dns.exception.DNSException, UnicodeError) as error:
            raise BadName(f"{name}: {error}") from error
        self.kind = kind
        self._message = dns.message.make_query(
            absolute,
            dns.rdatatype.from_text(kind),
            use_edns=0,
            payload=_EDNS_SIZE,
            flags=dns.flags.RD | dns.flags.AD,  # AD asks for the resolver's judgement (RFC 6840 5.7)
            id=secrets.randbelow(65536),
        )

    def to_wire(self) -> bytes:
        return self._message.to_wire()

    def without_edns(self) -> None:
        self._message.use_edns(-1)
        self._message.id = secrets.randbelow(65536)

    @property
    def has_edns(self) -> bool:
        return self._message.edns >= 0

    def read(self, data: bytes) -> dns.message.Message | None:
        """The reply, or None where it is not one to this question."""
        import dns.exception
        import dns.message

        try:
            reply = dns.message.from_wire(data, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError, struct.error, IndexError):
            return None
        return reply if self._message.is_response(reply) else None

    @staticmethod
    def is_cut(reply: dns.message.Message) -> bool:
        import dns.flags

        return bool(reply.flags & dns.flags.TC)

    @staticmethod
    def rejects_edns(reply: dns.message.Message) -> bool:
        import dns.rcode

        return reply.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP)

    @staticmethod
    def answer(reply: dns.message.Message) -> Answer:
        import dns.flags
        import dns.rcode
        import dns.rdatatype

        rcode = reply.rcode()
        if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise _Refused(dns.rcode.to_text(rcode))
        records = tuple(
            Record(
                rrset.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(rrset.rdtype), rrset.ttl, data
            )
            for rrset in reply.answer
            for rdata in rrset
            if (data := _data(rdata)) is not None
        )
        negative_ttl = _NEGATIVE_TTL
        for rrset in reply.authority:
            if rrset.rdtype == dns.rdatatype.SOA:
                negative_ttl = float(min(rrset.ttl, rrset[0].minimum))
        # a CNAME to a name that does not exist is NXDOMAIN too (RFC 6604): the name asked for is there
        exists = rcode == dns.rcode.NOERROR or bool(records)
        return Answer(exists, records, negative_ttl, bool(reply.flags & dns.flags.AD))


def _data(rdata: Any) -> Data | None:
    """The value of a record of the kinds we ask for, None for others. (Record classes are made at run time.)"""
    import dns.rdatatype

    kind = dns.rdatatype.to_text(rdata.rdtype)
    if kind in ("A", "AAAA"):
        return str(rdata.address)
    if kind in ("CNAME", "NS", "PTR"):
        return _host(rdata.target)
    if kind == "MX":
        return int(rdata.preference), _host(rdata.exchange)
    if kind == "SRV":
        return int(rdata.priority), int(rdata.weight), int(rdata.port), _host(rdata.target)
    if kind == "TXT":
        return b"".join(rdata.strings)
    if kind == "TLSA":
        return TLSA(int(rdata.usage), int(rdata.selector), int(rdata.mtype), bytes(rdata.cert))
    return None


def _host(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


class _Listener(asyncio.DatagramProtocol):
    """Waits for the one datagram that answers the question."""

    def __init__(self, question: _Question, reply: asyncio.Future[dns.message.Message]) -> None:
        self._question = question
        self._reply = reply

    def datagram_received(self, data: bytes, addr: object) -> None:
        reply = self._question.read(data)
        if reply is not None and not self._reply.done():
            self._reply.set_result(reply)

    def error_received(self, exc: Exception) -> None:
        if not self._reply.done():
            self._reply.set_exception(exc)


async def _ask_udp(server: Server, question: _Question) -> dns.message.Message:
    """Raises OSError (nobody listens there)."""
    loop = asyncio.get_running_loop()
    while True:
        future: asyncio.Future[dns.message.Message] = loop.create_future()
        transport, _ = await loop.create_datagram_endpoint(
            partial(_Listener, question, future), remote_addr=(server.address, server.port)
        )
        try:
            transport.sendto(question.to_wire())
            reply = await future
        finally:
            transport.close()
        if not (question.has_edns and question.rejects_edns(reply)):
            return reply
        question.without_edns()


async def _ask_tcp(server: Server, question: _Question) -> dns.message.Message:
    """Raises OSError."""
    reader, writer = await asyncio.open_connection(server.address, server.port)
    try:
        wire = question.to_wire()
        writer.write(struct.pack("!H", len(wire)) + wire)
        while True:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            reply = question.read(await reader.readexactly(length))
            if reply is not None:
                return reply
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError(104, "closed by the server") from error
    finally:
        writer.close()
