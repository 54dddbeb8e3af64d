"""DMARC records: their syntax, and which one holds for a domain (RFC 9989).

Rules of this file
- Pure: the texts found at each name of the tree walk are passed in.
- A record is judged as a receiver would: what it ignores is no mistake.
Sources: RFC 9989 sections 4.7 (tags), 4.8 (ABNF) and 4.10 (policy discovery by tree walk). `pct`, `rf` and `ri` of
RFC 7489 are gone; a receiver ignores them, as it ignores every unknown tag.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

STEPS = 8  # questions of one tree walk
_POLICIES = ("none", "quarantine", "reject")
_VERSION = re.compile(r"v[ \t]*=[ \t]*DMARC1[ \t]*(?:;|$)")
_TAG = re.compile(r"[A-Za-z]+")


class Record(NamedTuple):
    """A record: where it stands, its text and tags (lower-case names)."""

    name: str  # "_dmarc.example.org"
    text: str
    tags: Mapping[str, str]

    @property
    def domain(self) -> str:
        return self.name.removeprefix("_dmarc.")


class Discovery(NamedTuple):
    """`record` is the one that holds for the domain; `several`: the name that has more than one, so that none counts;
    `mistake`: what receivers cannot use in the record."""

    record: Record | None = None
    several: str = ""
    mistake: str = ""


def names(domain: str) -> list[str]:
    """The names to ask, in their order: the domain, then its parents; of deep names the last seven labels."""
    labels = domain.split(".")
    walk = [domain]
    rest = labels[-7:] if len(labels) > 8 else labels[1:]
    while rest:
        walk.append(".".join(rest))
        rest = rest[1:]
    return [f"_dmarc.{name}" for name in walk[:STEPS]]


def is_dmarc(text: str) -> bool:
    """Whether a TXT record is one of DMARC: others are discarded."""
    return _VERSION.match(text) is not None


def parse(name: str, text: str) -> Record:
    """Tags that cannot be read are left out, as a receiver does."""
    tags: dict[str, str] = {}
    for part in text.split(";"):
        key, equals, value = part.partition("=")
        if equals and _TAG.fullmatch(key.strip()):
            tags.setdefault(key.strip().lower(), value.strip())
    return Record(name, text, tags)


def discover(domain: str, found: Mapping[str, Sequence[str]]) -> Discovery:
    """Which record holds. `found`: the TXT records at each of `names(domain)` that was asked."""
    walk = names(domain)
    valid: list[Record] = []
    for name in walk:
        texts = [text for text in found.get(name, ()) if is_dmarc(text)]
        if len(texts) > 1:
            if name == walk[0]:
                return Discovery(several=name)
            continue
        if texts:
            valid.append(parse(name, texts[0]))
            if valid[-1].tags.get("psd", "u").lower() in ("y", "n"):
                break
    if not valid:
        return Discovery()
    record = valid[0] if valid[0].name == walk[0] else _of_organisation(valid)
    return Discovery(record, mistake=mistake_of(record))


def mistake_of(record: Record) -> str:
    """Why receivers do not obey it, "" when they do. Without a valid `p`, `rua` makes it p=none (section 4.7)."""
    policy = record.tags.get("p")
    if policy is not None and policy.lower() in _POLICIES:
        return ""
    if _reports(record):
        return ""
    if policy is None:
        return "it has no p= (none, quarantine or reject)"
    return f"p={policy} is none of none, quarantine, reject"


def same(one: str, other: str) -> bool:
    """Whether two records say the same; order and spaces do not count."""
    first, second = parse("", one).tags, parse("", other).tags
    return first == second


def needs_walk(texts: Sequence[str]) -> bool:
    """Whether the parents have to be asked: the domain has no record of its own."""
    return not any(is_dmarc(text) for text in texts)


def _of_organisation(valid: Sequence[Record]) -> Record:
    """The organisational domain's: the one that says so (psd=n), else the shortest. Under a public suffix (psd=y) the
    organisational domain is one label longer; without a record of its own the suffix's holds."""
    last = valid[-1]
    if (
        last.tags.get("psd", "").lower() == "y"
        and len(valid) > 1
        and valid[-2].domain.count(".") == (last.domain.count(".") + 1)
    ):
        return valid[-2]
    return last


def _reports(record: Record) -> bool:
    uris = record.tags.get("rua", "").split(",")
    return any(re.match(r"\s*[a-z][a-z0-9+.-]*:\S", uri, re.I) for uri in uris)
