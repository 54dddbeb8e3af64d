"""check_host(): the evaluation of RFC 7208 sections 4 to 6.

Rules
- At most 10 terms that ask DNS, at most 2 answers without a record ("void"), at most 10 MX hosts; more is a permerror
  (4.6.4). At most 10 names of a PTR are looked at.
- The time for it all is bounded by the Lookup that is passed in.
- The explanation is asked for only on request, and only after a fail (6.2).
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Awaitable
from typing import NamedTuple, TypeVar

from posthof_pod.mailauth.dns import Lookup, LookupFailed
from posthof_pod.mailauth.spf import macro
from posthof_pod.mailauth.spf.macro import Template, Unreadable
from posthof_pod.mailauth.spf.record import Mechanism, Record, Result, select

T = TypeVar("T")

MOST_TERMS = 10
MOST_VOIDS = 2
MOST_HOSTS = 10
_LABEL = re.compile(r"[^.\x00-\x20\x7f]{1,63}")


class Identity(NamedTuple):
    """Who wants to send. `sender` is the envelope's, "" for the null sender: HELO's name is judged then (2.4)."""

    client: str  # IPv4 or IPv6 address as text
    helo: str
    sender: str


class Verdict(NamedTuple):
    result: Result
    domain: str  # the one judged, lower case
    is_helo: bool  # it is HELO's, because the sender is null
    reason: str = ""  # the term that matched, or what is wrong
    explanation: str = ""  # of the domain owner, for a fail


class _Trouble(Exception):
    """Ends the check with this result."""

    def __init__(self, result: Result, reason: str) -> None:
        self.result = result
        self.reason = reason


class _Client(NamedTuple):
    text: str
    version: int
    number: int
    reversed_: str  # what %{i} becomes


@functools.lru_cache(maxsize=4096)
def _client(text: str) -> _Client:
    address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            nibbles = ".".join(address.exploded.replace(":", "").upper())
            return _Client(str(address), 6, int(address), nibbles)
        address = address.ipv4_mapped
    return _Client(str(address), 4, int(address), str(address))


async def check(
    identity: Identity, lookup: Lookup, *, explain: bool = False, receiver: str = "unknown", now: float = 0.0
) -> Verdict:
    """The result for one envelope. Never raises for what DNS, the client or the sender say; ValueError: `client` is
    no address. `receiver` is our name and `now` unix seconds, for explanations."""
    sender, is_helo = identity.sender, not identity.sender
    if is_helo:
        sender = f"postmaster@{identity.helo}"
    local, _, domain = sender.rpartition("@")
    domain = domain.lower()
    if not is_judgeable(domain):
        return Verdict("none", domain, is_helo, "no domain that could have a record")
    asked = _Check(_client(identity.client), identity.helo, f"{local or 'postmaster'}@{domain}", lookup)
    try:
        result, reason, exp = await asked.host(domain)
    except _Trouble as trouble:
        return Verdict(trouble.result, domain, is_helo, trouble.reason)
    words = ""
    if explain and exp is not None and result == "fail":
        words = await asked.explanation(*exp, receiver=receiver, now=now)
    return Verdict(result, domain, is_helo, reason, words)


@functools.lru_cache(maxsize=4096)
def is_judgeable(domain: str) -> bool:
    """4.3: at least two labels, none empty or too long, no address literal."""
    labels = domain.removesuffix(".").split(".")
    return (
        len(labels) > 1
        and len(domain) <= 254
        and not domain.startswith("[")
        and all(_LABEL.fullmatch(label) for label in labels)
    )


Found = tuple[Result, str, tuple[Template, str] | None]
"""Result, reason, and the exp= with the domain it stands in."""


class _Check:
    """One call of check_host and those inside it: they share the counts."""

    def __init__(self, client: _Client, helo: str, sender: str, lookup: Lookup) -> None:
        self.client, self.helo, self.sender, self.lookup = client, helo, sender, lookup
        self.terms = self.voids = 0

    async def host(self, domain: str) -> Found:
        """4: the record of `domain`, evaluated. Raises _Trouble."""
        try:
            texts = await self.lookup.txt(domain)
        except LookupFailed as error:
            raise _Trouble("temperror", f"{domain}: {error}") from error
        try:
            record = select(texts)
        except Unreadable as error:
            raise _Trouble("permerror", f"{domain}: {error}") from error
        if record is None:
            return "none", f"{domain} has no SPF record", None
        return await self._evaluate(record, domain)

    async def _evaluate(self, record: Record, domain: str) -> Found:
        client = self.client
        for term in record.mechanisms:
            kind = term.kind
            if term.version:  # ip4, ip6
                is_match = term.version == client.version and client.number >> term.shift == term.network
            elif kind == "all":
                is_match = True
            else:
                is_match = await self._asks(term, domain)
            if is_match:
                return term.result, f"{domain}: {term.text}", (record.exp, domain) if record.exp else None
        if record.redirect is None:
            return "neutral", f"{domain}: nothing matches", None
        self._count("redirect")
        target = await self._name(record.redirect, domain)
        found = await self.host(target)
        if found[0] == "none":
            raise _Trouble("permerror", f"{domain}: redirect to {target}, which has no record")
        return found

    async def _asks(self, term: Mechanism, domain: str) -> bool:
        """A mechanism that asks DNS."""
        self._count(term.text)
        target = domain if term.domain is None else await self._name(term.domain, domain)
        if term.kind == "include":
            result, _, _ = await self.host(target)
            if result == "none":
                raise _Trouble("permerror", f"{domain}: include of {target}, which has no record")
            return result == "pass"
        try:
            if term.kind == "a":
                return self._is_in(await self._addresses(target), term)
            if term.kind == "mx":
                return await self._mx(target, term)
            if term.kind == "exists":
                return bool(self._voided(await self.lookup.a(target)))
        except LookupFailed as error:
            raise _Trouble("temperror", f"{domain}: {term.text}: {error}") from error
        return any(_is_below(name, target) for name in await self._validated(target))

    def _count(self, what: str) -> None:
        self.terms += 1
        if self.terms > MOST_TERMS:
            raise _Trouble("permerror", f"more than {MOST_TERMS} terms ask DNS: {what}")

    def _voided(self, found: tuple[T, ...]) -> tuple[T, ...]:
        if not found:
            self.voids += 1
            if self.voids > MOST_VOIDS:
                raise _Trouble("permerror", f"more than {MOST_VOIDS} questions found nothing")
        return found

    # ---- mechanisms

    async def _addresses(self, name: str) -> tuple[str, ...]:
        return self._voided(await (self.lookup.a(name) if self.client.version == 4 else self.lookup.aaaa(name)))

    def _is_in(self, addresses: tuple[str, ...], term: Mechanism) -> bool:
        client = self.client
        shift = 32 - term.prefix4 if client.version == 4 else 128 - term.prefix6
        return any(_client(one).number >> shift == client.number >> shift for one in addresses)

    async def _mx(self, name: str, term: Mechanism) -> bool:
        hosts = self._voided(await self.lookup.mx(name))
        if len(hosts) > MOST_HOSTS:
            raise _Trouble("permerror", f"{name} has more than {MOST_HOSTS} MX hosts")
        for _, host in sorted(hosts):
            if host and host != "." and self._is_in(await self._addresses(host), term):
                return True
        return False

    async def _validated(self, domain: str) -> list[str]:
        """5.5: names of the client that lead back to it. `domain` and what is below it come first."""
        try:
            names = self._voided(await self.lookup.ptr(self.client.text))[:MOST_HOSTS]
        except LookupFailed:
            return []
        found = []
        ask = self.lookup.a if self.client.version == 4 else self.lookup.aaaa
        for name in sorted(names, key=lambda one: (one != domain, not _is_below(one, domain))):
            try:
                addresses = await ask(name)
            except LookupFailed:
                continue
            if any(_client(one).number == self.client.number for one in addresses):
                found.append(name)
        return found

    # ---- macros

    async def _name(self, template: Template, domain: str) -> str:
        return await macro.name(template, lambda letter: self._value(letter, domain))

    def _value(self, letter: str, domain: str) -> str | Awaitable[str]:
        if letter == "p":
            return self._own_name(domain)
        local, _, of = self.sender.rpartition("@")
        client = self.client
        return {
            "s": self.sender,
            "l": local,
            "o": of,
            "d": domain,
            "i": client.reversed_,
            "v": "in-addr" if client.version == 4 else "ip6",
            "h": self.helo,
        }[letter]

    async def _own_name(self, domain: str) -> str:
        names = await self._validated(domain)
        return names[0] if names else "unknown"

    async def explanation(self, template: Template, domain: str, *, receiver: str, now: float) -> str:
        """6.2: the owner's words; "" where there are none that can be used."""
        known = {"c": self.client.text, "r": receiver, "t": str(int(now))}
        try:
            texts = await self.lookup.txt(await self._name(template, domain))
            if len(texts) != 1:
                return ""
            words = macro.explanation(texts[0].decode("ascii"))
            return await macro.fill(words, lambda letter: known.get(letter) or self._value(letter, domain))
        except (LookupFailed, Unreadable, UnicodeDecodeError, _Trouble):
            return ""


def _is_below(name: str, domain: str) -> bool:
    name, domain = name.lower(), domain.lower()
    return name == domain or name.endswith(f".{domain}")
