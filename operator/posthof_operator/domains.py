"""The status of a MailDomain, but for its DNS: which MTAs receive for it, and whether it has its domain alone."""

from __future__ import annotations

from posthof_crds.fleet import Verdict
from posthof_crds.reasons import Condition, Reason
from posthof_operator import bindings
from posthof_operator.conditions import Said
from posthof_operator.resources import Key, Raw
from posthof_operator.telling import Voice, tell
from posthof_operator.world import Requeue, World

VOICE = Voice(
    fields=frozenset({"observedGeneration", "bindings"}),
    types=frozenset(
        {Condition.READY, Condition.ACCEPTED, Condition.CONFLICTED, Condition.RECONCILING, Condition.STALLED}
    ),
)


class Domains:
    """The reconciler of a MailDomain's bindings."""

    room = "domains"
    kind = "MailDomain"

    async def reconcile(self, key: Key, world: World) -> Requeue | None:
        raw = world.store.get(key)
        if raw is None or not is_judged(world, key, raw):
            return None
        verdicts = verdicts_of(world, key)
        accepted = bindings.accepted(verdicts)
        says = [bindings.ready(raw, [accepted], wrong_dns(raw)), accepted, *conflicts(verdicts)]
        says += bindings.invalid(accepted)
        await tell(world, raw, says, {"bindings": bindings.bound(raw, verdicts, world.now()) or None}, VOICE)
        return None


def is_judged(world: World, key: Key, raw: Raw) -> bool:
    """Every MTA has seen this generation: else a verdict is on its way, and wakes us. What stands in the status until
    then is of the generation it names."""
    generation = raw["metadata"].get("generation", 0)
    mtas = list(world.store.keys("MTA"))
    return all(mta in world.judged and world.judged[mta].generations.get(key) == generation for mta in mtas)


def verdicts_of(world: World, key: Key) -> dict[Key, Verdict]:
    return {mta: judged.verdicts[key] for mta, judged in world.judged.items() if key in judged.verdicts}


def conflicts(verdicts: dict[Key, Verdict]) -> list[Said]:
    return [
        Said(Condition.CONFLICTED, "True", Reason.DOMAIN_TAKEN, verdict.message)
        for verdict in list(verdicts.values())
        if verdict.reason is Reason.DOMAIN_TAKEN
    ][:1]


def wrong_dns(raw: Raw) -> dict[str, str]:
    """What the rooms of DNS and of DKIM keys have found wrong."""
    return {
        one["type"]: one["message"]
        for one in (raw.get("status") or {}).get("conditions") or ()
        if one["type"] in (Condition.DNS_READY, Condition.DKIM_READY) and one["status"] == "False"
    }
