"""What a house took over, told once per worker that was followed."""

from __future__ import annotations

from posthof_crds.report import TakeOver
from posthof_pod.admin.takeovers import LASTS, QUIET, Adopted, TakeOvers


class Place:
    def __init__(self, *alive: str) -> None:
        self.now = 100.0
        self.told: list[TakeOver] = []
        self.ours = TakeOvers(
            "edge-b",
            on_told=self.told.append,
            pod_of={"w1": "edge-a"}.get,  # type: ignore[arg-type]  # None for others is as good as ""
            is_alive=lambda worker: worker in alive,
            clock=lambda: self.now,
            wall=lambda: 1_000_000.0 + self.now,
        )

    def after(self, seconds: float) -> list[TakeOver]:
        self.now += seconds
        self.ours.settle()
        return self.told


def test_the_lanes_of_one_worker_are_one_take_over() -> None:
    place = Place()
    place.ours.note(Adopted("x", "w1", 100, 0.5, 2))
    assert place.after(1) == []
    place.ours.note(Adopted("y", "w1", 20, 0.1))
    (told,) = place.after(QUIET)
    assert (told.worker, told.pod, told.lanes, told.count) == ("w1", "edge-a", ("x", "y"), 2)
    assert (told.messages, told.possible_duplicates, told.freed) == (120, 2, False)
    assert 1.4 < told.seconds < 1.6
    assert place.ours.recent == (told,)


def test_what_a_worker_gave_free_is_told_as_that_and_what_a_peer_shares_is_not() -> None:
    place = Place("w2")
    place.ours.note(Adopted("x", "w1", 3, is_freed=True))
    place.ours.note(Adopted("y", "w2", 3, is_freed=True))
    (told,) = place.after(QUIET)
    assert (told.worker, told.freed) == ("w1", True)


def test_each_has_an_id_of_its_own_and_is_forgotten_after_a_while() -> None:
    place = Place()
    for _ in range(3):
        place.ours.note(Adopted("x", "w1", 1))
        place.after(QUIET)
    assert len({one.id for one in place.told}) == 3
    place.after(LASTS + 1)
    assert place.ours.recent == ()


def test_of_many_lanes_some_are_named_and_all_are_counted() -> None:
    place = Place()
    for n in range(30):
        place.ours.note(Adopted(f"lane{n}", "w9", 1))
    (told,) = place.after(QUIET)
    assert (told.count, len(told.lanes), told.messages) == (30, 8, 30)
