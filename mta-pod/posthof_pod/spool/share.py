"""Sharing the backlog: a worker that is behind gives closed lanes away, one with little to do takes them.

A lane leaves in this order: no new attempts, running ones end, sync, look, `free.<n>`, a hint in offers/. Untaken it
is claimed back: directly after one's own claim nobody else can have written, so without a replay.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

from ..replies import Temporary
from . import layout, protocol, record, sharing
from .adopt import Adopter
from .cache import Live
from .core import Core
from .journal import SETTLED as JOURNAL_SETTLED
from .lane import PENDING, SETTLED, TRIED, Gone, Lane, LaneState
from .reader import Reader
from .record import STATE, Damaged

SLICE = 100


class Sharer:
    """Of one worker."""

    def __init__(self, core: Core, adopter: Adopter) -> None:
        self._core = core
        self._adopter = adopter
        self._reader = Reader(core)
        self._leaving: set[asyncio.Task[None]] = set()
        self._left_to_others: dict[str, int] = {}  # offered lanes -> rounds

    async def round(self, late: float) -> None:
        """Once a second: claim back, take, offer."""
        core = self._core
        for lane in list(core.lanes.values()):
            is_over = core.monotonic() - lane.offered_at >= sharing.OFFER_LASTS
            if lane.state is LaneState.OFFERED and is_over:
                await self.claim_back(lane)
        await self.take_offers()
        if late >= sharing.LATE:
            await self.offer(late)

    async def offer(self, late: float) -> int:
        """Begin to give lanes away, if a peer has clearly less to do: how many."""
        core = self._core
        loads = await self._adopter.loads(await self._adopter.peers())
        closed = {
            lane.name: lane.live
            for lane in core.lanes.values()
            if lane.state is LaneState.CLOSED
            and not lane.open_blobs
            and not (lane.is_blocked or lane.is_removing or lane.is_filling)
        }
        chosen = sharing.lanes_to_offer(self._adopter.load, loads, closed, late)
        for name in chosen:
            task = core.loop.create_task(self.leave(core.by_name[name]))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        return len(chosen)

    async def leave(self, lane: Lane) -> None:
        """Give one lane away: its attempts end, then it is free."""
        core = self._core
        lane.become(LaneState.LEAVING)
        if await self._until_quiet(lane):
            self.untry(lane)
        core.journal.seal(lane)
        try:
            await core.settle_down(lane)
            if await core.look():
                await self.free(lane, self._adopter.load + lane.live)
        except OSError as error:
            core.event("offer_failed", lane=lane.name, error=str(error))
        if lane.state is LaneState.LEAVING:  # it could not be freed: go on with it
            lane.become(LaneState.CLOSED)
            await self._announce(lane)

    async def _until_quiet(self, lane: Lane) -> bool:
        """Let the attempts that run end, RUNNING_ENDS seconds at most. Most end with an outcome, which is heard at
        once; of the others, given back untried, the engine is asked. Whether all did; False too where the engine does
        not say which run."""
        core = self._core
        ends = core.monotonic() + sharing.RUNNING_ENDS
        running = core.callbacks.on_gone(lane.refs())
        lane.busy = set(running or ())
        while lane.busy and core.monotonic() < ends:
            lane.quiet = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lane.quiet.wait(), sharing.ASK_AGAIN)
            lane.busy = set(core.callbacks.on_gone(list(lane.busy)) or ())
        is_quiet = running is not None and not lane.busy
        lane.busy = set()
        return is_quiet

    def untry(self, lane: Lane) -> None:
        """No attempt runs: who counts as tried and has no outcome was never sent anything. On record, so that whoever
        takes the lane does not count them as possible duplicates. What an earlier owner left open was counted when
        the lane came to us."""
        for row in lane.rows():
            if lane.flags[row] & (TRIED | SETTLED | PENDING) != TRIED:
                continue
            states = lane.multi.get(row)
            if states is None:
                states = bytearray(STATE.pack(0, 0, 0.0) * lane.counts[row])
            else:
                states = record.mark_untried(states)
                lane.multi[row] = states
            lane.flags[row] &= ~TRIED & 0xFF
            self._put_on_record(lane, row, bytes(states))

    def _put_on_record(self, lane: Lane, row: int, states: bytes) -> None:
        journal, ref = self._core.journal, lane.ref(row)

        def placed(ordinal: int, offset: int, length: int) -> None:
            with contextlib.suppress(Gone):  # a later settle ended it
                lane.set_state_at(lane.row(ref), ordinal, offset)

        meta = record.settle_meta(lane.numbers[row], record.Settle(states))
        entry = (JOURNAL_SETTLED, 0, meta, (), placed, lambda: None, lambda failure: None)
        placed(*journal.append(lane, record.SETTLE, 0, meta, (), entry=entry))
        journal.settle_later(lane)

    async def free(self, lane: Lane, load: int) -> None:
        """`free.<n>`: all of the lane is synced. OSError: it is still ours."""
        core = self._core
        core.callbacks.on_gone(lane.refs())  # reports came in since it began to leave
        last = (lane.segments[-1].name, lane.segments[-1].position) if lane.segments else None
        lane.become(LaneState.OFFERED)
        lane.offered_at = core.monotonic()
        await core.io(protocol.release(lane.name, lane.claim, core.worker, last, load))
        core.event("offered", lane=lane.name, messages=lane.live)

    async def claim_back(self, lane: Lane) -> None:
        """Nobody wanted it, or somebody has it."""
        core = self._core
        if not await core.io(protocol.claim(lane.name, lane.claim + 1, core.worker)):
            core.drop_lane(lane)
            core.event("given", lane=lane.name)
            return
        number = lane.claim + 1
        lower = tuple((*segment.name, segment.position) for segment in lane.segments)
        start, nonce, opened = await core.io(core.open_segment(lane.name, number, lower))
        lane.claim = number
        lane.next_number = layout.first_number(number)
        core.journal.resume(lane, start, nonce, opened)
        lane.become(LaneState.CLOSED)
        core.event("claimed_back", lane=lane.name, messages=lane.live)
        await self._announce(lane)
        try:
            await core.io(protocol.withdraw(lane.name))
        except OSError as error:
            core.event("not_removed", error=str(error))  # a hint: who follows it sees that the lane is not free

    async def _announce(self, lane: Lane) -> None:
        """Tell the engine again of what it was told to forget."""
        some: list[Live] = []
        for ref in lane.refs():
            try:
                some.append(await self._reader.live(ref))
            except (Damaged, Gone):
                continue  # told of as damage; done
            except Temporary as failure:
                self._core.event("unreadable", lane=lane.name, number=-1, error=failure.reason)
                continue
            if len(some) == SLICE:
                self._core.callbacks.on_live(some)
                some = []
        if some:
            self._core.callbacks.on_live(some)

    def stop(self) -> None:
        """No more lanes leave this way."""
        for task in self._leaving:
            task.cancel()

    async def take_offers(self) -> int:
        """Lanes of workers with more than twice our load, one after the other: how many."""
        core = self._core
        taken = 0
        names = await core.reading(partial(core.disk.listdir, layout.OFFERS))
        self._left_to_others = {name: n for name, n in self._left_to_others.items() if name in names}
        for name in names:
            if name in core.by_name or core.is_stopping or core.journal.is_fenced:
                continue
            try:
                text = await core.reading(partial(core.disk.readlink, layout.offer(name)))
            except FileNotFoundError:
                continue
            load = self._adopter.load
            if not sharing.should_take(load, sharing.read_offer(text)[1]) or load >= self._adopter.max_live:
                continue
            if await self._is_for_another(name):
                continue
            holding = await core.reading(partial(protocol.run, core.disk, protocol.find(name)))
            if holding is None or not holding.is_free:
                await core.io(protocol.withdraw(name))
            elif holding.claim:
                taken += await self._adopter.take_offered(name, holding)
        return taken

    async def _is_for_another(self, name: str) -> bool:
        """Whether somebody with clearly less to do may take this lane first; for some rounds, who knows why it does
        not."""
        waited = self._left_to_others.get(name, 0)
        if waited >= sharing.ROUNDS_LEFT:
            return False
        loads = await self._adopter.loads(await self._adopter.peers())
        if not sharing.should_wait(self._adopter.load, loads, self._core.settings.lane_messages):
            return False
        self._left_to_others[name] = waited + 1
        return True
