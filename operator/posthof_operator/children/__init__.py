"""The children of an MTA: one pure builder per file, `build(want) -> list[Raw]`.

Rules of this room
- Pure: no I/O, no clock, no chance. tests/operator/golden has what each gives.
- A child is what we own of it (server-side apply): what is not written here is left to the cluster or to others.
- PodSecurity `restricted` holds for every pod.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from posthof_operator.children import (
    claim,
    config,
    deployment,
    disruption,
    hpa,
    keys,
    monitor,
    network,
    permissions,
    report,
    scaledobject,
    services,
)
from posthof_operator.desired import Desired
from posthof_operator.resources import Raw

Builder = Callable[[Desired], list[Raw]]

# What a pod needs stands before the pods.
BUILDERS: Final[tuple[Builder, ...]] = (
    permissions.build,
    report.build,
    claim.build,
    config.build,
    keys.build,
    services.build,
    network.build,
    disruption.build,
    deployment.build,
    monitor.build,
    hpa.build,
    scaledobject.build,
)


def build(want: Desired) -> list[Raw]:
    """All children, in the order they are to be applied."""
    return [child for builder in BUILDERS for child in builder(want)]
