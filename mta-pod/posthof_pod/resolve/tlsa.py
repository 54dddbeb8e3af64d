"""TLSA records: which of them an SMTP client can use, and at which name they stand. Pure.

Sources: RFC 6698 2.1 (the record), RFC 7671 (its use), RFC 7672 2.2.3 (the name) and 3.1 (which usages count).

Rules
- Usages 2 (DANE-TA) and 3 (DANE-EE) count. 0 and 1 would need the same CAs on both sides: "unusable" (7672 3.1.3).
- Selectors 0 (certificate) and 1 (its key); matching types 0 (as it is), 1 (SHA-256) and 2 (SHA-512).
- Of one usage and selector only the strongest digest counts (RFC 7671 section 9: digest agility); what is given in
  full counts always.
- Secure records of which none is usable demand TLS without authentication (7672 2.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

DANE_TA = 2
DANE_EE = 3
MOST = 32  # records looked at: more than any host needs, few enough to compare
_LENGTHS = {1: 32, 2: 64}  # bytes of a digest


class TLSA(NamedTuple):
    """One record. Ordered and compared by value."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching} {self.data.hex()}"


def base(host: str, port: int) -> str:
    """Where the records of a host stand: "_25._tcp.mx.example.org"."""
    return f"_{port}._tcp.{host}"


def is_usable(record: TLSA) -> bool:
    """Whether an SMTP client can compare a certificate with it."""
    if record.usage not in (DANE_TA, DANE_EE) or record.selector not in (0, 1):
        return False
    if record.matching == 0:
        return len(record.data) > 0
    return len(record.data) == _LENGTHS.get(record.matching, -1)


def usable(records: Iterable[TLSA]) -> tuple[TLSA, ...]:
    """The records that count, sorted, each once."""
    fit = sorted({record for record in records if is_usable(record)})[:MOST]
    strongest: dict[tuple[int, int], int] = {}
    for record in fit:
        kind = record.usage, record.selector
        strongest[kind] = max(strongest.get(kind, 0), record.matching)
    return tuple(r for r in fit if r.matching == 0 or r.matching == strongest[r.usage, r.selector])
