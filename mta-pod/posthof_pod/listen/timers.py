"""One coarse timer for thousands of sessions, instead of one timer a command.

Rules
- Pure: `now` is passed in, any clock that does not go back.
- An entry is put into the slot of the second it is to be looked at. Whoever turns the wheel decides what to do with
  it and puts it back. Moving a deadline later costs nothing: the entry is found early and put back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Wheel(Generic[Entry]):
    """Entries by the tick they are due in. `tick`: seconds, the precision."""

    def __init__(self, now: float, tick: float = 1.0) -> None:
        self._tick = tick
        self._turned = math.floor(now / tick)  # slots up to this one are empty
        self._slots: dict[int, set[Entry]] = {}

    def __len__(self) -> int:
        return sum(len(slot) for slot in self._slots.values())

    def put(self, entry: Entry, at: float) -> int:
        """To be looked at once `at` has passed. Returns the slot, for `take`."""
        slot = max(math.ceil(at / self._tick), self._turned + 1)
        entries = self._slots.get(slot)
        if entries is None:
            entries = self._slots[slot] = set()
        entries.add(entry)
        return slot

    def take(self, entry: Entry, slot: int) -> None:
        """Forget an entry that `put` placed into `slot`."""
        entries = self._slots.get(slot)
        if entries is not None:
            entries.discard(entry)
            if not entries:
                del self._slots[slot]

    def turn(self, now: float) -> Iterator[Entry]:
        """Takes out, one by one, what has become due."""
        until = math.floor(now / self._tick)
        if until - self._turned > len(self._slots):
            due = sorted(slot for slot in self._slots if slot <= until)
        else:
            due = [slot for slot in range(self._turned + 1, until + 1) if slot in self._slots]
        self._turned = max(self._turned, until)
        for slot in due:
            yield from self._slots.pop(slot, ())
