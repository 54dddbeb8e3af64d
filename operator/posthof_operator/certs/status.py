"""What is told of a TLSCert: conditions and fields, from the plan and from what pods report. Pure.

Rules of this file
- Three truths stay apart: what was issued (Ready), what pods serve (Served), and what is on its way (Issuing).
- Every message names the mend where there is one to be made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from posthof_certs.pair import BadPair, Facts, Pair, pin, read, same_serial, some, time_text
from posthof_crds.problems import sentence
from posthof_crds.reasons import Condition, Reason
from posthof_operator.certs.plan import Do, Finding, Plan, Snapshot, next_key_of
from posthof_operator.certs.wish import Source, Wish
from posthof_operator.conditions import Said, said
from posthof_operator.resources import Raw

SHOWN = 1000  # pods in servedBy

_WORKING = frozenset({Reason.ISSUING, Reason.RENEWING})


class Service(NamedTuple):
    """Who should serve it: `pods` of the MTAs that name it, with the serial each reports ("" for none); `is_used`:
    whether an MTA names it at all; `is_known`: whether pods have been asked since this process began; `answering`:
    those of the pods that answer an ACME server for it, and can be reached."""

    pods: Mapping[str, str]
    is_used: bool
    is_known: bool = True
    answering: frozenset[str] = frozenset()


def conditions(wish: Wish, plan: Plan, service: Service, old: Raw) -> list[Said]:
    """`old` is the status told before."""
    says = [_ready(wish, plan), _served(plan.in_force, service) if service.is_known else _served_before(old)]
    says += _course(plan)
    return [one._replace(message=sentence(one.message)) for one in says]


def _course(plan: Plan) -> list[Said]:
    """What is on its way, or stands still."""
    says: list[Said] = []
    is_working = plan.why is not None and plan.why.reason in _WORKING and _goes_on(plan)
    if is_working and plan.why is not None:
        reason = Reason.RENEWING if plan.in_force else Reason.ISSUING
        says.append(said(Condition.ISSUING, True, reason, plan.why.message))
    if plan.trouble is None and plan.in_force is not None:
        return says
    trouble = plan.trouble or plan.why or Finding(Reason.ISSUING, "it is being made")
    if is_working or plan.trouble is None:
        says.append(said(Condition.RECONCILING, True, Reason.PROGRESSING, trouble.message))
    else:
        says.append(said(Condition.STALLED, True, trouble.reason, trouble.message))
    return says


def fields(snapshot: Snapshot, plan: Plan, service: Service, old: Raw) -> Raw:
    """The other fields; None is left out."""
    wish, asking, facts = snapshot.wish, snapshot.asking, plan.in_force
    staged = next_key_of(snapshot) if wish.rotation == "Staged" else None
    by_pod = [{"pod": pod, "serial": serial} for pod, serial in sorted(service.pods.items()) if serial]
    return {
        "serial": facts.serial if facts else None,
        "notBefore": time_text(facts.not_before) if facts else None,
        "notAfter": time_text(facts.not_after) if facts else None,
        "renewalTime": time_text(plan.renewal) if facts and plan.renewal else None,
        "issuer": str(wish.source),
        "secretName": wish.result if facts else None,
        "served": _share(facts, service) if service.is_known else old.get("served"),
        "servedBy": (by_pod[:SHOWN] or None) if service.is_known else old.get("servedBy"),
        "failures": asking.failures or None,
        "nextAttempt": time_text(asking.again) if asking.failures and asking.again else None,
        "nextKey": pin(staged) if staged is not None and facts is not None else None,
    }


def invalid(message: str) -> list[Said]:
    """Of an object that cannot be read."""
    return [
        said(Condition.READY, False, Reason.INVALID, sentence(message)),
        said(Condition.STALLED, True, Reason.INVALID, sentence(message)),
    ]


def paused() -> list[Said]:
    """Of an object with the annotation."""
    text = "The annotation posthof.dev/paused is there: nothing is changed until it is removed."
    return [Said(Condition.READY, "Unknown", Reason.PAUSED, text)]


def _goes_on(plan: Plan) -> bool:
    """Whether something happens without anybody's help: it is made just now, or cert-manager is at work."""
    return plan.do is not Do.NOTHING or plan.trouble is None or plan.trouble.reason in _WORKING


def _ready(wish: Wish, plan: Plan) -> Said:
    if plan.trouble is not None:
        return said(Condition.READY, False, plan.trouble.reason, plan.trouble.message)
    if plan.in_force is None:
        why = plan.why or Finding(Reason.ISSUING, "it is being made")
        return said(Condition.READY, False, Reason.ISSUING, why.message)
    until = f"valid until {time_text(plan.in_force.not_after)}"
    if wish.source is not Source.SECRET and plan.renewal:
        until += f", renewed from {time_text(plan.renewal)}"
    return said(Condition.READY, True, Reason.ISSUED, until + (f"; {plan.warning}" if plan.warning else ""))


def _served(facts: Facts | None, service: Service) -> Said:
    if not service.is_used:
        text = "no listener names it: write its name into tls.certRefs of a listener of an MTA in this namespace"
        return Said(Condition.SERVED, "Unknown", Reason.NOT_USED, text)
    if facts is None:
        return said(Condition.SERVED, False, Reason.NOT_SERVED, "there is no certificate to serve yet")
    behind = sorted(pod for pod, serial in service.pods.items() if not same_serial(serial, facts.serial))
    if not service.pods:
        return said(Condition.SERVED, False, Reason.NOT_SERVED, "there is no pod to serve it")
    if behind:
        text = f"serial {facts.serial} is not served yet by {len(behind)} of {len(service.pods)} pods: {some(behind)}"
        return said(Condition.SERVED, False, Reason.NOT_SERVED, text)
    text = f"serial {facts.serial} is served by {len(service.pods)} of {len(service.pods)} pods"
    return said(Condition.SERVED, True, Reason.SERVED, text)


def _served_before(old: Raw) -> Said:
    """What was told before this process began stands until pods have been asked."""
    for one in old.get("conditions") or ():
        if one["type"] == Condition.SERVED:
            return Said(Condition.SERVED, one["status"], Reason(one["reason"]), one["message"])
    return Said(Condition.SERVED, "Unknown", Reason.NOT_SERVED, "no pod has reported yet")


def is_served(current: Pair, service: Service) -> bool:
    """Whether every pod that should serves this pair; also where nobody should."""
    try:
        serial = read(current).serial
    except BadPair:
        return False
    return service.is_known and all(same_serial(each, serial) for each in service.pods.values())


def _share(facts: Facts | None, service: Service) -> str | None:
    if not service.is_used:
        return None
    serving = sum(1 for serial in service.pods.values() if facts and same_serial(serial, facts.serial))
    return f"{serving}/{len(service.pods)}"
