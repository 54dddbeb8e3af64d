"""What a try changes: every recipient has one fate, every return a time and a reason."""

from __future__ import annotations

import math

from posthof_crds.engine import Retry
from posthof_pod import plan
from posthof_pod.model import (
    Destination,
    DestinationKind,
    Envelope,
    Notify,
    Outcome,
    Reason,
    Recipient,
    Status,
    Taken,
)

HOUR, DAY = 3600.0, 86400.0
TO = Destination(key="direct:b.test", kind=DestinationKind.DIRECT, name="b.test")


def envelope(*notify: int, sender: str = "a@a.test") -> Envelope:
    recipients = tuple(Recipient(f"r{n}@b.test", notify=flags) for n, flags in enumerate(notify or (0,)))
    return Envelope(id="lane-1", sender=sender, recipients=recipients, arrived=0.0, size=10)


def taken(recipients: tuple[int, ...] = (0,), attempts: int = 0, notified: bool = False) -> Taken:
    return Taken(1, 1, recipients, TO, attempts, 0.0, notified, True)


def outcome(recipient: int, status: Status, reply: str = "451 4.3.0 later") -> Outcome:
    return Outcome(recipient, status, Reason.RECIPIENT_REFUSED, 451, "4.3.0", reply)


def test_one_delivered_recipient_is_simply_done() -> None:
    result = plan.settle(taken(), envelope(), [outcome(0, Status.RELAYED)], now=1.0, retry=Retry(), jitter=0.5)
    assert result.settlement == plan.DONE_FIRST


def test_each_recipient_has_its_own_fate() -> None:
    outcomes = [outcome(0, Status.RELAYED), outcome(1, Status.DEFERRED), outcome(2, Status.FAILED)]
    result = plan.settle(taken((0, 1, 2)), envelope(0, 0, 0), outcomes, now=1.0, retry=Retry(), jitter=0.5)
    assert result.settlement.done == (0, 2)
    assert [(h.recipient, h.attempts) for h in result.settlement.waiting] == [(1, 1)]
    assert (result.settlement.reason, result.settlement.detail) == ("RecipientRefused", "451 4.3.0 later")


def test_mail_older_than_its_lifetime_expires_and_keeps_the_last_reply() -> None:
    result = plan.settle(taken(), envelope(), [outcome(0, Status.DEFERRED)], now=5 * DAY, retry=Retry(), jitter=0.5)
    assert result.settlement.done == (0,)
    assert [(o.status, o.reply) for o in result.outcomes] == [(Status.EXPIRED, "451 4.3.0 later")]


def test_a_bounce_expires_sooner() -> None:
    late = [outcome(0, Status.DEFERRED)]
    result = plan.settle(taken(), envelope(sender=""), late, now=2 * DAY, retry=Retry(), jitter=0.5)
    assert result.settlement.done == (0,)


def test_the_last_try_is_at_the_end_of_the_lifetime_and_not_after_it() -> None:
    late = [outcome(0, Status.DEFERRED)]
    result = plan.settle(taken((0,), 40), envelope(), late, now=5 * DAY - 60, retry=Retry(), jitter=0.5)
    assert result.settlement.waiting[0].due == 5 * DAY


def test_a_delay_is_told_once_and_only_to_those_who_may_hear_of_it() -> None:
    late = [outcome(n, Status.DEFERRED) for n in range(4)]
    flags = envelope(Notify.DELAY, Notify.UNSET, Notify.FAILURE, Notify.NEVER)
    at = taken((0, 1, 2, 3), 5)
    assert plan.settle(at, flags, late, now=3 * HOUR, retry=Retry(), jitter=0.5).delayed == ()
    assert plan.settle(at, flags, late, now=4 * HOUR, retry=Retry(), jitter=0.5).delayed == (0,)
    assert plan.settle(at, flags, late, now=24 * HOUR, retry=Retry(), jitter=0.5).delayed == (0, 1)
    told = taken((0, 1, 2, 3), 5, notified=True)
    assert plan.settle(told, flags, late, now=24 * HOUR, retry=Retry(), jitter=0.5).delayed == ()


def test_held_mail_waits_for_ever_and_counts_no_try() -> None:
    result = plan.settle(taken((0,), 3), envelope(), [outcome(0, Status.HELD)], now=9.0, retry=Retry(), jitter=0.5)
    assert result.settlement.waiting[0].due == math.inf
    assert result.settlement.waiting[0].attempts == 3
