"""Who is in the fleet, as values: what a supervisor hears of the pods' Leases.

Rules of this file
- Values only: no I/O, no clock. The supervisor makes them (cluster/leases.py); workers are told of Heard alone
  (admin/channel.py: "leases"), their parts of the limits are counted out for them (schedule/shares.py).
"""

from __future__ import annotations

import msgspec

WORKERS = "posthof.dev/workers"  # annotation of a pod's Lease: JSON list of the ids of its workers in the spool
WORD = "posthof.dev/word"  # annotation: what this pod wrote into pods/<pod> on the volume (admin/visibility.py)
ENDED = "posthof.dev/ended"  # annotation: JSON list of workers whose end this pod's supervisor has proven
SHARE = "posthof.dev/share"  # annotation: the pod's share of the fleet's limits, as schedule/shares.py writes it


class Member(msgspec.Struct, frozen=True):
    """One pod whose Lease is alive. `share`: what its Lease says; "": nothing yet."""

    pod: str
    share: str = ""


class Members(msgspec.Struct, frozen=True):
    """The live pods, this one included as soon as its Lease stands; sorted by name.

    `known`: the list is of now. False: the API server cannot be asked at the moment (the list is the last one), or
    was never asked (the list is empty). `own`: this pod's name.

    A snapshot is a prefix of history, as one watch gives it: one that shows our own newest words shows everything the
    others had written before them. Shares rest on that.
    """

    known: bool = False
    own: str = ""
    pods: tuple[Member, ...] = ()


class Heard(msgspec.Struct, frozen=True):
    """What the Leases say of workers, for whoever judges them (spool/liveness.py).

    `counted`: seconds on the observer's own monotonic clock, which runs only while the observer renews its own Lease
    and sees the others'. `seen`: worker -> `counted` when the Lease that names it was last seen to change. `ended`:
    workers whose own supervisor has proven their end.
    """

    counted: float = 0.0
    seen: dict[str, float] = {}
    ended: frozenset[str] = frozenset()
