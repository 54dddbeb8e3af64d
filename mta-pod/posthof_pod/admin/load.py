"""How busy this house is: rates and shares of the last minute, for the operator's report and for KEDA (GET /load).

Rules of this file
- `Meter` is pure: it is told moments (counts of the workers, CPU seconds of the processes) and asked for a Load. It
  keeps moments of WINDOW seconds, so a rate is of what happened lately, whoever asks and however often.
- What more pods would not help is in none of its numbers: mail that was put off, or that its destination takes no
  faster (deliver/site.py says which), is not `ready` here.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from posthof_crds.report import Load

WINDOW = 60.0  # seconds
LASTING = 10.0  # seconds the oldest mail has waited: what is younger passes by itself
BUSY = 0.33  # share of CPU or sessions: below it a slow answer is the volume's, and more pods would not help
MESSAGE = 400  # bytes of memory of a queued message
BASE = 66 * 1024 * 1024  # bytes of a worker with an empty queue and an empty cache
CACHE = 64 * 1024 * 1024
HOUSE = 70 * 1024 * 1024  # bytes of the supervisor
UNLIMITED = 1_500_000  # messages of a worker where no limit is known
LEAST = 10_000
CGROUP = Path("/sys/fs/cgroup")

_BUCKET = re.compile(r'posthof_accept_seconds_bucket\{le="([^"]+)"\}')
_TICKS = os.sysconf("SC_CLK_TCK")

Counts = Mapping[str, int | float]


class _Moment(NamedTuple):
    at: float
    begun: float  # messages given to sessions
    cpu: Mapping[int, float]  # process -> seconds it has used
    accepts: tuple[tuple[float, float], ...]  # upper bound -> messages accepted within it


class Meter:
    """Of one house."""

    def __init__(self) -> None:
        self._moments: deque[_Moment] = deque()

    def note(self, now: float, counts: Counts, cpu: Mapping[int, float]) -> None:
        """What the workers have counted, and what CPU the processes have used, up to now (monotonic seconds)."""
        accepts = sorted(
            (float(found[1]), value) for name, value in counts.items() if (found := _BUCKET.fullmatch(name))
        )
        begun = float(counts.get("posthof_queue_begun_total", 0))
        self._moments.append(_Moment(now, begun, dict(cpu), tuple(accepts)))
        while len(self._moments) > 2 and self._moments[1].at <= now - WINDOW:
            self._moments.popleft()

    def load(self, counts: Counts, allowance: float) -> Load:
        """`counts` as they are now; `allowance`: CPUs the house may use."""
        ready = int(counts.get("posthof_queue_free_messages", 0))
        oldest = float(counts.get("posthof_queue_oldest_free_seconds", 0.0))
        drained = self._drained()
        return Load(
            ready=ready,
            oldest_seconds=round(oldest, 1),
            drained_per_second=round(drained, 3),
            backlog_seconds=round(ready / drained if drained else oldest, 1) if ready else 0.0,
            sessions=round(float(counts.get("posthof_sessions_share", 0.0)), 4),
            accept_seconds=self._accept(),
            cpu=round(min(1.0, self._cpu() / allowance) if allowance else 0.0, 4),
            messages=int(counts.get("posthof_spool_messages", 0)),
            messages_most=int(counts.get("posthof_spool_messages_most", 0)),
            unowned_lanes=int(counts.get("posthof_spool_unowned_lanes", 0)),
        )

    @property
    def _ends(self) -> tuple[_Moment, _Moment] | None:
        return (self._moments[0], self._moments[-1]) if len(self._moments) > 1 else None

    def _drained(self) -> float:
        """Messages a second that were given to a session."""
        if self._ends is None:
            return 0.0
        first, last = self._ends
        return max(0.0, last.begun - first.begun) / (last.at - first.at)

    def _cpu(self) -> float:
        """CPUs in use. A process that ended meanwhile is forgotten; one that began counts from its beginning."""
        if self._ends is None:
            return 0.0
        first, last = self._ends
        used = sum(max(0.0, seconds - first.cpu.get(pid, 0.0)) for pid, seconds in last.cpu.items())
        return used / (last.at - first.at)

    def _accept(self) -> float:
        """The time within which 99 of 100 messages were accepted; 0: there were none."""
        if self._ends is None:
            return 0.0
        before = dict(self._ends[0].accepts)
        counts = [(bound, count - before.get(bound, 0.0)) for bound, count in self._ends[1].accepts]
        total = counts[-1][1] if counts else 0.0
        if total <= 0:
            return 0.0
        finite = [bound for bound, _ in counts if bound != float("inf")]
        found = next(bound for bound, count in counts if count >= 0.99 * total)
        return found if found != float("inf") else 2 * finite[-1]


def for_keda(load: Load) -> dict[str, float]:
    """GET /load: numbers that are added up over all pods and divided by a target, so each says only what more pods
    would mend."""
    is_late = load.oldest_seconds >= LASTING
    is_busy = load.cpu >= BUSY or load.sessions >= BUSY
    return {
        "backlogSeconds": load.backlog_seconds if is_late else 0.0,
        "oldestSeconds": min(load.oldest_seconds, load.backlog_seconds) if is_late else 0.0,
        "sessions": load.sessions,
        "acceptSeconds": load.accept_seconds if is_busy else 0.0,
        "cpu": load.cpu,
    }


# ---------------------------------------------------------------------- what this house may use


def cpu_seconds(pids: Iterable[int], proc: Path = Path("/proc")) -> dict[int, float]:
    """CPU seconds by process; those that are gone are left out."""
    found = {}
    for pid in pids:
        try:
            fields = (proc / str(pid) / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
            found[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
        except (OSError, ValueError, IndexError):
            continue  # it ended
    return found


def allowance(workers: int, cgroup: Path = CGROUP) -> float:
    """CPUs the house can use: its limit, the machine's, at most one for each worker."""
    cpus = float(len(os.sched_getaffinity(0)))
    limit = _words(cgroup / "cpu.max", 2)
    if not limit:  # version 1 has them one by one
        limit = tuple(_word(cgroup / "cpu" / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    if all(word.isdecimal() for word in limit):  # else "max", or -1: no limit
        cpus = min(cpus, int(limit[0]) / int(limit[1]))
    return min(cpus, float(workers)) if workers else cpus


def messages_most(workers: int, cache: int = CACHE, cgroup: Path = CGROUP) -> int:
    """As many messages as fit into the memory of each worker, beside its cache."""
    limit = (_words(cgroup / "memory.max", 1) or _words(cgroup / "memory" / "memory.limit_in_bytes", 1) or ("max",))[
        0
    ]
    if not limit.isdecimal() or int(limit) > 2**50:  # version 1 writes "no limit" as a very large number
        return UNLIMITED
    share = (int(limit) - HOUSE) // max(workers, 1) - BASE - cache
    return min(UNLIMITED, max(LEAST, share // MESSAGE))


def _words(path: Path, count: int) -> tuple[str, ...]:
    """The words of a file of the cgroup; none where it is not there or says something else."""
    try:
        words = tuple(path.read_text("ascii").split())
    except (OSError, ValueError):
        return ()
    return words if len(words) == count else ()


def _word(path: Path) -> str:
    return "".join(_words(path, 1))
