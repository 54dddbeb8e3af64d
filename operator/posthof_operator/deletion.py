"""What becomes of the mail when its MTA is deleted: Retain, Drain, Delete. Pure decisions.

A finalizer stands on an MTA only while its policy is Drain or Delete: only then something must happen before it goes.
Everything else is the garbage collector's: children go with their owner. The claim never has one: what the policy
says at the moment of the deletion counts, not what it said when the claim was last written, so mail goes only by our
hand.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from posthof_crds.report import Report
from posthof_operator.resources import FINALIZER, MANAGED_BY, MANAGER, MTA_LABEL, Raw


class Step(enum.Enum):
    NOTHING = "nothing"
    HOLD = "hold"  # put the finalizer there
    LET_GO = "let go"  # take it away
    DELETE = "delete"  # delete the claim and all mail in it, then take it away


def step(mta: Raw, reports: Mapping[str, Report], living: Iterable[str], claim: Raw | None) -> Step:
    """What to do about the finalizer now. `claim`: as it is there, or None. A drained MTA goes when all pods that run
    say their queues are empty; or when there is neither a pod nor a claim, as in a namespace that is deleted: nothing
    is left to deliver from."""
    metadata = mta["metadata"]
    is_there = FINALIZER in (metadata.get("finalizers") or ())
    policy = ((mta["spec"].get("spool") or {}).get("deletionPolicy")) or "Retain"
    if "deletionTimestamp" not in metadata:
        if policy != "Retain":
            return Step.NOTHING if is_there else Step.HOLD
        return Step.LET_GO if is_there else Step.NOTHING
    if not is_there:
        return Step.NOTHING
    if policy == "Delete":
        return Step.DELETE if claim is not None and _is_ours(claim, mta) else Step.LET_GO
    pods = list(living)
    is_over = policy != "Drain" or is_drained(reports, pods) or not (pods or claim is not None)
    return Step.LET_GO if is_over else Step.NOTHING


def _is_ours(claim: Raw, mta: Raw) -> bool:
    """Made for this MTA by us, and not on its way out: a claim that somebody brought (`existingClaim`) is theirs."""
    metadata = claim["metadata"]
    labels = metadata.get("labels") or {}
    is_made = labels.get(MANAGED_BY) == MANAGER and labels.get(MTA_LABEL) == mta["metadata"]["name"]
    is_brought = bool((mta["spec"].get("spool") or {}).get("existingClaim"))
    return is_made and not is_brought and "deletionTimestamp" not in metadata


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
    if "deletionTimestamp" not in metadata:
        return True
    policy = (mta["spec"].get("spool") or {}).get("deletionPolicy")
    return policy == "Drain" and FINALIZER in (metadata.get("finalizers") or ())


def change(mta: Raw, wanted: Step) -> Raw:
    """The merge patch, good for exactly this version of the object."""
    others = [one for one in mta["metadata"].get("finalizers") or () if one != FINALIZER]
    fresh = [*others, FINALIZER] if wanted is Step.HOLD else others
    return {"metadata": {"finalizers": fresh, "resourceVersion": mta["metadata"]["resourceVersion"]}}
