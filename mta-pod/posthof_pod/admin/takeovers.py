"""What the workers of this house took over from others, lane by lane, told as one thing per worker that was followed.

Rules of this file
- Lanes that come from the same worker belong together until QUIET seconds pass without another.
- A lane that a living peer gave away to share its backlog is nobody's end: it is not told here.
- The last KEPT are remembered, for LASTS seconds: whoever asks sees each for a while, by its id.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import msgspec

from posthof_crds.report import TakeOver

QUIET = 3.0  # seconds
KEPT = 64
LASTS = 600.0  # seconds
NAMED = 8  # lanes named in one


class Adopted(msgspec.Struct, frozen=True):
    """A worker's word of one lane (channel: "adopted")."""

    lane: str
    old: str
    messages: int = 0
    seconds: float = 0.0
    possible_duplicates: int = 0
    is_freed: bool = False


class _Open:
    def __init__(self, began: float, at: float) -> None:
        self.began, self.last, self.at = began, began, at
        self.lanes: list[str] = []
        self.count = self.messages = self.duplicates = 0
        self.is_freed = True


class TakeOvers:
    """`on_told(take_over)`: once for each, when it is over."""

    def __init__(
        self,
        pod: str,
        *,
        on_told: Callable[[TakeOver], object],
        pod_of: Callable[[str], str] = lambda worker: "",
        is_alive: Callable[[str], bool] = lambda worker: False,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._pod, self._on_told, self._pod_of, self._is_alive = pod, on_told, pod_of, is_alive
        self._clock, self._wall = clock, wall
        self._open: dict[str, _Open] = {}
        self._told: deque[TakeOver] = deque(maxlen=KEPT)
        self._count = 0

    def note(self, lane: Adopted) -> None:
        """One more lane."""
        if lane.is_freed and self._is_alive(lane.old):
            return
        now = self._clock()
        known = self._open.setdefault(lane.old, _Open(now - lane.seconds, self._wall()))
        known.last = now
        known.count += 1
        known.messages += lane.messages
        known.duplicates += lane.possible_duplicates
        known.is_freed = known.is_freed and lane.is_freed
        if len(known.lanes) < NAMED:
            known.lanes.append(lane.lane)

    def settle(self) -> None:
        """Tell of those that are over. Call it every second or so."""
        now = self._clock()
        for worker, one in list(self._open.items()):
            if now - one.last < QUIET:
                continue
            del self._open[worker]
            self._count += 1
            told = TakeOver(
                id=f"{self._pod}.{self._wall():.0f}.{self._count}",
                worker=worker,
                pod=self._pod_of(worker),
                lanes=tuple(one.lanes),
                count=one.count,
                messages=one.messages,
                possible_duplicates=one.duplicates,
                seconds=round(one.last - one.began, 3),
                freed=one.is_freed,
                at=round(one.at, 3),
            )
            self._told.append(told)
            self._on_told(told)

    @property
    def recent(self) -> tuple[TakeOver, ...]:
        """Oldest first."""
        since = self._wall() - LASTS
        return tuple(one for one in self._told if one.at >= since)
