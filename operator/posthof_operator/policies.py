"""The status of a RelayPolicy: which MTAs obey it, whether its Secrets are there, and whether it is ever asked."""

from __future__ import annotations

from posthof_crds.fleet import Verdict
from posthof_crds.reasons import Condition, Reason
from posthof_operator import bindings
from posthof_operator.conditions import Said, said
from posthof_operator.domains import is_judged, verdicts_of
from posthof_operator.resources import Key, Raw
from posthof_operator.telling import Voice, tell
from posthof_operator.world import Requeue, World

VOICE = Voice(
    fields=frozenset({"observedGeneration", "bindings", "shadowedBy", "target"}),
    types=frozenset(
        {Condition.READY, Condition.ACCEPTED, Condition.RESOLVED_REFS, Condition.RECONCILING, Condition.STALLED}
    ),
)


class Policies:
    """The reconciler of RelayPolicy."""

    room = "policies"
    kind = "RelayPolicy"

    async def reconcile(self, key: Key, world: World) -> Requeue | None:
        raw = world.store.get(key)
        if raw is None or not is_judged(world, key, raw):
            return None
        verdicts = verdicts_of(world, key)
        accepted = bindings.accepted(verdicts)
        says = [accepted, *resolved(verdicts)]
        says = [bindings.ready(raw, says, {}), *says, *bindings.invalid(accepted)]
        shadows = sorted({verdict.shadowed_by for verdict in verdicts.values() if verdict.shadowed_by})
        fields = {
            "bindings": bindings.bound(raw, verdicts, world.now()) or None,
            "shadowedBy": shadows[0] if shadows else None,
            "target": target(raw) or None,
        }
        await tell(world, raw, says, fields, VOICE)
        return None


def resolved(verdicts: dict[Key, Verdict]) -> list[Said]:
    """One answer for all MTAs that obey it; none while nobody does."""
    for verdict in verdicts.values():
        if verdict.resolved is not Reason.RESOLVED:
            return [said(Condition.RESOLVED_REFS, False, verdict.resolved, verdict.resolved_message)]
    if not any(verdict.accepted for verdict in verdicts.values()):
        return []
    return [said(Condition.RESOLVED_REFS, True, Reason.RESOLVED, "Everything it refers to is there.")]


def target(raw: Raw) -> str:
    """Where its mail goes, for the column: the first next hop, or what stands for it."""
    action = (raw.get("spec") or {}).get("action") or {}
    hops = action.get("nextHops") or ()
    if action.get("type") == "Direct":
        return "MX"
    if hops:
        name = next((str(hops[0][kind]) for kind in ("host", "mx", "srv", "socket") if hops[0].get(kind)), "")
        port = hops[0].get("port", 24 if action.get("type") == "LMTP" else 25)
        more = f" +{len(hops) - 1}" if len(hops) > 1 else ""
        return (f"[{name}]:{port}" if ":" in name else f"{name}:{port}") + more
    addresses = action.get("addresses") or ()
    return ", ".join(addresses)[:1000]
