"""ARC sets as they stand in a message: three fields for each instance, read strictly.

Rules of this file
- A chain is whole or it is none: each instance from 1 to n has its three fields once, and cv= fits its place.
- BadTags says what is wrong; nothing is repaired.
Source: RFC 8617 section 4.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from posthof_pod.mailauth import tags
from posthof_pod.mailauth.canon import Field
from posthof_pod.mailauth.dkim import signature
from posthof_pod.mailauth.tags import BadTags

AAR = b"arc-authentication-results"
AMS = b"arc-message-signature"
SEAL = b"arc-seal"
NAMES = (AAR, AMS, SEAL)
MOST = 50  # instances (RFC 8617 4.2.1)

_FIRST_TAG = re.compile(rb"[ \t\r\n]*i[ \t\r\n]*=[ \t\r\n]*([0-9]+)[ \t\r\n]*;")
_I = re.compile(rb"(?:^|;)[ \t\r\n]*i[ \t\r\n]*=[ \t\r\n]*([0-9]+)[ \t\r\n]*(?:;|$)")


class Seal(msgspec.Struct, frozen=True):
    """An ARC-Seal field."""

    algorithm: str
    domain: str
    selector: str
    cv: str  # "none", "pass", "fail"
    signature: bytes


class ArcSet(msgspec.Struct, frozen=True):
    """One instance: its fields as they came. The two signatures are read when they are judged."""

    instance: int
    results: bytes
    message: bytes
    seal: bytes


def sets(headers: Sequence[Field]) -> tuple[ArcSet, ...]:
    """The chain's sets, the first instance first; () where there is no ARC field. BadTags: it is broken."""
    found: dict[bytes, dict[int, bytes]] = {name: {} for name in NAMES}
    for name, raw in headers:
        if name not in found:
            continue
        number = instance(name, raw)
        if number in found[name]:
            raise BadTags(f"the instance {number} stands there twice")
        found[name][number] = raw
    most = max((len(some) for some in found.values()), default=0)
    if most > MOST:
        raise BadTags(f"more than {MOST} instances")
    wanted = set(range(1, most + 1))
    if any(set(some) != wanted for some in found.values()):
        raise BadTags("the sets are not complete")
    return tuple(ArcSet(n, found[AAR][n], found[AMS][n], found[SEAL][n]) for n in sorted(wanted))


def instance(name: bytes, raw: bytes) -> int:
    """The value of i=: 1 to 50. BadTags."""
    value = raw[raw.find(b":") + 1 :]
    if name == AAR:
        match = _FIRST_TAG.match(value)
    else:
        match = _I.search(value)
    if match is None or len(match[1]) > 2 or not 1 <= int(match[1]) <= MOST:
        raise BadTags(f"{name.decode()} has no instance from 1 to {MOST}")
    return int(match[1])


def read_seal(raw: bytes) -> Seal:
    """An ARC-Seal field. BadTags."""
    found = tags.parse(raw[raw.find(b":") + 1 :])
    for name in (b"i", b"a", b"b", b"cv", b"d", b"s"):
        if name not in found:
            raise BadTags(f"ARC-Seal has no {name.decode()}=")
    for name in (b"h", b"bh", b"v", b"l", b"c"):  # a seal covers the sets and nothing else (RFC 8617 4.1.3)
        if name in found:
            raise BadTags(f"ARC-Seal has {name.decode()}=")
    if b"t" in found:
        tags.number(found[b"t"], "t=")
    cv = found[b"cv"].lower()
    if cv not in (b"none", b"pass", b"fail"):
        raise BadTags(f"cv={tags.shown(cv)} is not known")
    return Seal(
        signature.algorithm(found[b"a"]),
        signature.host(found[b"d"], "d="),
        signature.host(found[b"s"], "s="),
        cv.decode(),
        tags.decoded(found[b"b"], "b="),
    )
