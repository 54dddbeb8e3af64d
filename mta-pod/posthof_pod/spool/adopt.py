"""Take-over: lanes of dead workers, lanes given free, lanes nobody began.

Rules of this file
- The order is protocol.py's: judge, fence, (wait), claim, read, cut; one lane at a time.
- A lane that is poisoned, or that a newer version must work, is let alone and told of.
- Reading is done in a reader thread; what was read reaches the engine in slices, so the loop stays responsive and
  envelopes are not held twice.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import NamedTuple

import msgspec

from . import layout, protocol, record, replay, sharing
from .cache import Live
from .core import Core
from .lane import BLOB, NESTED, TRIED, Lane, LaneState, Segment
from .liveness import Liveness, Verdict
from .protocol import Call, Folder, Holding, Steps, Vanished
from .replay import Replay
from .volume import Disk

SLICE = 250  # messages told to the engine in one turn of the loop
DOTS_END = 2.0  # seconds after the fence until an unproven dead worker's dots have ended
WAITS = 20  # times a lane is left for a worker with less load
WAIT = 0.05  # seconds each
THOROUGH = 10.0  # seconds between two looks at all lanes
COMPLETE_TRIES = 20


class Peers(NamedTuple):
    """The other workers, as judged."""

    alive: frozenset[str]
    dead: frozenset[str]
    proven: frozenset[str]  # of the dead


class Adopter:
    """Takes lanes over for one worker."""

    def __init__(self, core: Core, liveness: Liveness, *, max_live: int) -> None:
        self._core = core
        self.liveness = liveness
        self.max_live = max_live
        self._fenced: dict[str, float] = {}  # worker -> monotonic time of our fence
        self._unclaimed: dict[str, float] = {}  # lanes nobody claimed -> when they were first seen
        self._removable: dict[str, float] = {}  # dead workers no lane names -> when this was first seen
        self._last_thorough = float("-inf")
        self._lock = asyncio.Lock()
        self._told = -1
        self.poisoned: set[str] = set()
        self.newer: set[str] = set()
        self.unowned = 0

    async def peers(self) -> Peers:
        """Judge everyone else who has a folder."""
        me = self._core.worker

        def judge() -> Peers:
            names = [name for name in self._core.disk.listdir(layout.WORKERS) if name != me and name[0] != "."]
            verdicts = {name: self.liveness.judge(name) for name in names}
            return Peers(
                frozenset(name for name in names if verdicts[name] is Verdict.ALIVE),
                frozenset(name for name in names if verdicts[name] is not Verdict.ALIVE),
                frozenset(name for name in names if verdicts[name] is Verdict.PROVEN),
            )

        return await self._core.thread.call(judge)

    async def scan(self, *, is_thorough: bool = False) -> int:
        """Take over what is nobody's; how many lanes. OSErrors are told as events: the next scan tries again."""
        async with self._lock:
            try:
                peers = await self.peers()
                now = self._core.monotonic()
                is_thorough = is_thorough or now - self._last_thorough >= THOROUGH
                if not (is_thorough or peers.dead):
                    return 0
                if is_thorough:
                    self._last_thorough = now
                return await self._scan(peers)
            except (OSError, Vanished) as error:
                self._core.event("take_over_failed", lane="", error=str(error))
                return 0

    async def _scan(self, peers: Peers) -> int:
        core = self._core
        names = await core.reading(partial(core.disk.listdir, layout.LANES))
        taken = 0
        unowned = 0
        named: set[str] = set()
        others = [name for name in names if name not in core.by_name and name not in self.newer]
        for name, holding in await core.reading(partial(_find_all, core.disk, _mixed(others, core.worker))):
            if core.is_stopping or core.journal.is_fenced:
                break
            if name.startswith(layout.GONE):
                await self._sweep(name.removeprefix(layout.GONE))
                continue
            if holding is None or name in core.by_name:
                continue
            if not holding.is_free:
                named.add(holding.holder)
            if not await self._is_mine_to_take(name, holding, peers):
                continue
            if core.live >= self.max_live:
                unowned += 1
                continue
            taken += await self._try_take(name, holding, peers)
        self.unowned = unowned
        await self._clean(peers, named)
        return taken

    async def tell_load(self) -> None:
        """Write our load where peers read it: a hint, in place, not synced."""
        live = self._core.live
        if live != self._told:
            await self._core.io(_write_load(self._core.worker, live))
            self._told = live

    async def _is_mine_to_take(self, name: str, holding: Holding, peers: Peers) -> bool:
        """Nobody works it, it is no poison, and no worker with less to do is there to take it."""
        core, holder = self._core, holding.holder
        if not holding.claim:
            first = self._unclaimed.setdefault(name, core.monotonic())
            if core.monotonic() - first < THOROUGH / 2:
                return False  # its maker may be about to claim it
        elif holder == core.worker:
            return True  # our own claim, begun and not ended after an error
        elif holder in peers.alive:
            return False  # also when it is free: then offers/ says who may take it
        elif holder not in peers.dead and await self._core.thread.call(partial(self._is_alive, holder)):
            return False
        if holding.is_poisoned:
            if name not in self.poisoned:
                self.poisoned.add(name)
                core.event("poisoned", lane=name, claim=holding.claim)
            return False
        return True

    def _is_alive(self, worker: str) -> bool:
        """Of one whose folder we did not see. In the I/O thread."""
        return self.liveness.judge(worker) is Verdict.ALIVE

    async def _try_take(self, name: str, holding: Holding, peers: Peers) -> int:
        core = self._core
        for _ in range(WAITS):
            if not sharing.should_wait(core.live, await self.loads(peers), core.settings.lane_messages):
                break
            await asyncio.sleep(WAIT)
        try:
            taken = await self.take(name, holding, is_proven=holding.holder not in peers.dead - peers.proven)
            await self.tell_load()  # peers wait for us as long as our load seems the smaller one
            return taken
        except Exception as error:  # whatever a lane holds, it must not stop us from taking the others
            core.event("take_over_failed", lane=name, error=repr(error))
            return 0

    async def take_offered(self, name: str, holding: Holding) -> int:
        """As `_try_take`, of a lane whose owner gave it away."""
        async with self._lock:
            if name in self._core.by_name or holding.is_poisoned:
                return 0
            try:
                return await self.take(name, holding, is_proven=True)
            except (OSError, Vanished) as error:
                self._core.event("take_over_failed", lane=name, error=str(error))
                return 0

    async def loads(self, peers: Peers) -> list[int]:
        """Live messages of each worker that lives, as it last told."""

        def read() -> list[int]:
            found = []
            for name in peers.alive:
                try:
                    found.append(sharing.read_load(self._core.disk.read(layout.load(name), 32, 0)))
                except OSError:
                    continue  # it did not tell yet
            return found

        return await self._core.reading(read) if peers.alive else []

    # -- one lane ---------------------------------------------------------------------------------------------------

    async def take(self, name: str, holding: Holding, *, is_proven: bool) -> int:
        """Take one lane over: 1, or 0 where someone else was quicker. OSError: not now; Vanished: never ends."""
        core = self._core
        began = core.monotonic()
        number = holding.claim + 1
        if holding.holder == core.worker and not holding.is_free:
            number = holding.claim
        else:
            if not holding.is_free:
                await self.fence(holding.holder, is_proven=is_proven)
            elif holding.claim and not await self._sees_all(name, holding.claim):
                return 0
            if not await core.io(protocol.claim(name, number, core.worker)):
                return 0
        found = await core.reading(partial(protocol.run, core.disk, protocol.read_lower(name, number)))
        if found.is_critical:
            await core.io(protocol.release(name, number, core.worker, None, 0))
            self.newer.add(name)
            core.event("newer", lane=name)
            return 0
        lane = await self._open(name, number, found)
        self._tell_damage(found)
        duplicates = await self._fill(lane, found)
        core.counters.adoptions += 1
        core.event(
            "adopted",
            lane=name,
            old=holding.holder,
            messages=len(found.messages),
            seconds=core.monotonic() - began,
            possible_duplicates=duplicates,
        )
        self._remove_orphans(lane, found)
        core.tidy(lane)
        await self._quietly(protocol.withdraw(name))
        return 1

    async def fence(self, holder: str, *, is_proven: bool) -> None:
        """Shut its latch, once per worker; then wait until its dots have ended, unless its end is proven."""
        core = self._core
        if holder not in self._fenced:
            await core.io(protocol.fence(holder, core.worker))
            self._fenced[holder] = core.monotonic()
            core.event("fenced_other", worker=holder)
        if not is_proven:
            rest = self._fenced[holder] + DOTS_END - core.monotonic()
            if rest > 0:
                await asyncio.sleep(rest)

    async def _sees_all(self, name: str, number: int) -> bool:
        """Whether our client shows the last bytes of a lane that was given free."""
        for _ in range(COMPLETE_TRIES):
            if await self._core.reading(partial(protocol.run, self._core.disk, protocol.is_complete(name, number))):
                return True
            await asyncio.sleep(WAIT)
        return False

    async def _open(self, name: str, number: int, found: Replay) -> Lane:
        """Begin our own segment, with the lengths that count of the others."""
        core = self._core
        start, nonce, opened = await core.open_segment(name, number, found.lengths())
        lane = core.add_lane(name, number, Folder(name, core.worker, is_made=True))
        lane.become(LaneState.CLOSED)
        lane.closed_at = core.monotonic()
        lane.is_filling = True
        for scan in found.scans:
            segment = Segment(scan.name, size=min(scan.end, scan.cut), nonce=scan.nonce)
            segment.is_kept = scan.is_kept
            segment.is_pinned = scan.unknown > 0
            lane.add_segment(segment)
        core.journal.resume(lane, start, nonce, opened)
        return lane

    async def _fill(self, lane: Lane, found: Replay) -> int:
        """Put the live messages into the index and tell the engine, slice by slice. Recipients that may have it.
        Until the last one is in, nothing of the lane may go: its segments look emptier than they are."""
        core = self._core
        duplicates = 0
        some: list[Live] = []
        for message in found.messages.values():
            try:
                entry = replay.decode(message)
            except msgspec.MsgspecError as error:
                lane.segments[message.ordinal].is_pinned = True
                core.event("unreadable", lane=lane.name, number=message.number, error=str(error))
                continue
            duplicates += entry.tried
            some.append(Live(_add(lane, entry), entry.envelope, entry.waiting, entry.tried > 0))
            core.live += 1
            if len(some) == SLICE:
                core.callbacks.on_live(some)
                some = []
                await asyncio.sleep(0)
        if some:
            core.callbacks.on_live(some)
        lane.is_filling = False
        core.counters.replayed_tried += duplicates
        return duplicates

    def _tell_damage(self, found: Replay) -> None:
        core = self._core
        for scan in found.scans:
            if scan.cut == 0:
                continue  # a cut-off owner's: it never counted
            name = str(scan.name)
            for offset, size in scan.gaps:
                core.damaged(scan.lane, name, offset, f"{size} bytes do not check, valid records follow")
            if scan.torn and scan.end < scan.cut:
                core.counters.torn += 1
                core.event("torn", lane=scan.lane, segment=name, offset=scan.end, size=scan.torn)

    def _remove_orphans(self, lane: Lane, found: Replay) -> None:
        """Blobs no live message names: aborted, or done. Not where damage may hide who names them."""
        if any(scan.is_kept for scan in found.scans):
            return
        live = {lane.numbers[row] for row in lane.rows() if lane.flags[row] & BLOB}
        for number in found.blobs:
            if number not in live:
                self._core.remove_blob(lane, number)

    # -- what dead workers leave ------------------------------------------------------------------------------------

    async def _sweep(self, name: str) -> None:
        """Rest of a lane whose owner died while it removed it."""
        await self._quietly(protocol.sweep_lane(name))

    async def _clean(self, peers: Peers, named: set[str]) -> None:
        """Folders of dead workers that no lane names. Seen twice, so that no newcomer is taken for dead."""
        now = self._core.monotonic()
        idle = {name for name in peers.proven if name not in named}
        self._removable = {name: since for name, since in self._removable.items() if name in idle}
        for name in idle:
            if now - self._removable.setdefault(name, now) >= THOROUGH and not self._core.is_stopping:
                await self._quietly(_fence_and_remove(name, self._core.worker))
                self._fenced.pop(name, None)

    async def _quietly(self, steps: Steps[None]) -> None:
        """Housekeeping: what fails now is done by the next scan."""
        try:
            await self._core.io(steps)
        except OSError as error:
            if error.errno not in protocol.STAYS and not isinstance(error, FileNotFoundError):
                self._core.event("not_removed", error=str(error))


