"""Take-over: lanes of dead workers, lanes given free, lanes nobody began.

Rules of this file
- The order is protocol.py's: judge, fence, (wait), claim, read, cut; one lane at a time.
- A lane that is poisoned, or that a newer version must work, is let alone and told of.
- Reading is done in a reader thread; what was read reaches the engine in slices, so the loop stays responsive and
  envelopes are not held twice. Meanwhile the next lane is read, so that a start waits for the volume or for the
  processor, not for both in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from itertools import islice
from typing import NamedTuple

import msgspec

from . import layout, protocol, record, replay, sharing
from .cache import Live
from .core import Core
from .lane import BLOB, LIVE, NESTED, SETTLED, TRIED, Lane, LaneState, Rows, Segment
from .liveness import Liveness, Verdict
from .protocol import Call, Folder, Holding, Steps, Vanished
from .record import STATE, Start
from .replay import Entry, Message, Replay
from .volume import Disk

SLICE = 100  # messages told to the engine at once
SHARE_LEAST = 0.004  # seconds of a turn of the loop that are spent on them
SHARE_MOST = 0.1
LISTED = 16  # lanes looked at together
LOADS_LAST = 0.1  # seconds
DOTS_END = 2.0  # seconds after the fence until an unproven dead worker's dots have ended
WAITS = 20  # times a lane is left for a worker with less load
WAIT = 0.05  # seconds each
THOROUGH = 10.0  # seconds between two looks at all lanes
COMPLETE_TRIES = 20


Opened = tuple[Start, bytes, tuple[int, int]]  # a segment of ours: its start, nonce, descriptor and length

_new = tuple.__new__  # a Live without the cost of its keyword handling


class Peers(NamedTuple):
    """The other workers, as judged."""

    alive: frozenset[str]
    dead: frozenset[str]
    proven: frozenset[str]  # of the dead


class _Read(NamedTuple):
    """What a reader thread made of a lane that is ours now."""

    found: Replay
    opened: Opened | None  # our segment in it; None: a newer version must work it


class Taken(NamedTuple):
    """A lane that is ours, its messages still to be put in."""

    lane: Lane
    found: Replay
    holder: str  # who had it
    is_freed: bool  # it gave the lane away
    began: float  # monotonic


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
        self._coming = 0  # messages of a lane that was read, not put in yet
        self._loads: list[int] = []
        self._loads_at = float("-inf")
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
        """Lane after lane: while the messages of one are put in, the next one is read."""
        core = self._core
        await self._fence_all(peers)
        names = await core.reading(partial(core.disk.listdir, layout.LANES))
        taken = unowned = 0
        named: set[str] = set()
        filling: asyncio.Task[int] | None = None
        try:
            async for name, holding, judged in self._nobodys(_mixed(names, core.worker), named):
                if self.load >= self.max_live:
                    unowned += 1
                    continue
                if filling is not None and not holding.is_begun:
                    taken += await filling  # it may be poison: if we die of it, it shall be of nothing else
                    filling = None
                read = await self._try_read(name, holding, judged)
                if filling is not None:
                    taken += await filling
                filling = core.loop.create_task(self._try_fill(read)) if read is not None else None
        finally:
            if filling is not None:
                taken += await filling
        self.unowned = unowned
        await self._clean(peers, named)
        return taken

    async def _nobodys(self, names: list[str], named: set[str]) -> AsyncIterator[tuple[str, Holding, Peers]]:
        """The lanes that are ours to take, and the workers as they are judged then. `named` gets the holders of all.

        Judged after the lanes were looked at: a worker that is new takes its lock before its first lane.
        """
        core = self._core
        for first in range(0, len(names), LISTED):
            some = [
                name for name in names[first : first + LISTED] if name not in core.by_name and name not in self.newer
            ]
            found = await core.reading(partial(_find_all, core.disk, some))
            peers = await self.peers()
            for name, holding in found:
                if core.is_stopping or core.journal.is_fenced:
                    return
                if name.startswith(layout.GONE):
                    await self._sweep(name.removeprefix(layout.GONE))
                    continue
                if holding is None or name in core.by_name:
                    continue
                if not holding.is_free:
                    named.add(holding.holder)
                if await self._is_mine_to_take(name, holding, peers):
                    yield name, holding, peers

    @property
    def load(self) -> int:
        """Live messages: those of a lane that is being put in included, of lanes that leave not."""
        return self._core.live + self._coming - self._core.leaving

    async def tell_load(self) -> None:
        """Write our load where peers read it: a hint, in place, not synced."""
        load = self.load
        if load != self._told:
            await self._core.io(_write_load(self._core.worker, load))
            self._told = load

    def _tell_load_soon(self) -> None:
        """Peers wait for us as long as our load seems the smaller one. Nobody waits for this."""
        self._told = self.load
        told = self._core.io(_write_load(self._core.worker, self._told))
        told.add_done_callback(self._load_told)

    def _load_told(self, told: asyncio.Future[None]) -> None:
        if not told.cancelled() and told.exception() is not None:
            self._told = -1  # a hint: the next round tells it

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
        elif not holding.is_free and await self._judged(holder, peers) is Verdict.ALIVE:
            return False  # a free one of somebody who is gone is for anybody
        if holding.is_poisoned:
            if name not in self.poisoned:
                self.poisoned.add(name)
                core.event("poisoned", lane=name, claim=holding.claim)
            return False
        return True

    async def _judged(self, worker: str, peers: Peers) -> Verdict:
        """Also of one whose folder we did not see."""
        if worker in peers.proven:
            return Verdict.PROVEN
        if worker in peers.dead:
            return Verdict.DEAD
        return await self._core.thread.call(partial(self.liveness.judge, worker))

    async def _try_read(self, name: str, holding: Holding, peers: Peers) -> Taken | None:
        """None: not now, or not ours."""
        core = self._core
        for _ in range(WAITS):
            if not sharing.should_wait(self.load, await self._late_loads(peers), core.settings.lane_messages):
                break
            await asyncio.sleep(WAIT)
        try:
            is_proven = holding.is_free or await self._judged(holding.holder, peers) is Verdict.PROVEN
            taken = await self._read(name, holding, is_proven=is_proven)
            self._tell_load_soon()
            return taken
        except Exception as error:  # whatever a lane holds, it must not stop us from taking the others
            core.event("take_over_failed", lane=name, error=repr(error))
            return None

    async def _try_fill(self, read: Taken) -> int:
        """1, or 0 where it broke off."""
        try:
            await self._bring_in(read)
        except Exception as error:  # as above
            self._core.event("take_over_failed", lane=read.lane.name, error=repr(error))
            return 0
        return 1

    async def take_offered(self, name: str, holding: Holding) -> int:
        """As `take`, of a lane whose owner gave it away. What fails is told."""
        async with self._lock:
            if name in self._core.by_name or holding.is_poisoned:
                return 0
            try:
                return await self.take(name, holding, is_proven=True)
            except (OSError, Vanished) as error:
                self._core.event("take_over_failed", lane=name, error=str(error))
                return 0

    async def _late_loads(self, peers: Peers) -> list[int]:
        """As `loads`, not older than LOADS_LAST."""
        now = self._core.monotonic()
        if now - self._loads_at > LOADS_LAST:
            self._loads, self._loads_at = await self.loads(peers), now
        return self._loads

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
        taken = await self._read(name, holding, is_proven=is_proven)
        if taken is None:
            return 0
        await self._bring_in(taken)
        return 1

    async def _read(self, name: str, holding: Holding, *, is_proven: bool) -> Taken | None:
        """Claim a lane and read it: ours from then on, its messages still to be put in. None: someone else was
        quicker, or a newer version must work it. OSError: not now; Vanished: never ends."""
        core = self._core
        began = core.monotonic()
        number = holding.claim + 1
        if holding.holder == core.worker and not holding.is_free:
            number = holding.claim
        elif not holding.is_free:
            await self.fence(holding.holder, is_proven=is_proven)
        elif holding.claim and not await self._sees_all(name, holding.claim):
            return None
        read = await core.taking(
            self._claim_and_read(name, number, is_ours=number == holding.claim),
            lambda late: self._open(name, number, late) if late is not None else None,
        )
        if read is None:
            return None
        lane = self._open(name, number, read)
        if lane is None:
            self.newer.add(name)
            core.event("newer", lane=name)
            return None
        self._coming += len(read.found.messages)
        return Taken(lane, read.found, holding.holder, holding.is_free, began)

    def _claim_and_read(self, name: str, number: int, *, is_ours: bool) -> Steps[_Read | None]:
        """Steps 4 to 6 of a take-over. None: someone else was quicker."""
        core = self._core
        if not is_ours and not (yield from protocol.claim(name, number, core.worker)):
            return None
        found = yield from protocol.read_lower(name, number)
        if found.is_critical:
            yield from protocol.release(name, number, core.worker, None, 0)
            return _Read(found, None)
        return _Read(found, (yield from core.open_segment(name, number, found.lengths())))

    async def _bring_in(self, taken: Taken) -> None:
        """Put the messages of a lane that was read into the index and the schedule."""
        core = self._core
        lane, found, old, is_freed, began = taken
        messages = len(found.messages)
        self._tell_damage(found)
        duplicates = await self._fill(lane, found)
        core.counters.adoptions += 1
        core.event(
            "adopted",
            lane=lane.name,
            old=old,
            messages=messages,
            seconds=core.monotonic() - began,
            possible_duplicates=duplicates,
            is_freed=is_freed,
        )
        self._remove_orphans(lane, found)
        core.tidy(lane)
        await self._quietly(protocol.withdraw(lane.name))

    async def _fence_all(self, peers: Peers) -> None:
        """Shut the latches of all whose end is not proven, so that their dots end together and not one after the
        other. What fails is tried again before a lane is claimed."""
        for holder in peers.dead - peers.proven - self._fenced.keys():
            try:
                await self._fence(holder)
            except OSError as error:
                self._core.event("take_over_failed", lane="", error=str(error))

    async def _fence(self, holder: str) -> None:
        core = self._core
        await core.io(protocol.fence(holder, core.worker))
        self._fenced[holder] = core.monotonic()
        core.event("fenced_other", worker=holder)

    async def fence(self, holder: str, *, is_proven: bool) -> None:
        """Shut its latch, once per worker; then wait until its dots have ended, unless its end is proven."""
        core = self._core
        if holder not in self._fenced:
            await self._fence(holder)
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

    def _open(self, name: str, number: int, read: _Read) -> Lane | None:
        """Make the lane known, with the lengths that count of what others wrote in it. None: it was given back."""
        core = self._core
        found, opened = read
        if opened is None:
            return None
        lane = core.add_lane(name, number, Folder(name, core.worker, is_made=True))
        lane.become(LaneState.CLOSED)
        lane.closed_at = core.monotonic()
        lane.is_filling = True
        for scan in found.scans:
            segment = Segment(scan.name, size=min(scan.end, scan.cut), nonce=scan.nonce)
            segment.is_kept = scan.is_kept
            segment.is_pinned = scan.unknown > 0
            scan.records = []  # added up by now
            lane.add_segment(segment)
        core.journal.resume(lane, *opened)
        return lane

    async def _fill(self, lane: Lane, found: Replay) -> int:
        """Put the live messages into the index and tell the engine, slice by slice. Recipients that may have it.
        Until the last one is in, nothing of the lane may go: its segments look emptier than they are.

        The loop's other work gets its turn after each share of time, and the next share is twice as long as that was:
        at a start with much due mail, two thirds of the time are for what is not known yet.
        """
        core = self._core
        duplicates = 0
        left = len(found.messages)
        messages = iter(found.messages.values())
        ends = core.monotonic() + SHARE_LEAST
        try:
            while some := list(islice(messages, SLICE)):
                duplicates += self._put_in(lane, some)
                left -= len(some)
                self._coming -= len(some)
                if (now := core.monotonic()) < ends:
                    continue
                await asyncio.sleep(0)
                if core.is_stopping:
                    return duplicates  # who comes next replays it whole
                begun = core.monotonic()
                ends = begun + min(max(2 * (begun - now), SHARE_LEAST), SHARE_MOST)
        finally:
            self._coming -= left
            core.counters.replayed_tried += duplicates
        lane.is_filling = False
        return duplicates

    def _put_in(self, lane: Lane, messages: list[Message]) -> int:
        """Some live messages into the index, and to the engine. Recipients that may have theirs already."""
        core = self._core
        entries: list[Entry] = []
        for message in messages:
            try:
                entries.append(replay.decode(message))
            except msgspec.MsgspecError as error:
                lane.segments[message.ordinal].is_pinned = True
                core.event("unreadable", lane=lane.name, number=message.number, error=str(error))
        row = lane.extend(_rows(entries))
        for n, entry in enumerate(entries, row):
            if len(entry.states) > STATE.size and (entry.message.settle is not None or entry.accept.states):
                lane.multi[n] = bytearray(entry.states)
        ref = lane.ref(row) if entries else 0
        core.live += len(entries)
        core.callbacks.on_live(
            [_new(Live, (n, entry.envelope, entry.waiting, entry.tried > 0)) for n, entry in enumerate(entries, ref)]
        )
        return sum([entry.tried for entry in entries])

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
        idle = {name for name in peers.dead if name not in named}
        self._fenced = {name: at for name, at in self._fenced.items() if name in peers.dead or name in named}
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


def _rows(entries: list[Entry]) -> Rows:
    """Replayed messages as the index holds them."""
    messages = [entry.message for entry in entries]
    return Rows(
        [message.number for message in messages],
        [message.ordinal for message in messages],
        [message.offset for message in messages],
        [message.length for message in messages],
        [len(entry.envelope.recipients) for entry in entries],
        [message.settled_at[0] for message in messages],
        [message.settled_at[1] for message in messages],
        [
            LIVE
            | (BLOB if accept.blob is not None else 0)
            | (NESTED if message.flags & record.REPORT else 0)
            | (TRIED if tried else 0)
            | (SETTLED if message.settle is not None else 0)
            for message, accept, _, _, _, tried in entries
        ],
    )


def _write_load(worker: str, live: int) -> Steps[None]:
    """A hint for peers: in place, not synced."""
    fd = yield Call("overwrite", (layout.load(worker),))
    try:
        yield Call("pwritev", (fd, [sharing.load_text(live)], 0))
    except OSError:
        yield Call("close", (fd,))
        raise
    yield Call("close", (fd,))
