"""Who else works on this spool: the fleet as one pod sees it. Values only; supervisor and workers exchange them.

Rules
- A snapshot is a prefix of history: what it shows of one pod, it shows of all that was written before (one watch of
  the Leases gives that). So a snapshot that holds our own newest words holds all that was said before them.
- `known` is False while the API server is away, or before it was heard: `pods` is then the last that was known.
- `pods` are those whose Lease is neither deleted nor judged dead, ourselves included. Nobody on one machine.
"""

from __future__ import annotations

import msgspec


class Member(msgspec.Struct, frozen=True):
    """One pod, as its Lease tells."""

    pod: str
    workers: int  # ids in its annotation posthof.dev/workers
    share: str = ""  # its annotation posthof.dev/share as it stands; schedule/shares.py reads and writes it


class Members(msgspec.Struct, frozen=True):
    """`own`: our pod's name, "" on one machine."""

    known: bool
    own: str
    pods: tuple[Member, ...] = ()


ALONE = Members(True, "")
SHARE = "posthof.dev/share"
