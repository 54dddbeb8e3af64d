"""What a try changes: outcomes in, a plan out. Pure: `now` and the jitter are given.

Rules
- Every recipient of the try leaves with exactly one fate: done, or waiting with a time and a named reason.
- What is tried for longer than the policy's lifetime becomes EXPIRED, with the last reply as the reason.
- A recipient is told of a delay once (RFC 3461 4.1: with NOTIFY=DELAY, or without NOTIFY after the longer default).
- `bounce/` turns the same plan into reports; the spool writes both in one record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from posthof_crds.engine import Retry
from posthof_pod.model import Envelope, Held, Notify, Outcome, Settlement, Status, Taken

FOREVER = float("inf")

DONE_FIRST = Settlement(done=(0,))
"""The usual settlement: the only recipient is done."""

_WAITING = frozenset({Status.DEFERRED, Status.UNCERTAIN, Status.HELD})


class Plan(NamedTuple):
    settlement: Settlement
    outcomes: tuple[Outcome, ...]  # as they count: a DEFERRED that is too old stands here as EXPIRED
    delayed: tuple[int, ...] = ()  # recipients to be told of the delay now


def interval(retry: Retry, attempts: int, jitter: float) -> float:
    """Seconds until the next try after `attempts` (>= 1) tries; `jitter` in [0, 1) spreads it by +-retry.jitter."""
    steps = retry.intervals
    base = steps[min(attempts, len(steps)) - 1]
    return base * (1.0 + retry.jitter * (2.0 * jitter - 1.0))


def settle(
    taken: Taken, envelope: Envelope, outcomes: Sequence[Outcome], *, now: float, retry: Retry, jitter: float
) -> Plan:
    """The plan after one try of `taken`. `outcomes` holds one Outcome for each of taken.recipients."""
    if len(outcomes) == 1 and len(envelope.recipients) == 1 and outcomes[0].status not in _WAITING:
        return Plan(DONE_FIRST, (outcomes[0],))
    lifetime = retry.lifetime if envelope.sender else retry.bounce_lifetime
    is_old = now - envelope.arrived >= lifetime
    due = min(now + interval(retry, taken.attempts + 1, jitter), envelope.arrived + lifetime)
    done: list[int] = []
    waiting: list[Held] = []
    counted: list[Outcome] = []
    delayed: list[int] = []
    for outcome in outcomes:
        n, status = outcome.recipient, outcome.status
        if status is Status.HELD:
            waiting.append(Held(n, FOREVER, taken.attempts, taken.notified))
        elif status not in _WAITING:
            done.append(n)
        elif is_old:
            done.append(n)
            outcome = outcome._replace(status=Status.EXPIRED)
        else:
            is_told = taken.notified
            if not is_told and _is_delay_due(envelope, n, retry, now):
                delayed.append(n)
                is_told = True
            waiting.append(Held(n, max(due, now + 1.0), taken.attempts + 1, is_told))
        counted.append(outcome)
    first = next((o for o in counted if o.status in _WAITING), None)
    settlement = Settlement(
        done=tuple(done),
        waiting=tuple(waiting),
        reason=first.reason if first else "",
        detail=first.reply if first else "",
    )
    return Plan(settlement, tuple(counted), tuple(delayed))


def _is_delay_due(envelope: Envelope, recipient: int, retry: Retry, now: float) -> bool:
    notify = envelope.recipients[recipient].notify
    if not envelope.sender:
        return False
    if notify == Notify.UNSET:
        return now - envelope.arrived >= retry.delay_notice_default
    return bool(notify & Notify.DELAY) and now - envelope.arrived >= retry.delay_notice
