"""The wheel finds what is due, once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from posthof_pod.listen.timers import Wheel


def test_an_entry_is_found_once_its_time_has_passed() -> None:
    wheel: Wheel[str] = Wheel(100.0)
    wheel.put("a", 103.2)
    assert list(wheel.turn(103.0)) == []
    assert list(wheel.turn(103.9)) == []
    assert list(wheel.turn(104.0)) == ["a"]
    assert list(wheel.turn(105.0)) == []
    assert len(wheel) == 0


def test_an_entry_may_be_put_back_while_the_wheel_turns() -> None:
    wheel: Wheel[str] = Wheel(0.0)
    wheel.put("a", 1)
    for entry in wheel.turn(5):
        wheel.put(entry, 2)
    assert list(wheel.turn(5)) == []
    assert list(wheel.turn(6)) == ["a"]


def test_a_taken_entry_is_not_found() -> None:
    wheel: Wheel[str] = Wheel(0.0)
    slot = wheel.put("a", 3)
    wheel.put("b", 3)
    wheel.take("a", slot)
    wheel.take("a", slot)
    assert list(wheel.turn(10)) == ["b"]


@given(st.lists(st.floats(0, 100), max_size=30), st.lists(st.floats(0, 200), max_size=10))
def test_every_entry_is_found_at_most_a_tick_late(times: list[float], turns: list[float]) -> None:
    wheel: Wheel[int] = Wheel(0.0)
    for number, at in enumerate(times):
        wheel.put(number, at)
    found: dict[int, float] = {}
    for now in [*sorted(turns), 500.0]:
        for entry in wheel.turn(now):
            assert entry not in found
            assert times[entry] <= now
            found[entry] = now
        assert all(number in found for number, at in enumerate(times) if at <= now - 2)
    assert len(found) == len(times)
