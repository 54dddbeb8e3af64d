"""What the parts of the spool share: the lanes this worker owns, and the few verbs all of them need.

Loop thread only. It answers the journal (`journal.Owner`) and tells the engine through the callbacks it was given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from posthof_crds.engine import SpoolSettings

from ..replies import Temporary
from . import layout, protocol, record
from .cache import Cache, Live, Stored
from .iothread import IOThread
from .journal import Journal
from .lane import BLOB, Lane, LaneState, Segment
from .protocol import Folder, Removal, Steps
from .record import Start
from .syncer import Syncer
from .volume import Disk, Volume

T = TypeVar("T")

LOOK_LASTS = 1.0  # seconds a good look allows dots
SYNC_TRIES = 300
READ_JOBS = 2  # reader threads at work on messages
READS_A_JOB = 16
STALE_NUMBERS = 600.0  # seconds after which numbers handed out without a commit are given up


class OnEvent(Protocol):
    def __call__(self, name: str, /, **fields: object) -> None: ...


class Callbacks:
    """How the spool speaks to the engine."""

    def __init__(
        self,
        on_live: Callable[[list[Live]], object],
        on_gone: Callable[[list[int]], Collection[int] | None],
        on_event: OnEvent,
    ) -> None:
        self.on_live = on_live
        self.on_gone = on_gone
        self.on_event = on_event


class Counters:
    """Integers for metrics; they only grow."""

    def __init__(self) -> None:
        self.accepted = 0
        self.settled = 0
        self.refused_after_append = 0  # a 451 after an append: the client sends again, a replay might find the first
        self.replayed_tried = 0  # recipients tried and without an outcome at a replay
        self.late_settles = 0  # outcomes for messages that had gone to another worker
        self.dots_of_fenced = 0  # dots since the last good look of a worker that then was fenced
        self.adoptions = 0
        self.damaged = 0
        self.torn = 0
        self.given_up = 0
        self.compacted = 0
        self.removed_segments = 0

    @property
    def possible_duplicates(self) -> int:
        """Late settles are none of their own: whoever took the lane found those recipients tried and counted them."""
        return self.refused_after_append + self.replayed_tried + self.dots_of_fenced


class Core:
    """The lanes of one worker."""

    def __init__(
        self,
        settings: SpoolSettings,
        worker: str,
        loop: asyncio.AbstractEventLoop,
        disk: Disk,
        callbacks: Callbacks,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        random: Callable[[int], bytes],
        has_mate: bool = False,
    ) -> None:
        self.settings = settings
        self.worker = worker
        self.loop = loop
        self.disk = disk
        self.callbacks = callbacks
        self.event = callbacks.on_event
        self.clock = clock
        self.monotonic = monotonic
        self.random = random
        self.thread = IOThread(loop, f"spool-{worker[:6]}")
        self.readers = ThreadPoolExecutor(READ_JOBS, thread_name_prefix="spool-read")
        self.journal = Journal(
            disk,
            self.thread,
            worker,
            self,
            segment_bytes=settings.segment_bytes,
            settle_delay=settings.settle_delay,
            monotonic=monotonic,
            random=random,
        )
        self._has_mate = has_mate
        self.cache = Cache(settings.cache_bytes)
        self.counters = Counters()
        self.lanes: dict[int, Lane] = {}
        self.by_name: dict[str, Lane] = {}
        self.open_lane: Lane | None = None
        self.live = 0
        self.last_look = float("-inf")
        self.turn_seconds = 0.0  # of the last turn
        self.dots = 0  # since the last good look
        self.is_stopping = False
        self.on_full: Callable[[], None] = lambda: None
        self.on_orphan: Callable[[int], None] = lambda ref: None  # durable, and whoever waited for it has gone
        self.is_ended = False
        self._reads: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._read_jobs = 0
        self._slots = 0
        self._looking: asyncio.Future[None] | None = None

    def find_mate(self) -> None:
        """Start the process that syncs for us. None on a volume that others write too: there a sync lasts long, a
        write may wait for a server, and the I/O thread does all."""
        disk = self.disk
        if not (self._has_mate and isinstance(disk, Volume) and disk.is_local and disk.is_syncing):
            return
        latch, text = disk.full(layout.latch(self.worker)), layout.open_text(self.worker)
        try:
            self.journal.syncer = Syncer(self.loop, latch, text, on_lost=lambda: self.event("mate_lost"))
        except OSError as error:
            self.event("no_mate", error=str(error))

    @property
    def leaving(self) -> int:
        """Live messages of lanes that go to peers."""
        going = (LaneState.LEAVING, LaneState.OFFERED)
        return sum(lane.live for lane in self.lanes.values() if lane.state in going)

    # -- the volume -------------------------------------------------------------------------------------------------

    def io(self, steps: Steps[T]) -> asyncio.Future[T]:
        """Run protocol steps in the I/O thread."""
        return self.thread.call(lambda: protocol.run(self.disk, steps))

    def reading(self, act: Callable[[], T]) -> asyncio.Future[T]:
        """Run something that only reads in a reader thread."""
        return self.loop.run_in_executor(self.readers, act)

    async def taking(self, steps: Steps[T], late: Callable[[T], object]) -> T:
        """Run protocol steps that read much and change a little: in a reader thread, the changes in the I/O thread.
        One hop in all, for at a start a turn of the loop is long. `late` gets the result where whoever waited for it
        was cancelled.
        """
        running = self.reading(lambda: protocol.run_split(self.disk, steps, self.thread.ask))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait({running})
            if not running.exception():
                late(running.result())
            raise

    def read(self, act: Callable[[], T]) -> asyncio.Future[T]:
        """As `reading`, for the many small reads of messages: those asked for while one job runs share the next, so
        a hop between threads is paid once per group."""
        future: asyncio.Future[T] = self.loop.create_future()
        self._reads.append((act, future))
        if self._read_jobs < READ_JOBS:
            self._read_jobs += 1
            self.loop.call_soon(self._next_reads)
        return future

    def _next_reads(self) -> None:
        some, self._reads = self._reads[:READS_A_JOB], self._reads[READS_A_JOB:]
        if some and not self.is_ended:
            self.readers.submit(self._run_reads, some)
        else:
            self._read_jobs -= 1

    def _run_reads(self, some: list[tuple[Callable[[], Any], asyncio.Future[Any]]]) -> None:
        """In a reader thread."""
        done: list[tuple[asyncio.Future[Any], Any, Exception | None]] = []
        for act, future in some:
            try:
                done.append((future, act(), None))
            except Exception as error:  # handed to whoever awaits the future
                done.append((future, None, error))
        self.thread.tell(self._finish_reads, done)

    def _finish_reads(self, done: list[tuple[asyncio.Future[Any], Any, Exception | None]]) -> None:
        for future, result, error in done:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        self._next_reads()

    def end_reads(self) -> None:
        """Nobody waits for what will not be read any more."""
        self.is_ended = True
        self.readers.shutdown(wait=True, cancel_futures=True)
        for _, future in self._reads:
            future.cancel()
        self._reads.clear()

    async def look(self) -> bool:
        """Look now; one look serves all who ask meanwhile."""
        if self.journal.is_fenced:
            return False
        if self._looking is None:
            self._looking = self.loop.create_future()
            asked = self._looking
            try:
                at = self.monotonic()
                self.journal.looked(await self.io(protocol.look(self.worker)), at)
            finally:
                self._looking = None
                asked.set_result(None)
        else:
            await self._looking
        return self.is_look_good()

    def is_look_good(self) -> bool:
        return not self.journal.is_fenced and self.monotonic() - self.last_look < LOOK_LASTS

    # -- lanes ------------------------------------------------------------------------------------------------------

    def new_lane(self) -> Lane:
        """The lane new mail goes to from now on. Its folder is made with the first write."""
        name = layout.new_lane(self.clock(), self.random(4))
        folder = Folder(name, self.worker, is_made=False)
        lane = self.add_lane(name, 1, folder)
        lane.become(LaneState.OPEN)
        self.open_lane = lane
        return lane

    def add_lane(self, name: str, claim: int, folder: Folder) -> Lane:
        lane = Lane(name, self._slots, claim, folder, layout.first_number(claim))
        self._slots += 1
        self.lanes[lane.slot] = lane
        self.by_name[name] = lane
        return lane

    def lane_for_mail(self) -> Lane:
        """The open lane, or a new one when that has enough."""
        lane = self.open_lane
        if lane is not None:
            if lane.live < self.settings.lane_messages and (
                lane.next_number & 7 or lane.size < self.settings.lane_bytes
            ):
                return lane  # its bytes are added up for every eighth message only
            self.close_lane(lane)
        return self.new_lane()

    def close_lane(self, lane: Lane) -> None:
        """No more new mail; its segment is sealed, so a replay reads only the end of it."""
        lane.become(LaneState.CLOSED)
        lane.closed_at = self.monotonic()
        if self.open_lane is lane:
            self.open_lane = None
        self.journal.seal(lane)
        self.tidy(lane)

    def drop_lane(self, lane: Lane) -> list[int]:
        """It is not ours any more: the refs of what was live in it."""
        refs = lane.refs()
        for ref in refs:
            self.cache.drop(ref)
        self.live -= lane.live
        lane.become(LaneState.GONE)
        self.lanes.pop(lane.slot, None)
        self.by_name.pop(lane.name, None)
        if self.open_lane is lane:
            self.open_lane = None
        closing = self.journal.close_logs(lane)
        closing.add_done_callback(lambda done: done.exception())
        return refs

    def open_segment(
        self, name: str, claim: int, lower: tuple[tuple[int, int, int], ...]
    ) -> Steps[tuple[Start, bytes, tuple[int, int]]]:
        """The first segment of a claim of ours: its start, nonce, and descriptor and length."""
        k = 1
        while True:
            nonce = self.random(record.NONCE_BYTES)
            start = Start(name, claim, k, self.worker, lower)
            try:
                return start, nonce, (yield from protocol.cut(name, start, nonce))
            except FileExistsError:
                k += 1  # an earlier try of ours broke off here

    async def settle_down(self, lane: Lane) -> None:
        """Wait until all of the lane is on the volume. OSError: it will not be."""
        for _ in range(SYNC_TRIES):
            if lane.state is LaneState.GONE or self.journal.is_fenced:
                return
            await self.journal.flushed(lane)
            if self.journal.is_synced(lane) and not lane.is_removing:
                return
            await asyncio.sleep(0.001 if lane.failures == 0 else 0.02)
        raise TimeoutError(f"lane {lane.name} cannot be synced")

    # -- what may go ------------------------------------------------------------------------------------------------

    def tidy(self, lane: Lane) -> None:
        """Remove the oldest segment where nothing in it is live, or the whole lane where nothing in that is."""
        if lane.is_removing or lane.is_filling or lane.is_blocked:
            return
        if not lane.is_writable or lane.state is LaneState.LEAVING:
            return
        if lane.live == 0 and lane.state is LaneState.CLOSED and self._may_remove(lane):
            self._remove_lane(lane)
        elif lane.segments and lane.segments[0].live == 0:
            oldest = lane.segments[0]
            if oldest is not lane.current and not oldest.is_pinned and lane.state is not LaneState.GONE:
                self._remove_oldest(lane, oldest)

    def _may_remove(self, lane: Lane) -> bool:
        if lane.open_blobs or any(segment.is_pinned for segment in lane.segments):
            return False
        return lane.promised <= 0 or self.monotonic() - lane.closed_at > STALE_NUMBERS

    def _remove_oldest(self, lane: Lane, oldest: Segment) -> None:
        lane.is_removing = True
        name, is_kept = oldest.name, oldest.is_kept

        def gone(error: OSError | None) -> None:
            lane.is_removing = False
            if error is not None:
                return  # the keeper asks again
            if lane.state is LaneState.GONE or not lane.segments or lane.segments[0] is not oldest:
                return
            lane.segments.pop(0)
            lane.first += 1
            self.counters.removed_segments += 1
            if is_kept:
                self.event("set_aside", lane=lane.name, segment=str(name))
            self.tidy(lane)

        self._remove(lane, lambda: protocol.remove_segment(lane.name, name, is_kept=is_kept), gone)

    def _remove_lane(self, lane: Lane) -> None:
        lane.is_removing = True
        lane.become(LaneState.REMOVING)  # nothing may come into it any more
        is_kept = any(segment.is_kept for segment in lane.segments)
        steps = protocol.set_lane_aside if is_kept else _remove_lane

        def gone(error: OSError | None) -> None:
            lane.is_removing = False
            if lane.state is not LaneState.REMOVING:
                return
            if error is not None:
                lane.become(LaneState.CLOSED)  # the keeper asks again
                return
            self.drop_lane(lane)
            if is_kept:
                self.event("set_aside", lane=lane.name, segment="")

        if not lane.folder.is_made and not lane.segments:
            gone(None)  # nothing was ever written
        else:
            self._remove(lane, lambda: steps(lane.name), gone)

    def _remove(self, lane: Lane, steps: Callable[[], Steps[None]], gone: Callable[[OSError | None], None]) -> None:
        def tell(error: OSError | None) -> None:
            self.thread.tell(gone, error)

        self.journal.remove(lane, Removal(lane.name, steps, tell))

    def remove_blob(self, lane: Lane, number: int) -> None:
        """The content of a message that is done; a failure leaves an orphan for the next take-over."""
        self._remove(lane, lambda: protocol.remove_blob(lane.name, number), lambda _: None)

    # -- journal.Owner ----------------------------------------------------------------------------------------------

    def synced(self, lane: Lane, row: int, future: asyncio.Future[Any], stored: Stored) -> None:
        """The promise can be given. A message whose client went meanwhile is scheduled all the same."""
        self.counters.accepted += 1
        if not future.done():
            future.set_result(stored)
            return
        self.on_orphan(stored.ref)

    def refused(self, lane: Lane, row: int, future: asyncio.Future[Any], failure: Temporary) -> int:
        """A possible duplicate: the record may have reached the volume, and the client will send again."""
        number = lane.numbers[row]
        ref = lane.ref(row)
        self.cache.drop(ref)
        has_blob = lane.flags[row] & BLOB
        lane.drop(row)
        self.live -= 1
        self.counters.refused_after_append += 1
        self.event("possible_duplicates", count=1, reason="RefusedAfterAppend", lane=lane.name)
        if has_blob and not self.journal.is_fenced:
            self.remove_blob(lane, number)
        if not future.done():
            future.set_exception(failure)
        return number

    def gave_up(self, lane: Lane, segment: Segment, error: OSError) -> None:
        self.counters.given_up += 1
        self.event("segment_given_up", lane=lane.name, segment=str(segment.name), error=str(error))
        if error.errno in protocol.FULL_ERRORS:
            self.on_full()

    def damaged(self, lane: str, segment: str, offset: int, what: str) -> None:
        """Bytes are not what was written: counted and told, the file is kept for people."""
        self.counters.damaged += 1
        self.event("damaged", lane=lane, segment=segment, offset=offset, what=what)

    def lost_lane(self, lane: Lane) -> None:
        self.drop_lane(lane)
        self.event("lane_not_made", lane=lane.name)

    def fenced(self) -> None:
        self.counters.dots_of_fenced += self.dots
        self.event("fenced", worker=self.worker, dots=self.dots, messages=self.live)

    def looked(self, at: float, seconds: float) -> None:
        if seconds:
            self.turn_seconds = seconds
        if at > self.last_look:
            self.last_look = at
            self.dots = 0


def _remove_lane(lane: str) -> Steps[None]:
    try:
        yield from protocol.remove_lane(lane)
    except OSError as error:
        if error.errno not in protocol.STAYS:
            raise  # else: the rename is what counts, a name that stays inside is swept later
