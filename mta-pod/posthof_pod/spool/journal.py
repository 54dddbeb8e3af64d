"""Group commit: records of many messages become one write, one sync, one look.

Rules of this file
- Records are encoded and placed on the loop, in the order they are told; one turn (protocol.turn) is under way at a
  time, the next one gathers meanwhile.
- The I/O thread makes the calls of a turn. A short turn, which only appends to open segments whose names are durable,
  is written by the loop itself and synced by the mate (syncer.py), where there is one: the same calls in the same
  order, without a thread that fights the loop for the interpreter's lock.
- Nobody is told of success before the turn that synced the record had a good look.
- A segment with an error is given up whole: accepts not yet synced are answered 451 and get a settle `refused` in the
  next segment, settles are written there again, and the lane sends no dot until these are synced.
- After a look that says fenced nothing is written any more.
- What nobody waits for in lanes that take no new mail (retries of a long queue, over hundreds of lanes) is written
  every CLOSED_EVERY, MOST_SYNCS lanes synced at a time, and between two such turns goes one for those who wait.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from zlib import crc32

from ..replies import Reply, Temporary
from . import protocol, record
from .iothread import IOThread
from .lane import PENDING, Lane, LaneState, Segment
from .layout import SegmentName
from .protocol import BlobFile, Log, Look, Removal, Turned, Write
from .record import HEADER_BYTES, Start
from .syncer import Syncer
from .volume import IOV_MAX, Disk

GATHER = 0.003  # seconds a turn waits at most for messages that are on their way in
APPEND_DELAY = 0.01  # seconds a settle waits for a turn to ride along before it is written by itself
CLOSED_DELAY = 1.0  # seconds until the settles of a lane without new mail are synced
END_KEPT = 4096  # bytes of `end` that are always kept
CLOSED_EVERY = 0.1  # seconds between two turns that write to closed lanes what nobody waits for
MOST_SYNCS = 16  # of closed lanes that one turn syncs because they are due
SEALING = 128  # bytes kept free for the head and the foot of `end`
MOST_OPEN = 64  # segments of closed lanes kept open for writing
SHORT = 1024 * 1024  # bytes the loop writes itself; more of them would keep it from its sessions

# What `Segment.entries` holds until the record is synced: a tuple that begins with one of these.
ACCEPTED = 0  # row, future, stored, BlobFile | None
SETTLED_DONE = 1  # flags, meta
SETTLED = 2  # flags, meta, content, placed(ordinal, offset, length), synced(), failed(reason)
OTHER = 3  # synced(), failed(reason)

_prefix, _crc, _entry = record.PREFIX.pack, record.CRC.pack, record.ENTRY.pack

TROUBLE = Reply(451, "4.3.0", "Requested action aborted: local error in processing")
FULL = Reply(452, "4.3.1", "Insufficient system storage")


class Owner(Protocol):
    """Who the journal reports to, on the loop."""

    def synced(self, lane: Lane, row: int, future: asyncio.Future[Any], stored: Any) -> None:
        """An accept is on the volume and a look was good."""

    def refused(self, lane: Lane, row: int, future: asyncio.Future[Any], failure: Temporary) -> int:
        """An accept will not be promised: forget it. Its number."""

    def gave_up(self, lane: Lane, segment: Segment, error: OSError) -> None: ...

    def lost_lane(self, lane: Lane) -> None:
        """Its folder could not be made."""

    def fenced(self) -> None: ...

    def looked(self, at: float, seconds: float) -> None: ...


class Journal:
    """What one worker writes."""

    def __init__(
        self,
        disk: Disk,
        thread: IOThread,
        worker: str,
        owner: Owner,
        *,
        segment_bytes: int,
        settle_delay: float,
        monotonic: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._disk = disk
        self._thread = thread
        self._loop = thread.loop
        self._worker = worker
        self._owner = owner
        self._limit = segment_bytes
        self._delay = settle_delay
        self._monotonic = monotonic
        self._random = random
        self._touched: list[tuple[Lane, Segment]] = []  # have parts to be written
        self._unsynced: dict[Segment, Lane] = {}  # have entries, or were sealed, since their last sync
        self._blobs: list[BlobFile] = []
        self._removals: list[tuple[Lane, Removal, float]] = []  # with the time they are due
        self._waiters: list[asyncio.Future[None]] = []
        self._open: dict[Log, None] = {}  # in the I/O thread only: least recently used first
        self.syncer: Syncer | None = None  # the mate, once it is there
        self._is_busy = False
        self._is_urgent = False
        self._is_scheduled = False
        self._closed_at = 0.0  # monotonic: when closed lanes are written next
        self._was_for_all = False  # the last turn wrote to closed lanes too
        self._has_more = False  # closed lanes are due that it had no room for
        self.coming: Callable[[], int] = lambda: 0  # messages on their way in, as far as somebody knows
        self._crowd = 0  # messages the last turn with any made durable
        self._gathering: asyncio.TimerHandle | None = None
        self._soon: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_fenced = False
        self.is_stopped = False
        self.turns = 0
        self.began = 0.0  # monotonic: when the turn that is under way began; 0: none is

    # -- placing records --------------------------------------------------------------------------------------------

    def append(
        self, lane: Lane, kind: int, flags: int, meta: bytes, content: tuple[bytes, ...], *, entry: Sequence[Any]
    ) -> tuple[int, int, int]:
        """Place a record: ordinal of its segment, offset, length of the payload. Someone must flush."""
        size = len(meta)
        length = size
        for part in content:
            length += len(part)
        segment = lane.current
        if segment is None or segment.position + length + len(segment.end) + size + SEALING > self._limit:
            segment = self._roll(lane, length + 2 * size + SEALING)
        prefix = _prefix(segment.nonce, record.VERSION, kind, flags, length, size)
        if content:
            segment.has_content = True
            if len(content[0]) < 4096:  # trace headers: cheaper copied than as one more part
                head, content = meta + content[0], content[1:]
            else:
                head = meta
            crc = crc32(head, crc32(prefix))
            for part in content:
                crc = crc32(part, crc)
            segment.parts.append(prefix + _crc(crc) + head)
            segment.parts += content
        else:
            segment.parts.append(prefix + _crc(crc32(meta, crc32(prefix))) + meta)
        offset = segment.position
        segment.position = offset + HEADER_BYTES + length
        if segment.has_end:
            end = segment.end
            end += _entry(kind, flags, offset, length, size) + meta
            if 2 * len(end) > segment.position + END_KEPT:
                segment.drop_end()
        segment.entries.append(entry)
        if not segment.is_touched:
            segment.is_touched = True
            self._touched.append((lane, segment))
            self._unsynced[segment] = lane
        return lane.first + len(lane.segments) - 1, offset, length

    def settle_done(self, lane: Lane, number: int, flags: int = record.DONE) -> None:
        """The usual settle, 32 bytes: nothing is left to do."""
        segment = lane.current
        meta = record.NUMBER.pack(number)
        if flags != record.DONE or segment is None or segment.position + len(segment.end) + 256 > self._limit:
            self.append(lane, record.SETTLE, flags, meta, (), entry=(SETTLED_DONE, flags, meta))
        else:
            crc = crc32(meta, segment.settle_crc)
            segment.parts.append(segment.settle_head + record.CRC_NUMBER.pack(crc, number))
            offset = segment.position
            segment.position = offset + HEADER_BYTES + 8
            if segment.has_end:
                segment.end += _entry(record.SETTLE, flags, offset, 8, 8) + meta
            segment.entries.append((SETTLED_DONE, flags, meta))
            if not segment.is_touched:
                segment.is_touched = True
                self._touched.append((lane, segment))
                self._unsynced[segment] = lane
            if segment.deadline and (self._soon is not None or self._is_busy):
                return
        self.settle_later(lane)

    def settle_later(self, lane: Lane) -> None:
        """Settles wait for company: written soon, synced before the segment's deadline."""
        segment = lane.current
        if segment is not None and not segment.deadline:
            segment.deadline = self._due(lane)
        if self._soon is None and not self._is_busy and not self._is_scheduled:
            wait = 0.0 if lane.state is LaneState.OPEN else self._closed_at - self._monotonic()
            self._soon = self._loop.call_later(max(APPEND_DELAY, wait), self._flush)
        if self._timer is None:
            self._timer = self._loop.call_later(self._delay, self._tick)

    def _due(self, lane: Lane) -> float:
        return self._monotonic() + (self._delay if lane.state is LaneState.OPEN else max(self._delay, CLOSED_DELAY))

    def urge(self, lane: Lane) -> None:
        """What was placed in the lane last is waited for: sync it with the next turn."""
        segment = lane.current
        if segment is not None:
            segment.is_urgent = True
        self._is_urgent = True
        if self._gathering is not None and not self.coming():
            self._gathering.cancel()
            self._gathering = None
            self._loop.call_soon(self._flush)
        else:
            self._hurry()

    def add_blob(self, blob: BlobFile) -> None:
        """Sync this blob with the turn that writes its accept."""
        self._blobs.append(blob)

    def remove(self, lane: Lane, removal: Removal) -> None:
        """Let something go once all of the lane is synced and a look was good."""
        self._removals.append((lane, removal, self._due(lane)))
        self.settle_later(lane)

    def seal(self, lane: Lane) -> None:
        """Nothing more goes into the lane's present segment; one that is mostly contents gets its `end`."""
        segment = lane.current
        if segment is None:
            return
        lane.current = None
        segment.is_sealed = True
        self._let_go(segment)
        if segment.has_content and segment.has_end:
            payload = bytes(segment.end)
            parts = record.frame(segment.nonce, record.END, 0, b"", (payload,))
            parts.append(record.footer(segment.nonce, HEADER_BYTES + len(payload)))
            segment.parts += parts
            segment.position += sum(map(len, parts))
        segment.end = bytearray()
        self._unsynced[segment] = lane
        if not segment.is_touched:
            segment.is_touched = True
            self._touched.append((lane, segment))
        if not segment.deadline:
            segment.deadline = self._due(lane)
        self.settle_later(lane)

    def is_synced(self, lane: Lane) -> bool:
        """Whether nothing of the lane waits to be written or synced."""
        return not self._is_busy and not lane.is_blocked and not any(of is lane for of in self._unsynced.values())

    def flushed(self, lane: Lane | None = None) -> asyncio.Future[None]:
        """Resolves when all that was placed (in this lane) before is synced, or given up and written again."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self.is_fenced or self.is_stopped:
            future.set_result(None)
            return future
        for segment, of in self._unsynced.items():
            if lane is None or of is lane:
                segment.is_urgent = True
        self._waiters.append(future)
        self._is_urgent = True
        self._hurry()
        return future

    def _roll(self, lane: Lane, room: int) -> Segment:
        """The segment the next record goes into: a new one where it would grow too long."""
        self.seal(lane)
        name = SegmentName(lane.claim, lane.next_k)
        lane.next_k += 1
        nonce = self._random(record.NONCE_BYTES)
        lower = tuple((*old.name, old.position) for old in lane.segments if old.name.claim < lane.claim)
        start = Start(lane.name, lane.claim, name.k, self._worker, lower)
        is_near = lane.state is LaneState.OPEN
        segment = Segment(name, log=Log(lane.folder, name, is_near=is_near), nonce=nonce)
        segment.parts = protocol.open_parts(start, nonce)
        segment.position = sum(map(len, segment.parts))
        meta = record.start_meta(start)
        segment.end += record.ENTRY.pack(record.START, 0, record.NONCE_BYTES, len(meta), len(meta)) + meta
        lane.add_segment(segment)
        lane.current = segment
        return segment

    def resume(self, lane: Lane, start: Start, nonce: bytes, opened: tuple[int, int]) -> None:
        """Go on in the segment a take-over opened (protocol.cut)."""
        fd, size = opened
        name = SegmentName(start.claim, start.k)
        log = Log(lane.folder, name, fd=fd, is_made=True)
        segment = Segment(name, size=size, log=log, nonce=nonce)
        meta = record.start_meta(start)
        segment.end += record.ENTRY.pack(record.START, 0, record.NONCE_BYTES, len(meta), len(meta)) + meta
        lane.add_segment(segment)
        lane.current = segment
        lane.next_k = start.k + 1

    # -- turns ------------------------------------------------------------------------------------------------------

    def _hurry(self) -> None:
        """Begin a turn soon: at the end of this turn of the loop, or, where the last one served several senders, when
        no message is on its way in any more, GATHER later at most: so that one write, sync and look serve more."""
        if self._is_busy or self._is_scheduled:
            return
        self._is_scheduled = True
        if self._crowd > 1 and self.coming():
            self._gathering = self._loop.call_later(GATHER, self._flush)
        else:
            self._loop.call_soon(self._flush)

    def _tick(self) -> None:
        """The coarse timer of the settles' deadlines: one for all lanes."""
        self._timer = None
        if self.is_stopped or self.is_fenced:
            return
        if self._unsynced or self._removals:
            self._timer = self._loop.call_later(self._delay, self._tick)
            self._flush()

    def _flush(self) -> None:
        """Give what was gathered to the I/O thread, unless a turn is under way (then its end does)."""
        self._is_scheduled = False
        for timer in (self._soon, self._gathering):
            if timer is not None:
                timer.cancel()
        self._soon = self._gathering = None
        if self._is_busy or self.is_stopped or self.is_fenced:
            return
        now = self._monotonic()
        batch = _Batch(self, now, is_for_all=self._is_for_all(now))
        self._take_writes(batch, now, self._take_removals(batch, now))
        batch.blobs, self._blobs = self._blobs, []
        batch.waiters, self._waiters = self._waiters, []
        self._is_urgent = False
        if not batch.writes and not batch.removals and not batch.blobs:
            for waiter in batch.waiters:
                _resolve(waiter)
            return
        self._is_busy = True
        self.began = now
        if not (self.syncer is not None and self.syncer.is_there and batch.is_short):
            self._thread.put(batch)
        else:
            self._turn_here(batch, self.syncer)

    def _turn_here(self, batch: _Batch, syncer: Syncer) -> None:
        """A short turn: write on the loop, then let the mate sync and look."""
        failures: dict[Log | BlobFile, OSError] = {}
        promising: Log | None = None
        for log, offset, parts, is_synced, _ in batch.writes:
            try:
                protocol.run(self._disk, protocol.append(log, offset, parts))
            except OSError as error:
                failures[log] = error
            else:
                promising = log if is_synced else promising
        if promising is not None:

            def done(error: OSError | None, look: Look, at: float) -> None:
                if error is not None:
                    failures[promising] = error
                self.turned(batch, Turned(look, at, failures))

            try:
                syncer.sync(promising, done)
                return
            except OSError as error:  # it was not asked
                failures[promising] = error
        self.turned(batch, Turned(None, 0.0, failures))

    def _let_go(self, segment: Segment) -> None:
        """Nothing more is written to this segment in a short turn."""
        if self.syncer is not None and segment.log is not None:
            self.syncer.forget(segment.log)

    def _is_for_all(self, now: float) -> bool:
        """Whether this turn writes to closed lanes too, though nobody there waits."""
        is_for_all = not self._is_urgent or (now >= self._closed_at and not self._was_for_all)
        self._was_for_all = is_for_all
        if is_for_all:
            self._closed_at = now + CLOSED_EVERY
        return is_for_all

    def _take_removals(self, batch: _Batch, now: float) -> set[Lane]:
        """Removals go when they are due, or the turn is urgent anyway; all of their lanes is synced before."""
        later = []
        lanes = set()
        for lane, removal, due in self._removals:
            if lane.is_blocked or lane.rest_until > now or not (self._is_urgent or due <= now):
                later.append((lane, removal, due))
            else:
                batch.removals.append(removal)
                lanes.add(lane)
        self._removals = later
        return lanes

    def _take_writes(self, batch: _Batch, now: float, removing: set[Lane]) -> None:
        """What has parts is written; what is due, waited for or about to lose a segment is also synced. In a turn
        that somebody waits for, closed lanes have their part only now and then."""
        left: list[tuple[Lane, Segment]] = []
        is_urgent, is_for_all = self._is_urgent, batch.is_for_all
        room = MOST_SYNCS if is_for_all else 0
        for lane, segment in self._touched:
            is_open = lane.state is LaneState.OPEN
            is_asked = is_open or segment.is_urgent or lane in removing
            if lane.rest_until > now or not (is_for_all or is_asked):
                left.append((lane, segment))
                continue
            segment.is_touched = False
            is_due = 0 < segment.deadline <= now and (is_asked or room > 0)
            room -= is_due and not is_asked
            is_synced = is_due or segment.is_urgent or lane in removing or (is_urgent and is_open)
            batch.add(lane, segment, is_synced=is_synced)
        self._touched = left
        may_be_asked = is_for_all or removing or self._waiters
        if may_be_asked and len(self._unsynced) > len(batch.entries):
            for segment, lane in self._unsynced.items():
                if segment.is_touched or segment in batch.entries or lane.rest_until > now:
                    continue
                is_due = 0 < segment.deadline <= now
                if segment.is_urgent or lane in removing or (is_due and (lane.state is LaneState.OPEN or room > 0)):
                    room -= 1
                    batch.add(lane, segment, is_synced=True)
        self._has_more = is_for_all and room <= 0
        for segment in batch.entries:
            self._unsynced.pop(segment, None)

    def turned(self, batch: _Batch, turned: Turned) -> None:
        """On the loop: tell everyone how it went, and go on with what gathered meanwhile."""
        self._is_busy = False
        self.turns += 1
        now = self._monotonic()
        seconds, self.began = now - self.began, 0.0
        if self.is_stopped:
            return
        if turned.look is Look.FENCED:
            self._fence(batch)
            return
        if turned.look is Look.OPEN:
            self._owner.looked(turned.at, seconds)
        for lane, segment, position in batch.segments:
            error = turned.failures.get(segment.log) if segment.log is not None else None
            if error is not None:
                self._give_up(lane, segment, error, batch.entries.get(segment, []))
                continue
            segment.written = position
            if segment in batch.entries:
                self._confirm(lane, batch.entries[segment], turned)
        for waiter in batch.waiters:
            _resolve(waiter)
        self._go_on()

    def _go_on(self) -> None:
        if self._is_urgent:
            self._hurry()
        elif self._has_more:
            self._closed_at = 0.0
            self._hurry()
        elif self._touched and self._soon is None:
            is_open = any(lane.state is LaneState.OPEN for lane, _ in self._touched)
            wait = 0.0 if is_open else self._closed_at - self._monotonic()
            self._soon = self._loop.call_later(max(APPEND_DELAY, wait), self._flush)

    def _confirm(self, lane: Lane, entries: list[Sequence[Any]], turned: Turned) -> None:
        """These records are synced."""
        lane.failures = 0
        is_open = turned.look is Look.OPEN
        flags = lane.flags
        accepted = 0
        for entry in entries:
            kind = entry[0]
            if kind == ACCEPTED:
                accepted += 1
                _, row, future, stored, blob = entry
                if is_open and (blob is None or blob not in turned.failures):
                    flags[row] &= ~PENDING
                    self._owner.synced(lane, row, future, stored)
                else:
                    error = turned.failures.get(blob) if blob is not None else None
                    what = f"blob: {error}" if error else "no look at the latch succeeded"
                    self._refuse(lane, row, future, Temporary(TROUBLE, what))
            elif kind == SETTLED:
                entry[5]()
            elif kind == OTHER:
                entry[1]()
        if accepted:
            self._crowd = accepted

    def _refuse(self, lane: Lane, row: int, future: asyncio.Future[Any], failure: Temporary) -> None:
        number = self._owner.refused(lane, row, future, failure)
        self.settle_done(lane, number, record.REFUSED)

    def _give_up(self, lane: Lane, segment: Segment, error: OSError, entries: list[Sequence[Any]]) -> None:
        """Nothing more goes into this segment; what of it was not synced goes to the next one, or is refused."""
        self._let_go(segment)
        entries = entries + segment.entries
        segment.entries = []
        segment.parts = []
        segment.end = bytearray()
        segment.is_lost = segment.is_sealed = True
        segment.is_urgent = False
        self._unsynced.pop(segment, None)
        if segment.is_touched:
            segment.is_touched = False
            self._touched = [one for one in self._touched if one[1] is not segment]
        if lane.current is segment:
            lane.current = None
        lane.failures += 1
        lane.is_blocked = True
        if lane.failures > 1:
            lane.rest_until = self._monotonic() + min(5.0, 0.1 * 2.0 ** min(lane.failures, 10))
        self._owner.gave_up(lane, segment, error)
        reply = FULL if error.errno in protocol.FULL_ERRORS else TROUBLE
        failure = Temporary(reply, f"segment given up: {error}")
        if not lane.folder.is_made:
            self._forget(lane, entries, failure)
            return
        self._write_again(lane, entries, failure)

    def _write_again(self, lane: Lane, entries: list[Sequence[Any]], failure: Temporary) -> None:
        for entry in entries:
            kind = entry[0]
            if kind == ACCEPTED:
                self._refuse(lane, entry[1], entry[2], failure)
            elif kind == SETTLED_DONE:
                self.settle_done(lane, record.NUMBER.unpack_from(entry[2])[0], entry[1])
            elif kind == SETTLED:
                _, flags, meta, content, placed, _, _ = entry
                placed(*self.append(lane, record.SETTLE, flags, meta, content, entry=entry))
            else:
                entry[2](failure)
        # The lane sends dots again once all of this is synced: an entry of its own tells when.
        meta = record.try_meta([])
        self.append(lane, record.TRY, 0, meta, (), entry=(OTHER, lambda: _unblock(lane), lambda _: None))
        for segment, of in self._unsynced.items():
            if of is lane:
                segment.is_urgent = True
        self.urge(lane)
        if lane.rest_until:
            self._loop.call_later(max(0.0, lane.rest_until - self._monotonic()) + 0.001, self._wake)

    def _wake(self) -> None:
        self._is_urgent = True
        self._flush()

    def _forget(self, lane: Lane, entries: list[Sequence[Any]], failure: Temporary) -> None:
        """The lane never came to be."""
        for entry in entries:
            if entry[0] == ACCEPTED:
                self._owner.refused(lane, entry[1], entry[2], failure)
            elif entry[0] == OTHER:
                entry[2](failure)
        self._owner.lost_lane(lane)

    def _fence(self, batch: _Batch | None) -> None:
        """This worker may promise nothing any more: everyone who waits is told, nothing more is written."""
        if self.is_fenced:
            return
        self.is_fenced = True
        failure = Temporary(TROUBLE, "this worker is fenced")
        gathered = [(lane, batch.entries.get(segment, [])) for lane, segment, _ in batch.segments] if batch else []
        gathered += [(lane, segment.entries) for segment, lane in self._unsynced.items()]
        for lane, entries in gathered:
            for entry in entries:
                if entry[0] == ACCEPTED:
                    self._owner.refused(lane, entry[1], entry[2], failure)
                elif entry[0] == OTHER:
                    entry[2](failure)
                elif entry[0] == SETTLED:
                    entry[6](failure)
        for waiter in (batch.waiters if batch else []) + self._waiters:
            _resolve(waiter)
        self._owner.fenced()

    def looked(self, look: Look, at: float) -> None:
        """The result of a look outside of a turn."""
        if look is Look.FENCED:
            self._fence(None)
        elif look is Look.OPEN and not self.is_fenced:
            self._owner.looked(at, 0.0)

    def stop(self) -> None:
        """No more turns."""
        self.is_stopped = True
        for timer in (self._timer, self._soon, self._gathering):
            if timer is not None:
                timer.cancel()
        if self.syncer is not None:
            self.syncer.stop()

    # -- in the I/O thread ------------------------------------------------------------------------------------------

    def work(self, batch: _Batch) -> None:
        """One turn: make its calls, tell the loop once, then close what is no longer needed."""
        if self.is_fenced:  # said by a look while this one waited in line
            self._thread.tell(self.turned, batch, Turned(Look.FENCED, 0.0, {}))
            return
        thread = self._thread

        def tell(turned: Turned) -> None:
            thread.tell(self.turned, batch, turned)

        steps = protocol.turn(self._worker, batch.writes, batch.blobs, batch.removals, tell=tell, now=self._monotonic)
        try:
            turned = protocol.run(self._disk, steps)
        except Exception as error:  # our own fault: nothing of this turn may be promised
            failures: dict[Log | BlobFile, OSError] = {
                write.log: OSError(errno.EIO, f"internal: {error!r}") for write in batch.writes
            }
            turned = Turned(Look.UNKNOWN, 0.0, failures)
            thread.tell(self._loop.call_exception_handler, {"message": "a turn of the spool", "exception": error})
            thread.tell(self.turned, batch, turned)
        self._close_unused(batch, turned)

    def _close_unused(self, batch: _Batch, turned: Turned) -> None:
        for blob in batch.blobs:
            self._close(blob)
        for write in batch.writes:
            log = write.log
            self._open.pop(log, None)
            if log in turned.failures or (write.is_last and write.is_synced):
                self._close(log)
            elif log.fd >= 0:
                self._open[log] = None
        if len(self._open) > MOST_OPEN:
            synced = {write.log for write in batch.writes if write.is_synced}
            idle = [log for log in self._open if log in synced and not log.is_near]
            for log in idle[: len(self._open) - MOST_OPEN]:
                del self._open[log]
                self._close(log)

    def _close(self, file: Log | BlobFile) -> None:
        if file.fd >= 0:
            fd, file.fd = file.fd, -1
            try:
                self._disk.close(fd)
            except OSError:
                pass  # its data was synced before, or it is given up

    def close_logs(self, lane: Lane) -> asyncio.Future[None]:
        """The lane is no longer ours."""
        logs = [segment.log for segment in lane.segments if segment.log is not None]
        for segment in lane.segments:
            self._let_go(segment)

        def close() -> None:
            for log in logs:
                self._open.pop(log, None)
                self._close(log)

        return self._thread.call(close)

    def close_all(self) -> None:
        """In the I/O thread, at the end."""
        for log in list(self._open):
            self._close(log)
        self._open.clear()


