"""SPF: may an address send for a domain? (RFC 7208, without what needs the message.)

Rules of this file
- No I/O of its own: questions go through `ask`, which tests replace.
- The limits of section 4.6.4 hold: 10 terms that ask, 2 of them in vain; beyond, receivers give up, so we say so.
- What depends on the message (macros, `exists`, `ptr`) cannot be judged here: it matches nothing, and a result that
  is no pass is then `UNSURE` instead of a refusal.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from posthof_operator.dns.wire import Answer

Ask = Callable[[str, str], Awaitable[Answer]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LOOKUPS = 10
VOID_LOOKUPS = 2
MX_HOSTS = 10

_TERM = re.compile(
    r"([-+~?]?)(all|include|a|mx|ptr|ip4|ip6|exists)(?=[:/]|$)(?::([^/]*|[^/]*%\{[^}]*\}[^/]*))?(/.*)?", re.I
)
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9._-]*)=(.*)")
_CIDR = re.compile(r"(?:/([0-9]{1,2}))?(?://([0-9]{1,3}))?")


class Result(enum.Enum):
    PASS = "pass"
    FAIL = "fail"
    SOFT_FAIL = "softfail"
    NEUTRAL = "neutral"
    NONE = "none"  # there is no record
    ERROR = "permerror"  # receivers cannot use the record
    UNSURE = "unsure"  # it depends on the message


_QUALIFIED = {"+": Result.PASS, "": Result.PASS, "-": Result.FAIL, "~": Result.SOFT_FAIL, "?": Result.NEUTRAL}


class Broken(Exception):
    """A record that receivers cannot use (permerror). The text says why."""


class Term(NamedTuple):
    """A mechanism. `value` is a domain or network, "" where none is written; prefixes are of IPv4 and IPv6."""

    qualifier: str
    name: str
    value: str = ""
    prefix4: int = 32
    prefix6: int = 128


class Record(NamedTuple):
    terms: tuple[Term, ...]
    redirect: str = ""


class Judged(NamedTuple):
    result: Result
    why: str = ""  # of ERROR


def is_spf(text: str) -> bool:
    """Whether a TXT record is one of SPF (section 4.5)."""
    return text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")


def records(texts: Sequence[str]) -> list[str]:
    """The SPF records among the TXT records of a name."""
    return [text for text in texts if is_spf(text)]


def parse(text: str) -> Record:
    """Raises Broken."""
    terms: list[Term] = []
    redirect = ""
    for word in text.split(" ")[1:]:
        if not word:
            continue
        modifier = _MODIFIER.fullmatch(word)
        if modifier and not _TERM.fullmatch(word):
            if modifier[1].lower() == "redirect":
                redirect = modifier[2].lower().rstrip(".")
            continue  # exp and unknown modifiers say nothing about who may send
        terms.append(_term(word))
    return Record(tuple(terms), redirect)


def same(one: str, other: str) -> bool:
    """Whether two records have the same terms in the same order; case and spaces do not count."""
    return one.lower().split() == other.lower().split()


def proposal(addresses: Sequence[str], observed: str = "") -> str:
    """The text to publish so that `addresses` may send: a fresh record, or the observed one with them added."""
    ours = [f"ip{ipaddress.ip_address(address).version}:{address}" for address in addresses]
    if not observed:
        return " ".join(["v=spf1", *ours, "~all"])
    words = [word for word in observed.split() if word.lower() not in ours]
    ends = [n for n, word in enumerate(words) if re.fullmatch(r"[-+~?]?all|redirect=.*", word, re.I)]
    place = min(ends, default=len(words))
    return " ".join([*words[:place], *ours, *words[place:]])


def _term(word: str) -> Term:
    found = _TERM.fullmatch(word)
    if not found:
        raise Broken(f"{word!r} is no term of SPF")
    qualifier, name, value, cidr = found[1], found[2].lower(), (found[3] or "").lower().rstrip("."), found[4] or ""
    if name in ("ip4", "ip6"):
        return _network_term(qualifier, name, value + cidr, word)
    if name in ("include", "exists") and not value:
        raise Broken(f"{word!r} names no domain")
    if name in ("all", "include", "exists", "ptr") and cidr:
        raise Broken(f"{word!r} has a prefix length")
    lengths = _CIDR.fullmatch(cidr)
    if not lengths or int(lengths[1] or 0) > 32 or int(lengths[2] or 0) > 128:
        raise Broken(f"{word!r} has no usable prefix length")
    return Term(qualifier, name, value, int(lengths[1] or 32), int(lengths[2] or 128))


def _network_term(qualifier: str, name: str, value: str, word: str) -> Term:
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise Broken(f"{word!r} names no network") from None
    if network.version != int(name[2]):
        raise Broken(f"{word!r} names a network of the other family")
    return Term(qualifier, name, str(network))


async def check(address: str, domain: str, ask: Ask) -> Judged:
    """What a receiver would find for mail from `address` with a sender at `domain`. Unanswered passes through."""
    asker = _Asker(ask)
    try:
        result = await _check(ipaddress.ip_address(address), domain, asker)
    except Broken as broken:
        return Judged(Result.ERROR, str(broken))
    if result is not Result.PASS and asker.is_unsure:
        return Judged(Result.UNSURE)
    return Judged(result)


class _Asker:
    """Counts what section 4.6.4 counts."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._terms = 0
        self._void = 0
        self.is_unsure = False

    def begin_term(self) -> None:
        self._terms += 1
        if self._terms > LOOKUPS:
            raise Broken(f"it takes more than {LOOKUPS} look-ups, where receivers give up")

    async def values(self, name: str, kind: str, *, counts: bool = True) -> tuple[object, ...]:
        answer = await self._ask(name, kind)
        if not answer.values and counts:
            self._void += 1
            if self._void > VOID_LOOKUPS:
                raise Broken(f"more than {VOID_LOOKUPS} look-ups find nothing, where receivers give up")
        return answer.values


