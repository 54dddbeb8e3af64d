"""When a successor is made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from posthof_certs.renewal import DAY, LONGEST_PAUSE, Window, allowed, due, pause

MONDAY = 1_767_571_200.0  # 2026-01-05 00:00 UTC
NIGHT = Window(frozenset(range(7)), 22 * 3600.0, 4 * 3600.0)  # 22:00 to 02:00


def test_two_thirds_through_or_before_the_end_but_not_in_the_first_quarter() -> None:
    assert due(0, 90 * DAY, None) == 60 * DAY
    assert due(0, 90 * DAY, 10 * DAY) == 80 * DAY
    assert due(0, 8 * DAY, 30 * DAY) == 2 * DAY


def test_a_window_is_waited_for_and_may_reach_over_midnight() -> None:
    end = MONDAY + 60 * DAY
    assert allowed(MONDAY + 3600, MONDAY, end, [NIGHT]) == MONDAY + 3600  # the one of Sunday is open still
    assert allowed(MONDAY + 2 * 3600, MONDAY, end, [NIGHT]) == MONDAY + 22 * 3600
    saturday = Window(frozenset({5}), 0.0, DAY)
    assert allowed(MONDAY, MONDAY, end, [saturday]) == MONDAY + 5 * DAY
    assert allowed(MONDAY, MONDAY, end, [saturday, NIGHT]) == MONDAY
    assert allowed(MONDAY, MONDAY, end, []) == MONDAY


def test_a_certificate_does_not_end_for_want_of_a_window() -> None:
    saturday = Window(frozenset({5}), 0.0, 3600.0)
    begins, ends = MONDAY - 10 * DAY, MONDAY + 2 * DAY
    assert allowed(MONDAY, begins, ends, [saturday]) == ends - DAY
    assert allowed(ends - 60, begins, ends, [saturday]) == ends - 60


def test_failures_make_it_patient_and_the_server_may_ask_for_more() -> None:
    assert [pause(n) for n in (0, 1, 2, 3)] == [0, 300, 600, 1200]
    assert pause(1000) == LONGEST_PAUSE
    assert pause(1, 7200) == 7200


@given(
    wanted=st.floats(0, 1e9),
    life=st.floats(3600, 400 * DAY),
    days=st.frozensets(st.integers(0, 6), min_size=1),
    start=st.floats(0, DAY - 1),
    length=st.floats(60, DAY),
)
def test_it_is_never_put_off_beyond_the_last_tenth(wanted, life, days, start, length) -> None:
    begins, ends = wanted - life / 2, wanted + life / 2
    found = allowed(wanted, begins, ends, [Window(days, start, length)])
    assert wanted <= found <= max(wanted, ends - min(DAY, life / 10))
