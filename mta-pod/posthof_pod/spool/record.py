"""Records: the bytes of a segment. Values in, bytes out; no I/O.

A segment is its 8 random bytes (the nonce), then records end to end, the first of them `start`. A record is

    nonce 8 | version 1 | type 1 | flags 2 | length 4 | meta 4 | crc 4     little-endian, 24 bytes
    payload, `length` bytes, of which the first `meta` are the meta, the rest is content

The CRC-32 covers the 20 bytes before it and the payload. The nonce makes that no mail's content and no block of an
older file can pass for a record: who wrote them could not know it. The meta of each type begins with the number of
the message (8 bytes), so a replay sorts records without decoding them:

    accept  number, msgpack(Accept); content: trace headers, then the body unless a blob holds it
    settle  number                        flag DONE or REFUSED: all recipients are done / it was never accepted
            number, msgpack(Settle)       content: that of the report inside, flag REPORT
    try     number, number, ...           these ids were given to a session
    start   msgpack(Start)                opens a segment: each lower segment and the length that was read of it
    end     ENTRY + meta, ...             seals a segment: its records again, without contents

After `end` follow 16 bytes: nonce, length of the whole end record, CRC of these 12. Nothing follows them.
A version or a type this file does not know is skipped, and its segment stays; with CRITICAL the lane is let alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

import msgspec

from ..model import Envelope, Held

VERSION = 1

ACCEPT = 1
TRY = 2
SETTLE = 3
START = 4
END = 5
NAMES = {ACCEPT: "accept", TRY: "try", SETTLE: "settle", START: "start", END: "end"}

AT_ONCE = 0x0001  # accept: the first attempt follows directly, so it stands for a `try` as well
DONE = 0x0002  # settle: nothing is left to do
REFUSED = 0x0004  # settle: the client was told 451, the accept does not count
COPY = 0x0008  # accept: written again by compaction
REPORT = 0x0010  # settle: holds the report it caused
CRITICAL = 0x8000  # who does not know the type must not work this lane

NONCE_BYTES = 8
HEADER = struct.Struct("<8sBBHIII")
PREFIX = struct.Struct("<8sBBHII")
CRC = struct.Struct("<I")
NUMBER = struct.Struct("<Q")
CRC_NUMBER = struct.Struct("<IQ")
ENTRY = struct.Struct("<BHIII")  # type, flags, offset of the record, length, meta
FOOTER = struct.Struct("<8sII")
HEADER_BYTES = HEADER.size
LONGEST = 0xFFFFFFFF

# One recipient's state: flags, attempts, due (unix seconds, inf = held).
STATE = struct.Struct("<BHd")
IS_DONE = 1
IS_NOTIFIED = 2
IS_TRIED = 4  # given to a session, no outcome yet


class Damaged(Exception):
    """Bytes of the spool are not what was written. `where` names the file and the offset."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what


