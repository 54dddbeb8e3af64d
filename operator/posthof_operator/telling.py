"""What a room reports about an object: into /status, and as Events where something became so.

Rules of this file
- A status that says what is there already is not written.
- Each writer (field manager) owns fields of its own, and condition types of its own; the API server merges them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from posthof_operator import conditions
from posthof_operator.api import ApiError
from posthof_operator.conditions import Said
from posthof_operator.resources import MANAGER, Key, Raw
from posthof_operator.world import World


@dataclass(frozen=True, kw_only=True)
class Voice:
    """Who speaks: the fields of /status and the types of conditions that are this writer's."""

    fields: frozenset[str]
    types: frozenset[str]
    manager: str = MANAGER

    def said(self, status: Raw) -> Raw:
        """The part of a status that is this writer's."""
        found = {name: value for name, value in status.items() if name in self.fields}
        mine = conditions.of_types(status.get("conditions", ()), self.types)
        return found | ({"conditions": mine} if mine else {})


def status_of(raw: Raw, says: Iterable[Said], fields: Raw, world: World) -> Raw:
    """A status: the conditions merged with those there, and fields; what is None is left out."""
    generation = raw["metadata"].get("generation", 0)
    old = raw.get("status", {}).get("conditions", ())
    merged = conditions.merged(says, old, generation=generation, now=world.now())
    given = {name: value for name, value in fields.items() if value is not None}
    return {"observedGeneration": generation, **given, "conditions": merged}


async def tell(world: World, raw: Raw, says: Sequence[Said], fields: Raw, voice: Voice) -> bool:
    """Write the status if it says something new, then the Events. Returns whether it was written."""
    key = Key(raw["kind"], raw["metadata"].get("namespace", ""), raw["metadata"]["name"])
    status = voice.said(status_of(raw, says, fields, world))  # also without what belongs to another writer
    old = raw.get("status", {})
    if voice.said(old) == status:
        return False
    try:
        answer = await world.api.apply_status(key, status, manager=voice.manager)
    except ApiError as error:
        if not error.is_missing:
            raise
        world.store.remove(key, raw["metadata"]["uid"])  # gone, and the watch will say so too
        return False
    world.store.put(key.kind, answer)
    for one, is_bad in conditions.transitions(key.kind, says, old.get("conditions", ())):
        post = world.records.warning if is_bad else world.records.normal
        await post(key, raw["metadata"]["uid"], str(one.reason), f"{one.type} is {one.status}: {one.message}")
    return True
