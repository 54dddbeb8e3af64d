"""The resolver a worker, or `posthof explain`, uses: its parts put together as the configuration says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from posthof_crds.engine import EngineConfig
from posthof_pod.resolve.cache import Cache
from posthof_pod.resolve.hosts import HostsFile
from posthof_pod.resolve.mx import Resolver
from posthof_pod.resolve.own import Own
from posthof_pod.resolve.wire import Wire


class Resolution(NamedTuple):
    """`resolver.route(destination, now)` is what delivery needs; `cache` has the counters and other look-ups."""

    resolver: Resolver
    cache: Cache
    wire: Wire


def assemble(
    config: EngineConfig, *, rng: Callable[[], float], listeners: Iterable[tuple[str, int]] | None = None
) -> Resolution:
    """`rng`: random numbers in [0, 1). `listeners`: what is bound in truth, where the ports are not the config's."""
    wire = Wire(config.resolver)
    cache = Cache(wire.query)
    if listeners is None:
        listeners = [(listener.host, listener.port) for listener in config.listeners]
    resolver = Resolver(
        cache.lookup,
        own=Own((config.hostname,), listeners),
        rng=rng,
        direct_port=config.direct_port,
        search=lambda: (wire.settings.search, wire.settings.ndots),
        hosts=HostsFile(time.monotonic),
        peek=cache.peek,
    )
    return Resolution(resolver, cache, wire)
