"""The spool of one worker: accept, try, settle, read back. The public face of this room.

Rules of this file
- Loop thread only. What is told here is encoded at once and synced with the next turn (journal.py).
- 250 may be said when the future of `commit` has its result, never before.
- Nothing here waits for the volume except what says `async` or gives a future.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any

from posthof_crds.engine import SpoolSettings

from ..model import Envelope, Held, Settlement
from ..replies import Reply, Temporary
from . import layout, record
from .adopt import Adopter
from .blob import Blob, BlobReader
from .cache import Live, Stored
from .core import LOOK_LASTS, Callbacks, Core, OnEvent
from .journal import ACCEPTED, OTHER, SETTLED, TROUBLE
from .keeper import Keeper
from .lane import BLOB, LIVE, NESTED, PENDING, TRIED, Gone, Lane, LaneState
from .liveness import Liveness
from .reader import Reader
from .record import IS_DONE, IS_NOTIFIED, IS_TRIED, STATE, Accept, Damaged, Settle, State
from .volume import Disk, Volume

NO_STATES = b""  # of a message whose recipients are all new
_MAY_BE_SENT = LIVE | TRIED
TRY_IDS = 100  # ids one `try` record names

CLOSING = Reply(421, "4.3.2", "System not accepting network messages")


class Spool:
    """One per worker."""

    def __init__(
        self,
        settings: SpoolSettings,
        *,
        worker_id: str,
        loop: asyncio.AbstractEventLoop,
        liveness: Liveness,
        on_live: Callable[[list[Live]], object],
        on_event: OnEvent,
        on_gone: Callable[[list[int]], Collection[int] | None] = lambda refs: None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        volume: Disk | None = None,
        random: Callable[[int], bytes] = os.urandom,
        max_live: int = 1_500_000,
        has_mate: bool = False,
    ) -> None:
        """`worker_id`: random, made at every start (layout.new_worker). `max_live`: messages this worker takes over
        at most; lanes beyond that are left to others and counted as unowned. `has_mate`: a process beside this one
        may do the syncs (mate.py); `monotonic` must be the system's then.

        `on_live` gets slices of what was replayed, `on_gone` the refs of a lane that goes to a peer (it returns those
        that are in a session right now), `on_event` everything a person may want to know, by name.
        """
        disk = Volume(settings.path, sync=settings.sync) if volume is None else volume
        self._core = core = Core(
            settings,
            worker_id,
            loop,
            disk,
            Callbacks(on_live, on_gone, on_event),
            clock=clock,
            monotonic=monotonic,
            random=random,
            has_mate=has_mate,
        )
        self.worker_id = worker_id
        self._loop = loop
        self._lanes = core.lanes
        self._journal = core.journal
        self._cache = core.cache
        self._reading = Reader(core)
        self._orphans: set[asyncio.Task[None]] = set()
        core.on_orphan = self._follow_orphan
        self._adopter = Adopter(core, liveness, max_live=max_live)
        self._keeper = Keeper(core, self._adopter)

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make this worker known on the volume, then take over in the background what dead ones left.

        OSError: the volume cannot be used.
        """
        await self._keeper.start()

    async def stop(self, *, is_quiet: bool = False) -> None:
        """Settle, sync, give the lanes free for others, leave no trace of this worker. Sessions have ended before;
        `is_quiet`: by themselves, so that whoever has no outcome was not sent anything."""
        await self._keeper.stop(is_quiet=is_quiet)

    def abandon(self) -> None:
        """End the threads and leave everything as it is: what a fenced worker does, and what a kill would."""
        self._keeper.abandon()

    async def adopt_now(self) -> int:
        """Take over what dead workers left, now: how many lanes. (Also done once a second.)"""
        return await self._adopter.scan(is_thorough=True)

    @property
    def is_fenced(self) -> bool:
        """Someone judged this worker dead: it must exit."""
        return self._journal.is_fenced

    # -- accept -----------------------------------------------------------------------------------------------------

    def expect(self, coming: Callable[[], int]) -> None:
        """`coming()`: how many messages are on their way in. A turn waits a moment for them while there are many."""
        self._journal.coming = coming

    def next_id(self, ref: int | None = None) -> str:
        """The id for a message about to be committed; for a report (`ref`: of what caused it) in the same lane."""
        lane = self._core.lane_for_mail() if ref is None else self._find(ref)[0]
        number = lane.next_number
        lane.next_number = number + 1
        if ref is None:
            lane.promised += 1
        return f"{lane.name}-{number}"

    def commit(
        self,
        envelope: Envelope,
        trace: bytes,
        body: bytes | Blob,
        *,
        at_once: bool,
        waiting: tuple[Held, ...] = (),
    ) -> asyncio.Future[Stored]:
        """Make a message durable. `envelope.id` is from `next_id`, or the blob's. `at_once`: its first attempt
        follows directly, so no `try` record will be needed. `waiting`: where each recipient stands from the start,
        when that is not "due at once" for all (a hold).

        The future fails with Temporary. It must not be dropped: a message whose future was cancelled is told to
        `on_live` once it is synced.
        """
        core = self._core
        future: asyncio.Future[Stored] = self._loop.create_future()
        try:
            lane, number = self._lane_of(envelope.id)
            if isinstance(body, Blob) or len(body) > core.settings.blob_threshold:
                self._commit_blob(future, lane, number, (envelope, trace, body, at_once), waiting)
                return future
        except Temporary as failure:
            if isinstance(body, Blob):
                body.abort()
            future.set_exception(failure)
            return future
        count = len(envelope.recipients)
        states = record.pack_states(waiting, count) if waiting else NO_STATES
        meta = record.accept_meta(number, Accept(envelope, len(trace), None, bytes(states)))
        entry: list[Any] = [ACCEPTED, 0, future, None, None]  # completed below, before any turn looks at it
        flags, in_memory = (record.AT_ONCE, PENDING | TRIED) if at_once else (0, PENDING)
        place = self._journal.append(lane, record.ACCEPT, flags, meta, (trace, body), entry=entry)
        lane.promised -= 1
        row = lane.add(number, place, count, in_memory)
        if count > 1 and waiting:
            lane.multi[row] = bytearray(states)
        core.live += 1
        entry[1] = row
        entry[3] = stored = Stored(lane.slot << 32 | lane.generations[row] << 24 | row, envelope, trace, body)
        self._cache.add(stored)
        self._journal.urge(lane)
        return future

    def _commit_blob(
        self,
        future: asyncio.Future[Stored],
        lane: Lane,
        number: int,
        mail: tuple[Envelope, bytes, bytes | Blob, bool],
        waiting: tuple[Held, ...],
    ) -> None:
        """As `commit`, for content in a file of its own. Temporary: it could not be written."""
        envelope, trace, body, at_once = mail
        if isinstance(body, bytes):
            blob = self._make_blob(lane, number)
            blob.write(body)
        else:
            blob = body
        note = blob.finish()
        states = record.pack_states(waiting, len(envelope.recipients)) if waiting else bytearray()
        meta = record.accept_meta(number, Accept(envelope, len(trace), note, bytes(states)))
        entry: list[Any] = [ACCEPTED, 0, future, None, blob.file]
        flags, in_memory = (record.AT_ONCE, PENDING | TRIED | BLOB) if at_once else (0, PENDING | BLOB)
        place = self._journal.append(lane, record.ACCEPT, flags, meta, (trace,), entry=entry)
        lane.promised -= 1
        row = lane.add(number, place, len(envelope.recipients), in_memory)
        if len(envelope.recipients) > 1 and waiting:
            lane.multi[row] = states
        self._core.live += 1
        entry[1] = row
        entry[3] = stored = Stored(lane.ref(row), envelope, trace, self._reader(lane, note))
        self._cache.add(stored)
        self._journal.add_blob(blob.file)
        blob.committed()
        self._journal.urge(lane)

    def _follow_orphan(self, ref: int) -> None:
        """A message is durable and its future was cancelled: the engine must hear of it, as from a replay."""
        task = self._loop.create_task(self._tell_orphan(ref))
        self._orphans.add(task)
        task.add_done_callback(self._orphans.discard)

    async def _tell_orphan(self, ref: int) -> None:
        try:
            self._core.callbacks.on_live([await self._reading.live(ref)])
        except (Damaged, Gone, Temporary) as error:
            self._core.event("unreadable", lane="", number=ref, error=str(error))  # the next start replays it

    def blob(self) -> Blob:
        """A sink for content over the threshold. Its `id` is the message's; commit or abort it."""
        lane = self._core.lane_for_mail()
        number = lane.next_number
        lane.next_number = number + 1
        lane.promised += 1
        return self._make_blob(lane, number)

    def _make_blob(self, lane: Lane, number: int) -> Blob:
        lane.open_blobs += 1
        return Blob(self._core.disk, self._core.thread, lane, number, self)

    def blob_ended(self, blob: Blob) -> None:
        blob.lane.open_blobs -= 1

    def _lane_of(self, message: str) -> tuple[Lane, int]:
        """The lane an id was made for. Temporary: it may not be written now."""
        name, _, number = message.rpartition("-")
        lane = self._core.by_name.get(name)
        if lane is None or not lane.takes_mail or lane.failures > 1:
            raise Temporary(TROUBLE, f"lane {name} is no longer ours, or cannot be written")
        if self._journal.is_fenced:
            raise Temporary(TROUBLE, "this worker is fenced")
        if self._core.is_stopping:
            raise Temporary(CLOSING, "stopping")
        return lane, int(number)

    # -- deliver ----------------------------------------------------------------------------------------------------

    def tried(self, refs: Collection[int]) -> asyncio.Future[None]:
        """Put on record that these messages may now be given to a session; dots may follow once the future is done.
        Temporary: they may not. Refs of messages that are gone are left out."""
        future: asyncio.Future[None] = self._loop.create_future()
        by_lane: dict[Lane, list[int]] = {}
        for ref in refs:
            try:
                lane, row = self._find(ref)
            except Gone:
                continue
            if lane.is_writable and (not lane.flags[row] & TRIED or row in lane.multi):
                by_lane.setdefault(lane, []).append(ref)
        if self._journal.is_fenced:
            future.set_exception(Temporary(TROUBLE, "this worker is fenced"))
            return future
        waiting = 0

        def synced(lane: Lane, some: list[int]) -> None:
            nonlocal waiting
            waiting -= 1
            lane.trying.difference_update(some)
            for ref in some:
                _mark_tried(lane, ref)
            if waiting == 0 and not future.done():
                future.set_result(None)

        def failed(lane: Lane, some: list[int], failure: Temporary) -> None:
            lane.trying.difference_update(some)
            if not future.done():
                future.set_exception(failure)
                future.exception()  # a session that ended meanwhile does not ask

        for lane, found in by_lane.items():
            for first in range(0, len(found), TRY_IDS):
                some = found[first : first + TRY_IDS]
                meta = record.try_meta([lane.numbers[ref & 0xFFFFFF] for ref in some])
                waiting += 1
                lane.trying.update(some)
                entry = (OTHER, partial(synced, lane, some), partial(failed, lane, some))
                self._journal.append(lane, record.TRY, 0, meta, (), entry=entry)
            self._journal.urge(lane)
        if not by_lane:
            future.set_result(None)
        return future

    def may_dot(self, ref: int, recipients: Collection[int] = ()) -> bool:
        """Whether the final dot of this message may be sent now. False: look, and ask again; else drop the
        connection without it. `recipients`: of those the message is sent to, where it has several."""
        core = self._core
        lane = self._lanes.get(ref >> 32)
        if lane is None or lane.is_blocked or not lane.is_writable:
            return False
        if self._journal.is_fenced or core.monotonic() - core.last_look >= LOOK_LASTS:
            return False
        row = ref & 0xFFFFFF
        if row >= len(lane.flags) or lane.generations[row] != ref >> 24 & 0xFF:
            return False
        if lane.flags[row] & _MAY_BE_SENT != _MAY_BE_SENT:
            return False
        if lane.state is not LaneState.OPEN and lane.state is LaneState.LEAVING and ref not in lane.busy:
            return False
        states = lane.multi.get(row) if lane.multi else None
        if states is not None and not all(states[at * STATE.size] & IS_TRIED for at in recipients):
            return False
        core.dots += 1
        return True

    async def look(self) -> bool:
        """Look at the latch now. False: fenced, or the volume does not answer: no promise."""
        return await self._core.look()

    def settle(
        self,
        ref: int,
        settlement: Settlement,
        report: tuple[Envelope, bytes, bytes] | None = None,
        *,
        at_once: bool = True,
    ) -> asyncio.Future[Stored] | None:
        """Put on record what a try changed: recipients that are done, when the others are due, the report it caused
        (both or neither: one record). Written soon, synced within `settle_delay`.

        With a report the future has it once it is durable; `at_once` is of its first attempt. A message that went to
        another worker meanwhile is left alone, counted as a possible duplicate.
        """
        try:
            lane = self._lanes[ref >> 32]
            row = lane.row(ref)
        except LookupError:
            self._settle_late(ref)
            return None
        if not lane.is_writable or self._journal.is_fenced:
            self._settle_late(ref)
            return None
        if lane.busy:
            lane.busy.discard(ref)
            if not lane.busy and lane.quiet is not None:
                lane.quiet.set()
        if report is None and lane.counts[row] == 1 and settlement.done:
            number = lane.numbers[row]
            self._journal.settle_done(lane, number)
            self._drop(lane, row, ref, number)
            return None
        states = self._states_after(lane, row, settlement)
        is_done = all(states[at] & IS_DONE for at in range(0, len(states), STATE.size))
        if report is None and is_done:
            number = lane.numbers[row]
            self._journal.settle_done(lane, number)
            self._drop(lane, row, ref, number)
            return None
        return self._settle_slow(lane, row, (settlement, states, is_done), report, at_once)

    def _settle_late(self, ref: int) -> None:
        self._core.counters.late_settles += 1
        self._core.event("settled_late", ref=ref)

    def _drop(self, lane: Lane, row: int, ref: int, number: int) -> None:
        """Nothing is left to do for this message, and that is on record."""
        core = self._core
        core.counters.settled += 1
        if lane.flags[row] & BLOB:
            core.remove_blob(lane, number)
        self._cache.drop(ref)
        lane.drop(row)
        core.live -= 1
        oldest = lane.segments[0]
        if oldest.live == 0 and (oldest is not lane.current or lane.live == 0):
            core.tidy(lane)

    def _states_after(self, lane: Lane, row: int, settlement: Settlement) -> bytearray:
        """The present state of all recipients, with the settlement in it."""
        count = lane.counts[row]
        known = lane.multi.get(row)
        if known is not None:
            states = bytearray(known)
        else:
            tried = IS_TRIED if lane.flags[row] & TRIED else 0
            states = bytearray(STATE.pack(tried, 0, 0.0) * count)
        for at in settlement.done:
            STATE.pack_into(states, at * STATE.size, IS_DONE, 0, 0.0)
        for held in settlement.waiting:
            flags = IS_NOTIFIED if held.notified else 0
            STATE.pack_into(states, held.recipient * STATE.size, flags, min(held.attempts, 0xFFFF), held.due)
        return states

    def _settle_slow(
        self,
        lane: Lane,
        row: int,
        after: tuple[Settlement, bytearray, bool],
        report: tuple[Envelope, bytes, bytes] | None,
        at_once: bool,
    ) -> asyncio.Future[Stored] | None:
        """A settle after which recipients still wait, or with a report in it."""
        settlement, states, is_done = after
        number, ref = lane.numbers[row], lane.ref(row)
        future: asyncio.Future[Stored] | None = None
        flags = record.DONE if is_done else 0
        settle = Settle(bytes(states), settlement.reason, settlement.detail)
        content: tuple[bytes, ...] = ()
        nested = 0
        if report is not None:
            envelope, trace, body = report
            future = self._loop.create_future()
            flags |= record.REPORT | (record.AT_ONCE if at_once else 0)
            nested = self._number_of(lane, envelope.id)
            accept = Accept(envelope, len(trace))
            settle = Settle(settle.states, settle.reason, settle.detail, nested, accept)
            content = (trace, body)
        placed = _Placed(self, lane, ref, number, is_done=is_done)
        if future is not None and report is not None:
            placed.expect(future, report, nested, at_once=at_once)
        entry = (SETTLED, flags, record.settle_meta(number, settle), content, placed, placed.synced, placed.failed)
        placed(*self._journal.append(lane, record.SETTLE, flags, entry[2], content, entry=entry))
        if is_done:
            self._drop(lane, row, ref, number)
        else:
            self._cache.drop(ref)
            self._remember(lane, row, states)
        self._journal.settle_later(lane)
        return future

    def _remember(self, lane: Lane, row: int, states: bytearray) -> None:
        """Keep in memory what the next settle and the dots need to know."""
        if lane.counts[row] > 1:
            lane.multi[row] = states
        open_tries = any(states[at] & (IS_TRIED | IS_DONE) == IS_TRIED for at in range(0, len(states), STATE.size))
        if open_tries:
            lane.flags[row] |= TRIED
        else:
            lane.flags[row] &= ~TRIED & 0xFF

    def _number_of(self, lane: Lane, message: str) -> int:
        """The number of a report in the lane of what caused it; one of its own where its id is of another lane."""
        name, _, number = message.rpartition("-")
        if name == lane.name:
            return int(number)
        lane.next_number += 1
        return lane.next_number - 1

    # -- read back --------------------------------------------------------------------------------------------------

    def read(self, ref: int) -> Stored | Awaitable[Stored]:
        """The message: at once where it is cached, else an awaitable that reads it from the volume, checked.

        The awaitable raises Damaged (the bytes are not what was written), Gone (done, or another worker's), Temporary
        (the volume does not answer).
        """
        return self._cache.get(ref) or self._read(ref)

    async def envelope(self, ref: int) -> Envelope:
        """Raises as `read` does."""
        return (self._cache.get(ref) or await self._read(ref)).envelope

    async def envelopes(self, refs: Sequence[int]) -> list[Envelope | Exception]:
        """As `envelope` of many, read in one go. Where one cannot be had stands what `read` would raise."""
        cached = [self._cache.get(ref) for ref in refs]
        missing = [ref for ref, stored in zip(refs, cached, strict=True) if stored is None]
        found = iter(await self._reading.accepts(missing) if missing else ())
        envelopes: list[Envelope | Exception] = []
        for stored in cached:
            if stored is not None:
                envelopes.append(stored.envelope)
            else:
                accept = next(found)
                envelopes.append(accept if isinstance(accept, Exception) else accept.envelope)
        return envelopes

    async def state(self, ref: int) -> State:
        """Where its recipients stand, and why: the last settle, from the volume. Raises as `read` does."""
        return await self._reading.state(ref)

    async def _read(self, ref: int) -> Stored:
        found = await self._reading.accept(ref)
        accept = found.accept
        if accept.blob is not None:
            return Stored(ref, accept.envelope, found.trace, self._reader(self._find(ref)[0], accept.blob))
        return Stored(ref, accept.envelope, found.trace, found.body or b"")

    def _reader(self, lane: Lane, note: record.BlobNote) -> BlobReader:
        return BlobReader(self._core.disk, self._loop, self._core.readers, lane.name, note)

    def _find(self, ref: int) -> tuple[Lane, int]:
        """Gone: it is done, or its lane is another's."""
        lane = self._lanes.get(ref >> 32)
        if lane is None:
            raise Gone(ref)
        return lane, lane.row(ref)

    def id_of(self, ref: int) -> str:
        """The message's id as the lane counts it. Gone: it is done, or its lane is another's."""
        lane, row = self._find(ref)
        return layout.message_id(lane.name, lane.numbers[row])

    def find(self, message: str) -> int | None:
        """The ref of a live message of this worker, by its id."""
        try:
            name, number = layout.take_apart(message)
            lane = self._core.by_name[name]
            row = lane.numbers.index(number)
        except (ValueError, KeyError, OverflowError):
            return None
        return lane.ref(row) if lane.flags[row] & LIVE else None

    # -- the whole --------------------------------------------------------------------------------------------------

    @property
    def live(self) -> int:
        """Live messages."""
        return self._core.live

    @property
    def has_looked(self) -> bool:
        """Whether this worker has begun: it may own something."""
        return self._core.last_look != float("-inf")

    @property
    def look_age(self) -> float:
        """Seconds since the last good look at the latch."""
        return self._core.monotonic() - self._core.last_look

    def room(self, size: int) -> bool:
        """Whether a message of this many bytes may come: space, inodes, the volume's speed and health."""
        return not self._journal.is_fenced and self._keeper.space.room(size)

    def note_late(self, seconds: float) -> None:
        """How late the oldest ready message is that no destination's limit holds back: peers may help (sharing)."""
        self._keeper.late = seconds

    def lanes(self) -> list[dict[str, object]]:
        """What this worker owns, for people."""
        return [
            {
                "lane": lane.name,
                "claim": lane.claim,
                "state": lane.state.value,
                "live": lane.live,
                "bytes": lane.size,
                "live_bytes": lane.live_bytes,
                "segments": len(lane.segments),
            }
            for lane in self._lanes.values()
        ]

    def stats(self) -> dict[str, float]:
        """Numbers for metrics."""
        core, counters = self._core, self._core.counters
        return {
            **vars(counters),
            "possible_duplicates": counters.possible_duplicates,
            "live": core.live,
            "lanes": len(core.lanes),
            "bytes": sum(lane.size for lane in core.lanes.values()),
            "cached_bytes": self._cache.used,
            "turns": self._journal.turns,
            "turn_seconds": core.turn_seconds,
            "look_age": core.monotonic() - core.last_look,
            "unowned_lanes": self._adopter.unowned,
            "poisoned_lanes": len(self._adopter.poisoned),
            "is_full": float(not self._keeper.space.room(0)),
            **self._keeper.space.stats(),
        }


