"""Which pods of the cluster a RelayPolicy means: watched only where a rule asks, told to the MTA's pods by address.

Rules of this file
- Pods of a namespace are watched only while a rule that is in force is about them.
- A pod on its node's own network has no address of its own and is never in the list; neither is one that ended.
- An address goes from one pod to the next some time; the list follows the watch, within a second. While two pods
  have it (a node that came back, before its kubelet told), it is in the selections that both are in.
- Also while the MTA is paused, or drained: the list says what is so, not what shall be, and an old one gives a
  stranger the rights of a pod that is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from posthof_crds.fleet import PodSelection
from posthof_crds.shards import TooLarge, pods_shard
from posthof_operator.apply import Applier
from posthof_operator.children import workloads
from posthof_operator.deletion import may_act
from posthof_operator.pods import own_addresses
from posthof_operator.resources import Key, Raw
from posthof_operator.watches import Subject
from posthof_operator.world import Requeue, World


class Workloads:
    """The reconciler of the list of pods of an MTA."""

    room = "workloads"
    kind = "MTA"

    def __init__(self) -> None:
        self._applier = Applier()

    async def reconcile(self, key: Key, world: World) -> Requeue | None:
        known, mta = world.selections.get(key), world.store.get(key)
        selections = known.pods if known else {}
        named = {space for one in selections.values() for space in one.namespaces}
        watched = world.settings.watch
        spaces = sorted(space for space in named if not watched or space in watched)  # others we may not look into
        await world.watches.want(
            f"pods of {key}", [Subject("Pod", space, is_metadata_only=False) for space in spaces]
        )
        if known is None or mta is None or not may_act(mta):
            return None
        pods = {space: [held.raw() for _, held in world.store.all("Pod", space)] for space in spaces}
        found = listed(selections, pods)
        try:
            children = workloads.build(known.want, pods_shard(found)) if selections else []
        except TooLarge as error:
            text = f"Selections of pods do not change any more: {error}. Let RelayPolicies select fewer pods."
            await world.records.warning(key, known.want.uid, "ConfigTooLarge", text)
            return None
        outcome = await self._applier.apply(world, children, salt="")
        shard = Key("ConfigMap", key.namespace, known.want.pods_name)
        held = world.store.held(shard)
        if not children and held is not None and held.owner == known.want.uid:
            await self._applier.prune(world, [shard], outcome)
        return None


def listed(selections: Mapping[str, PodSelection], pods: Mapping[str, Iterable[Raw]]) -> dict[str, tuple[str, ...]]:
    """Address -> ids of the selections its pod is in, sorted."""
    found: dict[str, set[str]] = {}
    by_space: dict[str, list[tuple[str, PodSelection]]] = {}
    for id_, selection in selections.items():
        for space in selection.namespaces:
            by_space.setdefault(space, []).append((id_, selection))
    for space, chosen in by_space.items():
        for pod in pods.get(space, ()):
            labels = pod["metadata"].get("labels") or {}
            ids = {id_ for id_, selection in chosen if selection.pods.matches(labels)}
            for address in own_addresses(pod):
                found[address] = found[address] & ids if address in found else ids
    return {address: tuple(sorted(ids)) for address, ids in sorted(found.items()) if ids}
