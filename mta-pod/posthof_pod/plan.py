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
from posthof_pod.model import Envelope, Held, Outcome, Settlement, Status, Taken
from posthof_pod.schedule.retry import verdict

FOREVER = float("inf")

DONE_FIRST = Settlement(done=(0,))
"""The usual settlement: the only recipient is done."""

_WAITING = frozenset({Status.DEFERRED, Status.UNCERTAIN, Status.HELD})


class Plan(NamedTuple):
    settlement: Settlement
    outcomes: tuple[Outcome, ...]  # as they count: a DEFERRED that is too old stands here as EXPIRED
    delayed: tuple[int, ...] = ()  # recipients to be told of the delay now


def settle(
    taken: Taken, envelope: Envelope, outcomes: Sequence[Outcome], *, now: float, retry: Retry, jitter: float
) -> Plan:
    """The plan after one try of `taken`. `outcomes` holds one Outcome for each of taken.recipients."""
    if len(outcomes) == 1 and len(envelope.recipients) == 1 and outcomes[0].status not in _WAITING:
        return Plan(DONE_FIRST, (outcomes[0],))
    is_bounce = not envelope.sender
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
        else:
            what = verdict(
                retry,
                arrived=envelope.arrived,
                attempts=taken.attempts + 1,
                now=now,
                is_bounce=is_bounce,
                notify=envelope.recipients[n].notify,
                notified=taken.notified,
                jitter=jitter,
            )
            if what.is_expired:
                done.append(n)
                outcome = outcome._replace(status=Status.EXPIRED)
            else:
                if what.is_notice_due:
                    delayed.append(n)
                is_told = taken.notified or what.is_notice_due
                waiting.append(Held(n, what.retry_at, taken.attempts + 1, is_told))
        counted.append(outcome)
    first = next((o for o in counted if o.status in _WAITING), None)
    settlement = Settlement(
        done=tuple(done),
        waiting=tuple(waiting),
        reason=first.reason if first else "",
        detail=first.reply if first else "",
    )
    return Plan(settlement, tuple(counted), tuple(delayed))
