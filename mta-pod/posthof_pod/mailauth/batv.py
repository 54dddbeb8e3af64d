"""Bounce Address Tag Validation: our own envelope senders carry a mark, so that a bounce of mail that we never sent
is known as one.

    ada@a.example  ->  prvs=KDDDSSSSSS=ada@a.example      K the secret's number, DDD the day it ends, S the hash

Rules of this file
- The mark is for bounces alone (null sender); an address without one still takes all other mail.
- Any of several secrets opens; the first one seals. K is its place in the list modulo 10, and only a hint.
- An address that would not fit into 64 octets of local part is not marked.
Source: draft-levine-smtp-batv-01 (prvs).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

VALID_DAYS = 14  # longer than any queue keeps mail, and its bounce
MOST_LOCAL = 64
_DAY = 86400.0
_TAG = "prvs="


def mark(sender: str, secret: bytes, now: float) -> str:
    """The sender with its mark; the sender itself where it cannot carry one or has one."""
    local, at, place = sender.rpartition("@")
    if not at or not local or is_marked(local):
        return sender
    day = f"0{(int(now / _DAY) + VALID_DAYS) % 1000:03d}"
    made = f"{_TAG}{day}{_hash(secret, day, sender)}={local}"
    return f"{made}@{place}" if len(made.encode()) <= MOST_LOCAL else sender


def is_marked(local: str) -> bool:
    """Whether a local part has the form, forged or not."""
    return local[:5].lower() == _TAG and local[15:16] == "=" and len(local) > 16 and local[5:9].isdigit()


def plain(local: str) -> str:
    """The local part without its mark."""
    return local[16:] if is_marked(local) else local


def is_valid(address: str, secrets: Sequence[bytes], now: float) -> bool:
    """Whether a marked address is of our making and not too old."""
    local, _, place = address.rpartition("@")
    if not is_marked(local):
        return False
    day, said = local[5:9], local[9:15].lower().encode("utf-8", "replace")
    sender = f"{local[16:]}@{place}"
    is_ours = any(hmac.compare_digest(said, _hash(secret, day, sender).encode("ascii")) for secret in secrets)
    return is_ours and (int(day[1:]) - int(now / _DAY)) % 1000 <= VALID_DAYS


def _hash(secret: bytes, day: str, sender: str) -> str:
    return hmac.digest(secret, f"{day}{sender.lower()}".encode("utf-8", "surrogateescape"), "sha256")[:3].hex()
