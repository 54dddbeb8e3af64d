"""A limit divided: every worker has a slice of a line of length UNIT, and of each limit what falls into its slice.

Rules
- Slices of different workers never overlap (shares.py sees to that). A limit of L is L points on the line; a worker
  may use those in its slice. So whatever the slices are, the parts of a limit add up to the limit at most, and to
  exactly the limit where the slices cover the line: nothing is lost to rounding.
- Where the points lie depends on the key (the site, the client), so that many limits of 1 are many workers' 1.
- With fewer points than workers some have none. Therefore all points move every TURN seconds of the wall clock: each
  worker has its turn, within 3 * workers / limit turns. Around a change only what counts before and after it may be
  used: clocks may differ by GUARD seconds, and sessions have as long to end.
- A limit per minute is divided by width: a slice of a twelfth is a twelfth of the rate.
"""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

UNIT = 1 << 40
TURN = 10.0  # seconds
GUARD = 1.0  # seconds: clocks of nodes that keep time differ by far less
_GOLDEN = 679_573_777_237  # UNIT / golden ratio: any run of turns spreads its points evenly
_SLACK = 1 << 10  # borders are rounded down; points must not fall between the true one and ours


class Slice(NamedTuple):
    """From `low` up to `high`, which is not in it. 0 <= low <= high <= UNIT."""

    low: int
    high: int

    @property
    def width(self) -> int:
        return self.high - self.low

    @property
    def share(self) -> float:
        """Its part of the whole, 0.0 to 1.0."""
        return (self.high - self.low) / UNIT

    @property
    def is_sound(self) -> bool:
        """Whether two numbers from elsewhere make a slice."""
        return 0 <= self.low <= self.high <= UNIT

    def overlaps(self, other: Slice) -> bool:
        """Whether both have a point in common; an empty slice has none."""
        return max(self.low, other.low) < min(self.high, other.high)

    def common(self, other: Slice) -> Slice:
        """What is in both."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Slice(low, high) if low < high else NOTHING

    def part(self, before: int, weight: int, total: int) -> Slice:
        """Divided into `total` equal pieces: `weight` of them, after the first `before`."""
        width = self.high - self.low
        return Slice(self.low + width * before // total, self.low + width * (before + weight) // total)

    def points(self, limit: int, shift: int) -> int:
        """How many of a limit's points are in it, when they are shifted by `shift` (0 .. UNIT - 1)."""
        slack = limit * _SLACK + shift
        return (limit * self.high + slack) // UNIT - (limit * self.low + slack) // UNIT


WHOLE = Slice(0, UNIT)
NOTHING = Slice(0, 0)


def turn_of(now: float) -> int:
    """The number of a turn. `now`: unix seconds."""
    return int(now // TURN)


def shift_of(key: str, turn: int) -> int:
    """Where the points of a key's limit begin in a turn. The same in every process."""
    return ((crc32(key.encode("utf-8", "surrogateescape")) << 8) + turn * _GOLDEN) % UNIT


class Portion:
    """What one worker may use of limits, now. `edition` changes whenever an answer may have changed.

    It starts with everything: one worker alone. `move` it with the clock, a few times in GUARD.
    """

    __slots__ = ("_before", "_behind", "edition", "is_whole", "slice")

    def __init__(self, piece: Slice = WHOLE) -> None:
        self.slice = piece
        self.is_whole = piece == WHOLE
        self.edition = 0
        self._before = self._behind = 0  # turns at GUARD before and behind now

    def set(self, piece: Slice) -> None:
        """Another slice, from now on."""
        if piece != self.slice:
            self.slice = piece
            self.is_whole = piece == WHOLE
            self.edition += 1

    def move(self, now: float) -> None:
        """The time is `now`, unix seconds."""
        before, behind = turn_of(now - GUARD), turn_of(now + GUARD)
        if before != self._before or behind != self._behind:
            self._before, self._behind = before, behind
            if not self.is_whole:
                self.edition += 1

    def of(self, limit: int, key: str) -> int:
        """This worker's part of a limit of things that exist at one time."""
        if self.is_whole:
            return limit
        found = self.slice.points(limit, shift_of(key, self._before))
        if found and self._behind != self._before:
            found = min(found, self.slice.points(limit, shift_of(key, self._behind)))
        return found

    @property
    def width(self) -> float:
        """Its part of a limit of things per time: 0.0 to 1.0."""
        return 1.0 if self.is_whole else self.slice.share
