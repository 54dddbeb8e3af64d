"""So many a minute: a bucket that fills evenly, and is never fuller than a moment's worth.

Rules
- Pure: `now` is in seconds, any epoch. A clock that goes back fills nothing.
- Over any time T at most rate * T and one BURST leave: the parts of a fleet's workers add up to its rate.
"""

from __future__ import annotations

BURST = 1.0  # seconds' worth that may leave at once; one in any case
MINUTE = 60.0


class Bucket:
    """Of one worker. It begins with one, so that the first mail to a new destination need not wait."""

    __slots__ = ("_at", "_most", "_per_second", "_rate", "_tokens", "_width")

    def __init__(self, rate: int, width: float = 1.0) -> None:
        """`rate`: of the fleet, per minute; `width`: which part of it is ours, 0.0 to 1.0."""
        self._tokens = 1.0
        self._at: float | None = None
        self._set(rate, width)

    @classmethod
    def follow(cls, bucket: Bucket | None, rate: int, width: float) -> Bucket | None:
        """The bucket for a limit: none for a rate of 0, the one there is where there is one."""
        if not rate:
            return None
        if bucket is None:
            return cls(rate, width)
        if rate != bucket._rate or width != bucket._width:
            bucket._set(rate, width)
        return bucket

    def _set(self, rate: int, width: float) -> None:
        self._rate, self._width = rate, width
        self._per_second = rate * width / MINUTE
        self._most = max(1.0, self._per_second * BURST)
        self._tokens = min(self._tokens, self._most)

    def left(self, now: float) -> int:
        """How many may leave now."""
        if self._at is not None and now > self._at:
            self._tokens = min(self._most, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        return int(self._tokens) if self._width else 0

    def is_full(self, now: float) -> bool:
        """Whether a new one would let out no more than this one."""
        self.left(now)
        return self._tokens >= 1.0 or not self._width

    def take(self, count: int, now: float) -> int:
        """Up to `count` leave now: how many."""
        taken = max(0, min(count, self.left(now)))
        self._tokens -= taken
        return taken
