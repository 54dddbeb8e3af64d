"""What a worker's spool does by itself: begin, look, take over, share, compact, watch the space, end.

One task, a short step at a time. Nothing here is on a message's path.
"""

from __future__ import annotations

import asyncio
from functools import partial

from . import layout, protocol, sharing
from .adopt import Adopter
from .compact import Compactor
from .core import Core
from .lane import LaneState
from .protocol import Call, Steps
from .share import Sharer
from .space import Space

STEP = 0.2  # seconds
LOOK_EVERY = 0.4  # seconds: half of what a look lasts, and some
EVERY = 1.0  # seconds between two rounds of everything else


class Keeper:
    """Keeps the lanes of one worker."""

    def __init__(self, core: Core, adopter: Adopter) -> None:
        self._core = core
        self._adopter = adopter
        self.space = Space(core)
        self._compactor = Compactor(core)
        self._sharer = Sharer(core, adopter)
        self._task: asyncio.Task[None] | None = None
        self.late = 0.0

    async def start(self) -> None:
        """Folders, lock, latch; then the task. OSError: the volume cannot be used."""
        core = self._core
        await core.io(_make_folders())
        await core.io(_make_worker(core.worker))
        await core.thread.call(partial(self._adopter.liveness.begin, core.disk, core.worker))
        await core.io(protocol.make_latch(core.worker))
        await core.look()
        core.find_mate()
        self._task = core.loop.create_task(self._run())

    async def stop(self, *, is_quiet: bool) -> None:
        """Settle, sync, free what is live for others, remove what is not, then our own folder."""
        core = self._core
        core.is_stopping = True
        self._sharer.stop()
        await self._end_task()
        if not core.journal.is_fenced:
            for lane in list(core.lanes.values()):
                if is_quiet and lane.is_writable and lane.state is not LaneState.OFFERED:
                    self._sharer.untry(lane)
                if lane.state is LaneState.OPEN:
                    core.close_lane(lane)
                elif lane.state is LaneState.CLOSED:
                    lane.promised = 0
                    core.journal.seal(lane)
                    core.tidy(lane)
            await self._free_all()
        self._end()

    async def _free_all(self) -> None:
        core = self._core
        try:
            for lane in list(core.lanes.values()):
                lane.promised = 0
                core.tidy(lane)
            for lane in list(core.lanes.values()):
                await core.settle_down(lane)
                if lane.state is not LaneState.GONE and lane.state is not LaneState.OFFERED and lane.folder.is_made:
                    await self._sharer.free(lane, sharing.LEAVES)
            if all(lane.state is LaneState.OFFERED or not lane.folder.is_made for lane in core.lanes.values()):
                await core.io(protocol.remove_worker(core.worker))
        except OSError as error:
            core.event("stop_failed", error=str(error))  # the next worker takes over as after a crash

    async def _end_task(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def abandon(self) -> None:
        """End without a trace of an end."""
        self._core.is_stopping = True
        self._sharer.stop()
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._end()

    def _end(self) -> None:
        core = self._core
        core.journal.stop()
        core.thread.stop()
        core.end_reads()
        core.journal.close_all()
        self._adopter.liveness.end()

    # -- the task ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        core = self._core
        next_round = float("-inf")
        while not core.journal.is_fenced:
            try:
                if core.monotonic() - core.last_look > LOOK_EVERY:
                    await core.look()
                if core.monotonic() >= next_round:
                    await self._round()
                    next_round = core.monotonic() + EVERY
            except Exception as error:  # without this task no look is made: it goes on whatever happens
                core.event("upkeep_failed", error=repr(error))
            await asyncio.sleep(STEP)

    async def _round(self) -> None:
        core = self._core
        await self.space.watch()
        await self._adopter.tell_load()
        await self._adopter.scan()
        for lane in list(core.lanes.values()):
            if lane is not core.open_lane:
                core.tidy(lane)
                await self._compactor.compact(lane)
        if core.open_lane is not None:
            core.tidy(core.open_lane)
            await self._compactor.compact(core.open_lane)
        await self._sharer.round(self.late)


def _make_folders() -> Steps[None]:
    for folder in layout.FOLDERS:
        try:
            yield Call("mkdir", (folder,))
        except FileExistsError:
            continue
    yield Call("fsync_dir", ("",))


def _make_worker(worker: str) -> Steps[None]:
    yield Call("mkdir", (layout.worker(worker),))