class _Batch:
    """What one turn is made of."""

    __slots__ = ("blobs", "entries", "is_for_all", "journal", "now", "removals", "segments", "waiters", "writes")

    def __init__(self, journal: Journal, now: float, *, is_for_all: bool) -> None:
        self.journal = journal
        self.now = now
        self.is_for_all = is_for_all  # closed lanes where nobody waits have their part in it
        self.writes: list[Write] = []
        self.segments: list[tuple[Lane, Segment, int]] = []  # with the offset up to which it is written
        self.entries: dict[Segment, list[Sequence[Any]]] = {}  # of the segments that are synced
        self.blobs: list[BlobFile] = []
        self.removals: list[Removal] = []
        self.waiters: list[asyncio.Future[None]] = []

    def add(self, lane: Lane, segment: Segment, *, is_synced: bool) -> None:
        log = segment.log
        if log is None or segment.is_lost:
            return
        parts, segment.parts = segment.parts, []
        offset, segment.parts_at = segment.parts_at, segment.position
        self.writes.append(Write(log, offset, parts, is_synced, segment.is_sealed))
        self.segments.append((lane, segment, segment.position))
        if is_synced:
            self.entries[segment] = segment.entries
            segment.entries = []
            segment.is_urgent = False
            segment.deadline = 0.0

    @property
    def is_short(self) -> bool:
        """Only appends to open segments of lanes that take mail, at most one of them to be synced, and not much."""
        if self.blobs or self.removals or len(self.entries) > 1:
            return False
        for (lane, segment, end), (log, offset, parts, _, is_last) in zip(self.segments, self.writes, strict=True):
            if lane.state is not LaneState.OPEN or segment.is_lost or is_last or end - offset > SHORT:
                return False
            if not (log.is_near and log.is_linked and log.fd >= 0 and len(parts) <= IOV_MAX):
                return False
        return True

    def work(self) -> None:
        self.journal.work(self)


def _unblock(lane: Lane) -> None:
    lane.is_blocked = False
    lane.rest_until = 0.0


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
