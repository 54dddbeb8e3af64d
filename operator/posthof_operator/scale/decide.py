"""A history -> how many pods, and why. Pure: the same history gives the same answer.

Rules of this file
- Up fast: the need must last for `scaleUp.stabilization`; then so many at once as it asks for, within
  `scaleUp.pods` or a doubling, and again after PACE.
- Down slowly: fewer must have been enough at each moment of `scaleDown.stabilization`, all of which we have seen;
  then one pod, and the next one after `scaleDown.period`. Of a pod that said nothing, or ran and was not ready,
  nobody knows what it had to do: at that moment it was needed. One that is ready and says nothing now stops it; one
  that never came (no room in the cluster) does not, and is the first to go.
- Never below what holds all mail in memory (needs.fits), whoever asked for fewer.
- Without reports nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from posthof_crds.autoscaling import Autoscaling, Targets
from posthof_crds.reasons import Reason
from posthof_operator.scale.history import Sample
from posthof_operator.scale.needs import Need, fits, needs, short

PACE = 15.0  # seconds from one step up to the next
MOST = 1e6  # pods that a need may say: what is drained may be next to nothing
TOLERANCE = 0.1  # a need that is so little above what there is adds nothing
STALE = 30.0  # seconds: older reports decide nothing


class Past(NamedTuple):
    """What was decided before. `pods` is what the Deployment was given last; moments are those of the history."""

    pods: int
    up_at: float = -math.inf
    down_at: float = -math.inf


class Decision(NamedTuple):
    """`state` says why in words that stay as they are while nothing changes, for the status; `message` with the
    numbers of this moment, for an event. Both are a sentence without its full stop."""

    pods: int
    reason: Reason
    state: str
    message: str = ""


def decide(history: Sequence[Sample], wish: Autoscaling, past: Past, now: float) -> Decision:
    """How many pods there shall be now. `wish` is of mode Builtin, so it has a maximum."""
    low, high = wish.min, max(wish.max or wish.min, wish.min)
    if past.pods < low:
        return Decision(low, Reason.SCALING_UP, f"autoscaling.min is {low}")
    if past.pods > high:
        count = held(high, past.pods, history[-1] if history else None)
        if count > high:
            return Decision(count, Reason.HELD_BY_MEMORY, too_few(high), memory(high, history[-1]))
        return Decision(high, Reason.SCALING_DOWN, f"autoscaling.max is {high}")
    if not history or now - history[-1].at > STALE or not history[-1].pods:
        return Decision(past.pods, Reason.NO_REPORTS, "no pod has reported, so the number of pods stays as it is")
    return _up(history, wish, past, now) or _down(history, wish, past, now)


def _up(history: Sequence[Sample], wish: Autoscaling, past: Past, now: float) -> Decision | None:
    """More, if the least that was needed in all of the window is more than there is."""
    window = _window(history, now, wish.behavior.scale_up.stabilization)
    if window is None:
        return None
    least = min((_greatest(one, wish.targets) for one in window), key=lambda need: need.pods)
    if least.pods <= past.pods * (1 + TOLERANCE):
        return None
    high, asks = max(wish.max or wish.min, wish.min), f"the target {least.name} asks for more"
    if past.pods >= high:
        text = f"{least.text}, and autoscaling.max is {high}"
        return Decision(past.pods, Reason.AT_MAXIMUM, f"{asks}, and autoscaling.max is {high}", text)
    if now - past.up_at < PACE:
        return Decision(past.pods, Reason.SCALING_UP, asks)
    step = max(wish.behavior.scale_up.pods, past.pods)
    return Decision(min(math.ceil(least.pods), past.pods + step, high), Reason.SCALING_UP, asks, least.text)


def _down(history: Sequence[Sample], wish: Autoscaling, past: Past, now: float) -> Decision:
    newest, behavior = history[-1], wish.behavior.scale_down
    window = _window(history, now, behavior.stabilization)
    enough = max(_enough(one, wish.targets) for one in window or history)
    if past.pods <= wish.min or enough >= past.pods:
        return Decision(past.pods, Reason.WITHIN_TARGETS, "all targets are met, and fewer pods would not be enough")
    if newest.missing:
        return Decision(past.pods, Reason.WITHIN_TARGETS, "all targets are met; not all ready pods have reported")
    if window is None or now - past.down_at < behavior.period:
        text = f"fewer pods may be enough; if that lasts for {short(behavior.stabilization)}, one goes"
        return Decision(past.pods, Reason.STABILIZING, text)
    if not fits(past.pods - 1, newest):
        return Decision(past.pods, Reason.HELD_BY_MEMORY, too_few(past.pods - 1), memory(past.pods - 1, newest))
    text = f"fewer pods have been enough for {short(behavior.stabilization)}"
    return Decision(past.pods - 1, Reason.SCALING_DOWN, text, f"{text}; {_greatest(newest, wish.targets).text}")


def held(asked: int, present: int, newest: Sample | None) -> int:
    """What may be of a scale-in that somebody else asked for: never fewer than hold all mail in memory."""
    if newest is None or asked >= present:
        return asked
    return next((count for count in range(asked, present) if fits(count, newest)), present)


def too_few(pods: int) -> str:
    return f"the queue does not fit into the memory of {pods}"


def memory(pods: int, newest: Sample) -> str:
    """The same with numbers."""
    held_by = "1 pod holds" if pods == 1 else f"{pods} pods hold"
    return f"{newest.messages} messages are queued, and {held_by} {newest.room * pods} in memory"


@lru_cache(maxsize=4096)
def _greatest(one: Sample, targets: Targets) -> Need:
    """Each moment is judged again and again, as long as it is in a window."""
    found = needs(one, targets)
    if not found:
        return Need(0.0, "", "no pod has reported")
    return found[0]._replace(pods=min(found[0].pods, MOST))


def _enough(one: Sample, targets: Targets) -> int:
    """Pods that were enough at a moment: none less for those nobody heard of."""
    return math.ceil(_greatest(one, targets).pods) + one.missing + one.unready


def _window(history: Sequence[Sample], now: float, seconds: float) -> list[Sample] | None:
    """The samples of the last `seconds`, and the one before; None: we have not looked for so long."""
    if history[0].at > now - seconds:
        return None
    first = max((n for n, one in enumerate(history) if one.at <= now - seconds), default=0)
    return list(history[first:])
