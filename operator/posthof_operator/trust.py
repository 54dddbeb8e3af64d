"""The status of an AccessPolicy: which MTAs obey it."""

from __future__ import annotations

from posthof_crds.reasons import Condition
from posthof_operator import bindings
from posthof_operator.domains import is_judged, verdicts_of
from posthof_operator.resources import Key
from posthof_operator.telling import Voice, tell
from posthof_operator.world import Requeue, World

VOICE = Voice(
    fields=frozenset({"observedGeneration", "bindings"}),
    types=frozenset({Condition.READY, Condition.ACCEPTED, Condition.RECONCILING, Condition.STALLED}),
)


class Trust:
    """The reconciler of AccessPolicy."""

    room = "access"
    kind = "AccessPolicy"

    async def reconcile(self, key: Key, world: World) -> Requeue | None:
        raw = world.store.get(key)
        if raw is None or not is_judged(world, key, raw):
            return None
        verdicts = verdicts_of(world, key)
        accepted = bindings.accepted(verdicts)
        says = [bindings.ready(raw, [accepted], {}), accepted, *bindings.invalid(accepted)]
        await tell(world, raw, says, {"bindings": bindings.bound(raw, verdicts, world.now()) or None}, VOICE)
        return None
