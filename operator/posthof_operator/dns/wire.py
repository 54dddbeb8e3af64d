"""Questions to DNS. The only file of the operator that imports dnspython.

Rules of this file
- An answer is a value; a name that does not exist is an answer too. No usable answer from any server is `Unanswered`.
- Nothing is cached: checks are rare, and each shall see what is published now (the resolver's own cache is its own).
- Names are text in lower case without the final dot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

LIFETIME = 8.0  # seconds for one question, all servers and tries together
TIMEOUT = 2.5  # seconds for one try


class MX(NamedTuple):
    preference: int
    host: str  # "" is the null MX (RFC 7505)


class Answer(NamedTuple):
    """What a server said. `exists` is False for NXDOMAIN. `values`: MX, or texts: addresses (A, AAAA), the joined
    strings of a TXT record."""

    exists: bool
    values: tuple[Any, ...] = ()


class Unanswered(Exception):
    """No server gave an answer that can be used. The text says what happened."""


class Wire:
    """Asks the configured servers ("address" or "address@port"), or those of resolv.conf."""

    def __init__(self, servers: Sequence[str] = (), *, lifetime: float = LIFETIME, timeout: float = TIMEOUT) -> None:
        self._servers = tuple(servers)
        self._lifetime, self._timeout = lifetime, timeout
        self._resolver: dns.asyncresolver.Resolver | None = None

    async def ask(self, name: str, kind: str) -> Answer:
        """One name and type: MX, TXT, A or AAAA. Raises Unanswered."""
        try:
            absolute = dns.name.from_text(name.rstrip(".") + ".")
            if self._resolver is None:
                self._resolver = self._made()
            reply = await self._resolver.resolve(absolute, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            return Answer(False)
        except dns.exception.DNSException as error:
            raise Unanswered(f"{name} {kind}: {_reason_of(error)}") from None
        except (OSError, UnicodeError) as error:
            raise Unanswered(f"{name} {kind}: {error}") from None
        if reply.rrset is None:
            return Answer(True)
        return Answer(True, tuple(sorted(_value(kind, record) for record in reply.rrset)))

    def _made(self) -> dns.asyncresolver.Resolver:
        """Raises DNSException when there is no resolv.conf to go by."""
        resolver = dns.asyncresolver.Resolver(configure=not self._servers)
        if self._servers:
            resolver.nameservers = [_server(text) for text in self._servers]
        resolver.lifetime, resolver.timeout = self._lifetime, self._timeout
        resolver.cache = None
        resolver.use_edns(0, 0, 1232)
        return resolver


def _server(text: str) -> dns.nameserver.Do53Nameserver:
    address, _, port = text.partition("@")
    return dns.nameserver.Do53Nameserver(address, int(port) if port else 53)


def _value(kind: str, record: Any) -> MX | str:
    if kind == "MX":
        return MX(int(record.preference), record.exchange.to_text(omit_final_dot=True).lower().removesuffix("."))
    if kind == "TXT":
        return b"".join(record.strings).decode("utf-8", "backslashreplace")
    if kind == "TLSA":
        return f"{record.usage} {record.selector} {record.mtype} {bytes(record.cert).hex()}"
    return str(record.address)


def _reason_of(error: dns.exception.DNSException) -> str:
    if isinstance(error, dns.exception.Timeout):
        return "no answer in time"
    if isinstance(error, dns.resolver.NoNameservers):
        said = {str(entry[-1].rcode().name) if entry[-1] else str(entry[3]) for entry in error.kwargs["errors"]}
        return "no server could answer (" + ", ".join(sorted(said)) + ")"
    return str(error) or type(error).__name__
