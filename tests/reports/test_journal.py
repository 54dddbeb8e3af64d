"""What happened today is kept in order, and one worker of all makes a day's reports."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from posthof_pod.reports import journal
from posthof_pod.reports.collect import STALE, collect, take_turn
from posthof_pod.reports.journal import Journal, folder, read_day

NOON = 1_790_000_000.0  # 2026-09-21T14:13:20Z
DAY = "2026-09-21"
TOMORROW = NOON + 86400.0


def wrote(spool: Path, worker: str, *rows: tuple[str, int]) -> Journal:
    one = Journal(spool, "dmarc", worker)
    for row, count in rows:
        one.note(row, NOON, count)
    one.write(one.take())
    return one


def counts(rows: Counter[bytes]) -> dict[str, int]:
    return {msgspec.msgpack.decode(row): count for row, count in rows.items()}


def test_equal_rows_of_all_workers_are_counted_together(tmp_path: Path) -> None:
    wrote(tmp_path, "w1", ("a", 2), ("b", 1))
    wrote(tmp_path, "w2", ("a", 3))
    assert counts(read_day(folder(tmp_path, "dmarc") / DAY)) == {"a": 5, "b": 1}


def test_a_torn_end_costs_only_itself(tmp_path: Path) -> None:
    wrote(tmp_path, "w1", ("a", 1), ("b", 1))
    path = folder(tmp_path, "dmarc") / DAY / "w1.log"
    whole = path.read_bytes()
    for cut in range(len(whole)):
        assert len(list(journal.frames(whole[:cut]))) <= 1
    assert list(journal.frames(b"\xff" * 40)) == []


def test_a_flood_of_different_rows_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MOST_ROWS", 3)
    one = wrote(tmp_path, "w1", *[(str(n), 1) for n in range(5)])
    assert one.dropped == 2
    monkeypatch.setattr(journal, "MOST_BYTES", 1)
    one.note("more", NOON)
    one.write(one.take())
    assert one.dropped == 3


def test_a_day_has_one_reporter(tmp_path: Path) -> None:
    wrote(tmp_path, "w1", ("a", 1))
    place = folder(tmp_path, "dmarc")
    assert take_turn(place, "w1", NOON) is None  # it is not over
    first = take_turn(place, "w1", TOMORROW)
    assert first is not None
    assert first.day == DAY
    assert take_turn(place, "w2", TOMORROW) is None


def test_a_reporter_that_died_is_followed_by_another(tmp_path: Path) -> None:
    wrote(tmp_path, "w1", ("a", 1))
    place = folder(tmp_path, "dmarc")
    assert take_turn(place, "w1", TOMORROW) is not None
    long_ago = TOMORROW - STALE - 1
    os.utime(place / DAY / "own.1", (long_ago, long_ago), follow_symlinks=False)
    assert take_turn(place, "w2", TOMORROW) is not None
    assert os.readlink(place / DAY / "own.2") == "w2"


def test_what_failed_is_tried_again_and_what_was_sent_is_gone(tmp_path: Path) -> None:
    wrote(tmp_path, "w1", ("a", 1))
    seen: list[str] = []

    async def breaks(day: str, rows: Counter[bytes]) -> None:
        raise OSError("no room")

    async def works(day: str, rows: Counter[bytes]) -> None:
        seen.append(day)
        assert counts(rows) == {"a": 1}

    with pytest.raises(OSError, match="no room"):
        asyncio.run(collect(tmp_path, "dmarc", "w1", TOMORROW, breaks))
    os.utime(folder(tmp_path, "dmarc") / DAY / "own.1", (0, 0), follow_symlinks=False)
    assert asyncio.run(collect(tmp_path, "dmarc", "w2", TOMORROW, works)) == 1
    assert seen == [DAY]
    assert not list((folder(tmp_path, "dmarc") / DAY).glob("*.log"))
    assert asyncio.run(collect(tmp_path, "dmarc", "w2", TOMORROW, works)) == 0


def test_old_days_go(tmp_path: Path) -> None:
    wrote(tmp_path, "w1", ("a", 1))
    place = folder(tmp_path, "dmarc")
    assert take_turn(place, "w1", NOON + 20 * 86400.0) is None
    assert not (place / DAY).exists()
