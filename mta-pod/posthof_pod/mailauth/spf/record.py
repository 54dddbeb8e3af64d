"""An SPF record as terms: the grammar of RFC 7208 sections 4.5, 4.6, 5 and 12. Pure.

Rules
- The whole record is read before any of it is evaluated: a mistake anywhere is a permerror (4.6).
- What was read is kept by its bytes: the records of big senders come with every message.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from posthof_pod.mailauth.spf.macro import Template, Unreadable, domain_spec, macro_string

LONGEST = 16_384  # octets of a record; RFC 7208 section 3.4 wants them below 512
_KEPT = 1024  # octets of one that is kept: what anybody publishes must not fill our memory
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9._-]*)=(.*)\Z", re.DOTALL)
_MECHANISM = re.compile(r"([-+?~]?)([A-Za-z][A-Za-z0-9._-]*)(.*)\Z", re.DOTALL)
_DUAL_CIDR = re.compile(r"(?:/(0|[1-9][0-9]*))?(?://(0|[1-9][0-9]*))?\Z")
Result = Literal["none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"]
_RESULTS: dict[str, Result] = {"+": "pass", "-": "fail", "?": "neutral", "~": "softfail", "": "pass"}
_ASKING = frozenset({"include", "a", "mx", "ptr", "exists"})


class Mechanism(NamedTuple):
    kind: str  # all, include, a, mx, ptr, ip4, ip6, exists
    result: Result  # what a match means
    text: str  # as it is written
    domain: Template | None = None
    version: int = 0  # ip4, ip6
    network: int = 0  # ip4, ip6: the address, shifted right by `shift`
    shift: int = 0
    prefix4: int = 32  # a, mx
    prefix6: int = 128

    @property
    def is_asking(self) -> bool:
        """Whether it counts to the ten (4.6.4)."""
        return self.kind in _ASKING


class Record(NamedTuple):
    mechanisms: tuple[Mechanism, ...]
    redirect: Template | None
    exp: Template | None


def is_spf(text: bytes) -> bool:
    """4.5: the version, and then a blank or the end."""
    return text[:6].lower() == b"v=spf1" and text[6:7] in (b"", b" ")


def select(texts: Iterable[bytes]) -> Record | None:
    """The SPF record among a domain's TXT records, None where there is none. Raises Unreadable."""
    found = [text for text in texts if is_spf(text)]
    if not found:
        return None
    if len(found) > 1:
        raise Unreadable("more than one SPF record")
    record = parse(found[0])
    if isinstance(record, Unreadable):
        raise record
    return record


def parse(text: bytes) -> Record | Unreadable:
    """The record, or what is wrong with it (kept, too)."""
    if len(text) > LONGEST:
        return Unreadable(f"a record of more than {LONGEST} octets")
    return _kept(text) if len(text) <= _KEPT else _read(text)


def _read(text: bytes) -> Record | Unreadable:
    try:
        return _parse(text.decode("ascii"))
    except UnicodeDecodeError:
        return Unreadable("a byte that is not ASCII")
    except Unreadable as error:
        return Unreadable(*error.args)


_kept = functools.lru_cache(maxsize=4096)(_read)


def _parse(text: str) -> Record:
    mechanisms: list[Mechanism] = []
    known: dict[str, Template] = {}
    for term in text[6:].split(" "):
        if not term:
            continue
        modifier = _MODIFIER.match(term)
        if modifier is None:
            mechanisms.append(_mechanism(term))
            continue
        name, value = modifier.group(1).lower(), modifier.group(2)
        if name not in ("redirect", "exp"):
            macro_string(value)
        elif name in known:
            raise Unreadable(f"{name} stands twice")
        else:
            known[name] = domain_spec(value)
    return Record(tuple(mechanisms), known.get("redirect"), known.get("exp"))


def _mechanism(term: str) -> Mechanism:
    found = _MECHANISM.match(term)
    if found is None:
        raise Unreadable(f"no term: {term[:64]!r}")
    sign, name, rest = found.groups()
    kind, result = name.lower(), _RESULTS[sign]
    if rest and rest[0] not in ":/":
        raise Unreadable(f"no term: {term[:64]!r}")
    if kind == "all":
        if rest:
            raise Unreadable(f"all with something behind it: {term[:64]!r}")
        return Mechanism(kind, result, term)
    if kind in ("include", "exists"):
        if not rest.startswith(":"):
            raise Unreadable(f"{kind} without a domain")
        return Mechanism(kind, result, term, domain_spec(rest[1:]))
    if kind == "ptr":
        if rest and not rest.startswith(":"):
            raise Unreadable(f"no term: {term[:64]!r}")
        return Mechanism(kind, result, term, domain_spec(rest[1:]) if rest else None)
    if kind in ("a", "mx"):
        return _with_prefixes(kind, result, term, rest)
    if kind in ("ip4", "ip6"):
        return _network(kind, result, term, rest)
    raise Unreadable(f"a mechanism nobody knows: {name[:64]!r}")


def _with_prefixes(kind: str, result: Result, term: str, rest: str) -> Mechanism:
    found = _DUAL_CIDR.search(rest)
    assert found is not None  # it matches the empty end
    four, six = found.groups()
    prefix4, prefix6 = _prefix(four, 32), _prefix(six, 128)
    rest = rest[: found.start()]
    if rest and (not rest.startswith(":") or len(rest) == 1):
        raise Unreadable(f"no term: {term[:64]!r}")
    domain = domain_spec(rest[1:]) if rest else None
    return Mechanism(kind, result, term, domain, prefix4=prefix4, prefix6=prefix6)


def _prefix(text: str | None, most: int) -> int:
    if text is None:
        return most
    if len(text) > 3 or int(text) > most:
        raise Unreadable(f"a prefix of more than {most} bits")
    return int(text)


def _network(kind: str, result: Result, term: str, rest: str) -> Mechanism:
    address, slash, bits = rest[1:].partition("/")
    version, most = (4, 32) if kind == "ip4" else (6, 128)
    if not rest.startswith(":") or (slash and not re.fullmatch(r"0|[1-9][0-9]{0,2}", bits)):
        raise Unreadable(f"no network: {term[:64]!r}")
    try:
        parsed = ipaddress.IPv4Address(address) if version == 4 else _six(address)
    except ValueError:
        raise Unreadable(f"no network: {term[:64]!r}") from None
    shift = most - _prefix(bits if slash else None, most)
    return Mechanism(kind, result, term, None, version, int(parsed) >> shift, shift)


def _six(text: str) -> ipaddress.IPv6Address:
    if "%" in text:  # a zone is no part of a network
        raise ValueError(text)
    return ipaddress.IPv6Address(text)
