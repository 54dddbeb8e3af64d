"""Contents of Secrets and ConfigMaps that somebody refers to: read when they are needed and changed.

Rules of this file
- Only referenced objects are read, by name. What is watched is their metadata, of the namespaces they are in.
- What was read stays until its version changes; values never stand in a log or an error.
- A namespace that cannot be listed (no Role there) holds up nobody but those who refer into it.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Iterable, Mapping

from posthof_operator.api import ApiError
from posthof_operator.resources import Key
from posthof_operator.watches import Subject
from posthof_operator.world import World

AT_ONCE = 16

log = logging.getLogger("posthof_operator.contents")


class Contents:
    """Of one kind, for one wisher (an MTA). Names are "namespace/name"."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._known: dict[str, tuple[str, Mapping[str, bytes]]] = {}  # name -> version, data
        self._spaces: set[str] = set()

    async def read(self, world: World, mta: Key, names: Iterable[str]) -> dict[str, Mapping[str, bytes]]:
        """Data by name; what does not exist is left out. A change of any of them wakes the MTA from now on."""
        wanted = sorted(set(names))
        world.referred[mta, self._kind] = frozenset(wanted)
        await self._watch(world, mta, {name.partition("/")[0] for name in wanted})
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> None:
            async with slots:
                await self._read(world, name)

        await asyncio.gather(*(one(name) for name in wanted))
        self._known = {name: self._known[name] for name in wanted if name in self._known}
        return {name: data for name, (_, data) in self._known.items()}

    async def _watch(self, world: World, mta: Key, spaces: set[str]) -> None:
        """Waits for the first list of a namespace once, and not for one that does not come."""
        is_new, self._spaces = bool(spaces - self._spaces), spaces
        try:
            subjects = [Subject(self._kind, space) for space in spaces]
            await world.watches.want(f"mta {mta} {self._kind}", subjects, is_waiting=is_new)
        except ApiError as error:
            log.warning("%s: %s", mta, error)

    async def _read(self, world: World, name: str) -> None:
        namespace, _, short = name.partition("/")
        held = world.store.held(Key(self._kind, namespace, short))
        if held is None:
            self._known.pop(name, None)
        elif self._known.get(name, ("",))[0] != held.version:
            raw = await world.api.get(self._kind, namespace, short)
            if raw is None:
                self._known.pop(name, None)
            else:
                self._known[name] = (raw["metadata"]["resourceVersion"], _data(self._kind, raw))


def _data(kind: str, raw: Mapping[str, object]) -> Mapping[str, bytes]:
    data = raw.get("data") or {}
    assert isinstance(data, dict)
    if kind == "Secret":
        return {key: base64.b64decode(value) for key, value in data.items()}
    return {key: value.encode() for key, value in data.items()}
