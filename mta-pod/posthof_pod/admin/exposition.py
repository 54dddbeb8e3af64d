"""The counts of all workers as Prometheus text, by the table of `observe/metrics.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from posthof_pod.observe.metrics import METRICS, Metric

LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
PARTS = ("_bucket", "_sum", "_count")


def exposition(stats: Mapping[str, int | float]) -> bytes:
    """Text format 0.0.4 of samples `name{label="value"} -> number`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Counts(stats))
    return generate_latest(registry)


class _Counts(Collector):
    def __init__(self, stats: Mapping[str, int | float]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Family]:
        families: dict[str, Family] = {}
        for key, value in self._stats.items():
            name, _, rest = key.partition("{")
            owner, metric = described(name)
            family = families.get(owner)
            if family is None:
                # The library writes a counter's `_total` itself.
                plain = owner.removesuffix("_total") if metric.kind == "counter" else owner
                family = families[owner] = Family(plain, metric.help, metric.kind)
            family.add_sample(name, dict(LABEL.findall(rest)), float(value))
        yield from (families[name] for name in sorted(families))


def described(name: str) -> tuple[str, Metric]:
    """The metric a sample belongs to: the table's, or what its name says."""
    if name in METRICS:
        return name, METRICS[name]
    for part in PARTS:
        owner = name.removesuffix(part)
        if owner != name and owner in METRICS:
            return owner, METRICS[owner]
    return name, Metric("counter" if name.endswith("_total") else "gauge", name.replace("_", " "))
