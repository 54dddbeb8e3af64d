"""PodMonitor, where the Prometheus operator's API is."""

from __future__ import annotations

from posthof_operator.desired import Desired
from posthof_operator.resources import Raw


def build(want: Desired) -> list[Raw]:
    if not want.has_pod_monitors or not want.spec.observability.pod_monitor:
        return []
    spec = {
        "selector": {"matchLabels": want.selector},
        "podMetricsEndpoints": [{"port": "health", "path": "/metrics"}],
        "podTargetLabels": ["posthof.dev/mta"],
    }
    return [want.child("PodMonitor") | {"spec": spec}]
