"""The retry curve, the lifetime and the delay notice."""

from __future__ import annotations

import pytest

from posthof_crds.engine import Retry
from posthof_pod.model import Notify
from posthof_pod.schedule.retry import Verdict, interval, is_notice_due, verdict

RETRY = Retry()
HOUR, DAY = 3600.0, 86400.0


def judge(now: float, *, attempts: int = 1, is_bounce: bool = False, notify: int = 0, jitter: float = 0.5) -> Verdict:
    return verdict(
        RETRY,
        arrived=0.0,
        attempts=attempts,
        now=now,
        is_bounce=is_bounce,
        notify=notify,
        notified=False,
        jitter=jitter,
    )


def test_the_curve_climbs_and_its_last_step_repeats():
    steps = [interval(RETRY, attempts, 0.5) for attempts in range(1, 12)]
    assert steps == list(RETRY.intervals) + [RETRY.intervals[-1]] * (11 - len(RETRY.intervals))


def test_jitter_spreads_by_a_tenth_to_both_sides():
    assert interval(RETRY, 1, 0.0) == pytest.approx(108)
    assert interval(RETRY, 1, 0.999999) == pytest.approx(132, abs=0.01)


def test_mail_expires_after_5_days_and_bounces_after_2():
    assert not judge(5 * DAY - 1).is_expired
    assert judge(5 * DAY).is_expired
    assert judge(2 * DAY, is_bounce=True).is_expired


def test_the_last_try_is_at_the_end_of_the_lifetime():
    assert judge(5 * DAY - HOUR, attempts=20).retry_at == 5 * DAY


@pytest.mark.parametrize(
    ("notify", "after"), [(Notify.DELAY, 4 * HOUR), (Notify.DELAY | Notify.FAILURE, 4 * HOUR), (Notify.UNSET, DAY)]
)
def test_a_delay_is_told_when_asked_for_or_after_a_day(notify: int, after: float):
    assert not judge(after - 1, notify=notify).is_notice_due
    assert judge(after, notify=notify).is_notice_due


@pytest.mark.parametrize("notify", [Notify.NEVER, Notify.FAILURE, Notify.SUCCESS | Notify.FAILURE])
def test_a_delay_is_not_told_where_notify_leaves_it_out(notify: int):
    assert not judge(4 * DAY, notify=notify).is_notice_due


def test_a_delay_is_told_once_and_never_of_a_bounce():
    told = {"arrived": 0.0, "now": DAY, "notify": 0}
    assert not is_notice_due(RETRY, is_bounce=False, notified=True, **told)
    assert not is_notice_due(RETRY, is_bounce=True, notified=False, **told)
