"""Whose turn it is: after a day has ended one worker of the fleet takes all its journals and makes the reports.

Rules
- symlink(2) makes a name once: who made `own.<n>` has the turn. A turn that has not ended after STALE seconds is
  another's: a crash repeats reports of a day at most, and loses none.
- `done` is written when every report is durable in the spool (or was taken by its receiver); then the rows go.
- A day without rows ends silently. What is older than KEPT is removed, done or not: nobody wants it any more.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from posthof_pod.reports.journal import day_of, folder, read_day

GRACE = 600.0  # seconds after midnight until the day before is surely written by all
STALE = 1800.0
KEPT = 7 * 86400.0
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_OWN = re.compile(r"own\.(\d{1,6})")

Compose = Callable[[str, Counter[bytes]], Awaitable[None]]
"""Makes the reports of a day from its rows and sees them on their way. What it raises ends the turn only."""


class Turn(NamedTuple):
    """A day that is ours to report."""

    day: str
    place: Path


async def collect(spool: Path, kind: str, worker: str, now: float, compose: Compose, *, delay: float = GRACE) -> int:
    """Take the turns that are due, one after the other. Returns how many days were reported. `delay`: seconds after
    midnight UTC. Raises what `compose` raises, and OSError."""
    count = 0
    while (turn := await asyncio.to_thread(take_turn, folder(spool, kind), worker, now, delay)) is not None:
        rows = await asyncio.to_thread(read_day, turn.place)
        if rows:
            await compose(turn.day, rows)
            count += 1
        await asyncio.to_thread(_end, turn.place)
    return count


def take_turn(place: Path, worker: str, now: float, delay: float = GRACE) -> Turn | None:
    """The oldest day that is over and nobody's. Blocks."""
    try:
        days = sorted(one for one in os.listdir(place) if _DAY.fullmatch(one))
    except FileNotFoundError:
        return None
    today, oldest = day_of(now - delay), day_of(now - KEPT)
    for day in days:
        path = place / day
        if day < oldest:
            shutil.rmtree(path, ignore_errors=True)
        elif day < today and _claim(path, worker, now):
            return Turn(day, path)
    return None


def _claim(path: Path, worker: str, now: float) -> bool:
    names = os.listdir(path)
    if "done" in names:
        return False
    numbers = [int(found[1]) for name in names if (found := _OWN.fullmatch(name))]
    last = max(numbers, default=0)
    try:
        if last and now - os.lstat(path / f"own.{last}").st_mtime < STALE:
            return False
        os.symlink(worker, path / f"own.{last + 1}")
    except (FileExistsError, FileNotFoundError):
        return False
    return True


def _end(path: Path) -> None:
    fd = os.open(path / "done", os.O_WRONLY | os.O_CREAT, 0o640)
    try:
        os.write(fd, f"{int(time.time())}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    for log in path.glob("*.log"):
        log.unlink(missing_ok=True)
