"""A flood of connections that a limit turns away: few lines, exact counts."""

from __future__ import annotations

from collections.abc import Callable

from posthof_pod.listen.limits import FULL, TOO_FAST
from posthof_pod.observe.crowds import PERIOD, Crowd, Crowds
from posthof_pod.observe.events import RecordedEvents

MX = Crowd("192.0.2.1", "mx", "MX", TOO_FAST)
COUNTER = 'posthof_refused_total{stage="connect",code="421"}'


class Timers:
    """A loop whose time passes by hand."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], object]]] = []

    def call_later(self, delay: float, callback: Callable[[], object], /) -> None:
        self.due.append((delay, callback))

    def waits(self) -> int:
        """How many wait for the end of a minute."""
        return sum(delay == PERIOD for delay, _ in self.due)

    def pass_a_minute(self) -> None:
        due, self.due = self.due, []
        for _, callback in due:
            callback()


def flooded(times: int, events: RecordedEvents, network: str = "192.0.2.1") -> None:
    for _ in range(times):
        events.turned_away(TOO_FAST, client="192.0.2.1", network=network, listener="mx", role="MX")


def with_timers() -> tuple[RecordedEvents, Timers]:
    events, timers = RecordedEvents(), Timers()
    events.attach(timers)
    return events, timers


def test_the_first_is_told_at_once_and_the_others_in_one_line_a_minute() -> None:
    events, timers = with_timers()
    flooded(1000, events)
    assert [line.count for line in events.named("refused")] == [-1]
    assert events.stats()[COUNTER] == 1000
    timers.pass_a_minute()
    flooded(7, events)
    timers.pass_a_minute()
    first, *gathered = events.named("refused")
    assert [line.count for line in gathered] == [999, 7]
    assert events.stats()[COUNTER] == 1007
    for line in (first, *gathered):
        assert (line.client, line.listener, line.role) == ("192.0.2.1", "mx", "MX")
        assert (line.stage, line.reply, line.dsn) == ("connect", str(TOO_FAST), "4.7.0")
    assert gathered[0].detail == "999 more from 192.0.2.1 within a minute"


def test_who_comes_again_after_a_quiet_minute_is_told_at_once() -> None:
    events, timers = with_timers()
    flooded(1, events)
    timers.pass_a_minute()
    assert timers.waits() == 0  # nothing runs while nobody is turned away
    flooded(1, events)
    assert [line.count for line in events.named("refused")] == [-1, -1]
    assert timers.waits() == 1


def test_one_timer_serves_all_networks() -> None:
    events, timers = with_timers()
    for number in range(50):
        flooded(3, events, f"2001:db8:0:{number:x}::/64")
    assert timers.waits() == 1
    timers.pass_a_minute()
    assert timers.waits() == 1
    assert [line.count for line in events.named("refused")] == [-1] * 50 + [2] * 50


def test_what_is_gathered_is_told_before_the_end() -> None:
    events, _ = with_timers()
    flooded(3, events)
    events.close()
    assert [line.count for line in events.named("refused")] == [-1, 2]


def test_without_a_loop_each_is_told() -> None:
    events = RecordedEvents()
    flooded(3, events)
    assert [line.count for line in events.named("refused")] == [-1] * 3
    assert events.stats()[COUNTER] == 3


def test_listeners_and_replies_are_crowds_of_their_own() -> None:
    crowds = Crowds()
    assert crowds.comes(MX, "192.0.2.1")
    assert crowds.comes(MX._replace(listener="submission"), "192.0.2.1")
    assert crowds.comes(MX._replace(reply=FULL), "192.0.2.1")
    assert not crowds.comes(MX, "192.0.2.1")


def test_networks_beyond_the_memory_are_one_crowd() -> None:
    crowds = Crowds(many=2)
    told = [crowds.comes(MX._replace(network=f"192.0.2.{number}"), f"192.0.2.{number}") for number in range(10)]
    assert told == [True] * 3 + [False] * 7
    assert crowds.take() == [(MX._replace(network=""), 7, "192.0.2.9")]
    assert crowds
    assert crowds.take() == []
    assert not crowds
