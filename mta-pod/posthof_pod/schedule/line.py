"""The line before one destination: who is next, fair between senders.

Owns: the order of ready units, and the lists of deferred and held ones. The links are in two arrays the backlog
shares with all its lines (`after`, `before`): every list is a ring, so its head names its tail too.

Rules
- Ready units wait in one ring per sender (the hash of the address); the senders take turns, in the order of their
  hashes, which nobody outside can choose. A flood of one sender delays the others by one unit a round.
- At most 256 senders have a ring of their own; further ones share by the low bits of their hash. This bounds the cost
  of a turn, and fairness among more than 256 senders at once is by group.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

from posthof_pod.model import Destination

NOBODY = -1
MOST_RINGS = 256


class Line:
    """One destination's units. Counts are kept by the backlog; `is_woken`: it stands in Backlog.woken."""

    __slots__ = (
        "_heads",
        "_senders",
        "_turn",
        "deferred",
        "deferred_head",
        "destination",
        "held",
        "held_head",
        "is_woken",
        "number",
        "ready",
        "taken",
    )

    def __init__(self, destination: Destination, number: int) -> None:
        self.destination = destination
        self.number = number
        self.ready = self.deferred = self.held = self.taken = 0
        self.is_woken = False
        self.deferred_head = self.held_head = NOBODY
        self._senders = array("I")  # who has a ring, sorted
        self._heads = array("i")  # the first unit of each
        self._turn = 0  # whose turn it is: an index of both

    @property
    def is_empty(self) -> bool:
        return not (self.ready or self.deferred or self.held or self.taken)

    def join(self, unit: int, senders: array[int], after: array[int], before: array[int]) -> int:
        """Append a ready unit to its sender's ring. Returns the ring's index."""
        known = self._senders
        sender = senders[unit]
        at = bisect_left(known, sender)
        if at == len(known) or known[at] != sender:
            if len(known) >= MOST_RINGS and sender >= MOST_RINGS:
                senders[unit] = sender % MOST_RINGS
                return self.join(unit, senders, after, before)
            known.insert(at, sender)
            self._heads.insert(at, unit)
            after[unit] = before[unit] = unit
            if at <= self._turn:  # a newcomer never steps before the one whose turn it is
                self._turn += 1
            return at
        head = self._heads[at]
        tail = before[head]
        after[tail] = before[head] = unit
        before[unit] = tail
        after[unit] = head
        return at

    def rejoin(self, unit: int, senders: array[int], after: array[int], before: array[int]) -> None:
        """As `join`, but before all others of its sender: a unit that was taken and not used."""
        at = self.join(unit, senders, after, before)
        self._heads[at] = unit

    def first(self, after: array[int], before: array[int]) -> int:
        """Take the next ready unit out; there must be one."""
        heads = self._heads
        turn = self._turn
        if turn >= len(heads):
            turn = 0
        unit = heads[turn]
        follower = after[unit]
        if follower == unit:
            del heads[turn], self._senders[turn]
            self._turn = turn
        else:
            tail = before[unit]
            after[tail] = follower
            before[follower] = tail
            heads[turn] = follower
            self._turn = turn + 1
        return unit

    def leave(self, unit: int, senders: array[int], after: array[int], before: array[int]) -> None:
        """Take a ready unit out, wherever it stands."""
        at = bisect_left(self._senders, senders[unit])
        head = unlink(self._heads[at], unit, after, before)
        if head != NOBODY:
            self._heads[at] = head
            return
        del self._heads[at], self._senders[at]
        if at < self._turn:
            self._turn -= 1

    def heads(self) -> tuple[int, ...]:
        """The first unit of every sender: the oldest ready one is among them."""
        return tuple(self._heads)


def link(head: int, unit: int, after: array[int], before: array[int]) -> int:
    """Append `unit` to the ring of `head` (NOBODY: an empty one). Returns the head."""
    if head == NOBODY:
        after[unit] = before[unit] = unit
        return unit
    tail = before[head]
    after[tail] = before[head] = unit
    before[unit] = tail
    after[unit] = head
    return head


def unlink(head: int, unit: int, after: array[int], before: array[int]) -> int:
    """Take `unit` out of the ring of `head`. Returns the new head, NOBODY for an empty ring."""
    follower = after[unit]
    if follower == unit:
        return NOBODY
    leader = before[unit]
    after[leader] = follower
    before[follower] = leader
    return follower if head == unit else head
