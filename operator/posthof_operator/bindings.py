"""What MTAs say about one object, as its status has it: `bindings` and Accepted. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from posthof_crds.fleet import Verdict
from posthof_crds.reasons import Condition, Reason
from posthof_operator import conditions
from posthof_operator.conditions import Said, said
from posthof_operator.resources import PAUSED, Key, Raw

_NOBODY = (
    "No MTA takes it. Write mtaRef here (a policy with a Secret needs it, where the MTA is in another namespace), or "
    "see the selectors and allowedNamespaces of the MTA."
)


def verdict_said(verdict: Verdict, mta: Key) -> Said:
    text = verdict.message or f"MTA {mta.namespace}/{mta.name} obeys it."
    return said(Condition.ACCEPTED, verdict.accepted, verdict.reason, text)


def bound(raw: Raw, verdicts: Mapping[Key, Verdict], now: datetime.datetime) -> list[Raw]:
    """`status.bindings`: one entry per MTA that has something to say, by namespace and name."""
    old = {(one["namespace"], one["mta"]): one for one in (raw.get("status") or {}).get("bindings") or ()}
    generation = raw["metadata"].get("generation", 0)
    return [
        {
            "mta": mta.name,
            "namespace": mta.namespace,
            "conditions": conditions.merged(
                [verdict_said(verdict, mta)],
                old.get((mta.namespace, mta.name), {}).get("conditions") or (),
                generation=generation,
                now=now,
            ),
        }
        for mta, verdict in sorted(verdicts.items())
    ]


def accepted(verdicts: Mapping[Key, Verdict]) -> Said:
    """Of all MTAs together: one that obeys is enough."""
    good = [mta for mta, verdict in sorted(verdicts.items()) if verdict.accepted]
    if good:
        names = ", ".join(f"{mta.namespace}/{mta.name}" for mta in good)
        return said(Condition.ACCEPTED, True, Reason.ACCEPTED, f"MTA {names} obeys it.")
    if verdicts:
        mta, verdict = sorted(verdicts.items())[0]
        return verdict_said(verdict, mta)
    return said(Condition.ACCEPTED, False, Reason.NO_MTA, _NOBODY)


def invalid(accepted: Said) -> list[Said]:
    """Stalled, for an object that is wrong by itself."""
    return [Said(Condition.STALLED, "True", Reason.INVALID, accepted.message)] if _is_invalid(accepted) else []


def ready(raw: Raw, says: list[Said], others: Mapping[str, str]) -> Said:
    """The sum. `others`: False conditions of other writers, with their messages."""
    type_ = Condition.READY
    if PAUSED in (raw["metadata"].get("annotations") or {}):
        text = f"Changes are not obeyed. Remove the annotation {PAUSED} to go on."
        return Said(type_, "Unknown", Reason.PAUSED, text)
    for one in says:
        if one.type is Condition.ACCEPTED and not one.is_true:
            return said(type_, False, Reason.INVALID if _is_invalid(one) else Reason.NOT_READY, one.message)
        if not one.is_true:
            return said(type_, False, Reason.NOT_READY, f"{one.type}: {one.message}")
    for name, message in others.items():
        return said(type_, False, Reason.NOT_READY, f"{name}: {message}")
    return said(type_, True, Reason.READY, "It is in force.")


def _is_invalid(accepted: Said) -> bool:
    return accepted.reason in (Reason.INVALID, Reason.OPEN_RELAY) and not accepted.is_true
