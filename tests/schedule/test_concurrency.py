"""The window of a site."""

from __future__ import annotations

from posthof_pod.schedule.concurrency import Window


def grown(messages: int, *, is_full: bool = True) -> Window:
    window = Window(5, 20)
    for _ in range(messages):
        window.passed(1, is_full=is_full)
    return window


def test_it_starts_at_5_and_grows_by_one_a_window_up_to_20():
    assert Window(5, 20).allowed(0) == 5
    assert grown(6).allowed(0) == 6
    assert 18 <= grown(180).allowed(0) <= 20
    assert grown(10_000).allowed(0) == 20


def test_a_window_nobody_fills_does_not_grow():
    assert grown(1000, is_full=False).allowed(0) == 5


def test_the_start_is_never_above_the_most():
    assert Window(5, 2).allowed(0) == 2
    assert Window(0, 0).allowed(0) == 1


def test_a_broken_session_takes_one_away_down_to_one():
    window = Window(5, 20)
    for _ in range(10):
        window.broken()
    assert window.allowed(0) == 1
    assert not window.is_down


def test_a_failed_connect_beside_working_sessions_makes_the_window_what_works():
    window = grown(10_000)
    window.failed(100, began=99, open_=7)
    assert window.allowed(100) == 7
    assert not window.is_down
    window.failed(101, began=99, open_=7)
    assert window.allowed(101) == 6


def test_two_failures_in_a_row_without_a_session_make_it_down():
    window = Window(5, 20)
    window.failed(10, began=9, open_=0)
    assert not window.is_down
    window.failed(20, began=19, open_=0)
    assert window.is_down
    assert window.allowed(21) == 0
    assert window.allowed(20 + 30) == 1


def test_connects_that_began_before_the_last_failure_tell_nothing_new():
    window = Window(5, 20)
    for n in range(5):
        window.failed(10 + n, began=9, open_=0)
    assert window.failures == 1


def test_each_failed_probe_doubles_the_pause_up_to_16_times():
    window = Window(5, 20, 120.0)
    pauses = []
    now = 0.0
    for _ in range(12):
        window.failed(now + 1, began=now, open_=0)
        if window.is_down:
            pauses.append(window.next_probe - now - 1)
        now = max(now + 1, window.next_probe)
    assert pauses[:6] == [30, 60, 120, 240, 480, 480]
    assert pauses[-1] == 480


def test_a_probe_that_succeeds_ends_it_and_the_window_starts_small():
    window = Window(5, 20)
    for n in range(5):
        window.failed(n * 1000 + 1, began=n * 1000, open_=0)
    assert window.opened()
    assert not window.is_down
    assert window.allowed(6000) == 1
    assert not window.opened()
    window.failed(9001, began=9000, open_=0)
    window.failed(9003, began=9002, open_=0)
    assert window.next_probe - 9003 == 30  # the pauses begin anew


def test_a_short_retry_curve_makes_short_pauses():
    window = Window(5, 20, 2.0)
    window.failed(2, began=1, open_=0)
    window.failed(4, began=3, open_=0)
    assert window.next_probe == 4.5
