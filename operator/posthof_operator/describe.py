"""The conditions of an MTA. Pure; one function per condition, each says what to do.

Rules of this file
- Reasons are those of posthof_crds.reasons; a message names the mend.
- `Ready` is the sum of the others; `Reconciling` and `Stalled` exist only while they are so (kstatus).
"""

from __future__ import annotations

from collections.abc import Iterable

from posthof_crds.engine import ListenerRole
from posthof_crds.fleet import is_client_ip_preserved
from posthof_crds.reasons import Condition, Reason
from posthof_crds.report import Report
from posthof_operator.conditions import Said, is_said, said
from posthof_operator.look import PATIENCE, VOICE, Look, queued
from posthof_operator.plan import Plan
from posthof_operator.pods import why_not
from posthof_operator.resources import PAUSED, Raw
from posthof_operator.scale import status as scale

SEEN_OFTEN = 50  # sessions from which on their addresses mean something
NEARLY_ALL = 0.99
STARTING = 30.0  # seconds from a pod's start in which it may be without a configuration, a spool, readiness


def _starts(report: Report) -> bool:
    """It has not begun its work yet, and there is nothing wrong with that."""
    return not report.ready and report.uptime_seconds < STARTING


def describe(look: Look) -> list[Said]:
    """All conditions, in the order of the contract."""
    if look.seen.is_paused:
        return [_paused(), *_kept(look)]
    parts = [available(look), converged(look), spool(look), certificates(look), client_addresses(look)]
    scaling = scale.active(look)
    parts += [scaling] if scaling is not None else []
    stalls = stalled(look)
    ready = readiness(look, parts, stalls)
    moves = None if stalls is not None else reconciling(look, [ready, *parts])
    return [ready, *parts, *(one for one in (stalls, moves) if one is not None)]


def _paused() -> Said:
    return Said(
        Condition.READY, "Unknown", Reason.PAUSED, f"Nothing is changed. Remove the annotation {PAUSED} to go on."
    )


def _kept(look: Look) -> list[Said]:
    """The other conditions as they were: nobody looks."""
    old = (look.seen.mta.get("status") or {}).get("conditions") or ()
    kept = VOICE.types - {Condition.READY, Condition.RECONCILING, Condition.STALLED}
    return [
        Said(Condition(one["type"]), one["status"], Reason(one["reason"]), one["message"])
        for one in old
        if one["type"] in kept
    ]


# ---------------------------------------------------------------------- one by one


def available(look: Look) -> Said:
    ready, wanted = look.ready_pods, look.wanted
    if ready >= wanted > 0:
        return said(Condition.AVAILABLE, True, Reason.PODS_READY, f"{_pods(ready)} ready.")
    why = " ".join(why_not(look.seen.pods))
    if ready:
        text = f"{ready} of {wanted} pods are ready. {why}".strip()
        return said(Condition.AVAILABLE, True, Reason.PODS_NOT_READY, text)
    text = f"No pod is ready, so no mail is received. {why}".strip()
    return said(Condition.AVAILABLE, False, Reason.NO_POD_READY, text)


def converged(look: Look) -> Said:
    type_, assembly = Condition.CONFIG_CONVERGED, look.seen.assembly
    if assembly.problems:
        return said(type_, False, Reason.INVALID, _problems(look))
    if look.plan is not None and look.plan.too_large:
        return said(type_, False, Reason.CONFIG_TOO_LARGE, _too_large(look.plan))
    reports = [look.reports[pod] for pod in look.living if pod in look.reports]
    if not reports:
        return Said(type_, "Unknown", Reason.NO_REPORTS, "No pod has reported yet.")
    refusing = [one for one in reports if one.refused and one.revision != assembly.revision and not _starts(one)]
    if refusing:
        text = f"Pod {refusing[0].pod} refuses the newest configuration: {' '.join(refusing[0].refused)}"
        return said(type_, False, Reason.CONFIG_REFUSED, text)
    current = sum(one.revision == assembly.revision for one in reports)
    if current == len(look.living):
        return said(type_, True, Reason.CONVERGED, f"{_pods(current)} running revision {assembly.revision}.")
    text = f"{current} of {_pods(len(look.living))} running revision {assembly.revision}."
    return said(type_, False, Reason.CONVERGING, text)