def _fence_and_remove(worker: str, by: str) -> Steps[None]:
    yield from protocol.fence(worker, by)
    yield from protocol.remove_worker(worker)


def _find_all(disk: Disk, names: list[str]) -> list[tuple[str, Holding | None]]:
    """Whose each lane is, in one go: what changes meanwhile, the claim finds out."""
    found: list[tuple[str, Holding | None]] = []
    for name in names:
        is_lane = not name.startswith(".")
        found.append((name, protocol.run(disk, protocol.find(name)) if is_lane else None))
    return found


def _mixed(names: list[str], worker: str) -> list[str]:
    """Each worker in an order of its own, so that they rarely meet at one lane."""
    return sorted(names, key=lambda name: hash((name, worker)))


def _add(lane: Lane, entry: replay.Entry) -> int:
    """A replayed message into the index: its ref."""
    message, accept = entry.message, entry.accept
    flags = (
        (BLOB if accept.blob is not None else 0)
        | (NESTED if message.flags & record.REPORT else 0)
        | (TRIED if entry.tried else 0)
    )
    count = len(entry.envelope.recipients)
    row = lane.add(message.number, (message.ordinal, message.offset, message.length), count, flags)
    if message.settle is not None:
        lane.set_state_at(row, message.settled_at[0], message.settled_at[1])
    if count > 1 and (message.settle is not None or accept.states):
        lane.multi[row] = bytearray(entry.states)
    return lane.ref(row)


def _write_load(worker: str, live: int) -> Steps[None]:
    """A hint for peers: in place, not synced."""
    fd = yield Call("overwrite", (layout.load(worker),))
    try:
        yield Call("pwritev", (fd, [sharing.load_text(live)], 0))
    except OSError:
        yield Call("close", (fd,))
        raise
    yield Call("close", (fd,))
