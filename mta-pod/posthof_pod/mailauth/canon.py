"""A message as signatures see it: header fields apart, both canonicalisations, body hashes that stream.

Owns: fields (the header block taken apart), the `simple` and `relaxed` forms of a field and of a body (RFC 6376 3.4),
and BodyHashes, which makes several body hashes of one pass over the content.

Rules of this file
- Octets, as they came. Only CRLF ends a line; a bare CR or LF is a character like any other.
- No regular expression walks over a body, and no run of blanks or empty lines costs more than its length.
- A body is never held: what BodyHashes keeps between two pieces is at most KEPT octets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Field = tuple[bytes, bytes]
"""(name in lower case, the whole field as it came with its last CRLF)."""

KEPT = 65536  # octets of an unfinished line that are kept; what is longer is given to the hash in parts
_CRLFS = b"\r\n" * 512


class BodyWish(NamedTuple):
    """A body hash that a signature asks for. SHA-256 always: RFC 8301 leaves no other."""

    is_relaxed: bool
    limit: int = -1  # octets of the canonical body that are hashed (l=); -1: all


class BodyHash(NamedTuple):
    digest: bytes
    hashed: int  # octets of the canonical body that were hashed
    length: int  # octets of the whole canonical body


SIMPLE = BodyWish(False)
RELAXED = BodyWish(True)


# ---- header fields


def fields(head: bytes) -> list[Field]:
    """The header fields of a block (fields.block: each with its CRLF), in order. A line that is none has the name
    b""; no signature can name it."""
    found: list[Field] = []
    lines = head.split(b"\r\n")
    if not lines[-1]:
        lines.pop()
    raw: list[bytes] = []
    for line in lines:
        if raw and line[:1] in _BLANKS:
            raw.append(line)
            continue
        if raw:
            found.append(_field(raw))
        raw = [line]
    if raw:
        found.append(_field(raw))
    return found


_BLANKS = (b" ", b"\t")


def _field(lines: list[bytes]) -> Field:
    first = lines[0]
    colon = first.find(b":")
    name = first[:colon].rstrip(b" \t").lower() if colon > 0 else b""
    if len(lines) == 1:
        return name, first + b"\r\n"
    lines.append(b"")
    return name, b"\r\n".join(lines)


def relaxed_field(name: bytes, raw: bytes) -> bytes:
    """RFC 6376 3.4.2, with its CRLF. `name` in lower case, `raw` the whole field."""
    value = raw[raw.find(b":") + 1 :]
    if _is_usual(value):
        return b"%b:%b\r\n" % (name, b" ".join(value.split()))
    value = value.replace(b"\r\n", b"")
    return b"%b:%b\r\n" % (name, _squeezed(value).strip(b" "))


def _is_usual(value: bytes) -> bool:
    """No octet that bytes.split() takes for a blank and the standard does not."""
    if b"\x0b" in value or b"\x0c" in value:
        return False
    ends = value.count(b"\r\n")
    return value.count(b"\n") == ends and value.count(b"\r") == ends


def _squeezed(text: bytes) -> bytes:
    """Every run of blanks and tabs as one blank. Halving the longest run at each step: no run costs a second pass
    over more than what is left of it."""
    if b"\t" in text:
        text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text


# ---- bodies


def body_hash(body: bytes, wish: BodyWish) -> BodyHash:
    """The hash of a body that is held. `body` is what stands behind the empty line."""
    canonical = relaxed_body(body) if wish.is_relaxed else simple_body(body)
    length = len(canonical)
    if 0 <= wish.limit < length:
        canonical = canonical[: wish.limit]
    return BodyHash(hashlib.sha256(canonical).digest(), len(canonical), length)


def simple_body(body: bytes) -> bytes:
    """RFC 6376 3.4.3: one CRLF at the end, whatever came."""
    if not body.endswith(b"\r\n"):
        return body + b"\r\n"
    return _one_end(body) or b"\r\n"


def relaxed_body(body: bytes) -> bytes:
    """RFC 6376 3.4.4: blanks squeezed, none at a line's end, no empty lines at the end; nothing stays nothing."""
    body = _relaxed_lines(body)
    if body.endswith(b" "):  # the last line has no CRLF
        body = body[:-1]
    if not body:
        return b""
    if not body.endswith(b"\r\n"):
        return body + b"\r\n"
    return _one_end(body)


def _relaxed_lines(text: bytes) -> bytes:
    text = _squeezed(text)
    return text.replace(b" \r\n", b"\r\n") if b" \r\n" in text else text


def _one_end(text: bytes) -> bytes:
    """`text` ends with CRLF: with one of them; b"" where there is nothing else."""
    if not text.endswith(b"\r\n\r\n"):
        return b"" if text == b"\r\n" else text
    end = len(text)
    while text.endswith(_CRLFS, 0, end):
        end -= len(_CRLFS)
    while text.endswith(b"\r\n", 0, end):
        end -= 2
    return text[: end + 2] if end else b""


