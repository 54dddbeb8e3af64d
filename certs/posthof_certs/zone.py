"""Records in a zone: put there and taken away by dynamic updates, and whether all its servers show them.

Blocking calls, made for a thread. Only here does this package speak DNS.

Rules of this file
- An update adds or removes exactly the records that are named: what others keep at the same name stays.
- "Published" is what every address of every NS of the zone answers with authority, not what a cache says.
- Names are text without the final dot; TXT texts are whole and cut into strings of 255 octets here.
Sources: RFC 2136, RFC 8945 (TSIG), RFC 1035.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.resolver
import dns.rrset
import dns.tsig
import dns.tsigkeyring
import dns.update

TIMEOUT = 5.0  # seconds for one question
EVERY = 1.0  # seconds between two looks at servers that do not show it yet


class Key(NamedTuple):
    """A TSIG key: `algorithm` as the manifests write it (HMAC-SHA256), `secret` base64."""

    name: str
    algorithm: str
    secret: str

    def __repr__(self) -> str:
        return f"Key({self.name})"


class Server(NamedTuple):
    """Where updates go: `address` or `address@port`; `zone` "": found by asking."""

    address: str
    key: Key
    zone: str = ""
    ttl: int = 300


class Record(NamedTuple):
    """`type` TXT: `text` is the whole text; any other: as a zone file writes it."""

    name: str
    type: str
    text: str


class Unpublished(Exception):
    """The change did not come about, or is not seen. The text names the server, what it said, and the mend."""


def add(server: Server, records: Sequence[Record]) -> None:
    """Put them there. Raises Unpublished."""
    _change(server, records, is_there=True)


def remove(server: Server, records: Sequence[Record]) -> None:
    """Take them away; those that are not there are no error. Raises Unpublished."""
    _change(server, records, is_there=False)


def unseen(records: Sequence[Record], resolver: Sequence[str] = (), *, port: int = 53) -> dict[Record, list[str]]:
    """The records that some server of their zones does not show yet, and which do not: "ns.example.org (192.0.2.1)
    has no TXT ...". `resolver`: who is asked for the zone and its servers ("address" or "address@port"); empty: the
    system's. `port`: of the authoritative servers. Raises Unpublished when a zone has no servers that can be
    found."""
    asked = _resolver(resolver)
    found: dict[Record, list[str]] = {}
    for name in sorted({record.name for record in records}):
        wanted = [record for record in records if record.name == name]
        for host, address in servers(name, asked):
            for one in wanted:
                if not _shows(address, port, one):
                    found.setdefault(one, []).append(f"{host} ({address}) has no {one.type} {one.name}")
    return found


def lacking(records: Sequence[Record], resolver: Sequence[str] = (), *, port: int = 53) -> list[str]:
    """`unseen`, for people. Empty: all servers show all of them."""
    return [text for texts in unseen(records, resolver, port=port).values() for text in texts]


def await_seen(
    records: Sequence[Record],
    resolver: Sequence[str] = (),
    *,
    port: int = 53,
    patience: float = 120.0,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when every authoritative server shows them. Raises Unpublished after `patience` seconds."""
    until = time.monotonic() + patience
    while missing := lacking(records, resolver, port=port):
        if time.monotonic() > until:
            raise Unpublished(f"after {patience:.0f} s {'; '.join(missing[:3])}")
        sleep(EVERY)


def servers(name: str, resolver: dns.resolver.Resolver) -> list[tuple[str, str]]:
    """(host, address) of all authoritative servers of the zone that holds `name`. Raises Unpublished."""
    try:
        zone = dns.resolver.zone_for_name(_absolute(name), resolver=resolver)
        hosts = sorted(str(one.target) for one in resolver.resolve(zone, "NS"))
        found = [(host.rstrip("."), address) for host in hosts for address in _addresses(host, resolver)]
    except (dns.exception.DNSException, OSError) as error:
        raise Unpublished(f"the servers of the zone of {name} cannot be found: {_words(error)}") from None
    if not found:
        raise Unpublished(f"the servers of {zone} have no addresses")
    return found


def _addresses(host: str, resolver: dns.resolver.Resolver) -> list[str]:
    found: list[str] = []
    for kind in ("A", "AAAA"):
        answer = resolver.resolve(host, kind, raise_on_no_answer=False)
        found += [str(one.address) for one in answer.rrset or ()]
    return found


