"""Header fields as bytes: where the block ends, what a field says, and the few fields this house writes itself.

Rules of this file
- Pure, and over the header block only (at most LIMIT bytes); a body is never looked at.
- What comes from outside (a HELO name, an address, a peer's reply) is made harmless here before it enters a field:
  no CR, no LF, no other control character can leave these functions except the line ends they make themselves.
Sources: RFC 5322 section 2.2 (fields, folding) and 3.6.7 (trace), RFC 5321 section 4.4, RFC 9228 (Delivered-To).
"""

from __future__ import annotations

import functools
import re
import time

LIMIT = 64 * 1024
"""Bytes of a header block that are looked at; what lies beyond them counts as body."""

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_BLANKS = (b" ", b"\t")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def block(content: bytes) -> bytes:
    """The header fields at the start of `content`, each with its CRLF, without the empty line; b"" if there are none.

    Without an empty line within LIMIT all of the first LIMIT bytes count as header: a message may be header alone.
    """
    if content.startswith(b"\r\n"):
        return b""
    end = content.find(b"\r\n\r\n", 0, LIMIT)
    return content[: end + 2] if end >= 0 else content[:LIMIT]


def values(head: bytes, name: bytes) -> list[bytes]:
    """The values of all fields called `name` (lower case), unfolded and stripped, in order."""
    lower = b"\n" + head.lower()
    mark = b"\n" + name
    found: list[bytes] = []
    at = lower.find(mark)
    while at >= 0:
        start = at + len(mark) - 1  # in head: `lower` is one byte longer
        colon = start
        while head[colon : colon + 1] in _BLANKS:  # RFC 5322 4.5.8 allows them before the colon
            colon += 1
        if head[colon : colon + 1] == b":":
            found.append(_unfolded(head, colon + 1))
        at = lower.find(mark, at + 1)
    return found


def value(head: bytes, name: bytes) -> bytes:
    """The first field called `name` (lower case), unfolded and stripped; b"" if there is none."""
    found = values(head, name)
    return found[0] if found else b""


def without(head: bytes, name: bytes) -> bytes:
    """The header fields but those called `name` (lower case), each with its folded lines; the rest as it is."""
    if b"\n" + name not in b"\n" + head.lower():
        return head
    kept: list[bytes] = []
    is_dropped = False
    for line in head.splitlines(keepends=True):
        if not line.startswith((b" ", b"\t")):
            is_dropped = line.partition(b":")[0].rstrip(b" \t").lower() == name
        if not is_dropped:
            kept.append(line)
    return b"".join(kept)


def _unfolded(head: bytes, start: int) -> bytes:
    end = head.find(b"\n", start)
    while end >= 0 and head[end + 1 : end + 2] in (b" ", b"\t"):
        end = head.find(b"\n", end + 1)
    text = head[start:] if end < 0 else head[start:end]
    if b"\n" in text or b"\r" in text:
        text = text.replace(b"\r", b"").replace(b"\n", b"")
    return text.strip(b" \t")


def date(now: float) -> bytes:
    """`now` (unix seconds) as RFC 5322 3.3 writes it, in UTC. The text is made once a second."""
    return date_text(int(now)).encode("ascii")


@functools.lru_cache(maxsize=8)
def date_text(second: int) -> str:
    """The same as text, for a whole second."""
    t = time.gmtime(second)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04d} "
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} +0000"
    )


def one_line(text: str, limit: int = 2000) -> str:
    """`text` without a control character or line end (each run of them becomes one blank), at most `limit` long."""
    text = _CONTROL.sub(" ", text).strip()
    return text if len(text) <= limit else text[: limit - 3] + "..."


def path(address: str) -> bytes:
    """An address in angle brackets: `<a@b.example>`; the null sender is `<>`."""
    return b"<" + one_line(address).encode("utf-8") + b">"


def return_path(sender: str) -> bytes:
    """The field final delivery writes first (RFC 5321 4.4)."""
    return b"Return-Path: " + path(sender) + b"\r\n"


def delivered_to(address: str) -> bytes:
    """The field that makes a loop through mailboxes visible (RFC 9228)."""
    return b"Delivered-To: " + path(address)[1:-1] + b"\r\n"


def is_delivered_to(head: bytes, address: str) -> bool:
    """Whether `head` says it was delivered to this very address before: a loop (RFC 9228 section 4)."""
    if b"\ndelivered-to" not in b"\n" + head.lower():
        return False
    wanted = path(address)[1:-1].decode("utf-8").casefold()
    return any(
        v.decode("utf-8", "replace").strip("<> \t").casefold() == wanted for v in values(head, b"delivered-to")
    )
