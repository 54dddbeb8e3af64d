"""A fleet of pods under traffic, in seconds of its own: what autoscaling is judged by over days.

A pod has one CPU, and each message costs some of it to accept and some to deliver. Mail waits in four places: free to
be sent, held back by its destination (throttled), put off (deferred), or nowhere. New pods take START seconds.

    fleet = Fleet(Autoscaling(max=8))
    fleet.run(3 * DAY, lambda now: Traffic(free=2.0))
    fleet.pods_of(0, DAY)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from posthof_crds.autoscaling import Autoscaling
from posthof_crds.report import Load
from posthof_operator.scale.decide import Decision, Past, decide
from posthof_operator.scale.history import History, sample

HOUR, DAY = 3600.0, 86400.0
TICK = 15.0  # seconds
START = 25.0  # seconds until a new pod takes part
MINUTE = 60.0  # what rates and shares are told of
ACCEPT, DELIVER = 0.0005, 0.0015  # CPU seconds of a message
ROOM = 1_000_000  # messages that fit into a pod's memory


class Traffic(NamedTuple):
    """Messages a second, by what becomes of them; `sessions` are clients that are there."""

    free: float = 0.0  # delivered as fast as pods can
    dead: float = 0.0  # for a destination that does not answer
    throttled: float = 0.0  # for one that takes `takes` a second
    takes: float = 0.0
    sessions: float = 0.0


class Moment(NamedTuple):
    at: float
    pods: int  # asked for
    ready: int
    oldest: float
    deferred: int
    throttled: int
    decision: Decision


class Fleet:
    """`pods` to begin with; `silent(now)`: nobody reports; `places`: as many pods as the cluster has room for."""

    def __init__(
        self,
        wish: Autoscaling,
        *,
        pods: int = 0,
        places: int = 1000,
        silent: Callable[[float], bool] = lambda now: False,
    ) -> None:
        self.wish = wish
        self.past = Past(pods or wish.min)
        self.history = History()
        self.moments: list[Moment] = []
        self.deferred = self.throttled = 0.0
        self.now = 0.0
        self._free: deque[tuple[float, float]] = deque()  # since when, how many: oldest first
        self._ready_at = [0.0] * self.past.pods  # when each pod began to take part
        self._cpu = self._drained = self._sessions = 0.0  # of the last minute
        self._silent, self._places = silent, places

    @property
    def ready(self) -> float:
        return sum(count for _, count in self._free)

    def pods_of(self, begin: float, end: float) -> list[int]:
        return [one.pods for one in self.moments if begin <= one.at < end]

    def changes(self) -> Iterator[tuple[float, int, int]]:
        """When, from, to."""
        for before, after in pairwise(self.moments):
            if before.pods != after.pods:
                yield after.at, before.pods, after.pods

    def run(self, seconds: float, traffic: Callable[[float], Traffic]) -> None:
        end = self.now + seconds
        while self.now < end:
            self._work(traffic(self.now))
            self.now += TICK
            self._decide()

    def add(self, count: float) -> None:
        """A bulk of mail, all at once."""
        self._free.append((self.now, count))

    def _running(self) -> int:
        return min(self._places, sum(at <= self.now for at in self._ready_at))

    def _work(self, traffic: Traffic) -> None:
        pods = self._running()
        have = pods * TICK
        arrived = (traffic.free + traffic.dead + traffic.throttled) * TICK
        used = min(arrived * ACCEPT, have)
        if traffic.free:
            self._free.append((self.now, traffic.free * TICK))
        self.deferred += traffic.dead * TICK
        self.throttled = max(0.0, self.throttled + (traffic.throttled - traffic.takes) * TICK)
        sent = self._send((have - used) / DELIVER)
        used += sent * DELIVER
        part = TICK / MINUTE
        self._cpu += part * (used / have - self._cpu) if have else 0.0
        self._drained += part * (sent / TICK - self._drained)
        self._sessions = traffic.sessions

    def _send(self, most: float) -> float:
        sent = 0.0
        while self._free and sent < most:
            since, count = self._free.popleft()
            taken = min(count, most - sent)
            sent += taken
            if taken < count:
                self._free.appendleft((since, count - taken))
        return sent

    def _loads(self) -> list[Load]:
        pods = self._running()
        if not pods or self._silent(self.now):
            return []
        ready, oldest = self.ready, self.now - self._free[0][0] if self._free else 0.0
        messages = ready + self.deferred + self.throttled
        return [
            Load(
                ready=int(ready / pods),
                oldest_seconds=oldest,
                drained_per_second=self._drained / pods,
                sessions=min(1.0, self._sessions / (1000 * pods)),
                accept_seconds=0.02,
                cpu=min(1.0, self._cpu),
                messages=int(messages / pods),
                messages_most=ROOM,
            )
            for _ in range(pods)
        ]

    def _decide(self) -> None:
        loads = self._loads()
        keeps = self.wish.behavior.scale_down.stabilization + MINUTE
        self.history.add(sample(self.now, loads), keeps)
        decision = decide(self.history.samples, self.wish, self.past, self.now)
        before, self.past = self.past.pods, self.past._replace(pods=decision.pods)
        if decision.pods > before:
            self.past = self.past._replace(up_at=self.now)
            self._ready_at += [self.now + START] * (decision.pods - before)
        if decision.pods < before:
            self.past = self.past._replace(down_at=self.now)
            self._ready_at = sorted(self._ready_at)[: decision.pods]
        oldest = self.now - self._free[0][0] if self._free else 0.0
        self.moments.append(
            Moment(
                self.now, decision.pods, int(self.ready), oldest, int(self.deferred), int(self.throttled), decision
            )
        )
