"""How many sessions a site may have: grown by success, shrunk by failure, one probe when nobody answers.

Owns: one site's Window. A site is a set of hosts that several destinations may share.

Rules
- The window starts at `start` and grows by one for every window of messages that went through while it was the
  limit, up to `most`. A window nobody fills does not grow: it would say nothing about the site.
- A session that could not be opened takes one away; where other sessions work, the window is what works now. Failures
  of connects that began before the last failure tell nothing new and are not counted.
- Two failures in a row with no session open: the site is down. One probe may connect when the pause is over; each
  probe that fails doubles the pause. One that succeeds ends it, and the window starts small.
"""

from __future__ import annotations

DOWN_AFTER = 2  # failures in a row; each has tried up to five addresses
PROBE_SHARE = 0.25  # the first pause, as a share of the first retry interval
PROBE_DOUBLINGS = 4  # the longest pause is the first times 2 ** this (30 s and 8 min with the default curve)


class Window:
    """The sessions one site may have. `open_` counts those that are connected, `now` is in seconds, any epoch."""

    __slots__ = ("_first_pause", "_pauses", "failed_at", "failures", "limit", "most", "next_probe")

    def __init__(self, start: int, most: int, first_interval: float = 120.0) -> None:
        self.most = max(1, most)
        self.limit = float(min(max(1, start), self.most))
        self.failures = 0  # in a row
        self.failed_at = float("-inf")
        self.next_probe = float("-inf")  # when down: the earliest time of the next connect
        self._first_pause = first_interval * PROBE_SHARE
        self._pauses = 0

    @property
    def is_down(self) -> bool:
        return self.failures >= DOWN_AFTER

    def allowed(self, now: float) -> int:
        """How many sessions may exist, those being opened included."""
        if self.is_down:
            return 1 if now >= self.next_probe else 0
        return int(self.limit)

    def passed(self, messages: int, *, is_full: bool) -> None:
        """Messages went through. `is_full`: mail was waiting while every session the window allows was at work."""
        self.failures = 0
        if is_full and self.limit < self.most:
            self.limit = min(float(self.most), self.limit + messages / self.limit)

    def opened(self) -> bool:
        """A session stands: greeting and EHLO were answered. True: the site was down until now."""
        was_down = self.is_down
        self.failures = 0
        self._pauses = 0
        if was_down:
            self.limit = 1.0
        return was_down

    def failed(self, now: float, *, began: float, open_: int) -> None:
        """A session could not be opened, on none of the hosts. `began`: when it was tried."""
        if open_:
            self.limit = float(max(1, min(open_, int(self.limit) - 1)))
            self.failed_at = now
            return
        if began <= self.failed_at:
            return
        self.failed_at = now
        self.failures += 1
        self.limit = max(1.0, self.limit - 1.0)
        if self.is_down:
            self.next_probe = now + self._first_pause * 2 ** min(self._pauses, PROBE_DOUBLINGS)
            self._pauses += 1

    def broken(self) -> None:
        """A session that stood was ended by the peer (421, closed, silence) in the middle of its work."""
        self.limit = max(1.0, self.limit - 1.0)
