"""The three cases: messages a second end to end, and CPU a message.

A run: a fresh instance, a warm-up that also tells how many messages fill the time, then that many from smtp-source.
The clock runs from the start of the source until the sink has taken the last message. CPU is read once more a second
after that, so that what a system puts off (settling, removing, logging) counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench import place
from bench.systems import SYSTEMS, System
from bench.tools import Load, Sink, Source, Stalled, sink

CASES: dict[str, Load] = {
    "4k_reused": Load(4096, is_reused=True),
    "4k_new_session": Load(4096, is_reused=False),
    "100k": Load(102_400, is_reused=False),
}
TITLES = {
    "4k_reused": "4 KiB, reused sessions",
    "4k_new_session": "4 KiB, a session each",
    "100k": "100 KiB, a session each",
}
TRAILING = 1.0  # seconds of CPU that still count after the last message arrived
WARM_UP = 100  # messages of the first step of the warm-up; the second one takes about a second
PATIENCE = 60.0  # seconds beyond the expected time after which a run is given up


class Result(NamedTuple):
    """One run."""

    msgs_per_s: float
    cpu_us_per_msg: float
    messages: int
    seconds: float
    accepted_seconds: float  # until smtp-source was done


def ceiling(load: Load, seconds: float) -> Result:
    """smtp-source straight to smtp-sink; the CPU is that of the two instruments themselves."""
    with sink() as target:

        def run(count: int, expected: float) -> Result:
            before, used = target.count(), target.cpu_seconds()
            started = time.time()
            source = Source(load, count, target.port).wait(expected + PATIENCE)
            accepted = time.time() - started
            elapsed = target.wait_for(before + count) - started
            cpu = source + target.cpu_seconds() - used
            return Result(count / elapsed, cpu / count * 1e6, count, elapsed, accepted)

        return _warmed(run, seconds)


def measure(name: str, load: Load, seconds: float, folder: Path) -> Result:
    """One run of one system; Stalled when mail stops coming."""
    with sink() as target, place.below(folder, f"{name}-{time.monotonic_ns()}") as own:
        system: System = SYSTEMS[name](own, target.port)
        try:
            system.start()
            return _warmed(lambda count, expected: _run(system, load, count, target, expected), seconds)
        finally:
            system.stop()


def _warmed(run: Callable[[int, float], Result], seconds: float) -> Result:
    """Warm up in two steps, then run as many messages as take about `seconds` at the second step's pace."""
    first = run(WARM_UP, 1.0)
    second = run(_fill(first, min(1.0, seconds)), 1.0) if first.seconds < 1.0 else first
    return run(_fill(second, seconds), seconds)


def _fill(result: Result, seconds: float) -> int:
    """Messages that take about `seconds` at that run's pace: full hundreds, at least one."""
    return max(WARM_UP, int(result.msgs_per_s * seconds) // 100 * 100)


def _run(system: System, load: Load, count: int, target: Sink, expected: float) -> Result:
    before, used = target.count(), system.cpu_seconds()
    started = time.time()
    Source(load, count, system.port).wait(expected + PATIENCE)
    accepted = time.time() - started
    elapsed = target.wait_for(before + count) - started
    time.sleep(TRAILING)
    cpu = system.cpu_seconds() - used
    if target.count() > before + count:
        raise Stalled(f"{target.count() - before} messages arrived, {count} were sent")
    return Result(count / elapsed, cpu / count * 1e6, count, elapsed, accepted)