class _Placed:
    """Follows one settle record: where it lies (also when it is written again), and when its report is durable."""

    __slots__ = (
        "_future",
        "_is_done",
        "_lane",
        "_nested_flags",
        "_nested_row",
        "_number",
        "_ref",
        "_report",
        "_spool",
    )

    def __init__(self, spool: Spool, lane: Lane, ref: int, number: int, *, is_done: bool) -> None:
        self._spool = spool
        self._lane = lane
        self._ref = ref
        self._is_done = is_done
        self._number = 0
        self._future: asyncio.Future[Stored] | None = None
        self._report: tuple[Envelope, bytes, bytes] | None = None
        self._nested_row = -1
        self._nested_flags = 0

    def expect(
        self, future: asyncio.Future[Stored], report: tuple[Envelope, bytes, bytes], number: int, *, at_once: bool
    ) -> None:
        self._future = future
        self._report = report
        self._number = number
        self._nested_flags = NESTED | PENDING | (TRIED if at_once else 0)

    def __call__(self, ordinal: int, offset: int, length: int) -> None:
        """The record was placed."""
        lane = self._lane
        if self._report is not None:
            if self._nested_row < 0:
                count = len(self._report[0].recipients)
                self._nested_row = lane.add(self._number, (ordinal, offset, length), count, self._nested_flags)
                self._spool._core.live += 1
            else:
                lane.move(self._nested_row, ordinal, offset, length)
        if not self._is_done:
            try:
                lane.set_state_at(lane.row(self._ref), ordinal, offset)
            except Gone:
                return  # a later settle ended it

    def synced(self) -> None:
        if self._future is None or self._report is None:
            return
        lane, row = self._lane, self._nested_row
        lane.flags[row] &= ~PENDING & 0xFF
        envelope, trace, body = self._report
        stored = Stored(lane.ref(row), envelope, trace, body)
        self._spool._cache.add(stored)
        self._spool._core.synced(lane, row, self._future, stored)

    def failed(self, failure: Temporary) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_exception(failure)


def _mark_tried(lane: Lane, ref: int) -> None:
    try:
        row = lane.row(ref)
    except Gone:
        return
    lane.flags[row] |= TRIED
    states = lane.multi.get(row)
    if states is not None:
        lane.multi[row] = bytearray(record.mark_tried(states))