class _Stream:
    """One canonical body on its way into the hashes that want it. Empty lines wait until something follows."""

    __slots__ = ("_empty", "_hashes", "_is_relaxed", "_kept", "length")

    def __init__(self, is_relaxed: bool, limits: Iterable[int]) -> None:
        self._is_relaxed = is_relaxed
        self._hashes = {limit: hashlib.sha256() for limit in limits}
        self._kept = b""  # an unfinished line
        self._empty = 0  # line ends that wait
        self.length = 0

    def update(self, piece: bytes) -> None:
        text = self._kept + piece if self._kept else piece
        cut = text.rfind(b"\r\n") + 2
        if cut > 1:
            self._lines(text[:cut])
            text = text[cut:]
        if len(text) > KEPT:
            text = self._long_line(text)
        self._kept = text

    def _long_line(self, text: bytes) -> bytes:
        """Give on what cannot change any more of a line without an end; the rest."""
        if self._is_relaxed:
            text = _squeezed(text)
            if len(text) <= KEPT:
                return text
        end = len(text)
        while end and text[end - 1] in b" \r":
            end -= 1
            if len(text) - end > 2:  # bare CRs and blanks in turn: as they are, but for the last two
                break
        self._emit(text[:end])
        return text[end:]

    def _lines(self, text: bytes) -> None:
        """Whole lines."""
        if self._is_relaxed:
            text = _relaxed_lines(text)
        solid = _one_end(text)
        if not solid:
            self._empty += len(text) // 2
            return
        self._emit(solid[:-2])
        self._empty = 1 + (len(text) - len(solid)) // 2

    def _emit(self, text: bytes) -> None:
        """Something that is no line end: what waited goes before it."""
        while self._empty:
            some = min(self._empty, 512)
            self._hash(_CRLFS[: some * 2])
            self._empty -= some
        self._hash(text)

    def _hash(self, text: bytes) -> None:
        for limit, sha in self._hashes.items():
            if limit < 0:
                sha.update(text)
            elif self.length < limit:
                sha.update(text[: limit - self.length])
        self.length += len(text)

    def end(self) -> dict[int, BodyHash]:
        last = _squeezed(self._kept).rstrip(b" ") if self._is_relaxed else self._kept
        if last:
            self._emit(last)
        self._kept, self._empty = b"", 0
        if self.length or not self._is_relaxed:
            self._hash(b"\r\n")
        return {
            limit: BodyHash(sha.digest(), self.length if limit < 0 else min(limit, self.length), self.length)
            for limit, sha in self._hashes.items()
        }


class BodyHashes:
    """Body hashes of one pass: `update` with each piece as it comes, then `get`.

    The first piece may begin in the header: with `skip` that many octets are left out first.
    """

    __slots__ = ("_done", "_skip", "_streams")

    def __init__(self, wishes: Iterable[BodyWish], *, skip: int = 0) -> None:
        limits: dict[bool, list[int]] = {}
        for wish in dict.fromkeys(wishes):
            limits.setdefault(wish.is_relaxed, []).append(wish.limit)
        self._streams = {is_relaxed: _Stream(is_relaxed, some) for is_relaxed, some in limits.items()}
        self._skip = skip
        self._done: dict[BodyWish, BodyHash] | None = None

    def update(self, piece: bytes) -> None:
        if self._skip:
            left = piece[self._skip :]
            self._skip -= len(piece) - len(left)
            piece = left
        if piece:
            for stream in self._streams.values():
                stream.update(piece)

    def get(self, wish: BodyWish) -> BodyHash:
        """KeyError: nobody asked for it before the content came."""
        if self._done is None:
            self._done = {
                BodyWish(is_relaxed, limit): found
                for is_relaxed, stream in self._streams.items()
                for limit, found in stream.end().items()
            }
        return self._done[wish]


class HeldBody:
    """The same for a body that is held: each hash is made when it is first asked for."""

    __slots__ = ("_body", "_done")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._done: dict[BodyWish, BodyHash] = {}

    def get(self, wish: BodyWish) -> BodyHash:
        found = self._done.get(wish)
        if found is None:
            found = self._done[wish] = body_hash(self._body, wish)
        return found


Body = bytes | BodyHashes | HeldBody


def hashes_of(body: Body) -> BodyHashes | HeldBody:
    return HeldBody(body) if isinstance(body, bytes) else body


def parted(content: bytes) -> tuple[bytes, bytes]:
    """A whole message: (header block with its last CRLF, body)."""
    if content.startswith(b"\r\n"):
        return b"", content[2:]
    end = content.find(b"\r\n\r\n")
    return (content, b"") if end < 0 else (content[: end + 2], content[end + 4 :])


# ---- which fields a signature covers


def select(headers: Sequence[Field], names: Sequence[bytes]) -> list[Field]:
    """The fields that `names` (lower case) stand for: each name takes the lowest one that no earlier name took; one
    that finds none stands for nothing (RFC 6376 5.4.2)."""
    places: dict[bytes, list[int]] = {}
    wanted = set(names)
    for n, (name, _) in enumerate(headers):
        if name in wanted:
            places.setdefault(name, []).append(n)
    found: list[Field] = []
    for name in names:
        left = places.get(name)
        if left:
            found.append(headers[left.pop()])
    return found


def canonical(headers: Sequence[Field], *, is_relaxed: bool) -> bytes:
    """Fields as the hash takes them."""
    if is_relaxed:
        return b"".join([relaxed_field(name, raw) for name, raw in headers])
    return b"".join([raw for _, raw in headers])
