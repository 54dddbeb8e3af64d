"""Who may be judged dead. It never decides who owns a lane: a wrong verdict costs a worker its lanes, never mail.

One interface, two forms (tests/spool/test_liveness.py runs the same promises against both):
- FlockLiveness, on one machine: a worker holds the flock of `workers/<id>/lock` as long as its process lives; a free
  flock proves it dead.
- LeaseLiveness, in a cluster: the supervisor keeps one Lease for its pod and tells its workers what the others' say
  (members.Heard). A worker whose pod's Lease was unchanged or missing for DEAD_AFTER seconds, counted on the
  observer's own clock while it renews its own, is dead without proof. Proven is what ended on this machine (the flock
  of a file in the pod's own folder, which outlives its containers) and what its own supervisor says it reaped.

A worker of the Lease form leaves `workers/<id>/pod` on the volume. Whoever has none is of the flock form (an older
release, or `posthof up` on a volume that others use) and is judged by its flock; and the Lease form holds the flock
too where the volume has one, for those who judge by it.
"""

from __future__ import annotations

import enum
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ..members import Heard
from . import layout
from .volume import Disk

TRIES = 50
PAUSE = 0.02  # seconds between two tries to get our own lock
REMEMBERED = 4096  # workers: what was found out of more is found out again
DEAD_AFTER = 20.0  # seconds a Lease is seen unchanged, or missing, until its workers are dead


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
        self._fd = _persistently(lambda: disk.lock(layout.lock(worker)))
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


class LeaseLiveness:
    """A cluster: what the pods' Leases say, and proof where there is one.

    `pod`: this pod's name. `own`: the folder for this pod's workers' lock files, on the pod's own disk: it is there
    as long as the pod, so what an earlier container of it ran can be proven dead.
    """

    def __init__(self, pod: str, own: Path) -> None:
        self._pod, self._own = pod, own
        self._disk: Disk | None = None
        self._fd = -1
        self._flock = FlockLiveness()
        self._heard = Heard()
        self._missing: dict[str, float] = {}  # workers no Lease names -> `counted` when this was first seen
        self._of_leases: set[str] = set()  # workers known to be of this form
        self._proven: set[str] = set()
        self._condemned: frozenset[str] = frozenset()

    def hear(self, heard: Heard) -> bool:
        """What the Leases say now (any thread). Whether there may be more to take over than before."""
        condemned = frozenset(name for name, seen in heard.seen.items() if heard.counted - seen >= DEAD_AFTER)
        is_news = not condemned <= self._condemned or not heard.ended <= self._heard.ended
        self._heard, self._condemned = heard, condemned
        return is_news

    def begin(self, disk: Disk, worker: str) -> None:
        self._own.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = _persistently(lambda: _lock(self._own / worker))
        fd = disk.overwrite(layout.pod(worker))
        try:
            disk.pwritev(fd, [self._pod.encode()], 0)
        finally:
            disk.close(fd)
        self._disk = disk
        try:
            self._flock.begin(disk, worker)
        except BlockingIOError:
            raise
        except OSError:
            return  # this volume has no flock; nobody who needs it can share it with us

    def judge(self, worker: str) -> Verdict:
        """PROVEN, or what its Lease says; of one without `pod` on the volume what its flock says."""
        if self._disk is None:
            return Verdict.ALIVE
        for known in (self._missing, self._of_leases, self._proven):
            if len(known) >= REMEMBERED:
                known.clear()
        heard = self._heard
        if worker in self._proven or worker in heard.ended or self._has_ended_here(worker):
            self._proven.add(worker)
            return Verdict.PROVEN
        seen = heard.seen.get(worker)
        if seen is not None:
            self._of_leases.add(worker)
            self._missing.pop(worker, None)
        elif not self._is_of_leases(self._disk, worker):
            return self._flock.judge(worker)
        else:
            seen = self._missing.setdefault(worker, heard.counted)
        return Verdict.DEAD if heard.counted - seen >= DEAD_AFTER else Verdict.ALIVE

    def end(self) -> None:
        self._flock.end()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _has_ended_here(self, worker: str) -> bool:
        """Whether it ran in this pod, and its process has ended: the kernel let go of its flock."""
        return has_ended(self._own, worker)

    def _is_of_leases(self, disk: Disk, worker: str) -> bool:
        """Whether its pod keeps a Lease. A worker without a folder cannot be asked: then it is safe to wait."""
        if worker not in self._of_leases:
            try:
                disk.size(layout.pod(worker))
            except FileNotFoundError:
                return not _has_folder(disk, worker)
            except OSError:
                return True  # it cannot be told now
            self._of_leases.add(worker)
        return True


def has_ended(own: Path, worker: str) -> bool:
    """Of a worker that this pod ran (in any of its containers): whether its process has ended. `own`: as for
    LeaseLiveness. False: it lives, or ran elsewhere."""
    try:
        fd = os.open(own / worker, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def _has_folder(disk: Disk, worker: str) -> bool:
    try:
        disk.listdir(layout.worker(worker))
    except OSError:
        return False
    return True


def _lock(path: Path) -> int:
    """A descriptor with the flock of a file held; BlockingIOError while someone else holds it. A new file gets its
    name when its lock is held: a judge that comes between the two would find a proof that this worker has ended."""
    is_new = not path.exists()
    made = path.with_name(f".{path.name}") if is_new else path
    fd = os.open(made, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_new:
            made.rename(path)
    except OSError:
        os.close(fd)
        raise
    return fd


def _persistently(lock: Callable[[], int]) -> int:
    """A judge holds it for a moment: try again. BlockingIOError: somebody has it for good."""
    for _ in range(TRIES - 1):
        try:
            return lock()
        except BlockingIOError:
            time.sleep(PAUSE)
    return lock()
