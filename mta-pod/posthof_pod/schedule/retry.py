"""When to try again, when to tell the sender of the delay, when to give up. Functions of values.

Defaults and their reasons: Retry in posthof_crds/engine.py. RFC 5321 4.5.4.1 (retry, 4-5 days), RFC 3461 4.1.
Times are unix seconds; `jitter` is a random number in [0, 1).
"""

from __future__ import annotations

from typing import NamedTuple

from posthof_crds.engine import Retry
from posthof_pod.model import Notify


class Verdict(NamedTuple):
    """What becomes of one recipient after a try that failed for now."""

    is_expired: bool
    retry_at: float  # 0.0 when expired
    is_notice_due: bool  # tell the sender of the delay now


def interval(retry: Retry, attempts: int, jitter: float) -> float:
    """Seconds until the next try after `attempts` (>= 1) tries: the curve, its last step repeated, +-retry.jitter."""
    steps = retry.intervals
    base = steps[min(max(attempts, 1), len(steps)) - 1]
    return base * (1.0 + retry.jitter * (2.0 * jitter - 1.0))


def lifetime(retry: Retry, is_bounce: bool) -> float:
    """Seconds from arrival to giving up; mail with the null sender has its own."""
    return retry.bounce_lifetime if is_bounce else retry.lifetime


def is_notice_due(retry: Retry, *, arrived: float, now: float, is_bounce: bool, notify: int, notified: bool) -> bool:
    """Whether a recipient's sender is to be told of the delay: once, never of a bounce, as NOTIFY says."""
    if notified or is_bounce:
        return False
    if notify == Notify.UNSET:
        return now - arrived >= retry.delay_notice_default
    return bool(notify & Notify.DELAY) and now - arrived >= retry.delay_notice


def verdict(
    retry: Retry,
    *,
    arrived: float,
    attempts: int,
    now: float,
    is_bounce: bool,
    notify: int,
    notified: bool,
    jitter: float,
) -> Verdict:
    """What comes after the `attempts`-th try. The last try is at the end of the lifetime, not a step before it."""
    end = arrived + lifetime(retry, is_bounce)
    if now >= end:
        return Verdict(is_expired=True, retry_at=0.0, is_notice_due=False)
    due = max(min(now + interval(retry, attempts, jitter), end), now)
    told = is_notice_due(retry, arrived=arrived, now=now, is_bounce=is_bounce, notify=notify, notified=notified)
    return Verdict(is_expired=False, retry_at=due, is_notice_due=told)
