"""When a domain's DNS is looked at again.

Rules of this file
- Pure: `now` (unix seconds) and `chance` (0 to 1) are passed in.
- What is right is looked at every half hour; what is wrong soon, then ever later, because somebody may be mending
  it; a resolver that does not answer is given time. Times are spread: thousands of domains never come at once.
"""

from __future__ import annotations

from typing import NamedTuple

SETTLED = 1800.0  # seconds between looks at a domain that is right
HURRIED = 10.0  # the first new look at one that is not
SLOWEST = 300.0  # the slowest, while something is missing
UNANSWERED = 5.0
SPREAD = 0.2


class Entry(NamedTuple):
    """`tries`: looks in a row that did not find everything right; `due`: unix seconds."""

    due: float
    tries: int = 0


def first(now: float, chance: float, *, is_known: bool) -> Entry:
    """A domain that was just heard of: now, or, where an earlier process has looked, some time in the next round."""
    return Entry(now + SETTLED * chance if is_known else now)


def following(entry: Entry, now: float, chance: float, *, is_right: bool, is_answered: bool) -> Entry:
    """After a look."""
    if is_right:
        return Entry(now + _spread(SETTLED, chance))
    begin = HURRIED if is_answered else UNANSWERED
    pause = min(SLOWEST, begin * 2.0 ** min(entry.tries, 16))
    return Entry(now + _spread(pause, chance), entry.tries + 1)


def _spread(pause: float, chance: float) -> float:
    return pause * (1 - SPREAD + 2 * SPREAD * chance)
