"""What is to be reconciled, and when.

Rules of this file
- A task stands in the queue once, however often it is added; the earliest time wins.
- While a task is worked on it is not given out again; what is added meanwhile follows when it is done.
- Rooms take turns, and inside a room first come, first served: an MTA does not wait for ten thousand domains.
- A task that fails goes to the back, after a time that doubles with each failure.
- Clock and chance are parameters.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from posthof_operator.resources import Key

FIRST = 0.2  # seconds before the first new try
LONGEST = 120.0


class Task(NamedTuple):
    """Whose turn it is: a room (a reconciler's name) and an object."""

    room: str
    key: Key


class WorkQueue:
    def __init__(
        self, *, now: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._now, self._chance = now, chance
        self._ready: OrderedDict[str, OrderedDict[Task, None]] = OrderedDict()  # by room, whose turn it is first
        self._later: dict[Task, float] = {}
        self._heap: list[tuple[float, int, Task]] = []
        self._count = itertools.count()
        self._working: set[Task] = set()
        self._again: dict[Task, float] = {}  # added while worked on
        self._failures: dict[Task, int] = {}
        self._changed = asyncio.Event()

    def add(self, task: Task, after: float = 0.0) -> None:
        """Once, not later than in `after` seconds."""
        due = self._now() + after
        if task in self._working:
            self._again[task] = min(due, self._again.get(task, due))
            return
        if task in self._ready.get(task.room, ()):
            return
        if after <= 0:
            self._later.pop(task, None)
            self._line_up(task)
        elif due < self._later.get(task, float("inf")):
            self._later[task] = due
            heapq.heappush(self._heap, (due, next(self._count), task))
        else:
            return
        self._changed.set()

    async def take(self) -> Task:
        """The next task; it is the caller's until `done` or `failed`."""
        while True:
            wait = self._ripen()
            if self._ready:
                return self._next()
            self._changed.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, task: Task) -> None:
        """It went well."""
        self._failures.pop(task, None)
        self._release(task)

    def failed(self, task: Task, longest: float = LONGEST) -> float:
        """It shall be tried again, in `longest` seconds or so at the latest. Returns in how many."""
        failures = self._failures[task] = self._failures.get(task, 0) + 1
        pause = min(longest, FIRST * 2.0 ** (failures - 1)) * (0.75 + 0.5 * self._chance())
        self._release(task)  # what changed meanwhile may be the mend: that is not made to wait
        self.add(task, pause)
        return pause

    def drop(self, room: str, key: Key) -> None:
        """Nothing is planned for it any more (it is gone)."""
        task = Task(room, key)
        self._ready.get(room, OrderedDict()).pop(task, None)
        if not self._ready.get(room, True):
            del self._ready[room]
        self._later.pop(task, None)
        self._again.pop(task, None)
        self._failures.pop(task, None)

    @property
    def depth(self) -> int:
        return sum(map(len, self._ready.values()))

    @property
    def delayed(self) -> int:
        return len(self._later)

    @property
    def is_idle(self) -> bool:
        """Nothing is ready and nothing is worked on; something may be planned."""
        return not self._ready and not self._working

    def _line_up(self, task: Task) -> None:
        self._ready.setdefault(task.room, OrderedDict())[task] = None

    def _next(self) -> Task:
        """The first of the room whose turn it is; the room goes to the back."""
        room, waiting = self._ready.popitem(last=False)
        task, _ = waiting.popitem(last=False)
        if waiting:
            self._ready[room] = waiting
        self._working.add(task)
        return task

    def _release(self, task: Task) -> None:
        self._working.discard(task)
        due = self._again.pop(task, None)
        if due is not None:
            self.add(task, max(0.0, due - self._now()))

    def _ripen(self) -> float | None:
        """Move what is due to the ready ones. Returns seconds to the next, None: nothing is planned."""
        now = self._now()
        while self._heap:
            due, _, task = self._heap[0]
            if self._later.get(task) != due:
                heapq.heappop(self._heap)  # replaced or dropped meanwhile
            elif due <= now:
                heapq.heappop(self._heap)
                del self._later[task]
                self._line_up(task)
            else:
                return due - now
        return None