async def _check(address: Address, domain: str, asker: _Asker) -> Result:
    texts = [str(text) for text in await asker.values(domain, "TXT", counts=False)]
    found = records(texts)
    if not found:
        return Result.NONE
    if len(found) > 1:
        raise Broken(f"{domain} has {len(found)} SPF records, and may have one")
    record = parse(found[0])
    for term in record.terms:
        if await _matches(term, address, domain, asker):
            return _QUALIFIED[term.qualifier]
    if not record.redirect:
        return Result.NEUTRAL
    asker.begin_term()
    if "%" in record.redirect:
        asker.is_unsure = True
        return Result.NEUTRAL
    result = await _check(address, record.redirect, asker)
    if result is Result.NONE:
        raise Broken(f"redirect leads to {record.redirect}, which has no SPF record")
    return result


async def _matches(term: Term, address: Address, domain: str, asker: _Asker) -> bool:
    if term.name == "all":
        return True
    if term.name in ("ip4", "ip6"):
        return address in ipaddress.ip_network(term.value)
    asker.begin_term()
    if term.name in ("exists", "ptr") or "%" in term.value:
        asker.is_unsure = True
        return False
    if term.name == "include":
        result = await _check(address, term.value, asker)
        if result is Result.NONE:
            raise Broken(f"include leads to {term.value}, which has no SPF record")
        return result is Result.PASS
    host = term.value or domain
    if term.name == "a":
        return await _is_host(term, address, host, asker)
    exchangers = await asker.values(host, "MX")
    if len(exchangers) > MX_HOSTS:
        raise Broken(f"{host} has more than {MX_HOSTS} MX hosts, where receivers give up")
    for exchanger in exchangers:
        if await _is_host(term, address, str(exchanger[1]), asker, counts=False):  # type: ignore[index]  # an MX
            return True
    return False


async def _is_host(term: Term, address: Address, host: str, asker: _Asker, *, counts: bool = True) -> bool:
    kind, prefix = ("A", term.prefix4) if address.version == 4 else ("AAAA", term.prefix6)
    for text in await asker.values(host, kind, counts=counts):
        if address in ipaddress.ip_network(f"{text}/{prefix}", strict=False):
            return True
    return False
