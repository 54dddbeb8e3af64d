"""Which of several states of the same object is the one to use. Pure.

An object is seen twice: as the API server has it (live), and as a file of a mounted volume, which is up to two
minutes behind and goes on being readable when the API server is away. Its stamp (posthof_crds.shards) says when its
content was new.

Rules
- The newest stamp wins, and what is in force never gives way to an older one.
- Equal stamps (also none at all): live wins over mounted; of one origin the later look wins. So without stamps a
  mounted file is used until the API server was heard once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from posthof_crds import shards


class Edition(NamedTuple):
    """One state of a group of objects that belong together, complete. `parts`: by place."""

    parts: Mapping[int, bytes]
    is_live: bool

    @property
    def stamp(self) -> int:
        return max((shards.stamp_of(part) for part in self.parts.values()), default=0)


def newest(present: Edition | None, live: Edition | None, mounted: Edition | None) -> Edition | None:
    """The state to use from now on. `present`: the one in force."""
    best = present
    for one in (mounted, live):
        if one is None:
            continue
        is_tie = best is not None and one.stamp == best.stamp and (one.is_live or not best.is_live)
        if best is None or one.stamp > best.stamp or is_tie:
            best = one
    return best


def is_older(live: Edition | None, present: Edition | None) -> bool:
    """Whether the API server has what was replaced already: an etcd that was restored."""
    return live is not None and present is not None and live.stamp < present.stamp