def spool(look: Look) -> Said:
    type_, seen = Condition.SPOOL_HEALTHY, look.seen
    if seen.spec is None or look.plan is None:
        return Said(type_, "Unknown", Reason.NO_REPORTS, "Nothing runs yet.")
    if look.plan.placement.refused:
        return said(type_, False, Reason.CLAIM_FOR_ONE_POD, _sentence(look.plan.placement.refused))
    name = look.plan.want.claim
    if seen.claim is None:
        text = f"There is no PersistentVolumeClaim {name}. Make it, or remove spool.existingClaim."
        return said(type_, False, Reason.CLAIM_MISSING, text)
    phase = (seen.claim.get("status") or {}).get("phase", "Pending")
    if phase == "Lost":
        text = f"The volume of PersistentVolumeClaim {name} is gone. Restore it from a backup, or remove the claim."
        return said(type_, False, Reason.CLAIM_LOST, text)
    if phase != "Bound":
        text = f"PersistentVolumeClaim {name} is not bound. `kubectl describe pvc {name}` says what it waits for."
        return said(type_, False, Reason.CLAIM_PENDING, text)
    refusing = [one for one in look.reports.values() if one.spool.refused]
    if refusing:
        text = f"Pod {refusing[0].pod} does not use the volume: {_sentence(refusing[0].spool.reason)}"
        return said(type_, False, Reason.VOLUME_REFUSED, text)
    failing = [one for one in look.reports.values() if not one.spool.healthy and not _starts(one)]
    if failing:
        return said(type_, False, Reason.SPOOL_FAILING, f"Pod {failing[0].pod}: {_sentence(failing[0].spool.reason)}")
    if not look.reports:
        return Said(type_, "Unknown", Reason.NO_REPORTS, "No pod has reported yet.")
    if look.plan.placement.is_one_node:
        modes = ", ".join(seen.claim["spec"].get("accessModes", ()))
        text = f"The claim is {modes}; all pods run on one node.{_measured(look)}"
        return said(type_, True, Reason.ONE_NODE_ONLY, text)
    return said(type_, True, Reason.SPOOL_HEALTHY, f"Every pod can write to the spool.{_measured(look)}")


def _measured(look: Look) -> str:
    """What the pods measured at their starts: the slowest of them, and what they warn of."""
    found = [one.spool.volume for one in look.reports.values() if one.spool.volume is not None]
    if not found:
        return ""
    slowest = max(found, key=lambda one: one.sync_p99_seconds)
    clock = max((one.clock_offset_seconds for one in found), key=abs)
    text = (
        f" It is {slowest.file_system or 'an unknown file system'}; a sync takes "
        f"{_milliseconds(slowest.sync_median_seconds)}, 99% under {_milliseconds(slowest.sync_p99_seconds)}, "
        f"one of a folder under {_milliseconds(slowest.folder_sync_p99_seconds)}; "
        f"its clock is {clock:+.1f} s from the pods'"
    )
    seen = [one.visible_seconds for one in found if one.visible_seconds is not None]
    if seen:
        text += f"; what one pod writes another sees within {_milliseconds(max(seen))}"
    least = min(found, key=lambda one: one.free_bytes)
    inodes = f" and {least.free_inodes} inodes" if least.free_inodes >= 0 else ""
    text += f"; at the start of pods at least {least.free_bytes / 2**30:.1f} GiB{inodes} were free"
    warnings = dict.fromkeys(warning for one in found for warning in one.warnings)
    return f"{text}.{''.join(f' {_sentence(one)}' for one in warnings)}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def certificates(look: Look) -> Said:
    type_, fleet, there = Condition.CERTIFICATES_READY, look.seen.assembly.fleet, look.seen.certificates
    if not fleet.certificates:
        return said(type_, True, Reason.NO_CERTIFICATES, "No listener speaks TLS.")
    missing = [name for name in fleet.certificates if name not in there]
    if missing:
        text = f"There is no TLSCert {', '.join(missing)}. Make it, or remove it from the listener's certRefs."
        return said(type_, False, Reason.CERTIFICATE_MISSING, text)
    for name in fleet.certificates:
        ready = _condition(there[name], Condition.READY)
        if ready.get("status") != "True":
            text = f"TLSCert {name} is not ready: {ready.get('message') or 'nobody has looked at it yet.'}"
            return said(type_, False, Reason.CERTIFICATE_NOT_READY, text)
    return said(type_, True, Reason.CERTIFICATES_READY, f"{', '.join(fleet.certificates)} can be served.")


