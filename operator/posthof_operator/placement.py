"""How many pods may run, and where: what the spool's volume allows. Pure.

A spool's lanes are owned by claims on the volume, and Leases say who lives, so pods may stand on any nodes that can
mount the claim: all of them with ReadWriteMany, one with ReadWriteOnce.
"""

from __future__ import annotations

from typing import NamedTuple

from posthof_crds.mta import MTASpec


class Placement(NamedTuple):
    replicas: int
    is_one_node: bool
    refused: str = ""  # why not as many as asked for, and what to write instead


def place(spec: MTASpec, access_modes: tuple[str, ...]) -> Placement:
    """`access_modes` of the claim: those it has, or those it will have; none where it is not there yet."""
    if "ReadWriteMany" in access_modes:
        return Placement(spec.replicas, is_one_node=False)
    if access_modes == ("ReadWriteOncePod",) and spec.replicas > 1:
        return Placement(
            1,
            True,
            f"one pod runs instead of {spec.replicas}: the claim is ReadWriteOncePod, so no second pod can mount it. "
            "Give it ReadWriteOnce and all replicas run on one node, ReadWriteMany and they run on any, or write "
            "replicas: 1.",
        )
    return Placement(spec.replicas, True)
