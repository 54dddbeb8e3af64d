"""What becomes of the mail when its MTA is deleted: Retain, Drain, Delete. Pure decisions.

A finalizer stands on an MTA only while its policy is Drain: only then something must happen before it goes.
Everything else is the garbage collector's: children go with their owner, and the claim has one only under Delete.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from posthof_crds.report import Report
from posthof_operator.resources import FINALIZER, Raw


class Step(enum.Enum):
    NOTHING = "nothing"
    HOLD = "hold"  # put the finalizer there
    LET_GO = "let go"  # take it away


def step(mta: Raw, reports: Mapping[str, Report], living: Iterable[str], *, has_claim: bool = True) -> Step:
    """What to do about the finalizer now. A drained MTA goes when all pods that run say their queues are empty; or
    when there is neither a pod nor a claim, as in a namespace that is deleted: nothing is left to deliver from."""
    metadata = mta["metadata"]
    is_there = FINALIZER in (metadata.get("finalizers") or ())
    policy = ((mta["spec"].get("spool") or {}).get("deletionPolicy")) or "Retain"
    if "deletionTimestamp" not in metadata:
        if policy == "Drain":
            return Step.NOTHING if is_there else Step.HOLD
        return Step.LET_GO if is_there else Step.NOTHING
    if not is_there:
        return Step.NOTHING
    pods = list(living)
    is_over = policy != "Drain" or is_drained(reports, pods) or not (pods or has_claim)
    return Step.LET_GO if is_over else Step.NOTHING


def is_drained(reports: Mapping[str, Report], living: Iterable[str]) -> bool:
    """Every living pod has said that nothing is left, and there is one to say so."""
    pods = list(living)
    return bool(pods) and all(pod in reports and _is_empty(reports[pod]) for pod in pods)


def _is_empty(report: Report) -> bool:
    """Only a pod whose workers have read the spool knows: others count none."""
    is_known = report.ready and report.spool.healthy
    return is_known and not (report.queue.ready or report.queue.deferred or report.queue.held)


def may_act(mta: Raw) -> bool:
    """Children of an MTA that goes are made no more, except while its mail is delivered first."""
    metadata = mta["metadata"]
    return "deletionTimestamp" not in metadata or FINALIZER in (metadata.get("finalizers") or ())


def change(mta: Raw, wanted: Step) -> Raw:
    """The merge patch, good for exactly this version of the object."""
    others = [one for one in mta["metadata"].get("finalizers") or () if one != FINALIZER]
    fresh = [*others, FINALIZER] if wanted is Step.HOLD else others
    return {"metadata": {"finalizers": fresh, "resourceVersion": mta["metadata"]["resourceVersion"]}}
