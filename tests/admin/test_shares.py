"""Pods agree on their shares over their Leases, and tell their workers. Leases in memory, on a clock that we turn."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from kit.leases import STEP, Fleet
from posthof_pod.admin.shares import STRANGER, UNHEARD, Sharing
from posthof_pod.members import Members
from posthof_pod.observe.events import Events
from posthof_pod.observe.log import Log
from posthof_pod.schedule.shares import GONE
from posthof_pod.schedule.slices import NOTHING, UNIT, WHOLE, Slice


class Crew:
    """What Sharing knows of one. `told`: every slice the workers were given."""

    def __init__(self, workers: int) -> None:
        self.ports = self
        self.copies = workers
        self.slice = WHOLE
        self.told: list[Slice] = []

    async def share(self, piece: Slice) -> None:
        self.slice = piece
        self.told.append(piece)


class Pod:
    """One pod: its Lease, its workers, its part of the agreement."""

    def __init__(self, fleet: World, name: str, workers: int) -> None:
        self.fleet, self.name, self.workers = fleet, name, workers
        self.leased = fleet.leases.pod(name)
        self.folder = fleet.folder / f"state-{name}"
        self.folder.mkdir()
        self.begin()

    def begin(self) -> None:
        self.crew = Crew(self.workers)
        self.sharing = Sharing(
            self.name,
            self.crew,  # type: ignore[arg-type]  # it is one as far as Sharing asks
            self.fleet.events,
            self.leased.leases.annotate,
            self.folder,
            clock=lambda: self.fleet.leases.now,
        )

    def restart(self) -> None:
        self.leased.restart()
        self.begin()

    @property
    def share(self) -> float:
        return self.crew.slice.share


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.leases = Fleet(folder)
        self.events = Events(Log(os.open(folder / "log", os.O_WRONLY | os.O_CREAT), ""))
        self.pods: list[Pod] = []

    def pod(self, name: str, workers: int = 1) -> Pod:
        self.pods.append(Pod(self, name, workers))
        return self.pods[-1]

    def advance(self, seconds: float) -> None:
        ends = self.leases.now + seconds
        while self.leases.now < ends:
            self.leases.advance(STEP)
            for pod in self.pods:
                if pod.leased.is_running:
                    pod.sharing.hear(pod.leased.members)
                    asyncio.run(pod.sharing.step())
            self.check()

    def check(self) -> None:
        used = [pod.crew.slice for pod in self.pods if pod.leased.is_running]
        assert not any(one.overlaps(other) for n, one in enumerate(used) for other in used[n + 1 :])

    def seconds_until(self, condition: object, most: float = 120.0) -> float:
        began = self.leases.now
        while not condition():  # type: ignore[operator]
            assert self.leases.now - began < most
            self.advance(STEP)
        return self.leases.now - began


def test_pods_come_to_share_by_their_workers_within_seconds(tmp_path: Path):
    world = World(tmp_path)
    one, two = world.pod("edge-a", 1), world.pod("edge-b", 3)
    assert one.crew.slice == two.crew.slice == NOTHING
    seconds = world.seconds_until(lambda: (one.share, two.share) == (0.25, 0.75))
    assert seconds < 6
    three = world.pod("edge-c", 4)
    assert world.seconds_until(lambda: three.share == 0.5) < 6
    assert (one.share, two.share) == (0.125, 0.375)


def test_a_share_is_kept_while_the_api_server_is_away(tmp_path: Path):
    world = World(tmp_path)
    pods = [world.pod("edge-a"), world.pod("edge-b")]
    world.seconds_until(lambda: all(pod.share == 0.5 for pod in pods))
    world.leases.server.is_away = True
    pods[1].leased.kill()
    world.advance(120)
    assert pods[0].share == 0.5
    world.leases.server.is_away = False
    world.seconds_until(lambda: pods[0].share == 1.0)


def test_what_a_dead_pod_had_is_shared_after_it_was_judged_and_fenced(tmp_path: Path):
    world = World(tmp_path)
    pods = [world.pod(f"edge-{n}") for n in range(3)]
    world.seconds_until(lambda: all(pod.share * 3 > 0.99 for pod in pods))
    pods[0].leased.kill()
    seconds = world.seconds_until(lambda: all(pod.share == 0.5 for pod in pods[1:]))
    assert 20 + GONE - 5 <= seconds <= 20 + GONE + 10


def test_a_container_that_begins_again_goes_on_with_what_its_pod_had(tmp_path: Path):
    world = World(tmp_path)
    pods = [world.pod("edge-a"), world.pod("edge-b")]
    world.seconds_until(lambda: all(pod.share == 0.5 for pod in pods))
    pods[0].restart()
    assert pods[0].share == 0.5
    world.advance(30)
    assert [pod.share for pod in pods] == [0.5, 0.5]


def test_an_old_note_of_what_a_pod_had_is_not_believed_and_neither_is_nonsense(tmp_path: Path):
    world = World(tmp_path)
    pod = world.pod("edge-a")
    world.seconds_until(lambda: pod.share == 1.0)
    note = pod.folder / "share"
    os.utime(note, (time.time() - 60, time.time() - 60))
    pod.restart()
    assert pod.share == 0.0
    for text in ("", "1-", "ff-1", f"0-{UNIT + 1:x}"):
        note.write_text(text)
        pod.restart()
        assert pod.share == 0.0


def test_a_pod_that_never_hears_of_the_fleet_takes_a_little_and_settles_when_it_does(tmp_path: Path):
    world = World(tmp_path)
    one = world.pod("edge-a")
    world.seconds_until(lambda: one.share == 1.0)
    world.leases.server.cut_off.add("edge-b")
    lonely = Pod(world, "edge-b", 1)

    def live(pod: Pod, seconds: float) -> None:
        for _ in range(int(seconds / STEP)):
            world.advance(STEP)
            pod.sharing.hear(pod.leased.members)
            asyncio.run(pod.sharing.step())

    live(lonely, UNHEARD - 1)
    assert not lonely.sharing.has_some
    live(lonely, 2)
    assert lonely.share == 1 / STRANGER
    world.leases.server.cut_off.clear()
    live(lonely, 20)
    assert (one.share, lonely.share) == (0.5, 0.5)


def test_without_news_nothing_is_decided(tmp_path: Path):
    world = World(tmp_path)
    pod = world.pod("edge-a")
    pod.sharing.hear(Members(False, "edge-a"))
    asyncio.run(pod.sharing.step())
    assert pod.crew.told == []
