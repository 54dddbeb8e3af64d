"""From a ref to what the volume holds of it: the index says where, a reader thread reads, moves are followed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeVar

from ..replies import Temporary
from . import layout, reading, record
from .cache import Live
from .core import Core
from .journal import TROUBLE
from .lane import SETTLED, TRIED, Gone, Lane, Segment
from .reading import Found, Place
from .record import Accept, Damaged, Settle, State

T = TypeVar("T")

READS = 5  # times a read follows a message that is being moved


def _try(place: partial[Found] | None) -> Accept | None:
    """In a reader thread. None: it is to be asked for alone."""
    if place is None:
        return None
    try:
        return place().accept
    except (OSError, Damaged):
        return None


class Reader:
    """Of one worker's lanes. All raise Damaged (not what was written), Gone (done, or another worker's) and Temporary
    (the volume does not answer)."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def find(self, ref: int) -> tuple[Lane, int]:
        """Lane and row; Gone."""
        lane = self._core.lanes.get(ref >> 32)
        if lane is None:
            raise Gone(ref)
        return lane, lane.row(ref)

    async def accept(self, ref: int) -> Found:
        """The message as it was accepted, or last copied."""
        for _ in range(READS):
            lane, row = self.find(ref)
            segment = lane.segment_at(lane.ordinals[row])
            offset, length, number = lane.offsets[row], lane.lengths[row], lane.numbers[row]
            if offset >= segment.written:
                await self._core.journal.flushed(lane)
                continue
            place = Place(layout.segment(lane.name, *segment.name), segment.nonce, offset)
            found = await self._read(
                lane, segment, partial(reading.read_message, self._core.disk, place, length, number)
            )
            if found is not None:
                return found
        raise Damaged(str(ref), "the record is not where it should be")

    async def accepts(self, refs: Sequence[int]) -> list[Accept | Exception]:
        """What was accepted, of many messages in one go. In place of one that cannot be had stands why."""
        places = [self._place(ref) for ref in refs]
        found = await self._core.read(lambda: [_try(place) for place in places])
        return [
            await self._accept_or_why(ref) if accept is None else accept
            for ref, accept in zip(refs, found, strict=True)
        ]

    def _place(self, ref: int) -> partial[Found] | None:
        """How to read it in the usual case."""
        try:
            lane, row = self.find(ref)
        except Gone:
            return None
        segment, offset = lane.segment_at(lane.ordinals[row]), lane.offsets[row]
        if offset >= segment.written:
            return None
        place = Place(layout.segment(lane.name, *segment.name), segment.nonce, offset)
        return partial(reading.read_message, self._core.disk, place, lane.lengths[row], lane.numbers[row])

    async def _accept_or_why(self, ref: int) -> Accept | Exception:
        """The long way: it moved, or something is wrong with it."""
        try:
            return (await self.accept(ref)).accept
        except (Damaged, Gone, Temporary) as why:
            return why

    async def settle(self, ref: int) -> Settle | None:
        """Its last settle, where there was one since it was accepted or copied."""
        for _ in range(READS):
            lane, row = self.find(ref)
            if not lane.flags[row] & SETTLED:
                return None
            segment = lane.segment_at(lane.state_ordinals[row])
            offset = lane.state_offsets[row]
            if offset >= segment.written:
                await self._core.journal.flushed(lane)
                continue
            place = Place(layout.segment(lane.name, *segment.name), segment.nonce, offset)
            act = partial(reading.read_settle, self._core.disk, place, lane.numbers[row])
            settle = await self._read(lane, segment, act)
            if settle is not None:
                return settle
        raise Damaged(str(ref), "the last settle is not where it should be")

    async def _read(self, lane: Lane, segment: Segment, act: partial[T]) -> T | None:
        """None: the file is gone, its message was copied elsewhere meanwhile."""
        try:
            return await self._core.read(act)
        except FileNotFoundError:
            return None
        except Damaged as damage:
            segment.is_kept = True
            self._core.damaged(lane.name, str(segment.name), -1, str(damage))
            raise
        except OSError as error:
            raise Temporary(TROUBLE, f"{lane.name} cannot be read: {error}") from error

    async def state(self, ref: int) -> State:
        """Where its recipients stand, and why."""
        settle = await self.settle(ref)
        if settle is not None:
            return record.read_states(settle.states, settle.reason, settle.detail)
        accept = (await self.accept(ref)).accept
        lane, row = self.find(ref)
        states = accept.states or record.fresh_states(accept.envelope, is_tried=bool(lane.flags[row] & TRIED))
        return record.read_states(states, accept.reason, accept.detail)

    async def live(self, ref: int) -> Live:
        """As a replay would tell of it."""
        state = await self.state(ref)
        envelope = (await self.accept(ref)).accept.envelope
        lane, row = self.find(ref)
        return Live(ref, envelope, state.waiting, bool(lane.flags[row] & TRIED))
