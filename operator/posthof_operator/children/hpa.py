"""HorizontalPodAutoscaler, on request (autoscaling.mode HPA): CPU, through the MTA's scale subresource.

It scales the MTA and not the Deployment: so the operator marks the pods that go, and keeps those whose mail the
others have no memory for. `spec.replicas` of the MTA is the HPA's from then on; we only read it.
"""

from __future__ import annotations

import math

from posthof_crds.autoscaling import Autoscaling
from posthof_operator.desired import Desired
from posthof_operator.resources import RESOURCES, Raw

UP_AGAIN = 15  # seconds from one step up to the next


def build(want: Desired) -> list[Raw]:
    wish = want.spec.autoscaling
    if wish is None or wish.mode != "HPA" or not want.config:
        return []
    target = {"type": "Utilization", "averageUtilization": max(1, round(wish.targets.cpu * 100))}
    spec = {
        "scaleTargetRef": target_of(want),
        "minReplicas": wish.min,
        "maxReplicas": wish.max,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        "behavior": behavior(wish),
    }
    return [want.child("HorizontalPodAutoscaler") | {"spec": spec}]


def target_of(want: Desired) -> Raw:
    return {"apiVersion": RESOURCES["MTA"].api_version, "kind": "MTA", "name": want.name}


def behavior(wish: Autoscaling) -> Raw:
    """Ours in an HPA's words: a step or a doubling up, one at a time down."""
    up, down = wish.behavior.scale_up, wish.behavior.scale_down
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": math.ceil(up.stabilization),
            "selectPolicy": "Max",
            "policies": [
                {"type": "Pods", "value": up.pods, "periodSeconds": UP_AGAIN},
                {"type": "Percent", "value": 100, "periodSeconds": UP_AGAIN},
            ],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": math.ceil(down.stabilization),
            "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": math.ceil(down.period)}],
        },
    }