class BlobNote(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Content in a file of its own."""

    number: int  # names the file
    size: int
    crc: int


class Accept(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an accept says beside its content. `states` is STATE per recipient, b"" = all new."""

    envelope: Envelope
    trace: int  # bytes of trace headers at the start of the content
    blob: BlobNote | None = None
    states: bytes = b""
    reason: str = ""  # of the last settle, where this is a copy
    detail: str = ""


class Settle(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The present state of all recipients after a try, and the report it caused."""

    states: bytes
    reason: str = ""
    detail: str = ""
    report_number: int = 0
    report: Accept | None = None


class Standing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a replay needs of a settle: its first field."""

    states: bytes


class Start(msgspec.Struct, frozen=True, array_like=True):
    """The head of a segment. Of a segment with a lower claim that is not named in `lower` nothing counts."""

    lane: str
    claim: int
    k: int
    worker: str
    lower: tuple[tuple[int, int, int], ...] = ()  # claim, k, bytes that count


class State(NamedTuple):
    """Where all recipients of a message stand (`posthof queue show`)."""

    done: tuple[int, ...]
    waiting: tuple[Held, ...]
    tried: tuple[int, ...]  # given to a session, no outcome yet
    reason: str
    detail: str


class Raw(NamedTuple):
    """A record as it was found."""

    kind: int
    flags: int
    offset: int
    length: int
    meta: bytes

    @property
    def end(self) -> int:
        return self.offset + HEADER_BYTES + self.length

    @property
    def number(self) -> int:
        return int(NUMBER.unpack_from(self.meta)[0])


_new = tuple.__new__  # a Raw without the cost of its keyword handling
_encode = msgspec.msgpack.Encoder().encode
_accepts = msgspec.msgpack.Decoder(Accept)
_settles = msgspec.msgpack.Decoder(Settle)
_standings = msgspec.msgpack.Decoder(Standing)
_starts = msgspec.msgpack.Decoder(Start)


def accept_meta(number: int, accept: Accept) -> bytes:
    return NUMBER.pack(number) + _encode(accept)


def settle_meta(number: int, settle: Settle) -> bytes:
    return NUMBER.pack(number) + _encode(settle)


def start_meta(start: Start) -> bytes:
    return _encode(start)


def try_meta(numbers: list[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def read_accept(meta: bytes) -> Accept:
    """msgspec.DecodeError for bytes that are none (they passed a CRC: a newer version wrote them)."""
    return _accepts.decode(meta[8:])


def read_settle(meta: bytes) -> Settle:
    return _settles.decode(meta[8:])


def read_standing(meta: bytes) -> bytes:
    """The states of a settle, and nothing else of it."""
    return _standings.decode(meta[8:]).states


def read_start(meta: bytes) -> Start:
    return _starts.decode(meta)


def read_try(meta: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(meta) // 8}Q", meta)


def frame(nonce: bytes, kind: int, flags: int, meta: bytes, content: tuple[bytes, ...] = ()) -> list[bytes]:
    """One record as parts for pwritev; the content's bytes are not copied."""
    length = len(meta)
    for part in content:
        length += len(part)
    prefix = PREFIX.pack(nonce, VERSION, kind, flags, length, len(meta))
    crc = crc32(meta, crc32(prefix))
    for part in content:
        crc = crc32(part, crc)
    return [b"".join((prefix, CRC.pack(crc), meta)), *content]


def footer(nonce: bytes, end_bytes: int) -> bytes:
    """What follows `end`: it tells where that begins."""
    head = FOOTER.pack(nonce, end_bytes, 0)[:12]
    return head + CRC.pack(crc32(head))


def find_end(nonce: bytes, tail: bytes) -> int:
    """Bytes of the end record that `tail`, the last 16 bytes of a segment, speaks of; 0: not sealed."""
    if len(tail) != FOOTER.size:
        return 0
    found, size, crc = FOOTER.unpack(tail)
    return int(size) if found == nonce and crc == crc32(tail[:12]) else 0


def entries(payload: bytes) -> Iterator[Raw]:
    """The records an `end` lists. ValueError when it does not add up."""
    at, size = 0, len(payload)
    unpack, head = ENTRY.unpack_from, ENTRY.size
    while at < size:
        kind, flags, offset, length, meta = unpack(payload, at)
        at += head
        yield _new(Raw, (kind, flags, offset, length, payload[at : at + meta]))
        at += meta
    if at != size:
        raise ValueError("an end record whose entries do not add up")


def pack_states(held: tuple[Held, ...], count: int, *, is_tried: bool = False) -> bytearray:
    """STATE per recipient; those `held` does not name are done."""
    states = bytearray(STATE.pack(IS_DONE, 0, 0.0) * count)
    tried = IS_TRIED if is_tried else 0
    for one in held:
        flags = tried | (IS_NOTIFIED if one.notified else 0)
        STATE.pack_into(states, one.recipient * STATE.size, flags, min(one.attempts, 0xFFFF), one.due)
    return states


def fresh_states(envelope: Envelope, *, is_tried: bool) -> bytearray:
    """The state a message is accepted with: everyone waits, due at once."""
    one = STATE.pack(IS_TRIED if is_tried else 0, 0, envelope.arrived)
    return bytearray(one * len(envelope.recipients))


def mark_untried(states: bytes | bytearray) -> bytearray:
    """The states, with nobody being sent anything."""
    return bytearray(
        b"".join(STATE.pack(flags & ~IS_TRIED, attempts, due) for flags, attempts, due in STATE.iter_unpack(states))
    )


def waiting(states: bytes | bytearray) -> tuple[Held, ...]:
    """Who is not done."""
    return tuple(
        Held(at, due, attempts, bool(flags & IS_NOTIFIED))
        for at, (flags, attempts, due) in enumerate(STATE.iter_unpack(states))
        if not flags & IS_DONE
    )


def read_states(states: bytes | bytearray, reason: str, detail: str) -> State:
    rows = list(STATE.iter_unpack(states))
    return State(
        tuple(at for at, row in enumerate(rows) if row[0] & IS_DONE),
        waiting(states),
        tuple(at for at, row in enumerate(rows) if row[0] & IS_TRIED and not row[0] & IS_DONE),
        reason,
        detail,
    )


def mark_tried(states: bytes | bytearray) -> bytes:
    """All who wait were given to a session."""
    marked = bytearray(states)
    for at in range(0, len(marked), STATE.size):
        if not marked[at] & IS_DONE:
            marked[at] |= IS_TRIED
    return bytes(marked)
