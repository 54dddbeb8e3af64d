"""When a pod's Lease is renewed: while its workers see the volume; and what happens to one that hangs alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from posthof_pod.admin.fleet import HANGS, LOOK_MAX, Fleet
from posthof_pod.admin.process import State
from posthof_pod.observe.events import Events


class Worker:
    """`age`: what it says when it is asked; None: it has not begun; "silent": it does not answer."""

    def __init__(self, name: str, age: float | str | None = 0.1) -> None:
        self.name, self.age, self.pid, self.spool_id = name, age, 1, f"w{name}"
        self.state, self.is_given_up, self.is_alive = State.READY, False, True
        self.looked: float | None = None
        self.was_killed = False
        self.channel = self

    async def ask(self, name: str, within: float) -> float | None:
        assert name == "look"
        if self.age == "silent":
            raise TimeoutError
        return self.age  # type: ignore[return-value]  # the text is handled above

    def kill(self) -> None:
        self.was_killed = True


class Place:
    def __init__(self, folder: Path, *ages: float | str | None) -> None:
        self.now = 100.0
        self.workers = [Worker(str(n), age) for n, age in enumerate(ages)]
        crew: Any = SimpleNamespace(workers=self.workers)
        self.events = Events(None)
        self.fleet = Fleet(crew, self.events, None, folder, folder, stop=lambda why: None, clock=lambda: self.now)

    def look(self) -> bool:
        return asyncio.run(self.fleet.look())

    @property
    def killed(self) -> list[bool]:
        return [one.was_killed for one in self.workers]


@pytest.mark.parametrize(
    ("ages", "is_renewed"),
    [
        ((), True),
        ((None, None), True),  # they own nothing yet
        ((0.2, 0.4), True),
        ((0.2, None), True),
        ((0.2, LOOK_MAX), False),
        ((LOOK_MAX, 60.0), False),
    ],
)
def test_a_lease_is_renewed_while_all_that_have_begun_looked_lately(
    tmp_path: Path, ages: tuple[float | None, ...], is_renewed: bool
) -> None:
    place = Place(tmp_path, *ages)
    assert place.look() is is_renewed
    assert not any(place.killed)


def test_one_that_hangs_alone_is_killed_and_the_others_keep_their_lease(tmp_path: Path) -> None:
    place = Place(tmp_path, 0.2, HANGS)
    assert place.look()
    assert place.killed == [False, True]
    assert place.workers[1].is_given_up
    assert place.look()


def test_where_all_hang_nobody_is_killed_and_the_pod_falls_silent(tmp_path: Path) -> None:
    place = Place(tmp_path, 60.0, 60.0)
    assert not place.look()
    assert place.killed == [False, False]


def test_one_that_does_not_answer_is_as_old_as_what_it_said_last(tmp_path: Path) -> None:
    place = Place(tmp_path, 0.0, 0.0)
    assert place.look()
    place.workers[1].age = "silent"
    place.now += LOOK_MAX - 1
    assert place.look()
    place.now += 2
    assert not place.look()
    place.now += HANGS
    assert place.look()
    assert place.killed == [False, True]


def test_one_that_stops_holds_nothing_up_and_a_sleep_is_told_of(tmp_path: Path) -> None:
    place = Place(tmp_path, 0.0, 60.0)
    place.workers[1].state = State.STOPPING
    assert place.look()
    place.now += 63
    place.look()
    assert place.events.stats()["posthof_slept_total"] == 1


def test_after_a_sleep_of_all_nobody_is_killed_for_not_having_looked_yet(tmp_path: Path) -> None:
    place = Place(tmp_path, 0.1, 0.1)
    assert place.look()
    place.now += 60  # all were stopped; one of them was quicker to look again
    place.workers[1].age = 60.1
    assert not place.look()
    assert place.killed == [False, False]
    place.now += 1
    place.workers[1].age = 0.1
    assert place.look()
    place.now += 5
    place.workers[1].age = HANGS
    assert place.look()
    assert place.killed == [False, True]


def test_a_pod_that_leaves_says_of_workers_that_left_lanes_behind_that_they_have_ended(tmp_path: Path) -> None:
    place, said = Place(tmp_path), []

    class Lease:
        def prove_ended(self, workers: list[str]) -> None:
            said.append(list(workers))

        async def leave(self, *, heard: float) -> None:
            said.append(["left"])

    for name in ("wfreed", "wstuck"):
        (tmp_path / name).touch()
    (tmp_path / "workers" / "wstuck").mkdir(parents=True)
    place.fleet._leases = Lease()  # type: ignore[assignment]  # as far as a fleet asks
    asyncio.run(place.fleet.leave())
    assert said == [["wstuck"], ["left"]]
