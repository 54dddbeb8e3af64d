"""Reading segments back: what is in one (`scan`), and what all of a lane add up to (`merge`).

Rules of this file
- It reads, it never changes anything.
- A record that does not check ends its segment, unless valid ones follow: then the gap is damage.
- Of a sealed segment only `end` is read; the contents are checked when they are used.
- Later copies of a message win. What lies beyond a cut (see protocol.cut) was never acknowledged and is not read.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

import msgspec

from ..model import Envelope, Held
from . import layout, record
from .layout import SegmentName
from .record import (
    ACCEPT,
    END,
    HEADER,
    HEADER_BYTES,
    IS_DONE,
    IS_NOTIFIED,
    IS_TRIED,
    NONCE_BYTES,
    SETTLE,
    START,
    STATE,
    TRY,
    Accept,
    Raw,
    Start,
)
from .volume import Disk

WINDOW = 4 * 1024 * 1024  # bytes read at once from a segment without an end
UNCUT = 1 << 62

_new = tuple.__new__  # a NamedTuple without the cost of its keyword handling


class Scan:
    """What one segment holds."""

    __slots__ = (
        "cut",
        "end",
        "gaps",
        "is_critical",
        "is_sealed",
        "lane",
        "name",
        "nonce",
        "records",
        "size",
        "start",
        "torn",
        "unknown",
    )

    def __init__(self, lane: str, name: SegmentName, size: int) -> None:
        self.lane = lane
        self.name = name
        self.size = size  # bytes of the file when it was read
        self.end = 0  # where its last valid record ends: the length that counts
        self.nonce = b""
        self.records: list[Raw] = []
        self.start: Start | None = None
        self.gaps: list[tuple[int, int]] = []  # offset, bytes: damage, for valid records follow
        self.torn = 0  # bytes after the last valid record
        self.unknown = 0  # records of a type a newer version wrote
        self.is_critical = False  # one of them says: do not work this lane
        self.is_sealed = False
        self.cut = UNCUT  # what an adopter read of it; nothing beyond counts

    @property
    def path(self) -> str:
        return layout.segment(self.lane, self.name.claim, self.name.k)

    @property
    def is_kept(self) -> bool:
        """Whether people may want to see the file: then it is moved aside, never unlinked."""
        return bool(self.gaps) or self.size > self.end == 0


def scan(disk: Disk, lane: str, claim: int, k: int, is_full: bool = False) -> Scan:
    """Read a segment afresh. `is_full`: check every record also where `end` would do.

    FileNotFoundError when it is not there, OSError when it cannot be read; damage is in the result.
    """
    path = layout.segment(lane, claim, k)
    fd = disk.open(path)
    try:
        found = Scan(lane, SegmentName(claim, k), disk.length(fd))
        found.nonce = nonce = disk.pread(fd, NONCE_BYTES, 0)
        if is_full or not _read_end(disk, fd, nonce, found):
            _walk(disk, fd, nonce, found)
    finally:
        disk.close(fd)
    _look_over(found)
    return found


def _read_end(disk: Disk, fd: int, nonce: bytes, found: Scan) -> bool:
    """Take the records from `end`, where the segment is sealed and `end` is sound."""
    foot = record.FOOTER.size
    if found.size < NONCE_BYTES + HEADER_BYTES + foot:
        return False
    size = record.find_end(nonce, disk.pread(fd, foot, found.size - foot))
    at = found.size - foot - size
    if not size or at < NONCE_BYTES:
        return False
    data = disk.pread(fd, size, at)
    if check(data, 0, nonce) != size - HEADER_BYTES or data[9] != END:
        return False
    try:
        found.records = list(record.entries(data[HEADER_BYTES:]))
    except (ValueError, struct.error):
        return False
    found.end = found.size
    found.is_sealed = True
    return True


def check(data: bytes, at: int, nonce: bytes) -> int:
    """Length of the payload of the sound record at `at`; -1: none is there; -2: it reaches beyond `data`."""
    if len(data) - at < HEADER_BYTES:
        return -2
    found, _, _, _, length, meta, crc = HEADER.unpack_from(data, at)
    if found != nonce or meta > length:
        return -1
    end = at + HEADER_BYTES + length
    if end > len(data):
        return -2
    view = memoryview(data)
    if crc32(view[at + HEADER_BYTES : end], crc32(view[at : at + HEADER_BYTES - 4])) != crc:
        return -1
    return int(length)


class _Window:
    """A part of the file in memory, moved along."""

    def __init__(self, disk: Disk, fd: int, size: int) -> None:
        self.disk, self.fd, self.size = disk, fd, size
        self.base = 0
        self.data = b""

    def check(self, at: int, nonce: bytes) -> int:
        """As `check`, for an offset of the file; -1 also where the file ends before the record does."""
        length = check(self.data, at - self.base, nonce) if at >= self.base else -2
        if length != -2:
            return length
        self.move(at, WINDOW)
        length = check(self.data, 0, nonce)
        if length == -2 and len(self.data) >= HEADER_BYTES:
            wanted = HEADER_BYTES + int(HEADER.unpack_from(self.data)[4])
            if wanted <= self.size - at:
                self.move(at, wanted)
                length = check(self.data, 0, nonce)
        return max(length, -1)

    def move(self, at: int, size: int) -> None:
        self.base = at
        self.data = self.disk.pread(self.fd, min(size, self.size - at), at)

    def find(self, what: bytes, at: int) -> int:
        """Offset of the next occurrence, -1: none."""
        while at < self.size:
            self.move(at, WINDOW)
            hit = self.data.find(what)
            if hit >= 0:
                return at + hit
            if at + len(self.data) >= self.size or len(self.data) < len(what):
                return -1
            at += len(self.data) - len(what) + 1
        return -1


def _walk(disk: Disk, fd: int, nonce: bytes, found: Scan) -> None:
    """Read record after record; after one that does not check, look for the next by its nonce."""
    window = _Window(disk, fd, found.size)
    at = NONCE_BYTES
    other = disk.pread(fd, NONCE_BYTES, at)
    if other != nonce and len(other) == NONCE_BYTES and window.check(at, other) >= 0:
        found.gaps.append((0, NONCE_BYTES))  # the first copy of the nonce went bad, not the record behind it
        found.nonce = nonce = other
    foot = record.FOOTER.size
    while True:
        at = _take_sound(window, at, nonce, found)
        if at >= found.size:
            break
        length = window.check(at, nonce)
        if length < 0:
            sound = _next_sound(window, at + 1, nonce)
            if sound < 0:
                found.torn = found.size - at
                break
            found.gaps.append((at, sound - at))
            at = sound
            continue
        here = at - window.base
        _, version, kind, flags, _, meta, _ = HEADER.unpack_from(window.data, here)
        begin = here + HEADER_BYTES
        if version != record.VERSION:
            found.unknown += 1
            found.is_critical = found.is_critical or version > record.VERSION
        elif kind != END:
            found.records.append(Raw(kind, flags, at, length, window.data[begin : begin + meta]))
        at += HEADER_BYTES + length
        found.end = at
        if kind == END and at + foot == found.size and record.find_end(nonce, disk.pread(fd, foot, at)):
            found.is_sealed = True
            found.end = found.size
            break


def _take_sound(window: _Window, at: int, nonce: bytes, found: Scan) -> int:
    """Take the records in the window from `at` on, as long as they check and nothing is to be said of them: where
    the first other one begins."""
    data, here = window.data, at - window.base
    if here < 0:
        return at
    view, size, take = memoryview(data), len(data), found.records.append
    while size - here >= HEADER_BYTES:
        mark, version, kind, flags, length, meta, crc = HEADER.unpack_from(data, here)
        begin = here + HEADER_BYTES
        end = begin + length
        if mark != nonce or version != record.VERSION or kind == END or meta > length or end > size:
            break
        if crc32(view[begin:end], crc32(view[here : begin - 4])) != crc:
            break
        take(_new(Raw, (kind, flags, window.base + here, length, data[begin : begin + meta])))
        here = end
        found.end = window.base + here
    return window.base + here


def _next_sound(window: _Window, at: int, nonce: bytes) -> int:
    """Where the next record that checks begins, -1: nowhere."""
    while len(nonce) == NONCE_BYTES:
        at = window.find(nonce, at)
        if at < 0:
            break
        if window.check(at, nonce) >= 0:
            return at
        at += 1
    return -1


def _look_over(found: Scan) -> None:
    """Take the start out, count what is unknown, refuse a segment that belongs elsewhere."""
    kept: list[Raw] = []
    for raw in found.records:
        if raw.kind == START:
            try:
                found.start = record.read_start(raw.meta)
            except msgspec.DecodeError:
                found.unknown += 1
        elif raw.kind not in (ACCEPT, TRY, SETTLE):
            found.unknown += 1
            found.is_critical = found.is_critical or bool(raw.flags & record.CRITICAL)
        else:
            kept.append(raw)
    start = found.start
    if start is not None and (start.lane, start.claim, start.k) != (found.lane, *found.name):
        found.gaps.append((0, found.size))
        found.start = None
        kept = []
    found.records = kept


def set_cuts(scans: list[Scan]) -> None:
    """Limit each segment to what the adopters after its owner read of it: theirs is the last word, newest first."""
    for newer in sorted(scans, key=lambda one: one.name, reverse=True):
        if newer.start is None or newer.cut == 0:
            continue
        named = {SegmentName(claim, k): size for claim, k, size in newer.start.lower}
        for older in scans:
            if older.name.claim < newer.name.claim:
                older.cut = min(older.cut, named.get(older.name, 0))


class Message:
    """A live message while its lane is replayed."""

    __slots__ = ("flags", "length", "meta", "number", "offset", "ordinal", "settle", "settled_at", "tried")

    def __init__(self, number: int, ordinal: int, raw: Raw, meta: bytes | Accept) -> None:
        self.number = number
        self.ordinal = ordinal  # of the segment, in the list of scans
        self.offset = raw[2]
        self.length = raw[3]
        self.meta = meta  # an Accept, where it lies inside a settle
        self.flags = flags = raw[1]
        self.settle: bytes | None = None  # meta of the last settle
        self.settled_at = (0, 0, 0)  # ordinal, offset, length of that settle
        self.tried = bool(flags & record.AT_ONCE)


class Entry(NamedTuple):
    """A live message as it stands now."""

    message: Message
    accept: Accept
    envelope: Envelope
    states: bytes
    waiting: tuple[Held, ...]
    tried: int  # recipients that may already have it


class Replay:
    """What the segments of a lane add up to."""

    __slots__ = ("blobs", "messages", "scans")

    def __init__(self, scans: list[Scan], blobs: tuple[int, ...] = ()) -> None:
        self.scans = scans
        self.blobs = blobs
        self.messages: dict[int, Message] = {}

    @property
    def is_critical(self) -> bool:
        return any(scan.is_critical for scan in self.scans)

    def lengths(self) -> tuple[tuple[int, int, int], ...]:
        """Each segment and the length that counts, for the `start` that cuts them."""
        return tuple((*scan.name, min(scan.end, scan.cut)) for scan in self.scans)


def merge(scans: list[Scan], blobs: tuple[int, ...] = ()) -> Replay:
    """Add the records up, in the order of (claim, k): the live messages remain."""
    scans = sorted(scans, key=lambda one: one.name)
    set_cuts(scans)
    replay = Replay(scans, blobs)
    messages = replay.messages
    number_of = record.NUMBER.unpack_from
    for ordinal, found in enumerate(scans):
        cut = found.cut
        for raw in found.records:
            kind, flags, offset, length, meta = raw
            if offset + HEADER_BYTES + length > cut:
                break
            if kind == ACCEPT:
                number = number_of(meta)[0]
                messages[number] = Message(number, ordinal, raw, meta)
            elif kind == SETTLE:
                if flags & record.REPORT:
                    _add_report(messages, ordinal, raw, found)
                number = number_of(meta)[0]
                if flags & (record.DONE | record.REFUSED):
                    messages.pop(number, None)
                elif (message := messages.get(number)) is not None:
                    message.settle = meta
                    message.settled_at = (ordinal, offset, length)
                    message.tried = False
            else:
                for number in record.read_try(meta):
                    if (message := messages.get(number)) is not None:
                        message.tried = True
    return replay


def _add_report(messages: dict[int, Message], ordinal: int, raw: Raw, found: Scan) -> None:
    try:
        settle = record.read_settle(raw.meta)
    except msgspec.MsgspecError:
        found.unknown += 1  # a newer version's: the segment stays
        return
    if settle.report is not None:
        number = settle.report_number
        messages[number] = Message(number, ordinal, raw, settle.report)


def decode(message: Message) -> Entry:
    """The present state of a live message. msgspec.DecodeError when a newer version wrote it."""
    meta = message.meta
    accept = meta if isinstance(meta, Accept) else record.read_accept(meta)
    settle, is_tried = message.settle, message.tried
    states = accept.states if settle is None else record.read_standing(settle)
    if not states:
        states = bytes(record.fresh_states(accept.envelope, is_tried=is_tried))
    elif is_tried:
        states = record.mark_tried(states)
    if len(states) == STATE.size:
        flags, attempts, due = STATE.unpack(states)
        waiting: tuple[Held, ...] = (
            () if flags & IS_DONE else (_new(Held, (0, due, attempts, flags & IS_NOTIFIED != 0)),)
        )
        tried = int(flags & (IS_TRIED | IS_DONE) == IS_TRIED)
    else:
        waiting = record.waiting(states)
        tried = sum(states[at] & (IS_TRIED | IS_DONE) == IS_TRIED for at in range(0, len(states), STATE.size))
    return _new(Entry, (message, accept, accept.envelope, states, waiting, tried))
