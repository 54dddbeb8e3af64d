"""ScaledObject of KEDA, on request (autoscaling.mode KEDA) and where its API is; and the Service by which KEDA finds
the pods.

KEDA asks each pod for GET /load on the health port (metrics-api with aggregateFromKubeServiceEndpoints, KEDA 2.20),
adds the answers up and divides by the target: so many pods. Nothing but numbers is there, so it needs no key.
"""

from __future__ import annotations

from posthof_crds.autoscaling import Targets
from posthof_crds.ports import HEALTH
from posthof_operator.children.hpa import behavior, target_of
from posthof_operator.desired import Desired
from posthof_operator.resources import Raw

POLLING = 15  # seconds


def build(want: Desired) -> list[Raw]:
    wish = want.spec.autoscaling
    if wish is None or wish.mode != "KEDA" or not want.config or not want.has_keda:
        return []
    url = f"http://{want.load_name}.{want.namespace}.svc:{HEALTH}/load"
    spec = {
        "scaleTargetRef": target_of(want),
        "pollingInterval": POLLING,
        "minReplicaCount": wish.min,
        "maxReplicaCount": wish.max,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior(wish)}},
        "triggers": [_trigger(url, name, target) for name, target in _targets(wish.targets).items()],
    }
    return [service(want), want.child("ScaledObject") | {"spec": spec}]


def service(want: Desired) -> Raw:
    """Without an address of its own: KEDA takes the endpoints from it."""
    spec = {
        "clusterIP": "None",
        "selector": want.selector,
        "ports": [{"name": "health", "port": HEALTH, "targetPort": "health", "protocol": "TCP"}],
    }
    return want.child("Service", want.load_name) | {"spec": spec}


def _targets(targets: Targets) -> dict[str, float]:
    """What GET /load says, and how much of it a pod may have."""
    return {
        "backlogSeconds": targets.backlog,
        "oldestSeconds": targets.oldest_ready,
        "sessions": targets.sessions,
        "acceptSeconds": targets.accept_latency,
        "cpu": targets.cpu,
    }


def _trigger(url: str, name: str, target: float) -> Raw:
    return {
        "type": "metrics-api",
        "name": name,
        "metricType": "AverageValue",
        "metadata": {
            "url": url,
            "format": "json",
            "valueLocation": name,
            "targetValue": f"{target:g}",
            "aggregateFromKubeServiceEndpoints": "true",
            "aggregationType": "sum",
        },
    }
