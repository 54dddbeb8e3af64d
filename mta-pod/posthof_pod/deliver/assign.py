"""Who gets a session, and how much of the queue it takes: decisions on numbers, without anything to act on.

`pool.py` counts and acts. The simulations in tests/schedule run these same functions in virtual time.
"""

from __future__ import annotations

from collections.abc import Sequence

BATCH = 10  # messages given to a session at once: enough to fill a pipeline, few enough to share
LOCAL_BATCH = 100  # for a Maildir, one batch is one round of fsyncs
QUANTUM = 20  # messages a session may send while others wait for capacity


def wanted(*, ready: int, allowed: int, sessions: int, idle: int, connecting: int) -> int:
    """How many sessions a site should open now.

    `sessions` counts all: at work, idle and connecting. A ready unit that an idle or connecting session will take
    needs none of its own.
    """
    return max(0, min(ready - idle - connecting, allowed - sessions))


def share(demands: Sequence[int], free: int) -> list[int]:
    """Divide `free` places among sites that want `demands`: one each in turn, so that the small are served first."""
    given = [0] * len(demands)
    left = free
    open_ = [n for n, demand in enumerate(demands) if demand > 0]
    while left > 0 and open_:
        each = max(1, left // len(open_))
        for n in open_[:left]:
            step = min(each, demands[n] - given[n], left)
            given[n] += step
            left -= step
        open_ = [n for n in open_ if given[n] < demands[n]]
    return given


def batch(*, ready: int, allowed: int, most: int = BATCH) -> int:
    """How many ready units one session takes at once: few while there are sessions to share them, up to `most`."""
    return max(1, min(most, ready // max(1, allowed)))


def must_yield(*, sent: int, sessions: int, waiting: int, capacity: int, sites: int) -> bool:
    """Whether a session should end after its batch, so that a site that waits for capacity gets one.

    `sent`: messages of this session; `sessions`: of its site; `waiting`: sites that wait; `sites`: that have or want
    sessions. A site above its even share yields at once, others after a quantum.
    """
    if not waiting:
        return False
    return sessions > max(1, capacity // max(1, sites)) or sent >= QUANTUM
