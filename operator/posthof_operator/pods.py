"""What a Pod object says about its pod. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator

from posthof_operator.reports import PodAddress
from posthof_operator.resources import Raw

TELLING = 5.0  # seconds from a pod's readiness until every node's Service leads to it, with room to spare
_ENDED = ("Succeeded", "Failed")
_WAITS_LONG = ("ContainerCreating", "PodInitializing")  # how every pod begins


def is_alive(pod: Raw) -> bool:
    """It runs and nobody has told it to end."""
    return "deletionTimestamp" not in pod["metadata"] and _status(pod).get("phase") == "Running"


def is_going(pod: Raw) -> bool:
    """Told to end, or ended."""
    return "deletionTimestamp" in pod["metadata"] or has_ended(pod)


def has_ended(pod: Raw) -> bool:
    return _status(pod).get("phase") in _ENDED


def is_ready(pod: Raw) -> bool:
    return is_alive(pod) and any(
        one["type"] == "Ready" and one["status"] == "True" for one in _status(pod).get("conditions") or ()
    )


def is_reached(pod: Raw, now: datetime.datetime) -> bool:
    """Whether a Service leads to it by now: it is ready, and has been for as long as it takes to tell the nodes."""
    said = (one for one in _status(pod).get("conditions") or () if one["type"] == "Ready" and one["status"] == "True")
    ready = next(said, None) if is_alive(pod) else None
    if ready is None:
        return False
    since = ready.get("lastTransitionTime")
    return since is None or (now - datetime.datetime.fromisoformat(since)).total_seconds() >= TELLING


def addresses(pods: Iterable[Raw]) -> list[PodAddress]:
    """Of those that may answer: ending ones too, they still deliver."""
    return [
        PodAddress(pod["metadata"]["name"], _status(pod)["podIP"])
        for pod in pods
        if _status(pod).get("podIP") and not has_ended(pod)
    ]


def own_addresses(pod: Raw) -> list[str]:
    """Addresses that are this pod's alone now: none of a pod on the node's own network, none of one that ended."""
    status = _status(pod)
    if pod["spec"].get("hostNetwork") or has_ended(pod):
        return []
    found = [entry["ip"] for entry in status.get("podIPs") or () if entry.get("ip")]
    return found or ([status["podIP"]] if status.get("podIP") else [])


def why_not(pods: Iterable[Raw]) -> Iterator[str]:
    """Why pods are not ready, one sentence per cause."""
    told = set()
    for pod in pods:
        for text in _causes(pod):
            if text not in told:
                told.add(text)
                yield text


def _causes(pod: Raw) -> Iterator[str]:
    name = pod["metadata"]["name"]
    for one in _status(pod).get("conditions") or ():
        if one["type"] == "PodScheduled" and one["status"] == "False":
            yield f"Pod {name} has no node: {one.get('message', one.get('reason', ''))}".rstrip(".") + "."
    for one in _status(pod).get("containerStatuses") or ():
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting and waiting.get("reason") not in _WAITS_LONG:
            text = waiting.get("message") or "`kubectl logs` says why"
            yield f"Pod {name}: {waiting.get('reason')}: {text}".rstrip(".") + "."


def _status(pod: Raw) -> Raw:
    return pod.get("status") or {}
