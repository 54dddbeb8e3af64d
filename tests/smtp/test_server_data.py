"""Content off the wire: the end, dots, bare newlines, size, streaming; cut at every octet."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kit.dialogue import Sink
from posthof_pod.replies import Reply, Temporary
from posthof_pod.smtp.data import HEAD_MAX, Content, DotReader, has_bare_newline, whole

NEWLINES = st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.", b"\0"]), max_size=12).map(b"".join)


def model(stream: bytes) -> tuple[bytes, int]:
    """RFC 5321 4.5.2 as it is written: the content and where the stream ends, octet by octet."""
    text = b"\r\n" + stream
    end = text.index(b"\r\n.\r\n")
    content, at = bytearray(), 0
    while at < end + 2:
        if text[at : at + 3] == b"\r\n.":
            content += b"\r\n"
            at += 3
        else:
            content.append(text[at])
            at += 1
    return bytes(content[2:]), end + 3


def model_is_bare(content: bytes) -> bool:
    rest = content.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest


def read(packets: list[bytes], *, normalises: bool = False) -> tuple[DotReader, bytes]:
    """The reader after these packets, and the octets behind the end."""
    reader = DotReader(0, 1 << 20, Sink, normalises=normalises)
    for number, packet in enumerate(packets):
        end = reader.feed(packet, 0)
        if end >= 0:
            return reader, packet[end:] + b"".join(packets[number + 1 :])
    raise AssertionError("no end")


def cuts(stream: bytes) -> list[list[bytes]]:
    """All ways to cut a short stream into three, whole, and octet by octet."""
    places = itertools.combinations(range(1, len(stream)), 2)
    return [
        [stream],
        [bytes([octet]) for octet in stream],
        *([stream[:a], stream[a:b], stream[b:]] for a, b in places),
    ]


@given(NEWLINES)
@example(b"\r")
@example(b"\r\n.\r")
def test_the_reader_agrees_with_the_standard_however_it_is_cut(text: bytes) -> None:
    stream = text + b"\r\n.\r\nREST"
    content, end = model(stream)
    for packets in cuts(stream):
        reader, rest = read(packets)
        assert rest == stream[end:]
        assert reader.size == len(content)
        if model_is_bare(content):
            assert reader.refusal is not None
            assert reader.refusal.code == 550
        else:
            assert reader.take() == content


@given(NEWLINES)
def test_normalised_content_is_the_same_however_it_is_cut(text: bytes) -> None:
    stream = text + b"\r\n.\r\n"
    content, _ = model(stream)
    wanted = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    for packets in cuts(stream):
        reader, _ = read(packets, normalises=True)
        assert reader.refusal is None
        assert reader.take() == wanted


@given(NEWLINES)
def test_the_fast_way_takes_only_what_the_reader_takes_the_same(text: bytes) -> None:
    stream = b"DATA\r\n" + text + b"\r\n.\r\n"
    body = whole(stream, 6)
    content, end = model(stream[6:])
    if body is not None:
        assert body == content
        assert end == len(stream) - 6


def test_the_fast_way_takes_the_usual_message() -> None:
    assert whole(b"Subject: x\r\n\r\nbody\r\n.\r\n", 0) == b"Subject: x\r\n\r\nbody\r\n"
    assert whole(b"\r\n.\r\n", 0) == b"\r\n"
    assert whole(b".\r\n", 0) is None
    assert whole(b"x\r\n..\r\n.\r\n", 0) is None
    assert whole(b"x\r\n.\r\ny\r\n.\r\n", 0) is None


@given(NEWLINES)
def test_bare_newlines_are_found_exactly(text: bytes) -> None:
    assert has_bare_newline(text) == model_is_bare(text)


@given(st.lists(NEWLINES, max_size=5))
def test_bare_newlines_are_found_across_chunks(chunks: list[bytes]) -> None:
    content = Content(0, 1 << 20, Sink)
    for chunk in chunks:
        content.add(chunk)
    assert content.has_bare_newline == model_is_bare(b"".join(chunks))
    assert content.take() == b"".join(chunks)


def test_content_above_the_threshold_goes_to_the_sink() -> None:
    sinks: list[Sink] = []

    def open_sink() -> Sink:
        sinks.append(Sink())
        return sinks[-1]

    content = Content(0, 10, open_sink)
    content.add(b"A: b\r\n")
    assert not sinks
    content.add(b"\r\n12345")
    content.add(b"67890")
    assert content.take() is sinks[0]
    assert bytes(sinks[0].content) == b"A: b\r\n\r\n1234567890"
    assert content.head == b"A: b\r\n"
    assert content.size == 18


@pytest.mark.parametrize("cut", [1, 5, 100, 70_000])
def test_the_head_of_streamed_content_is_the_header_block(cut: int) -> None:
    text = b"A: b\r\nC: d\r\n\r\nbody\r\n\r\n" + b"x" * 200
    content = Content(0, 3, Sink)
    for at in range(0, len(text), cut):
        content.add(text[at : at + cut])
    assert content.head == b"A: b\r\nC: d\r\n"


def test_a_head_without_an_end_is_bounded() -> None:
    content = Content(0, 3, Sink)
    for _ in range(100):
        content.add(b"x" * 1000)
    assert len(content.head) == HEAD_MAX


def test_content_without_header_has_an_empty_head() -> None:
    content = Content(0, 3, Sink)
    content.add(b"\r\nbody: not a field\r\n\r\n")
    assert content.head == b""


def test_too_large_content_is_let_go_at_once() -> None:
    sink = Sink()
    content = Content(10, 5, lambda: sink)
    content.add(b"123456")
    content.add(b"7890")
    assert content.refusal is None
    content.add(b"1")
    assert content.refusal is not None
    assert content.refusal[:2] == (552, "5.3.4")
    assert sink.is_aborted
    content.add(b"more")
    assert content.size == 15
    assert bytes(sink.content) == b"1234567890"


def test_a_sink_that_cannot_be_opened_refuses_with_its_reply() -> None:
    def full() -> Sink:
        raise Temporary(Reply(452, "4.3.1", "Full"), "no space")

    content = Content(0, 1, full)
    content.add(b"123")
    assert content.refusal == Reply(452, "4.3.1", "Full")


def test_a_sink_that_breaks_refuses_and_keeps_the_fault() -> None:
    class Broken(Sink):
        def write(self, data: bytes) -> None:
            raise OSError("broken")

    sink = Broken()
    content = Content(0, 1, lambda: sink)
    content.add(b"123")
    assert content.refusal is not None
    assert content.refusal.code == 451
    assert isinstance(content.fault, OSError)
    assert sink.is_aborted
