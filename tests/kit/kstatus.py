"""A kstatus oracle: what `helm --wait`, Flux and `kubectl wait`-like tools make of an object.

    status = compute(raw)            # Result(Status.CURRENT, "...")
    assert not faults(raw)           # what breaks the rules these tools go by

Written from the behaviour that cli-utils documents for its kstatus package, as an independent second opinion on our
statuses: a custom resource is read by its generation, its deletion and the conditions Reconciling, Stalled and Ready;
the kinds of Kubernetes itself have rules of their own.

Rules
- Pure: an object as JSON in, a value out.
- Generations first: what nobody has looked at yet is in progress, whatever stands in its conditions.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Raw = Mapping[str, Any]


class Status(enum.StrEnum):
    CURRENT = "Current"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    TERMINATING = "Terminating"


class Result(NamedTuple):
    status: Status
    message: str = ""


_OURS = "posthof.dev/"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
_ABNORMAL = ("Reconciling", "Stalled", "Issuing", "Conflicted")  # there only while True


def compute(raw: Raw) -> Result:
    """What a tool that waits would say."""
    general = _general(raw)
    if general is not None:
        return general
    rule = _KINDS.get(str(raw.get("kind", "")))
    if rule is not None and not str(raw.get("apiVersion", "")).startswith(_OURS):
        return rule(raw)
    ready = condition(raw, "Ready")
    if ready is None or ready["status"] == "True":
        return Result(Status.CURRENT, str((ready or {}).get("message", "")))
    return Result(Status.IN_PROGRESS, str(ready.get("message", "")))


def condition(raw: Raw, type_: str) -> Raw | None:
    """One condition of an object."""
    for one in raw.get("status", {}).get("conditions") or ():
        if one["type"] == type_:
            return dict(one)
    return None


def faults(raw: Raw) -> list[str]:
    """What tools would stumble over in the status of one of our objects; empty: nothing."""
    status = raw.get("status") or {}
    conditions: Sequence[Raw] = status.get("conditions") or ()
    found = []
    generation = raw["metadata"].get("generation", 0)
    if status.get("observedGeneration", 0) > generation:
        found.append("observedGeneration is ahead of generation")
    types = [one.get("type", "") for one in conditions]
    found += [f"two conditions {name}" for name in sorted({name for name in types if types.count(name) > 1})]
    for one in conditions:
        found += [f"{one.get('type')}: {fault}" for fault in _condition_faults(one, generation)]
    ready = condition(raw, "Ready")
    stalled, reconciling = condition(raw, "Stalled"), condition(raw, "Reconciling")
    if stalled and reconciling:
        found.append("Stalled and Reconciling at once: it either goes on or does not")
    if ready and ready["status"] == "True" and stalled:
        found.append("Ready and Stalled at once")
    if status.get("observedGeneration") and ready is None:
        found.append("looked at, and no Ready: tools would call it current")
    return found


def _condition_faults(one: Raw, generation: int) -> Iterable[str]:
    if one.get("status") not in ("True", "False", "Unknown"):
        yield f"status {one.get('status')!r}"
    if not _REASON.fullmatch(str(one.get("reason", ""))):
        yield f"reason {one.get('reason')!r} is no word"
    if not _TIME.fullmatch(str(one.get("lastTransitionTime", ""))):
        yield f"lastTransitionTime {one.get('lastTransitionTime')!r}"
    if one.get("type") in _ABNORMAL and one.get("status") != "True":
        yield "it is there without being True"
    if one.get("observedGeneration", 0) > generation:
        yield "observedGeneration is ahead of generation"
    if one.get("status") == "False" and not one.get("message"):
        yield "no message says what to do"
    if not isinstance(one.get("message", ""), str) or len(one.get("message", "")) > 32768:
        yield "the message is too long"


# -- what holds for every kind ---------------------------------------------------------------------------------------


def _general(raw: Raw) -> Result | None:
    metadata, status = raw["metadata"], raw.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return Result(Status.TERMINATING, "it is being deleted")
    observed = status.get("observedGeneration")
    if observed is not None and observed != metadata.get("generation", observed):
        return Result(Status.IN_PROGRESS, "its newest generation was not looked at yet")
    for type_, found in (("Reconciling", Status.IN_PROGRESS), ("Stalled", Status.FAILED)):
        one = condition(raw, type_)
        if one is not None and one["status"] == "True":
            return Result(found, str(one.get("message", "")))
    return None


# -- kinds of Kubernetes ---------------------------------------------------------------------------------------------


def _deployment(raw: Raw) -> Result:
    status, wanted = raw.get("status") or {}, raw["spec"].get("replicas", 1)
    progressing = condition(raw, "Progressing")
    if progressing is not None and progressing.get("reason") == "ProgressDeadlineExceeded":
        return Result(Status.FAILED, "its progress deadline is exceeded")
    if "observedGeneration" not in status:
        return Result(Status.IN_PROGRESS, "nobody has looked at it yet")
    total, updated = status.get("replicas", 0), status.get("updatedReplicas", 0)
    available, is_ready = status.get("availableReplicas", 0), status.get("readyReplicas", 0)
    if wanted > total or wanted > updated:
        return Result(Status.IN_PROGRESS, f"{updated} of {wanted} pods are new")
    if total > wanted:
        return Result(Status.IN_PROGRESS, f"{total - wanted} old pods end")
    if updated > available or wanted > is_ready:
        return Result(Status.IN_PROGRESS, f"{is_ready} of {wanted} pods are ready")
    return Result(Status.CURRENT, f"{is_ready} pods are ready")


def _pod(raw: Raw) -> Result:
    status = raw.get("status") or {}
    phase = status.get("phase")
    if phase == "Succeeded":
        return Result(Status.CURRENT, "it has ended well")
    if phase == "Failed":
        return Result(Status.FAILED, "it has failed")
    for container in status.get("containerStatuses") or ():
        if (container.get("state", {}).get("waiting") or {}).get("reason") == "CrashLoopBackOff":
            return Result(Status.FAILED, f"{container['name']} crashes over and over")
    ready = condition(raw, "Ready")
    if phase == "Running" and ready is not None and ready["status"] == "True":
        return Result(Status.CURRENT, "it is ready")
    return Result(Status.IN_PROGRESS, "it is not ready")


def _claim(raw: Raw) -> Result:
    phase = (raw.get("status") or {}).get("phase", "Pending")
    return Result(Status.CURRENT if phase == "Bound" else Status.IN_PROGRESS, f"it is {phase}")


def _service(raw: Raw) -> Result:
    if raw["spec"].get("type") == "LoadBalancer" and not raw["spec"].get("clusterIP"):
        return Result(Status.IN_PROGRESS, "it has no address yet")
    return Result(Status.CURRENT)


def _job(raw: Raw) -> Result:
    for type_, found in (("Complete", Status.CURRENT), ("Failed", Status.FAILED)):
        one = condition(raw, type_)
        if one is not None and one["status"] == "True":
            return Result(found, str(one.get("message", "")))
    return Result(Status.CURRENT if (raw.get("status") or {}).get("startTime") else Status.IN_PROGRESS, "it runs")


def _definition(raw: Raw) -> Result:
    refused = condition(raw, "NamesAccepted")
    if refused is not None and refused["status"] == "False":
        return Result(Status.FAILED, str(refused.get("message", "")))
    established = condition(raw, "Established")
    if established is not None and established["status"] == "True":
        return Result(Status.CURRENT, "it is established")
    return Result(Status.IN_PROGRESS, "it is not established yet")


def _budget(raw: Raw) -> Result:
    seen = (raw.get("status") or {}).get("observedGeneration")
    return Result(Status.CURRENT) if seen else Result(Status.IN_PROGRESS, "nobody has looked at it yet")


_KINDS: Mapping[str, Callable[[Raw], Result]] = {
    "Deployment": _deployment,
    "Pod": _pod,
    "PersistentVolumeClaim": _claim,
    "Service": _service,
    "Job": _job,
    "CustomResourceDefinition": _definition,
    "PodDisruptionBudget": _budget,
}
