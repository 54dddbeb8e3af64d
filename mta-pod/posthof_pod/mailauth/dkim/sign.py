"""Signatures made: DKIM-Signature fields for one message by any number of keys, from one pass over it.

Rules of this file
- relaxed/relaxed, SHA-256, no l=: what a body's end may become is the sender's, nobody else's.
- What identifies a message is signed once more than it stands there (oversigned): a field added on the way breaks
  the signature instead of being read as part of it.
- In the loop's thread: `cryptography` holds the interpreter's lock while it signs (measured: two threads make no more
  signatures a second than one), so a thread would only add its hop. Workers are what makes signing parallel.
Sources: RFC 6376 3.5, 5 and 8.15, RFC 8301, RFC 8463.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from posthof_pod.mailauth.canon import RELAXED, Body, Field, canonical, hashes_of, select
from posthof_pod.mailauth.dkim.keys import PrivateKey
from posthof_pod.mailauth.tags import encoded

OVERSIGNED = (
    b"from",
    b"sender",
    b"reply-to",
    b"subject",
    b"date",
    b"message-id",
    b"to",
    b"cc",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
    b"in-reply-to",
    b"references",
)
"""Signed as often as they stand there, and once more."""

PRESENT = (
    b"content-id",
    b"content-description",
    b"content-disposition",
    b"resent-from",
    b"resent-sender",
    b"resent-to",
    b"resent-cc",
    b"resent-date",
    b"resent-message-id",
    b"list-id",
    b"list-help",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
    b"list-subscribe",
    b"list-post",
    b"list-owner",
    b"list-archive",
    b"cfbl-address",
    b"cfbl-feedback-id",
    b"feedback-id",
    b"autocrypt",
    b"tls-required",
)
"""Signed where they stand there; a list on the way may add its own."""

_KNOWN = frozenset(OVERSIGNED) | frozenset(PRESENT)
_WIDTH = 72
REPEATED = 50  # fields of one name that are signed: a header of a thousand To is not a message of ours


class SigningKey(NamedTuple):
    """Who signs."""

    domain: str
    selector: str
    key: PrivateKey


def signed_names(headers: Sequence[Field]) -> list[bytes]:
    """h= for a message: each oversigned name as often as it stands there and once more, then the others."""
    counts: dict[bytes, int] = {}
    for name, _ in headers:
        if name in _KNOWN:
            counts[name] = counts.get(name, 0) + 1
    names: list[bytes] = []
    for name in OVERSIGNED:
        names += [name] * (min(counts.get(name, 0), REPEATED) + 1)
    for name in PRESENT:
        if name in counts:
            names += [name] * min(counts[name], REPEATED)
    return names


def sign(headers: Sequence[Field], body: Body, keys: Sequence[SigningKey], now: float) -> bytes:
    """The DKIM-Signature fields, one for each key, each with its CRLF: to stand before the message.

    `headers` as canon.fields gives them; a BodyHashes must have been fed with RELAXED. A message without From is not
    signed: b"".
    """
    if not any(name == b"from" for name, _ in headers):
        return b""
    names = signed_names(headers)
    covered = hashlib.sha256(canonical(select(headers, names), is_relaxed=True))
    body_hash = encoded(hashes_of(body).get(RELAXED).digest)
    listed = folded_list(names)
    return b"".join([_field(one, listed, body_hash, covered, now) for one in keys])


def _field(one: SigningKey, listed: bytes, body_hash: bytes, covered: hashlib._Hash, now: float) -> bytes:
    head = b"v=1; a=%b; c=relaxed/relaxed; d=%b;\r\n\ts=%b; t=%d;\r\n\th=%b;\r\n\tbh=%b;\r\n\tb=" % (
        one.key.algorithm.encode("ascii"),
        one.domain.encode("ascii"),
        one.selector.encode("ascii"),
        int(now),
        listed,
        body_hash,
    )
    sha = covered.copy()
    sha.update(b"dkim-signature:" + b" ".join(head.split()))
    return b"DKIM-Signature: %b%b\r\n" % (head, folded(encoded(one.key.sign(sha.digest()))))


def folded_list(names: Sequence[bytes]) -> bytes:
    """Names joined by colons, folded after a colon."""
    lines: list[bytes] = []
    line = b""
    for name in names:
        if line and len(line) + len(name) + 1 > _WIDTH:
            lines.append(line)
            line = b""
        line += name + b":"
    lines.append(line[:-1])
    return b"\r\n\t ".join(lines)


def folded(text: bytes) -> bytes:
    """Base64 in lines."""
    return b"\r\n\t ".join([text[at : at + _WIDTH] for at in range(0, len(text), _WIDTH)])
