"""The named objects of this pod's MTA, followed at the API server, as long as it answers.

Rules
- One watch for the first config shard, for each key shard and for the list of pods. Every config shard names its
  revision, so the first one changes with the others, and they are then fetched; a set that is not complete yet is
  fetched again soon.
- A watch that ends or breaks is begun again, at once after a quiet end, else after a pause that grows to PAUSE. What
  was heard stays known meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing

from posthof_crds import shards
from posthof_crds.shards import KEY_SHARDS, MAX_CONFIG_SHARDS
from posthof_pod.cluster.api import ApiServer, Away, Denied, Ref

PAUSE = 3.0  # seconds at most between two tries
AGAIN = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 10.0)  # seconds until an incomplete set is fetched again; the last
# one repeats: an operator that stopped halfway is waited for

Place = tuple[str, int]


def refs(mta: str) -> dict[Place, Ref]:
    """Every object of an MTA that its pods read, by group and place. The operator writes them under these names."""
    return {
        **{("config", n): Ref("configmaps", f"{mta}-config-{n}", "config") for n in range(MAX_CONFIG_SHARDS)},
        **{("keys", n): Ref("secrets", f"{mta}-keys-{n}", "keys") for n in range(KEY_SHARDS)},
        ("pods", 0): Ref("configmaps", f"{mta}-pods", "pods"),
    }


class Objects:
    """`contents`: what the API server has, as last heard. `on_change(group)` at each change, in the loop."""

    def __init__(self, api: ApiServer, mta: str, on_change: Callable[[str], object]) -> None:
        self._api, self._on_change = api, on_change
        self._refs = refs(mta)
        self.contents: dict[Place, bytes] = {}
        self.trouble: dict[Place, str] = {}  # why an object is not followed right now
        self._heard: set[Place] = set()
        self.first_heard = asyncio.Event()  # every group was asked for once: answered, or in vain

    @property
    def is_away(self) -> bool:
        """Whether the first config shard is not being followed."""
        return ("config", 0) in self.trouble or ("config", 0) not in self._heard

    async def run(self) -> None:
        """Until cancelled."""
        followed = [place for place in self._refs if place[0] != "config" or place[1] == 0]
        async with asyncio.TaskGroup() as group:
            for place in followed:
                group.create_task(self._follow(place, len(followed)))

    async def fetch(self, group: str) -> None:
        """Ask for a whole group once, now. Raises Away, Denied."""
        places = [place for place in self._refs if place[0] == group]
        found = await asyncio.gather(*(self._api.get(self._refs[place]) for place in places))
        for place, one in zip(places, found, strict=True):
            self._know(place, one.content)

    # ------------------------------------------------------------------ how

    async def _follow(self, place: Place, count: int) -> None:
        pause = 0.1
        while True:
            try:
                await self._begin(place)
                self._note(place, "", count)
                async with aclosing(self._api.watch(self._refs[place])) as events:
                    async for one in events:
                        if self._know(place, one.content):
                            await self._complete(place)
                            self._on_change(place[0])
                pause = 0.1
            except (Away, Denied) as error:
                self._note(place, str(error), count)
                await asyncio.sleep(pause * random.uniform(0.7, 1.3))
                pause = min(pause * 2, PAUSE)

    async def _begin(self, place: Place) -> None:
        """A watch does not say that an object is not there; a get does."""
        is_new = self._know(place, (await self._api.get(self._refs[place])).content)
        if is_new or (place[0] == "config" and not self.is_complete()):
            await self._complete(place)
            self._on_change(place[0])

    def _note(self, place: Place, trouble: str, count: int) -> None:
        if trouble:
            self.trouble[place] = trouble
        else:
            self.trouble.pop(place, None)
        self._heard.add(place)
        if len(self._heard) == count:
            self.first_heard.set()

    def _know(self, place: Place, content: bytes | None) -> bool:
        """Whether it is new."""
        if self.contents.get(place) == content:
            return False
        if content is None:
            del self.contents[place]
        else:
            self.contents[place] = content
        return True

    async def _complete(self, place: Place) -> None:
        """Fetch the other shards of a configuration that has several, until all are of one revision."""
        if place[0] != "config":
            return
        tries = 0
        while not self.is_complete():
            await asyncio.sleep(AGAIN[min(tries, len(AGAIN) - 1)])
            tries += 1
            await self.fetch("config")

    def is_complete(self) -> bool:
        """Whether the config shards make a configuration; also where there are none, or none that can be read."""
        found = {n: content for (group, n), content in self.contents.items() if group == "config"}
        if not found:
            return True
        try:
            shards.revision_of(found)
        except shards.Incomplete:
            return False
        except shards.Unreadable:
            return True
        return True
