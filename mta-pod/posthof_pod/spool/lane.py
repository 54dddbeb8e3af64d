"""Lanes and segments in memory: what a worker knows of the lanes it owns. No I/O, loop thread only.

A live message costs 38 bytes here: one row over packed arrays. Rows are used again; the generation in the ref tells
an old ref from a new one. The state of a message with several recipients is kept beside (11 bytes a recipient) from
its first settle on; everything else about a message is on the volume, where `ordinal`, `offset` and `length` say.

A ref is `slot << 32 | generation << 24 | row`.
"""

from __future__ import annotations

import asyncio
import enum
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from zlib import crc32

from . import record
from .layout import SegmentName
from .protocol import Folder, Log

BLOB = 1  # its content is a file of its own
TRIED = 2  # a synced record says it may be given to a session
NESTED = 4  # a report: its accept lies inside a settle
LIVE = 8
SETTLED = 16  # a settle says where its recipients stand
PENDING = 32  # its accept is not synced yet
COPYING = 64  # compaction placed a copy that is not synced yet
BAD = 128  # it cannot be read back


class LaneState(enum.Enum):
    OPEN = "open"  # takes new mail
    CLOSED = "closed"  # only settles, reports and copies go in
    LEAVING = "leaving"  # to be freed: running attempts end
    OFFERED = "offered"  # free; taken or claimed back
    REMOVING = "removing"  # nothing in it is live
    GONE = "gone"  # lost, removed or someone else's


class Gone(LookupError):
    """The ref names no live message of this worker: done, or its lane went to another."""


class Segment:
    """One segment of a lane, being written or only read."""

    __slots__ = (
        "deadline",
        "end",
        "entries",
        "has_content",
        "has_end",
        "is_kept",
        "is_lost",
        "is_pinned",
        "is_sealed",
        "is_touched",
        "is_urgent",
        "live",
        "live_bytes",
        "log",
        "name",
        "nonce",
        "parts",
        "parts_at",
        "position",
        "settle_crc",
        "settle_head",
        "written",
    )

    def __init__(self, name: SegmentName, *, size: int = 0, log: Log | None = None, nonce: bytes = b"") -> None:
        self.name = name
        self.log = log  # None: not ours to write
        self.nonce = nonce
        self.position = size  # where the next record goes; of a sealed one its length
        self.parts: list[bytes] = []  # gathered, not yet given to the I/O thread
        self.parts_at = size  # the offset of the first of them
        self.entries: list[Sequence[Any]] = []  # records not yet synced (see journal.py)
        self.written = size  # records before this offset can be read back
        self.deadline = 0.0  # monotonic: when its settles must be synced; 0: none wait
        self.end = bytearray()  # what `end` will say
        self.has_end = True  # it will have one
        self.live = 0  # messages whose accept lies here
        self.live_bytes = 0
        self.is_sealed = log is None
        self.is_lost = False  # given up after an error
        self.is_kept = False  # it has damage: moved aside, never unlinked
        self.is_pinned = False  # it has records of a newer version: it stays
        self.is_touched = False  # `parts` or `entries` wait for a turn
        self.is_urgent = False  # someone waits for its sync
        self.has_content = False
        if nonce:
            self.settle_head = record.PREFIX.pack(nonce, record.VERSION, record.SETTLE, record.DONE, 8, 8)
            self.settle_crc = crc32(self.settle_head)

    def drop_end(self) -> None:
        """It is mostly settles: its records themselves are hardly more to read than an `end`, and need no memory."""
        self.end = bytearray()
        self.has_end = False


class Rows(NamedTuple):
    """Live messages to be put into a lane's index, column by column."""

    numbers: list[int]
    ordinals: list[int]  # of the segment
    offsets: list[int]
    lengths: list[int]  # of the payload
    counts: list[int]  # recipients
    state_ordinals: list[int]
    state_offsets: list[int]
    flags: list[int]  # LIVE included


