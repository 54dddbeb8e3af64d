"""The tree walk: from a domain up to the root, asking each for its record (RFC 9989 section 4.10).

Rules
- At most 8 questions. No list of public suffixes: those say psd=y by themselves.
- Several records at one name count as none.
"""

from __future__ import annotations

from typing import NamedTuple

from posthof_pod.mailauth.dmarc.record import Record, is_dmarc, parse
from posthof_pod.mailauth.dns import Lookup

QUESTIONS = 8


class Discovery(NamedTuple):
    """What the walk from `domain` found: records with their domains, the longest name first."""

    domain: str
    found: tuple[tuple[str, Record], ...]

    @property
    def organisation(self) -> str:
        """The organisational domain (4.10.2)."""
        for name, record in self.found:
            if record.psd == "n":
                return name
            if record.psd == "y" and name != self.domain:
                labels = self.domain.split(".")
                return ".".join(labels[-(name.count(".") + 2) :])
        return self.found[-1][0] if self.found else self.domain

    @property
    def policy(self) -> tuple[str, Record] | None:
        """The record that holds, with its domain: the domain's own, else its organisation's, else the public
        suffix's (4.10.1)."""
        if not self.found:
            return None
        if self.found[0][0] == self.domain:
            return self.found[0]
        organisation = self.organisation
        for one in self.found:
            if one[0] == organisation:
                return one
        last = self.found[-1]
        return last if last[1].psd == "y" else None


def names(domain: str) -> list[str]:
    """The domains to ask, in their order: it, then its parents; of deep names the last seven labels (4.10)."""
    labels = domain.split(".")
    rest = labels[-7:] if len(labels) > QUESTIONS else labels[1:]
    return [domain, *(".".join(rest[n:]) for n in range(len(rest)))][:QUESTIONS]


async def discover(domain: str, lookup: Lookup) -> Discovery:
    """Walk. `domain` is in lower case, without a final dot. Raises LookupFailed."""
    found: list[tuple[str, Record]] = []
    for name in names(domain):
        texts = [text for text in await lookup.txt(f"_dmarc.{name}") if is_dmarc(text)]
        record = parse(texts[0]) if len(texts) == 1 else None
        if record is None:
            continue
        found.append((name, record))
        if record.psd == "n" or (record.psd == "y" and name != domain):
            break
    return Discovery(domain, tuple(found))
