"""PodDisruptionBudget: a node's drain takes one pod at a time. Never none: a pod drains in seconds, and a budget that
lets nothing go only stops the node's upgrade."""

from __future__ import annotations

from posthof_operator.desired import Desired
from posthof_operator.resources import Raw


def build(want: Desired) -> list[Raw]:
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": want.selector},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return [want.child("PodDisruptionBudget") | {"spec": spec}]
