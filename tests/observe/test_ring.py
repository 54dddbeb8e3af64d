"""The trace in memory: what a name finds, and what it forgets."""

from __future__ import annotations

import msgspec
import pytest

from posthof_pod.observe.line import Line, encode_onto
from posthof_pod.observe.ring import Ring

AT = "2026-07-01T12:00:00.000Z"


def ring_of(*lines: Line, size: int = 1 << 20) -> Ring:
    """A ring that got each line in a turn of its own."""
    ring = Ring(size=size)
    for line in lines:
        block = bytearray()
        encode_onto(line, block)
        ring.add(bytes(block), 1)
    return ring


def found(ring: Ring, wanted: str, limit: int = 1000) -> list[str]:
    return [f"{line.event} {line.queue_id}" for raw in ring.search(wanted, limit) if (line := decoded(raw))]


def decoded(raw: bytes) -> Line:
    return msgspec.json.decode(raw, type=Line)


LIFE = (
    Line(AT, "accepted", queue_id="l-1", from_="a@x.test", to=("b@y.test",), message_id="<m@x.test>"),
    Line(AT, "accepted", queue_id="l-10", from_="c@x.test", to=("d@y.test",), original=("info@y.test",)),
    Line(AT, "bounced", queue_id="l-1", from_="a@x.test", to=("b@y.test",)),
    Line(AT, "report_made", queue_id="l-2", from_="", to=("a@x.test",), about="l-1"),
    Line(AT, "relayed", queue_id="l-2", from_="", to=("a@x.test",)),
    Line(AT, "lane_freed", name="l"),
)
WHOLE = ["accepted l-1", "bounced l-1", "report_made l-2", "relayed l-2"]


@pytest.mark.parametrize(
    ("wanted", "events"),
    [
        ("l-1", WHOLE),
        ("l-2", WHOLE),
        ("l-10", ["accepted l-10"]),
        ("B@Y.test", WHOLE),
        ("info@y.test", ["accepted l-10"]),
        ("<m@x.test>", WHOLE),
        ("m@x.test", WHOLE),
        ("@y.test", ["accepted l-1", "accepted l-10", "bounced l-1", "report_made l-2", "relayed l-2"]),
        ("y.test", []),
        ("l", []),
        ("", []),
    ],
)
def test_a_name_finds_the_whole_life_of_its_messages(wanted: str, events: list[str]) -> None:
    assert found(ring_of(*LIFE), wanted) == events


def test_refusals_are_found_by_address_though_no_message_came_of_them() -> None:
    ring = ring_of(Line(AT, "refused", from_="spam@z.test", to=("b@y.test",), stage="rcpt"))
    assert found(ring, "spam@z.test") == ["refused "]


def test_only_the_newest_are_given_where_there_are_too_many() -> None:
    ring = ring_of(*(Line(AT, f"e{n}", queue_id="l-1") for n in range(10)))
    assert found(ring, "l-1", limit=3) == ["e7 l-1", "e8 l-1", "e9 l-1"]


def test_the_oldest_lines_go_when_the_bytes_or_the_lines_are_used_up() -> None:
    ring = ring_of(*(Line(AT, "e", queue_id=f"l-{n}") for n in range(100)), size=1000)
    assert ring.bytes <= 1000
    assert not found(ring, "l-1")
    assert found(ring, "l-99") == ["e l-99"]
    few = Ring(lines=5)
    for _ in range(4):
        few.add(b"{}\n{}\n", 2)
    assert few.lines <= 5


def test_a_search_for_many_messages_at_once_is_quick_enough_to_finish() -> None:
    ring = ring_of(*(Line(AT, "e", queue_id=f"l-{n}", from_="bulk@x.test") for n in range(20_000)))
    assert len(ring.search("bulk@x.test", 50)) == 50
