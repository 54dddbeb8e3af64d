"""A line for people: short, in order, and harmless on a terminal."""

from __future__ import annotations

import pytest

from posthof_pod.observe.line import Line, decode, encode_onto, printable, readable, size_text, span_text

AT = "2026-07-01T12:00:00.123Z"


def test_a_field_that_says_nothing_is_left_out() -> None:
    block = bytearray()
    encode_onto(Line(AT, "stopping", reason="SIGTERM"), block)
    assert block == b'{"time":"2026-07-01T12:00:00.123Z","event":"stopping","reason":"SIGTERM"}\n'


def test_a_line_reads_back_as_it_was_written() -> None:
    line = Line(AT, "accepted", queue_id="l-1", from_="ä@x.test", to=("b@y.test",), delay=0.5, size=0)
    block = bytearray()
    encode_onto(line, block)
    assert decode(bytes(block)) == line


def test_a_newline_inside_a_reply_does_not_break_the_line() -> None:
    block = bytearray()
    encode_onto(Line(AT, "deferred", reply="451 first\r\n451 second"), block)
    assert block.count(b"\n") == 1


@pytest.mark.parametrize("evil", ["\x1b[2J", "\x07", "\x9b31m", "\u202e", "\x7f", "\x00"])
def test_nothing_a_terminal_acts_upon_reaches_it(evil: str) -> None:
    line = Line(AT, "refused", client_name=f"x{evil}y", client="192.0.2.1", reply=f"550 {evil}")
    assert evil not in readable(line)
    assert printable(f"a{evil}b") != f"a{evil}b"


def test_many_recipients_are_named_by_the_first_and_a_number() -> None:
    line = Line(AT, "accepted", to=tuple(f"r{n}@y.test" for n in range(100)))
    assert "<r2@y.test> and 97 more" in readable(line)


def test_an_error_keeps_the_lines_of_its_trace() -> None:
    text = readable(
        Line(AT, "internal_error", name="here", detail="Traceback\n  line 1\nValueError: x"), colour=False
    )
    assert text.splitlines()[1:] == ["    Traceback", "      line 1", "    ValueError: x"]


def test_warnings_are_tinted_where_colours_are_wanted() -> None:
    line = Line(AT, "warning", detail="mind", level="warning")
    assert readable(line, colour=True).startswith("\x1b[33m")
    assert "\x1b" not in readable(line)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.042, "42 ms"),
        (-1, "0 ms"),
        (4.25, "4.2 s"),
        (59, "59 s"),
        (61, "1m01s"),
        (5400, "1h30m"),
        (200_000, "2d7h"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert span_text(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (4096, "4.0 KiB"), (1 << 31, "2.0 GiB")])
def test_sizes_are_said_with_their_unit(size: int, text: str) -> None:
    assert size_text(size) == text
