"""Is mail to B late because 100,000 messages wait for a slow A? Posthof alone.

A is an smtp-sink that takes a second for each message, so its queue stays full while it is measured. B is a
stopwatch. The same probes are sent to B before (idle) and while A's queue is full; the p99 of the second must be
within twice the p99 of the first plus 100 ms.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

from bench import place
from bench.latency import Stopwatch, delays, percentile
from bench.systems import PosthofSystem
from bench.tools import Load, Source, sink
from kit.posthof import relay_policy

PROBES = 200


class Fairness(NamedTuple):
    """Seconds from accept to delivered of mail to B."""

    queued: int
    idle_p50: float
    idle_p99: float
    busy_p50: float
    busy_p99: float

    @property
    def allowed_p99(self) -> float:
        return 2 * self.idle_p99 + 0.1


def measure(queued: int, folder: Path) -> Fairness:
    """Probe B with an empty queue, and with `queued` messages waiting for A."""
    return asyncio.run(_measure(queued, folder))


async def _measure(queued: int, folder: Path) -> Fairness:
    with sink(["-W", "data:1"]) as slow, place.below(folder, "fairness") as own:
        async with Stopwatch().listening() as watch:
            ways_out = [_to("slow", "a.bench", slow.port), _to("quick", "b.bench", watch.port)]
            system = PosthofSystem(own, 0, documents=ways_out)
            try:
                await asyncio.to_thread(system.start)
                idle = await delays(watch, system.port, PROBES, recipient="b@b.bench")
                source = Source(Load(4096, is_reused=True), queued, system.port, recipient="a@a.bench")
                await asyncio.to_thread(source.wait, 300 + queued / 500)
                busy = await delays(watch, system.port, PROBES, recipient="b@b.bench", first=PROBES)
            finally:
                await asyncio.to_thread(system.stop)
    return Fairness(
        queued, percentile(idle, 0.5), percentile(idle, 0.99), percentile(busy, 0.5), percentile(busy, 0.99)
    )


def _to(name: str, domain: str, port: int) -> dict[str, object]:
    """All mail from loopback for one domain goes to one port."""
    match = {"clients": ["127.0.0.0/8"], "recipients": [f"*@{domain}"]}
    hops = [{"host": "127.0.0.1", "port": port}]
    return relay_policy(name, {"type": "Smarthost", "nextHops": hops}, match=match)