class Lane:
    """A lane this worker owns (or is about to)."""

    def __init__(self, name: str, slot: int, claim: int, folder: Folder, next_number: int) -> None:
        self.name = name
        self.slot = slot
        self.claim = claim
        self.folder = folder
        self.state = LaneState.OPEN
        self.takes_mail = True  # accepts whose number was handed out may come
        self.is_writable = True
        self.segments: list[Segment] = []  # oldest first
        self.first = 0  # ordinal of segments[0]
        self.current: Segment | None = None
        self.next_number = next_number
        self.next_k = 1
        self.live = 0
        self.is_blocked = False  # settles wait to be written again: no dot until they are synced
        self.is_removing = False
        self.is_filling = False  # a take-over is putting its messages in: what looks empty is not
        self.promised = 0  # numbers handed out whose commit did not come yet (some never will)
        self.closed_at = 0.0  # monotonic
        self.rest_until = 0.0  # monotonic: after two failures in a row nothing is tried before
        self.failures = 0  # segments given up in a row
        self.offered_at = 0.0
        self.open_blobs = 0
        self.busy: set[int] = set()  # refs in a session while the lane is leaving
        self.trying: set[int] = set()  # refs whose `try` is placed and not yet synced
        self.quiet: asyncio.Event | None = None  # set when `busy` is empty
        self.multi: dict[int, bytearray] = {}  # states of messages with several recipients, from their first settle
        self.numbers = array("Q")
        self.ordinals = array("I")
        self.offsets = array("I")
        self.lengths = array("I")
        self.counts = array("I")  # recipients
        self.state_ordinals = array("I")
        self.state_offsets = array("I")
        self.generations = array("B")
        self.flags = array("B")
        self.unused = array("I")

    @property
    def size(self) -> int:
        """Bytes of its segments."""
        return sum(segment.position for segment in self.segments)

    @property
    def live_bytes(self) -> int:
        return sum(segment.live_bytes for segment in self.segments)

    def become(self, state: LaneState) -> None:
        """Change its state, and what follows from that."""
        self.state = state
        self.takes_mail = state in (LaneState.OPEN, LaneState.CLOSED)
        self.is_writable = self.takes_mail or state is LaneState.LEAVING

    def segment_at(self, ordinal: int) -> Segment:
        return self.segments[ordinal - self.first]

    def add_segment(self, segment: Segment) -> int:
        """Its ordinal."""
        self.segments.append(segment)
        return self.first + len(self.segments) - 1

    def add(self, number: int, place: tuple[int, int, int], count: int, flags: int) -> int:
        """A live message: its row. `place`: ordinal of the segment, offset, length of the payload."""
        ordinal, offset, length = place
        if self.unused:
            row = self.unused.pop()
            self.numbers[row] = number
            self.ordinals[row] = ordinal
            self.offsets[row] = offset
            self.lengths[row] = length
            self.counts[row] = count
            self.flags[row] = flags | LIVE
        else:
            row = len(self.numbers)
            self.numbers.append(number)
            self.ordinals.append(ordinal)
            self.offsets.append(offset)
            self.lengths.append(length)
            self.counts.append(count)
            self.state_ordinals.append(0)
            self.state_offsets.append(0)
            self.generations.append(0)
            self.flags.append(flags | LIVE)
        segment = self.segments[ordinal - self.first]
        segment.live += 1
        segment.live_bytes += length
        self.live += 1
        return row

    def extend(self, rows: Rows) -> int:
        """As `add`, for many at once: the first of their rows, which follow each other."""
        first = len(self.numbers)
        self.numbers.extend(rows.numbers)
        self.ordinals.extend(rows.ordinals)
        self.offsets.extend(rows.offsets)
        self.lengths.extend(rows.lengths)
        self.counts.extend(rows.counts)
        self.state_ordinals.extend(rows.state_ordinals)
        self.state_offsets.extend(rows.state_offsets)
        self.flags.extend(rows.flags)
        self.generations.frombytes(bytes(len(rows.numbers)))
        segments, before = self.segments, self.first
        for ordinal, length in zip(rows.ordinals, rows.lengths, strict=True):
            segment = segments[ordinal - before]
            segment.live += 1
            segment.live_bytes += length
        self.live += len(rows.numbers)
        return first

    def drop(self, row: int) -> None:
        """It is done: the row may be used again."""
        segment = self.segments[self.ordinals[row] - self.first]
        segment.live -= 1
        segment.live_bytes -= self.lengths[row]
        self.live -= 1
        self.flags[row] = 0
        self.generations[row] = (self.generations[row] + 1) & 0xFF
        if self.counts[row] > 1:
            self.multi.pop(row, None)
        self.unused.append(row)

    def leave_segment(self, row: int) -> None:
        segment = self.segments[self.ordinals[row] - self.first]
        segment.live -= 1
        segment.live_bytes -= self.lengths[row]

    def move(self, row: int, ordinal: int, offset: int, length: int) -> None:
        """Its accept was copied to another segment."""
        self.leave_segment(row)
        self.ordinals[row] = ordinal
        self.offsets[row] = offset
        self.lengths[row] = length
        segment = self.segments[ordinal - self.first]
        segment.live += 1
        segment.live_bytes += length

    def set_state_at(self, row: int, ordinal: int, offset: int) -> None:
        self.state_ordinals[row] = ordinal
        self.state_offsets[row] = offset
        self.flags[row] |= SETTLED

    def ref(self, row: int) -> int:
        return self.slot << 32 | self.generations[row] << 24 | row

    def row(self, ref: int) -> int:
        """Gone for a ref whose message is done."""
        row = ref & 0xFFFFFF
        if row >= len(self.flags) or not self.flags[row] & LIVE or self.generations[row] != ref >> 24 & 0xFF:
            raise Gone(ref)
        return row

    def rows(self) -> Iterator[int]:
        """Of its live messages."""
        flags = self.flags
        return (row for row in range(len(flags)) if flags[row] & LIVE)

    def refs(self) -> list[int]:
        return [self.ref(row) for row in self.rows()]
