"""Tag lists: `v=1; d=example.org; s=x` (RFC 6376 3.2), as DKIM, ARC and key records write them.

Rules of this file
- One strict reading. A tag twice, a name that is none, a part without "=" make the whole list wrong.
- Values keep their inner blanks; folding is taken away by `compact` where the standard allows it anywhere.
"""

from __future__ import annotations

import base64
import binascii
import re

_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")
_WHITE = b" \t\r\n"
LIMIT = 64  # tags in a list


class BadTags(ValueError):
    """It is no tag list; the text says why."""


def parse(text: bytes) -> dict[bytes, bytes]:
    """The tags in order. BadTags."""
    parts = text.split(b";")
    if not parts[-1].strip(_WHITE):
        parts.pop()
    if not parts:
        raise BadTags("no tags")
    if len(parts) > LIMIT:
        raise BadTags("too many tags")
    found: dict[bytes, bytes] = {}
    for part in parts:
        name, equals, value = part.partition(b"=")
        name = name.strip(_WHITE)
        if not equals or not _NAME.fullmatch(name):
            raise BadTags(f"a part is no tag: {shown(part)}")
        if name in found:
            raise BadTags(f"the tag {shown(name)} stands there twice")
        value = value.strip(_WHITE)
        if b"\r" in value or b"\n" in value:
            ends = value.count(b"\r\n")
            if value.count(b"\n") != ends or value.count(b"\r") != ends:
                raise BadTags(f"the tag {shown(name)} holds a bare line end")
        found[name] = value
    return found


def compact(value: bytes) -> bytes:
    """Without any white space."""
    return b"".join(value.split()) if any(one in value for one in _BLANKS) else value


_BLANKS = (b" ", b"\t", b"\r", b"\n")


def decoded(value: bytes, name: str) -> bytes:
    """Base64 with blanks anywhere (RFC 6376 2.10). BadTags."""
    value = compact(value)
    try:
        found = binascii.a2b_base64(value, strict_mode=True)
    except binascii.Error:
        raise BadTags(f"{name} is no base64") from None
    if not found:
        raise BadTags(f"{name} is empty")
    return found


def encoded(value: bytes) -> bytes:
    return base64.b64encode(value)


def number(value: bytes, name: str) -> int:
    """A decimal number of at most 76 digits (t=, x=, l=). BadTags."""
    if not value.isdigit() or len(value) > 76:
        raise BadTags(f"{name} is no number")
    return int(value)


def names(value: bytes) -> tuple[bytes, ...]:
    """A colon-separated list in lower case (h=, q=, s=, t=)."""
    return tuple(compact(value).lower().split(b":"))


def shown(value: bytes) -> str:
    """What came from outside, harmless in a reason."""
    text = value[:60].decode("ascii", "replace")
    return "".join(c if c.isprintable() and c not in '\\"()' else "?" for c in text).strip()