def client_addresses(look: Look) -> Said:
    type_, spec = Condition.CLIENT_IP_PRESERVED, look.seen.spec
    public = [one for one in spec.listeners if one.role is not ListenerRole.INTERNAL] if spec else []
    if spec is None or not public:
        return said(type_, True, Reason.NO_PUBLIC_LISTENER, "There are listeners of role Internal alone.")
    hidden = [one.name for one in public if not is_client_ip_preserved(one, spec)]
    if hidden:
        mend = (
            "Write proxyProtocol for it, or a Service of type NodePort or LoadBalancer"
            if spec.service.type == "ClusterIP"
            else "Write service.externalTrafficPolicy: Local"
        )
        text = f"On listener {', '.join(hidden)} clients may come with another's address. {mend}."
        return said(type_, False, Reason.ADDRESSES_TRANSLATED, text)
    seen = [one.clients for one in look.reports.values() if one.clients is not None]
    total, private = sum(one.total for one in seen), sum(one.private for one in seen)
    nodes = {pod["status"].get("hostIP") for pod in look.seen.pods}
    is_nodes = any(address in nodes for one in seen for address in one.addresses)
    was_so = is_said(look.seen.mta, type_, Reason.NODE_ADDRESSES_SEEN)  # until enough others have been seen
    if (total >= SEEN_OFTEN and private >= NEARLY_ALL * total and is_nodes) or (total < SEEN_OFTEN and was_so):
        text = (
            "Nearly all clients come with addresses of nodes: something in front translates them, and no rule "
            "believes them on listeners for the world. "
            "Let it speak PROXY protocol, and write proxyProtocol for the listener."
        )
        return said(type_, False, Reason.NODE_ADDRESSES_SEEN, text)
    return said(type_, True, Reason.ADDRESSES_KEPT, "Clients are seen with their own addresses.")


def stalled(look: Look) -> Said | None:
    """What does not go on without somebody's help."""
    if look.seen.assembly.problems:
        return said(Condition.STALLED, True, Reason.INVALID, _problems(look))
    if look.outcome.refused:
        return said(Condition.STALLED, True, Reason.APPLY_FAILED, " ".join(look.outcome.refused))
    if look.plan is not None and look.plan.too_large:
        return said(Condition.STALLED, True, Reason.CONFIG_TOO_LARGE, _too_large(look.plan))
    if look.plan is not None and look.plan.placement.refused:
        text = _sentence(look.plan.placement.refused)
        return said(Condition.STALLED, True, Reason.CLAIM_FOR_ONE_POD, text)
    return None


def readiness(look: Look, parts: Iterable[Said], stalls: Said | None) -> Said:
    type_ = Condition.READY
    if look.seen.is_deleting:
        return said(type_, False, Reason.DELETING, "It is being deleted.")
    if stalls is not None:
        reason = Reason.INVALID if stalls.reason is Reason.INVALID else Reason.NOT_READY
        return said(type_, False, reason, stalls.message)
    wanted, ready = look.wanted, look.ready_pods
    if ready and (look.is_rolling or look.is_starting):
        return said(type_, False, Reason.ROLLING_OUT, f"{ready} of {wanted} pods are ready; the others start.")
    if ready < wanted:
        reason = Reason.PODS_NOT_READY if ready else Reason.NO_POD_READY
        return said(
            type_, False, reason, f"{ready} of {wanted} pods are ready. {' '.join(why_not(look.seen.pods))}".strip()
        )
    for one in parts:
        if not (one.is_true or _may_fail(one) or is_converging(look, one)):
            return said(type_, False, Reason.NOT_READY, f"{one.type}: {one.message}")
    return said(type_, True, Reason.READY, f"{_pods(ready)} ready.")


def _may_fail(one: Said) -> bool:
    """What is told, and is no reason not to be ready: mail is received and delivered all the same."""
    return one.type in (Condition.CLIENT_IP_PRESERVED, Condition.SCALING_ACTIVE)


def reconciling(look: Look, says: Iterable[Said]) -> Said | None:
    """What is on its way, and None when nothing is."""
    if look.seen.is_deleting:
        left = f"{queued(look.reports)} messages" if look.reports else "what is left"
        return said(Condition.RECONCILING, True, Reason.DRAINING, f"Pods deliver {left} first.")
    for one in says:
        if one.type is Condition.READY and not one.is_true:
            reason = Reason.ROLLING_OUT if look.is_rolling or look.is_starting else Reason.PROGRESSING
            return said(Condition.RECONCILING, True, reason, one.message)
        if is_converging(look, one):
            return said(Condition.RECONCILING, True, Reason.PROGRESSING, one.message)
    return None


def is_converging(look: Look, one: Said) -> bool:
    """Pods are taking a configuration, and not for long yet: nothing is wrong with pods that run the one before."""
    if one.type is not Condition.CONFIG_CONVERGED or one.reason is not Reason.CONVERGING:
        return False
    return look.seconds_of(Condition.CONFIG_CONVERGED, "False") < PATIENCE


def _condition(raw: Raw, type_: str) -> Raw:
    found: Iterable[Raw] = (raw.get("status") or {}).get("conditions") or ()
    return next((one for one in found if one["type"] == type_), {})


def _problems(look: Look) -> str:
    text = " ".join(map(str, look.seen.assembly.problems))
    return text + (" The last good version stays in force." if look.seen.assembly.is_usable else "")


def _too_large(plan: Plan) -> str:
    return f"{_sentence(plan.too_large)} The one before stays in force. Spread the domains over several MTAs."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _pods(count: int) -> str:
    return "1 pod is" if count == 1 else f"{count} pods are"
