"""What an event costs. The figure is printed for people; the limit only catches an accident of a whole order."""

from __future__ import annotations

import time

from posthof_pod.model import Envelope, Outcome, Reason, Recipient, Status
from posthof_pod.observe.events import Events
from posthof_pod.observe.line import Accepted, Line, Passed

ENVELOPE = Envelope("lane-17", "a@x.test", (Recipient("b@y.test"),), time.time(), 4096, "127.0.0.1", "h", "MX")
OUTCOMES = [Outcome(0, Status.RELAYED, Reason.RECEIVED, 250, "2.0.0", "2.0.0 queued", "mx[127.0.0.1]:25")]


class NextTurn:
    def call_later(self, delay: float, callback: object, /) -> None: ...


def test_the_two_events_of_a_relayed_message_cost_microseconds() -> None:
    events = Events(loop=NextTurn())
    best = 1.0
    for _ in range(20):
        begin = time.process_time()
        for _ in range(500):
            events.accepted(ENVELOPE)
            events.outcomes(ENVELOPE, OUTCOMES)
        events.flush()
        best = min(best, (time.process_time() - begin) / 1000)
    print(f"{best * 1e6:.2f} us an event")
    assert best < 40e-6


def test_the_usual_lines_have_fields_of_a_line_in_its_order() -> None:
    whole = Line.__struct_fields__
    for usual in (Accepted, Passed):
        places = [whole.index(name) for name in usual.__struct_fields__]
        assert places == sorted(places)
        for name, default in zip(usual.__struct_fields__[2:], usual.__struct_defaults__, strict=True):
            assert getattr(Line("", ""), name) == default