def _resolver(addresses: Sequence[str]) -> dns.resolver.Resolver:
    resolver = dns.resolver.Resolver(configure=not addresses)
    if addresses:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(*_address(one)) for one in addresses]
    resolver.lifetime = resolver.timeout = TIMEOUT
    resolver.cache = None
    return resolver


def _shows(address: str, port: int, record: Record) -> bool:
    """Whether this server answers with the record, with authority. A server that is silent does not."""
    query = dns.message.make_query(_absolute(record.name), record.type)
    query.flags &= ~dns.flags.RD
    try:
        reply, _ = dns.query.udp_with_fallback(query, address, port=port, timeout=TIMEOUT)
    except (dns.exception.DNSException, OSError):
        return False
    if not reply.flags & dns.flags.AA:
        return False
    wanted = _data(record)
    return any(wanted in rrset for rrset in reply.answer if rrset.rdtype == wanted.rdtype)


def _change(server: Server, records: Sequence[Record], *, is_there: bool) -> None:
    address, port = _address(server.address)
    ring = dns.tsigkeyring.from_text({server.key.name: (server.key.algorithm.lower(), server.key.secret)})
    by_zone: dict[str, list[Record]] = {}
    for record in records:
        zone = server.zone or _zone_of(record.name, address, port)
        by_zone.setdefault(zone, []).append(record)
    for zone, some in by_zone.items():
        update = dns.update.UpdateMessage(zone, keyring=ring)
        for record in some:
            name = _absolute(record.name)
            if is_there:
                update.add(name, server.ttl, _data(record))
            else:
                update.delete(name, _data(record))
        try:
            reply = dns.query.tcp(update, address, port=port, timeout=TIMEOUT)
        except dns.tsig.PeerError as error:
            raise Unpublished(_refused(server, zone, type(error).__name__)) from None
        except (dns.exception.DNSException, OSError) as error:
            raise Unpublished(f"{server.address} cannot be asked to change {zone}: {_words(error)}") from None
        if reply.rcode() != dns.rcode.NOERROR:
            raise Unpublished(_refused(server, zone, dns.rcode.to_text(reply.rcode())))


def _zone_of(name: str, address: str, port: int) -> str:
    """Ask the server upwards for the SOA, as nsupdate does."""
    wanted = _absolute(name)
    while True:
        query = dns.message.make_query(wanted, "SOA")
        try:
            reply, _ = dns.query.udp_with_fallback(query, address, port=port, timeout=TIMEOUT)
        except (dns.exception.DNSException, OSError) as error:
            raise Unpublished(f"{address}@{port} cannot be asked for the zone of {name}: {_words(error)}") from None
        for rrset in [*reply.answer, *reply.authority]:
            if rrset.rdtype == dns.rdatatype.SOA and wanted.is_subdomain(rrset.name):
                return rrset.name.to_text(omit_final_dot=True)
        if len(wanted) <= 2:
            raise Unpublished(f"{address}@{port} has no zone that holds {name}: name another server")
        wanted = wanted.parent()


def _data(record: Record) -> dns.rdata.Rdata:
    kind = dns.rdatatype.from_text(record.type)
    if kind == dns.rdatatype.TXT:
        octets = record.text.encode()
        strings = [octets[n : n + 255] for n in range(0, len(octets), 255)] or [b""]
        return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, kind, strings)
    return dns.rdata.from_text(dns.rdataclass.IN, kind, record.text, origin=dns.name.root)


def _absolute(name: str) -> dns.name.Name:
    return dns.name.from_text(name.rstrip(".") + ".")


def _address(text: str) -> tuple[str, int]:
    address, _, port = text.partition("@")
    return address, int(port) if port else 53


def _refused(server: Server, zone: str, word: str) -> str:
    said = {
        "REFUSED": "it lets this key change nothing there: allow it",
        "NOTAUTH": "it is not the zone's primary, or does not know the key",
        "NOTZONE": "the name is not in that zone",
        "PeerBadKey": "it does not know the key: write the same key on both sides",
        "PeerBadSignature": "the key's secret is another one there",
        "PeerBadTime": "its clock and ours differ: set them",
    }
    mend = said.get(word, "see its log")
    return f"{server.address} refused the update of {zone} with key {server.key.name} ({word}): {mend}"


def _words(error: Exception) -> str:
    return "no answer in time" if isinstance(error, dns.exception.Timeout) else str(error) or type(error).__name__
