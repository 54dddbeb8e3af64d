"""What the status says of scaling: the condition ScalingActive. Pure."""

from __future__ import annotations

from posthof_crds.reasons import Condition, Reason
from posthof_operator.conditions import Said, said
from posthof_operator.look import Look
from posthof_operator.resources import Raw

_ACTIVE = (
    Reason.WITHIN_TARGETS,
    Reason.STABILIZING,
    Reason.SCALING_UP,
    Reason.SCALING_DOWN,
    Reason.AT_MAXIMUM,
    Reason.HELD_BY_MEMORY,
)


def active(look: Look) -> Said | None:
    """Only with spec.autoscaling, or while a scale-in waits for memory: a fixed number needs no words."""
    spec, decision, type_ = look.seen.spec, look.scaling, Condition.SCALING_ACTIVE
    if spec is None or decision is None:
        return None
    if decision.reason is Reason.HELD_BY_MEMORY:
        text = f"{_pods(decision.pods)}: {decision.state}. Let mail be delivered, or raise the pods' memory limit."
        return said(type_, True, Reason.HELD_BY_MEMORY, text)
    if spec.autoscaling is None:
        return None
    if spec.autoscaling.mode == "Builtin":
        if decision.reason in _ACTIVE:
            return said(type_, True, decision.reason, f"{_pods(decision.pods)}: {decision.state}.")
        return Said(type_, "Unknown", Reason.NO_REPORTS, f"{_sentence(decision.state)}.")
    if spec.autoscaling.mode == "KEDA":
        return _of_keda(look)
    if spec.autoscaling.mode == "HPA":
        return _of_hpa(look, look.seen.key.name)
    text = f"{_pods(decision.pods)}: somebody else writes spec.replicas, by the scale subresource."
    return said(type_, True, Reason.DELEGATED, text)


def _of_keda(look: Look) -> Said:
    type_ = Condition.SCALING_ACTIVE
    if not look.seen.has_keda:
        text = (
            "There is no ScaledObject API here, so the number of pods stays as it is. Install KEDA 2.20 or newer, or "
            "write autoscaling.mode: Builtin, which needs nothing else."
        )
        return said(type_, False, Reason.KEDA_MISSING, text)
    ready = _condition(look.seen.scaled_object, "Ready")
    if ready.get("status") == "False":
        return said(type_, False, Reason.SCALER_FAILED, f"ScaledObject {look.seen.key.name}: {ready.get('message')}")
    return said(type_, True, Reason.DELEGATED, f"{_pods(look.wanted)}: ScaledObject {look.seen.key.name} decides.")


def _of_hpa(look: Look, name: str) -> Said:
    type_ = Condition.SCALING_ACTIVE
    found = _condition(look.seen.hpa, "ScalingActive")
    if found.get("status") == "False":
        text = f"HorizontalPodAutoscaler {name}: {found.get('message')}. Is metrics-server there?"
        return said(type_, False, Reason.SCALER_FAILED, text)
    return said(type_, True, Reason.DELEGATED, f"{_pods(look.wanted)}: HorizontalPodAutoscaler {name} decides.")


def _condition(raw: Raw | None, type_: str) -> Raw:
    found = ((raw or {}).get("status") or {}).get("conditions") or ()
    return next((one for one in found if one["type"] == type_), {})


def _pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
