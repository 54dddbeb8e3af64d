"""Configurations from the cluster: complete ones only, the newest there is, never an older one after it.

Rules of this file
- The API server is followed; the mounted copies count where they are newer (editions.py), and at a start without it.
- What cannot be read changes nothing: `load` says why, and what is in force stays.
- A key that is named and not there: `load` waits GRACE seconds for it (it may be on its way), then goes on without it
  and complains, so that one missing Secret holds nobody else's change up.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from posthof_crds import shards
from posthof_crds.engine import EngineConfig
from posthof_crds.shards import ACCOUNTS_KEY
from posthof_pod.cluster.api import ApiServer
from posthof_pod.cluster.editions import Edition, is_older, newest
from posthof_pod.cluster.mounted import Folders, Mounted
from posthof_pod.cluster.objects import Objects
from posthof_pod.config import secrets
from posthof_pod.observe.events import Events

LOOK = 2.0  # seconds between two looks at the mounted files
FIRST = 5.0  # seconds a start waits for the API server before the mounted files count
GRACE = 1.5  # seconds
RESTORED = (
    "the API server has an older configuration than the one in force (was it restored?): "
    "the next change is taken again; a new pod takes what is there"
)


class Arrived(NamedTuple):
    """`config` is None exactly when there are `errors`. `complaints`: what is wrong and holds nothing up.
    `revision`: as the operator wrote it. Secrets by "namespace/secret/key"."""

    config: EngineConfig | None
    revision: str
    secrets: dict[str, bytes]
    errors: list[str]
    complaints: list[str]


class ClusterSource:
    """`pods`: which address is in which selections of pods. `run` until cancelled; then `changed`, `load`."""

    def __init__(
        self,
        mta: str,
        api: ApiServer | None,
        events: Events,
        folders: Folders | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pods: dict[str, tuple[str, ...]] = {}
        self.has_looked = False  # everything was asked for once
        self._mta, self._events, self._clock = mta, events, clock
        self._objects = Objects(api, mta, self._take_group) if api is not None else None
        self._mounted = Mounted(folders or Folders())
        self._config: Edition | None = None
        self._since = clock()  # when this edition was first seen
        self._keys: dict[int, Edition] = {}
        self._pods: Edition | None = None
        self._trouble: dict[str, str] = {}  # group -> why its newest state is not used
        self._changed, self._pods_changed = asyncio.Event(), asyncio.Event()
        self._away_since: float | None = None

    # ------------------------------------------------------------------ following

    async def run(self) -> None:
        """Follow everything, until cancelled."""
        self._loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    if self._objects is not None:
                        group.create_task(self._objects.run())
                    group.create_task(self._look())
            except* Exception as errors:  # our own fault: what is in force stays, and the following begins anew
                for error in errors.exceptions:
                    self._events.internal_error("cluster", error)
                await asyncio.sleep(LOOK)

    async def changed(self) -> None:
        """Returns when configuration or keys are new."""
        await self._changed.wait()
        self._changed.clear()

    async def pods_changed(self) -> None:
        """Returns when `pods` is new."""
        await self._pods_changed.wait()
        self._pods_changed.clear()

    async def _look(self) -> None:
        if self._objects is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._objects.first_heard.wait(), FIRST)
        while True:
            if await asyncio.to_thread(self._mounted.look):
                for group in ("keys", "config", "pods"):
                    self._take_group(group)
            if not self.has_looked:
                self.has_looked = True
                self._changed.set()
            self._tell_of_api()
            await asyncio.sleep(LOOK)

    def _tell_of_api(self) -> None:
        if self._objects is None:
            return
        if self._objects.is_away and self._away_since is None:
            self._away_since = self._clock()
            self._events.cluster_away(next(iter(self._objects.trouble.values()), "no answer yet"))
        elif not self._objects.is_away and self._away_since is not None:
            self._events.cluster_back(self._clock() - self._away_since)
            self._away_since = None

    # ------------------------------------------------------------------ the newest of each

    def _take_group(self, group: str) -> None:
        if group == "config":
            self._take_config()
        elif group == "keys":
            self._take_keys()
        else:
            self._take_pods()

    def _live(self, group: str) -> Mapping[int, bytes]:
        known = self._objects.contents if self._objects is not None else {}
        return {n: content for (name, n), content in known.items() if name == group}

    def _take_config(self) -> None:
        live, mounted = self._whole_live(), _whole(self._mounted.group("config"), False)
        self._note("restored", RESTORED if is_older(live, self._config) else "")
        found = newest(self._config, live, mounted)
        if found is not self._config:
            is_new = self._config is None or found is None or found.parts != self._config.parts
            self._config, self._since = found, self._clock()
            if is_new:
                self._changed.set()

    def _whole_live(self) -> Edition | None:
        """The API server's edition; one that cannot be read is told of."""
        try:
            found = _whole(self._live("config"), True)
        except shards.Unreadable as error:
            self._note("config", f"the newest configuration cannot be used: {error}")
            return None
        self._note("config", "")
        return found

    def _note(self, what: str, trouble: str) -> None:
        """Something is wrong, or ("") right again: the next `load` tells."""
        if trouble != self._trouble.get(what, ""):
            self._changed.set()
        if trouble:
            self._trouble[what] = trouble
        else:
            self._trouble.pop(what, None)

    def _take_keys(self) -> None:
        live, mounted = self._live("keys"), self._mounted.group("keys")
        for n in {*live, *mounted}:
            found = newest(self._keys.get(n), _one(live, n, True), _one(mounted, n, False))
            present = self._keys.get(n)
            if found is None or found is present:
                continue
            self._keys[n] = found
            if present is None or found.parts != present.parts:
                self._changed.set()

    def _take_pods(self) -> None:
        found = newest(self._pods, _one(self._live("pods"), 0, True), _one(self._mounted.group("pods"), 0, False))
        if found is None or found is self._pods:
            return
        self._pods = found
        try:
            pods = shards.read_pods(found.parts[0])
        except shards.Unreadable as error:
            self._note("pods", f"the list of pods cannot be used: {error}")
            return
        self._note("pods", "")
        if pods != self.pods:
            self.pods = pods
            self._pods_changed.set()

    # ------------------------------------------------------------------ putting it together

    @property
    def desired(self) -> str:
        """The revision of the newest complete configuration, "" before the first."""
        try:
            return shards.revision_of(self._config.parts) if self._config is not None else ""
        except (shards.Incomplete, shards.Unreadable):
            return ""

    def why_none(self) -> str:
        """Why there is no configuration yet, for people."""
        if "config" in self._trouble:
            return self._trouble["config"]
        place = f"ConfigMap {self._mta}-config-0"
        if self._objects is None:
            return f"no configuration has arrived yet: no service account, and no mounted copy of {place}"
        if self._objects.is_away:
            why = next(iter(self._objects.trouble.values()), "the API server does not answer")
            return f"no configuration has arrived yet: {why}; and there is no mounted copy"
        if self._live("config"):
            return f"no configuration has arrived yet: {place} is there, but not all shards of its revision"
        return f"no configuration has arrived yet: {place} does not exist (is the operator running?)"

    def load(self) -> Arrived:
        """The newest configuration with its keys. Slow: call it in a thread."""
        edition = self._config
        if edition is None:
            return Arrived(None, "", {}, [self.why_none()], [])
        try:
            revision = shards.revision_of(edition.parts)
            config = shards.read_config(edition.parts)
        except (shards.Incomplete, shards.Unreadable) as error:
            return Arrived(None, "", {}, [f"the configuration cannot be used: {error}"], [])
        known, complaints = self._known_keys()
        complaints += self._trouble.values()
        wanted = dict.fromkeys(map(secrets.key, secrets.of_config(config)))
        missing = [name for name in wanted if name not in known]
        if missing:
            rest = self._since + GRACE - self._clock()
            if rest > 0:
                self._come_back(rest)
                return Arrived(None, revision, {}, [f"waiting for key material: {_some(missing)}"], [])
            complaints.append(f"key material is missing: {_some(missing)}")
        found = {name: known[name] for name in (*wanted, ACCOUNTS_KEY) if name in known}
        return Arrived(config, revision, found, [], complaints)

    def _come_back(self, seconds: float) -> None:
        self._loop.call_soon_threadsafe(self._loop.call_later, seconds, self._changed.set)

    def _known_keys(self) -> tuple[dict[str, bytes], list[str]]:
        known: dict[str, bytes] = {}
        complaints = []
        for n, edition in sorted(self._keys.items()):
            try:
                known |= shards.read_keys([edition.parts[n]])
            except shards.Unreadable as error:
                complaints.append(f"Secret {self._mta}-keys-{n}: {error}")
        return known, complaints


def _whole(parts: Mapping[int, bytes], is_live: bool) -> Edition | None:
    """An edition, where the parts make one. Raises Unreadable for live ones; mounted ones are not there then."""
    try:
        shards.revision_of(parts)
    except shards.Incomplete:
        return None
    except shards.Unreadable:
        if is_live:
            raise
        return None
    return Edition(dict(parts), is_live)


def _one(parts: Mapping[int, bytes], n: int, is_live: bool) -> Edition | None:
    return Edition({n: parts[n]}, is_live) if n in parts else None


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
