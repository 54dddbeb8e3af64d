"""The oracle itself: what tools that wait make of an object."""

from __future__ import annotations

from typing import Any

import pytest

from kit.kstatus import Status, compute, faults


def custom(
    *conditions: tuple[str, str], generation: int = 1, observed: int | None = 1, **metadata: Any
) -> dict[str, Any]:
    status: dict[str, Any] = {} if observed is None else {"observedGeneration": observed}
    status["conditions"] = [
        {
            "type": type_,
            "status": value,
            "reason": "Because",
            "message": "do this",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        for type_, value in conditions
    ]
    return {
        "apiVersion": "posthof.dev/v1alpha1",
        "kind": "MTA",
        "metadata": {"name": "edge", "generation": generation, **metadata},
        "spec": {},
        "status": status,
    }


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (custom(("Ready", "True")), Status.CURRENT),
        (custom(("Ready", "False")), Status.IN_PROGRESS),
        (custom(("Ready", "Unknown")), Status.IN_PROGRESS),
        (custom(("Ready", "False"), ("Stalled", "True")), Status.FAILED),
        (custom(("Ready", "True"), ("Reconciling", "True")), Status.IN_PROGRESS),
        (custom(("Ready", "True"), generation=2), Status.IN_PROGRESS),
        (custom(("Ready", "True"), deletionTimestamp="2026-01-01T00:00:00Z"), Status.TERMINATING),
        (custom(observed=None), Status.CURRENT),
    ],
)
def test_a_custom_resource(raw: dict[str, Any], status: Status) -> None:
    assert compute(raw).status is status


def deployment(**status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "edge", "generation": 1},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 1, **status},
    }


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2}, Status.CURRENT),
        ({"replicas": 2, "updatedReplicas": 1, "availableReplicas": 2, "readyReplicas": 2}, Status.IN_PROGRESS),
        ({"replicas": 3, "updatedReplicas": 2, "availableReplicas": 3, "readyReplicas": 3}, Status.IN_PROGRESS),
        ({"replicas": 2, "updatedReplicas": 2}, Status.IN_PROGRESS),
    ],
)
def test_a_deployment(status: dict[str, int], expected: Status) -> None:
    assert compute(deployment(**status)).status is expected


def test_a_claim_a_service_and_a_pod() -> None:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {}, "status": {"phase": "Pending"}}
    assert compute(claim).status is Status.IN_PROGRESS
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {"type": "ClusterIP"}}
    assert compute(service).status is Status.CURRENT
    waiting = {"name": "mta", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "status": {"containerStatuses": [waiting]}}
    assert compute(pod).status is Status.FAILED


def test_a_sound_status_has_no_faults() -> None:
    assert faults(custom(("Ready", "True"))) == []


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (custom(("Ready", "True"), ("Stalled", "False")), "Stalled: it is there without being True"),
        (custom(("Ready", "True"), ("Stalled", "True")), "Ready and Stalled at once"),
        (custom(("Ready", "False"), ("Stalled", "True"), ("Reconciling", "True")), "Stalled and Reconciling at once"),
        (custom(("Ready", "True"), ("Ready", "False")), "two conditions Ready"),
        (custom(("Accepted", "True")), "no Ready"),
        (custom(("Ready", "True"), observed=2), "observedGeneration is ahead"),
    ],
)
def test_what_tools_would_stumble_over_is_named(raw: dict[str, Any], words: str) -> None:
    assert any(words in fault for fault in faults(raw))
