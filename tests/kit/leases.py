"""A fleet of pods without processes: their Leases at an API server in memory, on a clock that a test turns.

    fleet = Fleet(tmp_path)
    a, b = fleet.pod("a"), fleet.pod("b")
    worker = a.worker()                 # a LeaseLiveness that has begun on the shared volume
    fleet.advance(30)                   # every pod that runs renews and lists meanwhile
    b.worker().judge(worker.name)

`Pod.is_running` False: it was killed, or is frozen; a pod that runs again goes on where it was.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posthof_pod.cluster.api import Away, Conflict, Denied, Lease, LeaseHead, LeaseSpec
from posthof_pod.cluster.leases import Leases, Me, Told
from posthof_pod.members import Heard, Members
from posthof_pod.spool import LeaseLiveness, Verdict, Volume, layout, new_worker

STEP = 0.25  # seconds


class LeaseServer:
    """What cluster.api.ApiServer knows of Leases. `is_away`, `is_denied`: what it answers instead; `delay`: how long
    an answer takes; `asked`, `writes`: how often it was asked anything, and written to."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.objects: dict[str, dict[str, Any]] = {}
        self.is_away = self.is_denied = False
        self.cut_off: set[str] = set()  # pods that cannot reach it
        self.delay = 0.0
        self.writes = self.asked = 0
        self._last = 0

    def at(self, pod: str) -> _Door:
        """As this pod reaches it."""
        return _Door(self, pod)

    def touch(self, pod: str) -> None:
        self.asked += 1
        if self.is_away or pod in self.cut_off:
            raise Away("the API server does not answer: refused")
        if self.is_denied:
            raise Denied("leases: the API server answered 403")
        self._fleet.now += self.delay

    def uid(self) -> str:
        self._last += 1
        return f"uid-{self._last}"


class _Door:
    def __init__(self, server: LeaseServer, pod: str) -> None:
        self._server, self._pod = server, pod

    async def leases(self, selector: str) -> list[Lease]:
        self._server.touch(self._pod)
        name, _, value = selector.partition("=")
        found = [one for one in self._server.objects.values() if one["metadata"]["labels"].get(name) == value]
        return [_lease(one) for one in found]

    async def get_lease(self, name: str) -> Lease | None:
        self._server.touch(self._pod)
        found = self._server.objects.get(name)
        return _lease(found) if found is not None else None

    async def create_lease(self, lease: Mapping[str, Any]) -> Lease:
        self._server.touch(self._pod)
        name = lease["metadata"]["name"]
        if name in self._server.objects:
            raise Conflict("already exists")
        self._server.writes += 1
        self._server.objects[name] = made = json.loads(json.dumps(lease))
        made["metadata"]["uid"] = self._server.uid()
        return _lease(made)

    async def patch_lease(self, name: str, change: Mapping[str, Any]) -> Lease | None:
        self._server.touch(self._pod)
        found = self._server.objects.get(name)
        if found is None:
            return None
        if change["metadata"]["uid"] != found["metadata"]["uid"]:
            raise Conflict("the UID differs")
        self._server.writes += 1
        found["metadata"]["annotations"].update(change["metadata"]["annotations"])
        found["spec"].update(change["spec"])
        return _lease(found)

    async def delete_lease(self, name: str, uid: str) -> None:
        self._server.touch(self._pod)
        if self._server.objects.get(name, {}).get("metadata", {}).get("uid") == uid:
            self._server.writes += 1
            del self._server.objects[name]


def _lease(raw: Mapping[str, Any]) -> Lease:
    head, spec = raw["metadata"], raw["spec"]
    return Lease(
        LeaseHead(head["name"], head["uid"], dict(head["annotations"])),
        LeaseSpec(spec["holderIdentity"], spec["renewTime"], spec.get("leaseTransitions")),
    )


class Worker:
    """One worker of a pod: `judge` says what it thinks of another."""

    def __init__(self, pod: Pod) -> None:
        self.pod, self.name = pod, new_worker()
        self.liveness = LeaseLiveness(pod.name, pod.own)
        pod.fleet.disk.mkdir(layout.worker(self.name))
        self.liveness.begin(pod.fleet.disk, self.name)
        self.liveness.hear(pod.heard)

    def judge(self, other: Worker | str) -> Verdict:
        return self.liveness.judge(other if isinstance(other, str) else other.name)

    def die(self) -> None:
        """Its process ends: the kernel lets go of what it held."""
        self.liveness.end()


class Pod:
    """`heard`, `members`, `words`: what it heard last. `sees_volume`: whether its workers' looks succeed."""

    def __init__(self, fleet: Fleet, name: str, uid: str = "") -> None:
        self.fleet, self.name, self.uid = fleet, name, uid or f"pod-{name}"
        self.own = fleet.folder / f"run-{self.uid}"
        self.workers: list[Worker] = []
        self.heard, self.members = Heard(), Members()
        self.words: dict[str, str] = {}
        self.is_running = self.sees_volume = True
        self.leases: Leases
        self.restart()

    def restart(self) -> None:
        """Another container of the same pod: its processes are new, its folder stays."""
        for one in self.workers:
            one.die()
        self.workers, self.heard = [], Heard()
        door = self.fleet.server.at(self.name)
        me = Me("edge", self.name, self.uid)
        self.leases = Leases(door, me, look=self._look, tell=self._tell, clock=lambda: self.fleet.now)  # type: ignore[arg-type]  # it is one as far as Leases asks
        self.due = self.fleet.now

    def worker(self) -> Worker:
        """One that is named in the Lease with the next renewal."""
        self.workers.append(Worker(self))
        self.leases.name_workers(one.name for one in self.workers)
        self.due = self.fleet.now
        return self.workers[-1]

    def kill(self) -> None:
        """All of its processes at once, and nobody is left to reap them."""
        self.is_running = False
        for one in self.workers:
            one.die()

    async def _look(self) -> bool:
        return self.sees_volume

    def _tell(self, told: Told) -> None:
        self.heard, self.members, self.words = told.heard, told.members, dict(told.words)
        for one in self.workers:
            one.liveness.hear(told.heard)


class Fleet:
    """Pods of one MTA on one volume. `now`: the monotonic clock of them all."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, 1000.0
        self.server = LeaseServer(self)
        self.disk = Volume(folder / "spool")
        self.disk.mkdir(layout.WORKERS)
        self.pods: list[Pod] = []

    def pod(self, name: str, uid: str = "") -> Pod:
        self.pods.append(Pod(self, name, uid))
        return self.pods[-1]

    def advance(self, seconds: float) -> None:
        """Let time go by; every pod that runs does what it does."""
        asyncio.run(self._advance(seconds))

    async def _advance(self, seconds: float) -> None:
        ends = self.now + seconds
        while self.now < ends:
            self.now += STEP
            for pod in self.pods:
                if pod.is_running and self.now >= pod.due:
                    pod.due = self.now + await pod.leases.step()

    def seconds_until(self, condition: Any, most: float = 120.0) -> float:
        """How long it takes until `condition()`; AssertionError: it does not come."""
        began = self.now
        while not condition():
            assert self.now - began < most, f"it is not so after {most:g} s"
            self.advance(STEP)
        return self.now - began
