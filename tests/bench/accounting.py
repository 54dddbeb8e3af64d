"""CPU seconds and memory of a tree of processes, from /proc (proc(5)).

Rules
- CPU is user plus system time of every process of the tree, the living and the waited for. What the kernel does for
  them in their own system calls (the loopback network, the file system) is in their system time.
- Memory is the sum of PSS (smaps_rollup): shared pages are counted once, divided among those who share them.
- Figures are differences of two readings.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")


class Times(NamedTuple):
    """One process: clock ticks of its own, and of its children that were waited for."""

    parent: int
    own: int
    waited: int


def _times(pid: int) -> Times | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything; what follows the last parenthesis is numbers.
    fields = stat[stat.rindex(b")") + 2 :].split()
    utime, stime, cutime, cstime = map(int, fields[11:15])
    return Times(int(fields[1]), utime + stime, cutime + cstime)


def tree(root: int) -> dict[int, Times]:
    """All living processes below `root`, itself included."""
    everyone: dict[int, Times] = {}
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (times := _times(int(entry))) is not None:
            everyone[int(entry)] = times
            children.setdefault(times.parent, []).append(int(entry))
    found: dict[int, Times] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        if pid in everyone:
            found[pid] = everyone[pid]
            waiting += children.get(pid, [])
    return found


def cpu_seconds(holder: int) -> float:
    """CPU of everything below a holder.py process, without the holder's own."""
    return sum(times.waited + (times.own if pid != holder else 0) for pid, times in tree(holder).items()) / TICKS


def pss_bytes(holder: int) -> int:
    """Memory of everything below a holder.py process, without the holder's own."""
    total = 0
    for pid in tree(holder):
        if pid == holder:
            continue
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


def own_seconds(pid: int) -> float:
    """CPU of one process alone."""
    times = _times(pid)
    return times.own / TICKS if times else 0.0
