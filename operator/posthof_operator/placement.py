"""How many pods may run, and where: what the spool's volume and its locks allow. Pure.

A spool's lanes are owned by flock, which holds among the processes of one kernel. Until lanes are owned by Leases,
pods of one MTA must stand on one node. ReadWriteOnce says so itself; ReadWriteMany asks for more, and is refused it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from posthof_crds.mta import MTASpec
from posthof_operator.resources import FLOCK_ACROSS_NODES


class Placement(NamedTuple):
    replicas: int
    is_one_node: bool
    refused: str = ""  # why not as many as asked for, and what to write instead


def place(spec: MTASpec, annotations: Mapping[str, str], access_modes: tuple[str, ...]) -> Placement:
    """`access_modes` of the claim: those it has, or those it will have."""
    if annotations.get(FLOCK_ACROSS_NODES) == "testing":
        return Placement(spec.replicas, is_one_node="ReadWriteMany" not in access_modes)
    if spec.replicas > 1 and "ReadWriteMany" in access_modes:
        return Placement(
            1,
            True,
            f"one pod runs instead of {spec.replicas}: a claim that many nodes mount (ReadWriteMany) is for pods on "
            "several nodes, and the spool's locks hold on one only. Write spool.accessMode: ReadWriteOnce and all "
            "replicas run on one node, or replicas: 1.",
        )
    return Placement(spec.replicas, True)
