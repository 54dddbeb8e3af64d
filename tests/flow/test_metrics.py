"""Every number a worker tells stands in the table of metrics, and the table promises no other."""

from __future__ import annotations

from pathlib import Path

import uvloop

from kit.house import House
from posthof_pod.observe.metrics import METRICS


def test_a_workers_numbers_are_described(tmp_path: Path) -> None:
    async def run() -> None:
        async with House(tmp_path, "") as house:
            told = {name.partition("{")[0] for name in await house.ask("stats")}
        for end in ("_bucket", "_sum", "_count"):
            told = {name.removesuffix(end) for name in told}
        assert told <= METRICS.keys()
        gauges = {name for name in METRICS if name.startswith(("posthof_queue_", "posthof_sessions_open"))}
        assert gauges <= told

    uvloop.run(run())
