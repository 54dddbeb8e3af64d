"""Which slice of the fleet's limits is this pod's: agreed on by the annotations of the pods' Leases, nothing else.

Every pod writes a claim into its Lease: its weight (its workers), a slice, a serial number. From the weights of all
pods that are there, in the order of their names, follows whose slice is where; each computes that for itself, and
two that see different fleets may want the same points. So a slice is not used because it was computed:

1. What is used lies in what our Lease says. When another slice is ours now, workers first use only what is in both
   the old and the new one; when they do (sessions have ended), the new one is claimed.
2. The new one is used when a snapshot of all Leases shows our claim, by its serial number, and nobody else's claim
   overlaps it. Until then, what is in both.

Why it holds: take the pod that claimed last of two that overlap. The snapshot by which it begins to use shows its
claim, so it shows the other's, which is older: it does not begin. What the other uses less than it claims does no
harm. Nothing here depends on a clock or on how late a snapshot is.

A pod whose Lease has gone keeps its claim for GONE more seconds: one judged dead that lives is fenced by then. With
the fleet unknown everything stays as it is.

Pure: `now` is monotonic seconds. See slices.py for what a slice is, admin/shares.py for who acts.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from posthof_pod.members import Members
from posthof_pod.schedule.slices import NOTHING, WHOLE, Slice

GONE = 15.0  # seconds: a look at all lanes every 10, the dots' 2, and some
_CLAIM = re.compile(r"(\d{1,5}) ([0-9a-f]{1,11})-([0-9a-f]{1,11}) (\S{1,64})")


class Claim(NamedTuple):
    """What a pod's Lease says. `serial` is never the same twice."""

    weight: int
    slice: Slice
    serial: str

    def __str__(self) -> str:
        return f"{self.weight} {self.slice.low:x}-{self.slice.high:x} {self.serial}"


def read_claim(text: str) -> Claim | None:
    """None: no claim, so that pod uses nothing of ours yet."""
    found = _CLAIM.fullmatch(text)
    if found is None:
        return None
    piece = Slice(int(found[2], 16), int(found[3], 16))
    return Claim(int(found[1]), piece, found[4]) if piece.is_sound else None


def slice_of(weights: dict[str, int], pod: str) -> Slice:
    """A pod's place among all: in the order of names, each as wide as its weight."""
    total = before = 0
    for name, weight in weights.items():
        total += weight
        before += weight if name < pod else 0
    return WHOLE.part(before, weights[pod], total) if total else NOTHING


class Shares:
    """One pod's side of the agreement.

    `use` is what its workers may use together. Whoever acts tells them when it changes, calls `confirmed` when all of
    them keep to it, and writes `claim` into the Lease whenever `decide` or `confirmed` left another one there.
    """

    def __init__(self, own: str, weight: int, incarnation: str, use: Slice = NOTHING) -> None:
        """`own`: the pod's name. `weight`: its workers. `incarnation`: random, of this process; no spaces. `use`:
        what an earlier process of this pod used until a moment ago."""
        self.own = own
        self.weight = weight
        self.use = use
        self.claim = ""  # "": nothing was claimed yet
        self.is_confirmed = True  # workers keep to `use`
        self._target = NOTHING
        self._claimed = NOTHING
        self._incarnation = incarnation
        self._serial = 0
        self._others: dict[str, Claim] = {}
        self._gone: dict[str, tuple[Claim, float]] = {}  # pod -> its last claim, and until when that counts

    @property
    def is_settled(self) -> bool:
        """All that is ours is in use."""
        return self.is_confirmed and self.use == self._target and self._claimed == self._target

    def decide(self, members: Members, now: float) -> None:
        """A snapshot came, or time passed. May change `use` and `claim`."""
        if not members.known:
            return
        self._follow(members, now)
        weights = {pod: claim.weight for pod, claim in self._others.items()}
        self._aim(slice_of({**weights, self.own: self.weight}, self.own))
        mine = next((one.share for one in members.pods if one.pod == self.own), "")
        if self.use != self._target and self.claim and mine == self.claim and self._may_use(self._claimed):
            self.use = self._claimed  # more than before: nothing has to end first

    def confirmed(self, use: Slice) -> None:
        """All workers keep to `use` now. What was decided meanwhile waits for its own confirmation."""
        if use == self.use:
            self.is_confirmed = True
            self._claim_target()

    def next_look(self) -> float | None:
        """When time alone changes something; None: it does not."""
        return min((until for _, until in self._gone.values()), default=None)

    def _follow(self, members: Members, now: float) -> None:
        """Who else claims what, and what those who went may still use."""
        present = {one.pod: read_claim(one.share) for one in members.pods if one.pod != self.own}
        for pod, claim in self._others.items():
            if present.get(pod) is None and claim.slice.width:
                self._gone[pod] = (claim, now + GONE)
        self._gone = {
            pod: (claim, until)
            for pod, (claim, until) in self._gone.items()
            if until > now and present.get(pod) is None
        }
        self._others = {pod: claim for pod, claim in present.items() if claim is not None}

    def _may_use(self, piece: Slice) -> bool:
        """Whether nobody else claims any of it."""
        if not self.is_confirmed or piece != self._target:
            return False
        claims = [*self._others.values(), *(claim for claim, _ in self._gone.values())]
        return not any(claim.slice.overlaps(piece) for claim in claims)

    def _aim(self, target: Slice) -> None:
        if target != self._target:
            self._target = target
            left = self.use.common(target)
            if left != self.use:
                self.use = left
                self.is_confirmed = False
        self._claim_target()

    def _claim_target(self) -> None:
        is_within = self.use.common(self._target) == self.use  # a claim never says less than what is used
        if self.is_confirmed and is_within and (self._claimed != self._target or not self.claim):
            self._claimed = self._target
            self._serial += 1
            self.claim = str(Claim(self.weight, self._target, f"{self._incarnation}.{self._serial}"))
