"""Does a message pass the DMARC policy of its author's domain? RFC 9989 sections 4.4, 4.10 and 5.3.

Rules
- Identifiers come in as what SPF and DKIM proved; nothing is verified here.
- Domains that are written alike are aligned without a question; the others' organisations are asked for only where
  alignment is relaxed and nothing else is aligned yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from posthof_pod.mailauth.dmarc.record import Record, Wish
from posthof_pod.mailauth.dmarc.walk import Discovery, discover
from posthof_pod.mailauth.dns import Lookup, LookupFailed

MOST_DOMAINS = 8  # of passing signatures whose organisation is asked for
_MILDER: dict[Wish, Wish] = {"reject": "quarantine", "quarantine": "none", "none": "none"}


class Policy(NamedTuple):
    """The record that holds for a domain."""

    domain: str  # where it stands
    organisation: str  # of the author's domain
    record: Record
    wish: Wish  # what it wants for this message: of p, sp and np the one that holds; before t=


class Aligned(NamedTuple):
    """Which identifiers speak for the author's domain."""

    spf: bool = False
    dkim: tuple[str, ...] = ()  # d= of the signatures


class Verdict(NamedTuple):
    result: Literal["none", "pass", "fail", "temperror", "permerror"]
    author: str  # the domain in From
    policy: Policy | None = None
    aligned: Aligned = Aligned()
    reason: str = ""

    @property
    def wish(self) -> Wish:
        """What the owner wants to be done: nothing, unless it failed; milder by one in test mode (4.7, t=)."""
        if self.policy is None or self.result != "fail":
            return "none"
        wish = self.policy.wish
        return _MILDER[wish] if self.policy.record.is_testing else wish


NOT_ASKED = Verdict("none", "")


async def evaluate(author: str, spf: str, dkim: Iterable[str], lookup: Lookup) -> Verdict:
    """`author`: the one domain in From, lower case, A-labels. `spf`: the domain that SPF passed for, "" where it did
    not. `dkim`: d= of the signatures that passed."""
    try:
        discovery = await discover(author, lookup)
        held = discovery.policy
        if held is None:
            return Verdict("none", author, reason=f"{author} has no DMARC policy")
        domain, record = held
        wish = record.p if domain == author else await _for_subdomain(author, record, lookup)
    except LookupFailed as error:
        return Verdict("temperror", author, reason=str(error))
    policy = Policy(domain, discovery.organisation, record, wish)
    signed = tuple(dict.fromkeys(dkim))
    aligned = Aligned(spf == author, tuple(one for one in signed if one == author))
    try:
        aligned = await _relaxed(aligned, discovery, _Asked(record, spf, signed), lookup)
    except LookupFailed as error:
        if not (aligned.spf or aligned.dkim):
            return Verdict("temperror", author, policy, aligned, str(error))
    if aligned.spf or aligned.dkim:
        return Verdict("pass", author, policy, aligned)
    return Verdict("fail", author, policy, aligned)


async def _for_subdomain(author: str, record: Record, lookup: Lookup) -> Wish:
    """sp, or np where the domain does not exist (4.7): neither A, AAAA nor MX."""
    wish = record.sp or record.p
    if record.np is None or record.np == wish:
        return wish
    exists = await lookup.a(author) or await lookup.aaaa(author) or await lookup.mx(author)
    return wish if exists else record.np


class _Asked(NamedTuple):
    """What alignment is asked with: the record, and what SPF and DKIM proved."""

    record: Record
    spf: str
    dkim: tuple[str, ...]


async def _relaxed(aligned: Aligned, discovery: Discovery, asked: _Asked, lookup: Lookup) -> Aligned:
    """With those of the same organisation. Raises LookupFailed."""
    record, spf, signed = asked
    home = discovery.organisation
    is_asked = spf and not aligned.spf and not record.is_strict_spf
    if is_asked and await _is_of(spf, home, lookup):
        aligned = aligned._replace(spf=True)
    if record.is_strict_dkim:
        return aligned
    others = [one for one in signed if one != discovery.domain][:MOST_DOMAINS]
    more = [one for one in others if await _is_of(one, home, lookup)]
    return aligned._replace(dkim=(*aligned.dkim, *more)) if more else aligned


async def _is_of(domain: str, organisation: str, lookup: Lookup) -> bool:
    """An organisation's domains all end with its own: no question about others."""
    if domain != organisation and not domain.endswith(f".{organisation}"):
        return False
    return (await discover(domain, lookup)).organisation == organisation
