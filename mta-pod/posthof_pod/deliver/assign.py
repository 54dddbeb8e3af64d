"""Who gets a session, and how much of the queue it takes: decisions on numbers, without anything to act on.

`pool.py` counts and acts. `pace` is the time one message lately took in a session of the site (0.0: not known), and
everything that is worth waiting for instead of opening another session is measured against SOON.
"""

from __future__ import annotations

from posthof_pod.model import Reason

BATCH = 10  # messages given to a session at once: enough to fill a pipeline, few enough to share
LOCAL_BATCH = 100  # for Maildirs, one batch is one round of fsyncs
QUANTUM = 20  # messages a session may send while other sites wait for capacity
SOON = 0.02  # seconds a message may wait behind others in one session before another session is worth its cost
SLOW = 1.0  # seconds a batch should take at most: a stop waits for it, and so may others
MOST_FULL_SESSIONS = 2  # hosts that answered and refused the session, in one try
MOST_ADDRESSES = 5

_NEVER_CONNECTED = frozenset({Reason.CONNECT_FAILED, Reason.CONNECT_TIMEOUT})

ANSWERED_NOT = frozenset({Reason.CONNECT_FAILED, Reason.CONNECT_TIMEOUT, Reason.SITE_DOWN, Reason.DNS_FAILED})
"""Reasons to wait that end when the site answers again."""


def wanted(*, ready: int, allowed: int, sessions: int, idle: int, connecting: int, brisk: int, pace: float) -> int:
    """How many sessions a site should open now.

    `sessions` counts all: at work, idle and connecting; `brisk` those at work that are not overdue. A ready unit that
    an idle or connecting session will take, or one at work will reach soon, needs no session of its own.
    """
    soon = int(brisk * SOON / pace) if pace > 0.0 else 0
    return max(0, min(ready - idle - connecting - soon, allowed - sessions))


def batch(*, ready: int, allowed: int, pace: float, most: int = BATCH) -> int:
    """How many ready units one session takes at once, up to `most`.

    Its share of what is ready, as far as it sends that within SLOW; and as many as it sends within SOON in any case.
    One, where the pace is not known.
    """
    if pace <= 0.0:
        return 1
    share = max(min(ready // max(1, allowed), int(SLOW / pace)), int(SOON / pace))
    return max(1, min(most, share, ready))


def must_yield(*, sent: int, sessions: int, waiting: int, capacity: int, sites: int) -> bool:
    """Whether a session should end after its batch, so that a site that waits for capacity gets one.

    `sent`: messages of this session; `sessions`: of its site; `waiting`: sites that wait; `sites`: that have or want
    sessions. A site above its even share yields at once, others after a quantum.
    """
    if not waiting:
        return False
    return sessions > max(1, capacity // max(1, sites)) or sent >= QUANTUM


def is_full_session(reason: Reason) -> bool:
    """Whether a failure to open counts as a session: the host took the connection and something came after."""
    return reason not in _NEVER_CONNECTED


def weight(reason: Reason, is_permanent: bool) -> tuple[bool, bool]:
    """Which of several hosts' failures is told: the greatest. What may pass before what will not; a host that spoke
    before one that did not."""
    return (not is_permanent, is_full_session(reason))
