"""Who may be judged dead. It never decides who owns a lane: a wrong verdict costs a worker its lanes, never mail.

On one machine a worker holds the flock of `workers/<id>/lock` as long as its process lives; a free flock proves it
dead. (In a cluster a Lease of its pod says so, without proof: another implementation of the same protocol.)
"""

from __future__ import annotations

import enum
import time
from typing import Protocol

from . import layout
from .volume import Disk

TRIES = 50
PAUSE = 0.02  # seconds between two tries to get our own lock


class Verdict(enum.Enum):
    ALIVE = "alive"
    DEAD = "dead"  # nothing was heard of it for long enough: its last dots may still be under way
    PROVEN = "proven"  # its process has ended


class Liveness(Protocol):
    """Called in the spool's I/O thread only."""

    def begin(self, disk: Disk, worker: str) -> None:
        """This worker lives from now on; its folder exists. BlockingIOError: another process uses this id."""

    def judge(self, worker: str) -> Verdict:
        """Of any other worker, also of one whose folder is gone."""

    def end(self) -> None:
        """This worker stops."""


class FlockLiveness:
    """One machine: a flock per worker."""

    def __init__(self) -> None:
        self._disk: Disk | None = None
        self._fd = -1

    def begin(self, disk: Disk, worker: str) -> None:
        for left in reversed(range(TRIES)):
            try:
                self._fd = disk.lock(layout.lock(worker))
                break
            except BlockingIOError:
                if not left:
                    raise
                time.sleep(PAUSE)  # a judge holds it for a moment
        self._disk = disk

    def judge(self, worker: str) -> Verdict:
        """PROVEN when its flock is free or it has none: it takes it before it makes its latch and its first lane."""
        if self._disk is None:
            return Verdict.ALIVE
        try:
            fd = self._disk.lock(layout.lock(worker))
        except BlockingIOError:
            return Verdict.ALIVE
        except FileNotFoundError:
            return Verdict.PROVEN
        except OSError:
            return Verdict.ALIVE  # it cannot be told: wait
        self._disk.close(fd)
        return Verdict.PROVEN

    def end(self) -> None:
        if self._disk is not None and self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1
