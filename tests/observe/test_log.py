"""Where lines go: whole lines, to a reader that may be slow, gone, or rotated away."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from posthof_pod.observe.events import Events
from posthof_pod.observe.log import KEPT, PIPE_BUF, Log, pieces

LINE = b'{"event":"accepted","queue_id":"lane-17"}\n'


def drain(read_end: int) -> bytes:
    """What is in the pipe now."""
    os.set_blocking(read_end, False)
    found = b""
    while True:
        try:
            some = os.read(read_end, 65536)
        except BlockingIOError:
            return found
        if not some:
            return found
        found += some


def test_pieces_are_cut_behind_newlines_and_lose_nothing() -> None:
    lines = b"".join(b"%d:%s\n" % (n, b"x" * (n * 37 % 900)) for n in range(100))
    cut = pieces(lines, 1000)
    assert b"".join(cut) == lines
    assert all(len(piece) <= 1000 and piece.endswith(b"\n") for piece in cut)


def test_a_line_longer_than_a_piece_is_a_piece_of_its_own() -> None:
    long = b"x" * 5000 + b"\n"
    assert pieces(LINE + long + LINE, 1000) == [LINE, long, LINE]


def test_a_reader_that_does_not_read_stops_nobody_and_gets_everything_later() -> None:
    read_end, write_end = os.pipe()
    log = Log(write_end)
    block = LINE * 100
    for _ in range(40):
        log.write(block)
    assert log.is_behind
    found = drain(read_end)
    while not log.retry():
        found += drain(read_end)
    found += drain(read_end)
    assert found == block * 40
    assert log.lost == 0
    log.close()
    os.close(read_end)
    os.close(write_end)


def test_what_finds_no_room_is_counted_and_the_descriptor_stays_blocking_for_others() -> None:
    read_end, write_end = os.pipe()
    log = Log(write_end)
    block = LINE * 1000
    for _ in range(2 * KEPT // len(block)):
        log.write(block)
    assert log.lost > 0
    assert not fcntl.fcntl(write_end, fcntl.F_GETFL) & os.O_NONBLOCK
    log.close()
    os.close(read_end)
    os.close(write_end)


def test_lines_that_were_lost_are_told_once_there_is_a_reader_again() -> None:
    async def act() -> bytes:
        read_end, write_end = os.pipe()
        log = Log(write_end)
        events = Events(log, loop=asyncio.get_running_loop())
        for _ in range(60_000):
            events.warned("x" * 100)
            if events.total % 100 == 0:
                events.flush()
        assert log.lost > 0
        found = b""
        while b"log_lines_lost" not in found:
            found += drain(read_end)
            await asyncio.sleep(0.01)
        events.close()
        os.close(read_end)
        os.close(write_end)
        return found

    assert b'"log_lines_lost"' in asyncio.run(asyncio.wait_for(act(), 60))


def test_a_reader_that_is_gone_costs_lines_and_no_error() -> None:
    read_end, write_end = os.pipe()
    log = Log(write_end)
    os.close(read_end)
    log.write(LINE * 3)
    assert log.lost == 3
    log.close()
    os.close(write_end)


def test_two_writers_of_a_pipe_tear_no_line_of_each_other() -> None:
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 1 << 20)
    one, two = Log(write_end), Log(write_end)
    for _ in range(50):
        one.write(b"1" * 99 + b"\n")
        two.write((b"2" * 99 + b"\n") * (PIPE_BUF // 50))
    assert set(drain(read_end).splitlines()) == {b"1" * 99, b"2" * 99}
    one.close()
    two.close()
    os.close(read_end)
    os.close(write_end)


def test_a_rotated_file_is_left_for_a_new_one_of_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    events = Events(Log(descriptor, str(path)))
    events.warned("before")
    path.rename(tmp_path / "log.1")
    events.warned("between")
    events.reopen()
    events.warned("after")
    assert (tmp_path / "log.1").read_text().count("\n") == 2
    assert "after" in path.read_text()
    os.close(descriptor)


def test_a_file_that_cannot_be_opened_again_is_told_in_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    events = Events(Log(descriptor, str(path)))
    folder.rename(tmp_path / "moved")
    events.reopen()
    assert "the log goes on in the old file" in (tmp_path / "moved" / "log").read_text()
    os.close(descriptor)


@pytest.mark.parametrize("size", [0, 1, PIPE_BUF, PIPE_BUF + 1])
def test_a_regular_file_takes_blocks_of_any_size_whole(tmp_path: Path, size: int) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    log = Log(descriptor)
    log.write(b"x" * size + b"\n")
    os.close(descriptor)
    assert (tmp_path / "log").stat().st_size == size + 1
