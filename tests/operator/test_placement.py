"""How many pods may run, and where: what the claim's access modes allow."""

from __future__ import annotations

import pytest

from posthof_crds.mta import MTASpec
from posthof_operator.placement import Placement, place


def spec(replicas: int) -> MTASpec:
    listener = {"name": "mx", "role": "MX", "port": 25}
    return MTASpec.model_validate({"hostname": "mx.example.org", "replicas": replicas, "listeners": [listener]})


@pytest.mark.parametrize(
    ("modes", "is_one_node"),
    [
        (("ReadWriteMany",), False),
        (("ReadWriteOnce", "ReadWriteMany"), False),
        (("ReadWriteOnce",), True),
        ((), True),
    ],
)
def test_all_replicas_run_where_the_claim_can_be_mounted(modes: tuple[str, ...], is_one_node: bool) -> None:
    assert place(spec(6), modes) == Placement(6, is_one_node)


def test_a_claim_for_one_pod_gets_one_and_says_what_to_write() -> None:
    placed = place(spec(2), ("ReadWriteOncePod",))
    assert (placed.replicas, placed.is_one_node) == (1, True)
    assert "ReadWriteMany" in placed.refused
    assert not place(spec(1), ("ReadWriteOncePod",)).refused
