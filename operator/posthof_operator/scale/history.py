"""What was reported about an MTA's pods, moment by moment. Values only.

Rules of this file
- Seconds are of any epoch that does not go back; a new leader begins with an empty history, so it takes pods away
  only after it has looked for the whole stabilisation window itself.
- Bounded: what is older than the window asked for is forgotten, but for the newest sample before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from posthof_crds.report import Load

LONGEST = 4000  # samples: an hour and more at one a second


class Sample(NamedTuple):
    """One moment of the fleet. Sums over the pods that reported, where nothing else is said."""

    at: float
    pods: int  # that reported and take part: no ending ones, none that still begin
    missing: int  # that take part and did not say
    ready: int
    oldest: float  # of all pods, the greatest
    drained: float
    sessions: float  # mean
    latency: float  # mean of those that took mail
    cpu: float  # mean
    messages: int
    room: int  # messages that the smallest pod holds; 0: nobody knows
    unowned: int  # lanes; of all pods, the greatest: each sees the same ones
    unready: int = 0  # pods that run and are not ready: they begin, or have more to do than they can


def sample(at: float, loads: Sequence[Load], missing: int = 0, unready: int = 0) -> Sample:
    """Of the pods that take part. `missing`: of these, how many said nothing. `unready`: pods beside them."""
    count = len(loads)
    latencies = [one.accept_seconds for one in loads if one.accept_seconds]
    return Sample(
        at=at,
        pods=count,
        missing=missing,
        ready=sum(one.ready for one in loads),
        oldest=max((one.oldest_seconds for one in loads), default=0.0),
        drained=sum(one.drained_per_second for one in loads),
        sessions=_mean(one.sessions for one in loads),
        latency=_mean(latencies),
        cpu=_mean(one.cpu for one in loads),
        messages=sum(one.messages for one in loads),
        room=min((one.messages_most for one in loads), default=0),
        unowned=max((one.unowned_lanes for one in loads), default=0),
        unready=unready,
    )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


class History:
    """Samples, oldest first, as far back as `keeps` seconds."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=LONGEST)

    def add(self, one: Sample, keeps: float) -> None:
        """One that is not younger than the newest is not taken: nothing happened in between."""
        samples = self._samples
        if samples and one.at <= samples[-1].at:
            return
        samples.append(one)
        while len(samples) > 1 and samples[1].at <= one.at - keeps:
            samples.popleft()

    @property
    def samples(self) -> tuple[Sample, ...]:
        return tuple(self._samples)
