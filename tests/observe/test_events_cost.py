"""What an event costs. The figure is printed for people; the limit only catches an accident of a whole order."""

from __future__ import annotations

import time

from posthof_pod.model import Envelope, Outcome, Reason, Recipient, Status
from posthof_pod.observe.events import Events

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
