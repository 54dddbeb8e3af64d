"""What both forms of liveness promise: flock on one machine, a Lease per pod in a cluster. One suite for both.

Each form comes with a world: where workers run, how one ends, and how long a judge may need to notice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from kit.leases import Fleet
from kit.leases import Worker as LeasedWorker
from posthof_pod.spool import FlockLiveness, LeaseLiveness, Liveness, Verdict, Volume, layout, new_worker


class Judge(Protocol):
    name: str
    liveness: Liveness


class World(Protocol):
    patience: float  # seconds until a dead worker is known to be dead

    @property
    def disk(self) -> Volume: ...
    def start(self, machine: str) -> Judge: ...
    def die(self, worker: Judge) -> None: ...
    def advance(self, seconds: float) -> None: ...
    def another(self, worker: Judge) -> Liveness: ...


class FlockWorld:
    """One machine; every worker could be a process of its own, and its descriptors are."""

    patience = 0.0

    class Worker:
        def __init__(self, disk: Volume) -> None:
            self.name, self.liveness = new_worker(), FlockLiveness()
            disk.mkdir(layout.worker(self.name))
            self.liveness.begin(disk, self.name)

    def __init__(self, folder: Path) -> None:
        self.disk = Volume(folder / "spool")
        self.disk.mkdir(layout.WORKERS)

    def start(self, machine: str) -> Judge:
        return self.Worker(self.disk)

    def die(self, worker: Judge) -> None:
        worker.liveness.end()

    def advance(self, seconds: float) -> None:
        """Time is nothing to a lock."""

    def another(self, worker: Judge) -> Liveness:
        return FlockLiveness()


class LeaseWorld:
    """Pods with Leases: `machine` is the pod's name."""

    patience = 23.0

    def __init__(self, folder: Path) -> None:
        self.fleet = Fleet(folder)

    @property
    def disk(self) -> Volume:
        return self.fleet.disk

    def start(self, machine: str) -> Judge:
        pod = next((one for one in self.fleet.pods if one.name == machine), None) or self.fleet.pod(machine)
        worker = pod.worker()
        self.advance(3)
        return worker

    def die(self, worker: Judge) -> None:
        assert isinstance(worker, LeasedWorker)
        worker.pod.kill()

    def advance(self, seconds: float) -> None:
        self.fleet.advance(seconds)

    def another(self, worker: Judge) -> Liveness:
        assert isinstance(worker, LeasedWorker)
        return LeaseLiveness(worker.pod.name, worker.pod.own)


@pytest.fixture(params=[FlockWorld, LeaseWorld])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    make: Callable[[Path], World] = request.param
    return make(tmp_path)


def test_who_lives_is_never_judged_dead_however_long_it_takes(world: World) -> None:
    one, two = world.start("a"), world.start("b")
    for _ in range(20):
        world.advance(10)
        assert one.liveness.judge(two.name) is Verdict.ALIVE
        assert two.liveness.judge(one.name) is Verdict.ALIVE


def test_who_ended_is_known_to_be_dead_in_time_and_stays_so(world: World) -> None:
    one, two = world.start("a"), world.start("b")
    world.die(two)
    world.advance(world.patience)
    assert one.liveness.judge(two.name) is not Verdict.ALIVE
    world.advance(100)
    assert one.liveness.judge(two.name) is not Verdict.ALIVE


def test_a_worker_without_a_folder_is_dead_too_in_time(world: World) -> None:
    one = world.start("a")
    stranger = new_worker()
    one.liveness.judge(stranger)
    world.advance(world.patience)
    assert one.liveness.judge(stranger) is not Verdict.ALIVE


def test_a_newcomer_condemns_nobody_who_lives(world: World) -> None:
    one, two = world.start("a"), world.start("b")
    world.advance(60)
    newcomer = world.start("c")
    for _ in range(10):
        assert newcomer.liveness.judge(one.name) is Verdict.ALIVE
        assert newcomer.liveness.judge(two.name) is Verdict.ALIVE
        world.advance(5)


def test_a_newcomer_notices_who_was_dead_before_it_came(world: World) -> None:
    gone = world.start("a")
    world.die(gone)
    world.advance(60)
    newcomer = world.start("b")
    newcomer.liveness.judge(gone.name)
    world.advance(world.patience)
    assert newcomer.liveness.judge(gone.name) is not Verdict.ALIVE


def test_before_it_begins_it_judges_nobody(world: World) -> None:
    one = world.start("a")
    assert world.another(one).judge(new_worker()) is Verdict.ALIVE


def test_no_two_workers_have_one_id(world: World) -> None:
    one = world.start("a")
    with pytest.raises(BlockingIOError):
        world.another(one).begin(world.disk, one.name)


def test_what_ended_on_the_same_machine_is_proven_at_once(world: World) -> None:
    one, two = world.start("a"), world.start("a")
    assert one.liveness.judge(two.name) is Verdict.ALIVE
    two.liveness.end()
    assert one.liveness.judge(two.name) is Verdict.PROVEN
