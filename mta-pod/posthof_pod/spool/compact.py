"""Compaction: the few live messages of a lane's oldest segment are written again, so that it can go.

Order is everything: a copy is an accept with the present state, appended like any record, so settles that come after
it come after it in the log too. The index follows once the copy is synced; until then the old place counts.
"""

from __future__ import annotations

import asyncio

from ..replies import Temporary
from . import record
from .core import Core
from .journal import OTHER
from .lane import BAD, COPYING, NESTED, SETTLED, TRIED, Gone, Lane, LaneState
from .reader import Reader
from .reading import Found
from .record import STATE, Accept, Damaged, Settle

LIVE_SHARE = 4  # compact when less than one in this many bytes is live
AT_ONCE = 500  # messages copied in one round


class Compactor:
    """Of one worker."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._reader = Reader(core)

    async def compact(self, lane: Lane) -> int:
        """Copy what is live in the oldest segment, where it is worth it: how many messages were copied."""
        if (
            lane.is_blocked
            or lane.is_removing
            or lane.is_filling
            or lane.state not in (LaneState.OPEN, LaneState.CLOSED)
        ):
            return 0
        if not lane.segments or lane.segments[0] is lane.current or lane.segments[0].is_pinned:
            return 0
        if lane.segments[0].live == 0 or lane.live_bytes * LIVE_SHARE >= lane.size:
            return 0
        copied = 0
        for row in list(lane.rows()):
            if lane.ordinals[row] != lane.first or lane.flags[row] & (COPYING | BAD) or copied >= AT_ONCE:
                continue
            if lane.ref(row) in lane.trying:
                continue  # its `try` is on the way: a copy placed now would not tell of it
            copied += await self._copy(lane, lane.ref(row))
        if copied:
            self._core.journal.settle_later(lane)
        return copied

    async def _copy(self, lane: Lane, ref: int) -> int:
        """1 when the message was placed again; 0: not now."""
        try:
            before = _where(lane, ref)
            found = await self._reader.accept(ref)
            settle = await self._reader.settle(ref)
            if (
                ref in lane.trying
                or _where(lane, ref) != before
                or lane.state not in (LaneState.OPEN, LaneState.CLOSED)
                or lane.is_blocked
            ):
                return 0  # it changed while we read: the next round tries again
        except Gone:
            return 0
        except Damaged:
            lane.flags[ref & 0xFFFFFF] |= BAD
            return 0
        except Temporary as failure:
            self._core.event("compaction_failed", lane=lane.name, error=failure.reason)
            return 0
        self._place(lane, ref, found, settle)
        await asyncio.sleep(0)
        return 1

    def _place(self, lane: Lane, ref: int, found: Found, settle: Settle | None) -> None:
        row = ref & 0xFFFFFF
        old = found.accept
        reason, detail = (settle.reason, settle.detail) if settle is not None else (old.reason, old.detail)
        accept = Accept(old.envelope, old.trace, old.blob, _states(lane, row, old, settle), reason, detail)
        content = (found.trace, found.body) if found.body is not None else (found.trace,)
        state_at = (lane.state_ordinals[row], lane.state_offsets[row])
        place = (0, 0, 0)

        def synced() -> None:
            if not _is_live(lane, ref):
                return
            lane.flags[row] &= ~(COPYING | NESTED) & 0xFF
            lane.move(row, *place)
            if (lane.state_ordinals[row], lane.state_offsets[row]) == state_at:
                lane.flags[row] &= ~SETTLED & 0xFF  # the copy itself says where it stands
            self._core.counters.compacted += 1
            self._core.tidy(lane)

        def failed(_: Temporary) -> None:
            if _is_live(lane, ref):
                lane.flags[row] &= ~COPYING & 0xFF

        meta = record.accept_meta(lane.numbers[row], accept)
        lane.flags[row] |= COPYING
        place = self._core.journal.append(
            lane, record.ACCEPT, record.COPY, meta, content, entry=(OTHER, synced, failed)
        )


def _where(lane: Lane, ref: int) -> tuple[int, ...]:
    """Everything that changes when a message moves or is settled. Gone."""
    row = lane.row(ref)
    return (
        lane.ordinals[row],
        lane.offsets[row],
        lane.state_ordinals[row],
        lane.state_offsets[row],
        lane.flags[row] & (SETTLED | TRIED | COPYING),
    )


def _states(lane: Lane, row: int, old: Accept, settle: Settle | None) -> bytes:
    """The present state of all recipients."""
    known = lane.multi.get(row)
    if known is not None:
        return bytes(known)
    is_tried = bool(lane.flags[row] & TRIED)
    states = settle.states if settle is not None else old.states
    if not states:
        return bytes(record.fresh_states(old.envelope, is_tried=is_tried))
    return record.mark_tried(states) if is_tried and len(states) == STATE.size else states


def _is_live(lane: Lane, ref: int) -> bool:
    try:
        lane.row(ref)
    except Gone:
        return False
    return lane.state is not LaneState.GONE
