"""PodDisruptionBudget: a node's drain takes one pod at a time. Never none: a pod drains in seconds, and a budget that
lets nothing go only stops the node's upgrade.

Pods that must stand on one node leave it all together: none of them can be replaced elsewhere before the last one is
gone, so a drain that waited for the first one's successor would wait for ever."""

from __future__ import annotations

from posthof_operator.desired import Desired
from posthof_operator.resources import Raw


def build(want: Desired) -> list[Raw]:
    spec = {
        "maxUnavailable": max(1, want.replicas) if want.is_one_node else 1,
        "selector": {"matchLabels": want.selector},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return [want.child("PodDisruptionBudget") | {"spec": spec}]
