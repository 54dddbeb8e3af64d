"""Where the CPU of one message goes, by the stages of docs/performance.md. Posthof alone, 4 KiB, reused.

The workers run with injected/sitecustomize.py, which samples them; sampling itself costs a few percent. Between two
readings of its files lies one run of the case.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from bench import accounting, place
from bench.systems import PosthofSystem
from bench.throughput import CASES
from bench.tools import Sink, Source, sink

INJECTED = Path(__file__).with_name("injected")
BUDGET = {"receive": 35.0, "commit": 15.0, "route": 10.0, "deliver": 35.0, "settle": 10.0}
WARM_UP = 2000
COUNT = 30_000
WRITING = 1.2  # seconds until a process has written what it sampled


class Stages(NamedTuple):
    """Microseconds of CPU a message."""

    stages: dict[str, float]
    functions: dict[str, float]  # the twenty dearest


def measure(folder: Path) -> Stages:
    """One run under the sampler."""
    samples = folder / "samples"
    samples.mkdir()
    before_path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(INJECTED)
    os.environ["POSTHOF_BENCH_PROFILE"] = str(samples)
    try:
        with sink() as target, place.below(folder, "stages") as own:
            system = PosthofSystem(own, target.port)
            try:
                system.start()
                _send(system.port, WARM_UP, target)
                before = _read(samples, system)
                _send(system.port, COUNT, target)
                after = _read(samples, system)
            finally:
                system.stop()
    finally:
        del os.environ["POSTHOF_BENCH_PROFILE"]
        if before_path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before_path
    spent = {name: (after[name] - before.get(name, 0.0)) / COUNT * 1e6 for name in after}
    stages = {name.partition(":")[2]: value for name, value in spent.items() if name.startswith("stage:")}
    functions = Counter({k.partition(":")[2]: v for k, v in spent.items() if k.startswith("function:")})
    return Stages(
        {name: round(stages.get(name, 0.0), 1) for name in (*BUDGET, "write", "other")},
        {name: round(value, 2) for name, value in functions.most_common(20)},
    )


def _send(port: int, count: int, target: Sink) -> None:
    before = target.count()
    Source(CASES["4k_reused"], count, port).wait(300)
    target.wait_for(before + count)
    time.sleep(WRITING)


def _read(samples: Path, system: PosthofSystem) -> dict[str, float]:
    """Sums over all workers. The time of the other threads and of the mates is commit: they write, sync and look."""
    sums: dict[str, float] = defaultdict(float)
    for path in samples.glob("*.json"):
        one = json.loads(path.read_text())
        for stage, seconds in one["stages"].items():
            sums[f"stage:{stage}"] += seconds
        for function, seconds in one["functions"].items():
            sums[f"function:{function or 'the loop and libraries'}"] += seconds
        sums["stage:commit"] += one["threads"]
        sums["function:(threads: write, sync, look)"] += one["threads"]
    mates = _mates(system)
    sums["stage:commit"] += mates
    sums["function:(mates: sync, look)"] += mates
    return sums


def _mates(system: PosthofSystem) -> float:
    """CPU seconds of the processes that sync for the workers; nothing is injected into those."""
    assert system._program is not None
    ticks = 0
    for pid, times in accounting.tree(system._program.pid).items():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"mate.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                ticks += times.own
    return ticks / accounting.TICKS
