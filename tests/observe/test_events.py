"""What is told: one line an event, the same fields everywhere, counts beside it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from posthof_pod.model import Envelope, Outcome, Reason, Recipient, Status
from posthof_pod.observe.events import Events, RecordedEvents
from posthof_pod.observe.log import Log
from posthof_pod.observe.metrics import merged
from posthof_pod.replies import Reply

NOON = 1_782_907_200.0  # 2026-07-01T12:00:00Z
ENVELOPE = Envelope(
    "lane-17",
    "a@example.org",
    (Recipient("b@example.net", rule="out"), Recipient("c@example.net", rule="out"), Recipient("d@far.test")),
    NOON,
    4096,
    client="127.0.0.1",
    client_name="client.test",
    role="Internal",
    message_id="<x@example.org>",
)


def outcome(recipient: int, status: Status, code: int = 250, **more: Any) -> Outcome:
    reason = more.pop("reason", Reason.RECEIVED)
    return Outcome(recipient, status, reason, code, "2.0.0", "queued", "mx.example.net[127.0.0.1]:25", **more)


def telling(seconds_later: float = 0.0) -> RecordedEvents:
    return RecordedEvents(clock=lambda: NOON + seconds_later)


def line_of(events: RecordedEvents) -> dict[str, Any]:
    """The only line, as a reader of the log sees it."""
    (block,) = [block for _, block in events.ring._blocks]
    line: dict[str, Any] = json.loads(block)
    return line


def test_accepted_says_who_sent_what_to_whom() -> None:
    events = telling()
    events.accepted(ENVELOPE, tls="TLSv1.3", listener="mx")
    assert line_of(events) == {
        "time": "2026-07-01T12:00:00.000Z",
        "event": "accepted",
        "queue_id": "lane-17",
        "message_id": "<x@example.org>",
        "from": "a@example.org",
        "to": ["b@example.net", "c@example.net", "d@far.test"],
        "client": "127.0.0.1",
        "client_name": "client.test",
        "listener": "mx",
        "role": "Internal",
        "tls": "TLSv1.3",
        "size": 4096,
        "rule": "out",
    }


def test_the_null_sender_is_an_empty_from_and_not_a_missing_one() -> None:
    events = telling()
    events.accepted(Envelope("lane-1", "", (Recipient("b@example.net"),), NOON, 10))
    assert line_of(events)["from"] == ""
    events = telling()
    events.session_ended(client="127.0.0.1", commands=1)
    assert "from" not in line_of(events)


def test_what_an_alias_changed_is_told_as_it_was_asked_for() -> None:
    events = telling()
    events.accepted(Envelope("lane-1", "a@x", (Recipient("alice@ours.test", original="info@ours.test"),), NOON, 10))
    assert line_of(events)["original"] == ["info@ours.test"]


def test_recipients_with_the_same_result_share_a_line() -> None:
    events = telling(1.5)
    events.outcomes(
        ENVELOPE,
        [
            outcome(0, Status.RELAYED),
            outcome(1, Status.RELAYED),
            outcome(2, Status.FAILED, 550, reason=Reason.RECIPIENT_REFUSED),
        ],
        attempts=1,
        tls="TLSv1.3",
    )
    relayed, bounced = events.lines
    assert (relayed.event, relayed.to) == ("relayed", ("b@example.net", "c@example.net"))
    assert (relayed.reply, relayed.delay) == ("250 queued", 1.5)
    assert (relayed.relay, relayed.tls, relayed.dsn) == ("mx.example.net[127.0.0.1]:25", "TLSv1.3", "2.0.0")
    assert (bounced.event, bounced.to, bounced.reason) == ("bounced", ("d@far.test",), "RecipientRefused")


def test_a_deferred_recipient_says_why_and_until_when() -> None:
    events = telling(60)
    events.outcomes(
        ENVELOPE, [outcome(0, Status.DEFERRED, 451, reason=Reason.DATA_REFUSED)], due=NOON + 180, attempts=3
    )
    (line,) = events.lines
    assert (line.event, line.reason, line.due, line.attempts) == (
        "deferred",
        "DataRefused",
        "2026-07-01T12:03:00Z",
        3,
    )


@pytest.mark.parametrize(
    ("status", "event"),
    [
        (Status.DELIVERED, "delivered"),
        (Status.RELAYED, "relayed"),
        (Status.DEFERRED, "deferred"),
        (Status.FAILED, "bounced"),
        (Status.EXPIRED, "expired"),
        (Status.DISCARDED, "discarded"),
        (Status.HELD, "held"),
        (Status.UNCERTAIN, "uncertain"),
    ],
)
def test_every_status_has_its_event(status: Status, event: str) -> None:
    events = telling()
    events.outcomes(ENVELOPE, [outcome(0, status)])
    assert [line.event for line in events.lines] == [event]


def test_a_dot_without_a_reply_is_a_warning_and_metered_as_a_possible_duplicate() -> None:
    events = telling()
    events.outcomes(ENVELOPE, [outcome(0, Status.UNCERTAIN, 0), outcome(1, Status.UNCERTAIN, 0)])
    assert events.lines[0].level == "warning"
    assert events.stats()["posthof_possible_duplicates_total"] == 2


def test_a_replayed_doubt_is_told_and_left_to_the_spool_to_meter() -> None:
    events = telling()
    events.uncertain(ENVELOPE, [0, 2], Reason.REPLAYED)
    assert events.lines[0].to == ("b@example.net", "d@far.test")
    assert events.stats()["posthof_possible_duplicates_total"] == 0


def test_a_refusal_has_stage_reply_and_our_own_reason() -> None:
    events = telling()
    events.refused(
        "rcpt",
        Reply(550, "5.1.1", "no such user"),
        client="192.0.2.1",
        sender="",
        recipient="x@ours.test",
        reason="r",
    )
    line = line_of(events)
    assert (line["stage"], line["reply"], line["dsn"]) == ("rcpt", "550 5.1.1 no such user", "5.1.1")
    assert (line["from"], line["to"], line["reason"]) == ("", ["x@ours.test"], "r")
    assert events.stats()['posthof_refused_total{stage="rcpt",code="550"}'] == 1


def test_a_connection_without_a_command_is_a_probe_counted_and_not_told() -> None:
    events = telling()
    events.session_ended(client="192.0.2.1", commands=0)
    assert not events.lines
    assert events.stats()["posthof_probes_total"] == 1


def test_probes_are_told_at_level_debug() -> None:
    events = telling()
    events.set_level("debug")
    events.session_ended(client="192.0.2.1", commands=0)
    assert [line.event for line in events.lines] == ["probe"]


def test_our_own_error_comes_with_its_trace_bounded() -> None:
    events = telling()
    try:
        raise ValueError("x" * 50_000)
    except ValueError as error:
        events.internal_error("here", error, "lane-17")
    (line,) = events.lines
    assert (line.level, line.reason, line.name, line.queue_id) == ("error", "ValueError", "here", "lane-17")
    assert line.detail.startswith("Traceback")
    assert len(line.detail) < 9000


def test_text_that_is_not_unicode_is_mended_and_never_raised() -> None:
    events = telling()
    broken = b"queued \xff\xfe".decode("utf-8", "surrogateescape")
    events.outcomes(ENVELOPE, [outcome(0, Status.RELAYED)._replace(reply=broken)])
    assert line_of(events)["event"] == "relayed"


def test_delays_fall_into_fixed_buckets() -> None:
    events = telling(0.3)
    events.outcomes(ENVELOPE, [outcome(0, Status.DELIVERED), outcome(1, Status.DELIVERED)])
    stats = events.stats()
    assert stats['posthof_delivery_delay_seconds_bucket{le="0.1"}'] == 0
    assert stats['posthof_delivery_delay_seconds_bucket{le="0.5"}'] == 2
    assert stats['posthof_delivery_delay_seconds_bucket{le="+Inf"}'] == 2
    assert stats["posthof_delivery_delay_seconds_count"] == 2
    assert stats["posthof_delivery_delay_seconds_sum"] == pytest.approx(0.6)


def test_the_counts_of_two_workers_make_one_and_extremes_stay_extremes() -> None:
    one = {"posthof_messages_accepted_total": 2, "posthof_queue_oldest_ready_seconds": 5.0}
    two = {"posthof_messages_accepted_total": 3, "posthof_queue_oldest_ready_seconds": 1.0}
    assert merged([one, two]) == {"posthof_messages_accepted_total": 5, "posthof_queue_oldest_ready_seconds": 5.0}


def test_the_lines_of_a_turn_are_written_with_one_write_at_its_end(tmp_path: Path) -> None:
    writes: list[bytes] = []

    class CountedLog(Log):
        def write(self, lines: bytes) -> None:
            writes.append(lines)
            super().write(lines)

    async def turn() -> None:
        descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        events = Events(CountedLog(descriptor), loop=asyncio.get_running_loop())
        for _ in range(50):
            events.accepted(ENVELOPE)
        assert not writes
        await asyncio.sleep(0)
        events.close()
        os.close(descriptor)

    asyncio.run(turn())
    assert len(writes) == 1
    lines = (tmp_path / "log").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["accepted"] * 50


def test_a_quieter_level_leaves_lines_out_of_the_log_and_not_out_of_the_trace(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    events = Events(Log(descriptor), level="warning")
    events.accepted(ENVELOPE)
    events.warned("look here")
    events.internal_error("there", ValueError("x"))
    os.close(descriptor)
    lines = (tmp_path / "log").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["warning", "internal_error"]
    assert len(events.trace("lane-17")) == 1


def test_a_person_reads_sentences_and_not_json(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    events = Events(Log(descriptor), clock=lambda: NOON, for_people=True)
    events.outcomes(ENVELOPE, [outcome(2, Status.RELAYED)])
    os.close(descriptor)
    assert (tmp_path / "log").read_text() == (
        "12:00:00.000 relayed         lane-17 <a@example.org> -> <d@far.test> via mx.example.net[127.0.0.1]:25 "
        "4.0 KiB after 0 ms : 250 queued\n"
    )


def test_every_way_to_tell_something_makes_a_line_a_machine_reads() -> None:
    """Each method once, with the least it takes: none raises, each line has time and event."""
    events = telling()
    events.accepted(ENVELOPE)
    events.refused("mail", Reply(550, "5.7.1", "no"))
    events.session_ended(client="192.0.2.1", commands=3)
    events.outcomes(ENVELOPE, [outcome(0, Status.RELAYED)])
    events.uncertain(ENVELOPE, [0], Reason.REPLAYED)
    events.held(ENVELOPE, [0], Reason.POLICY_HOLD, "r")
    events.discarded(ENVELOPE, [0], "r")
    events.report_made(ENVELOPE, "failure", "lane-1")
    events.report_dropped(ENVELOPE, [0], "nobody")
    for action in (events.released, events.deleted, events.flushed, events.stopped_by_hand):
        action(ENVELOPE, [0])
    events.tls_fallback("mx", "handshake failed")
    events.site_down("mx", Reason.CONNECT_FAILED, "refused")
    events.site_up("mx")
    events.lane_adopted("lane", "worker", 3, 0.1)
    events.lane_freed("lane", 3)
    events.spool_damaged("lane/1-1.seg", "bad CRC")
    events.spool_fenced("another worker")
    events.spool_full(100)
    events.spool_has_room(1000)
    events.segment_given_up("lane/1-1.seg", "EIO")
    events.listener_bound("mx", "127.0.0.1:25", "MX")
    events.listener_closed("mx", "127.0.0.1:25")
    events.worker_started("1", 100)
    events.worker_ready("1", 0.4)
    events.worker_died("1", 100, "killed by SIGKILL", 0.0)
    events.worker_stuck("1", 100, 30.0)
    events.config_swapped("abcd", ["domains"])
    events.config_unchanged("abcd")
    events.config_refused(["no"])
    events.restart_needed(["spool"])
    events.warned("mind")
    events.started("mail.test")
    events.stopping("SIGTERM")
    events.stopped(1.0)
    events.internal_error("there", ValueError("x"))
    told = [json.loads(raw) for _, block in events.ring._blocks for raw in block.splitlines()]
    assert len(told) == len(events.lines) == 38
    assert all(one["time"] and one["event"] for one in told)
    assert not any(value in (-1, "") for one in told for key, value in one.items() if key != "from")
    assert len(events.stats()) > 30
