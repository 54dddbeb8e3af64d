"""Sender Rewriting Scheme: forwarded mail leaves with an envelope sender of our own, so that SPF can pass, and what
bounces finds its way back.

    ada@a.example, forwarded by us       ->  SRS0=HHHH=TT=a.example=ada@fwd.example
    SRS0=...@b.example (rewritten there) ->  SRS1=HHHH=b.example==...@fwd.example

Rules of this file
- The hash is a keyed one over time, domain and local part, in lower case: nobody else can make an address that we
  would forward, and no address is believed for longer than VALID_DAYS.
- An address that would not fit (RFC 5321 4.5.3.1.1: 64 octets of local part) is not rewritten.
- Any of several secrets opens; the first one seals. That is how a secret is changed.
Source: www.libsrs2.net and M. Wong's "SRS" (2003): the scheme has no RFC.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence

VALID_DAYS = 21  # a bounce of a message that waited for five days, and some
MOST_LOCAL = 64
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_DAY = 86400.0
_HASH = 6  # characters: 36 bits


class BadSRS(ValueError):
    """It looks like an address of ours, and is not: forged, or too old. The text says which."""


def forward(sender: str, domain: str, secret: bytes, now: float) -> str:
    """The envelope sender for mail that `domain` forwards. "" where the result would be too long."""
    local, _, place = sender.rpartition("@")
    tag = local[:5].upper()
    if tag in ("SRS0=", "SRS0+", "SRS0-"):
        rest = f"{place}={local[4:]}"
    elif tag in ("SRS1=", "SRS1+", "SRS1-") and len(parts := local[5:].split("=", 1)) == 2:
        rest = parts[1]  # the hash of the forwarder before us goes, the first one stays
    else:
        day = _stamp(now)
        made = f"SRS0={_hash(secret, day, place, local)}={day}={place}={local}"
        return f"{made}@{domain}" if len(made.encode()) <= MOST_LOCAL else ""
    made = f"SRS1={_hash(secret, rest)}={rest}"
    return f"{made}@{domain}" if len(made.encode()) <= MOST_LOCAL else ""


def is_ours(local: str) -> bool:
    """Whether a local part has the form, forged or not."""
    return local[:4].upper() in ("SRS0", "SRS1") and local[4:5] in ("=", "+", "-")


def reverse(local: str, secrets: Sequence[bytes], now: float) -> str:
    """Who a bounce to this local part is for. BadSRS."""
    said, equals, rest = local[5:].partition("=")
    if not equals:
        raise BadSRS("no SRS address")
    if local[:4].upper() == "SRS1":
        if not _opens(said, secrets, rest):
            raise BadSRS("the hash is not of our making")
        place, equals, old = rest.partition("=")
        if not equals or not place or old[:1] not in ("=", "+", "-"):
            raise BadSRS("no SRS address")
        return f"SRS0{old}@{place}"
    day, _, rest = rest.partition("=")
    place, equals, user = rest.partition("=")
    if not equals or not place or not user:
        raise BadSRS("no SRS address")
    if not _opens(said, secrets, day.upper(), place, user):
        raise BadSRS("the hash is not of our making")
    if _age(day.upper(), now) > VALID_DAYS:
        raise BadSRS("the address is too old")
    return f"{user}@{place}"


def _hash(secret: bytes, *parts: str) -> str:
    text = "\0".join(parts).lower().encode("utf-8", "surrogateescape")
    return base64.b32encode(hmac.digest(secret, text, "sha256")[:5]).decode("ascii")[:_HASH]


def _opens(said: str, secrets: Sequence[bytes], *parts: str) -> bool:
    found = said.upper().encode("utf-8", "replace")
    return any(hmac.compare_digest(found, _hash(secret, *parts).encode("ascii")) for secret in secrets)


def _stamp(now: float) -> str:
    """Days modulo 1024, as two characters."""
    day = int(now / _DAY) % 1024
    return _BASE32[day >> 5] + _BASE32[day & 31]


def _age(stamp: str, now: float) -> int:
    if len(stamp) != 2 or any(c not in _BASE32 for c in stamp):
        raise BadSRS("no SRS address")
    day = (_BASE32.index(stamp[0]) << 5) | _BASE32.index(stamp[1])
    return (int(now / _DAY) - day) % 1024
