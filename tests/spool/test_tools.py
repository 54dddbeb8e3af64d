"""`posthof spool check`, `posthof spool dump` and `posthof spool owners`."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

import pytest

from kit.spools import BODY, TRACE, done, envelope, found, killed, settings, waiting
from posthof_pod.cli import spool as cli
from posthof_pod.model import Held


def posthof(*words: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    return cli.run(parser.parse_args(["spool", *words]))


def fill(root: Path) -> dict[str, str]:
    async def main() -> dict[str, str]:
        async with killed(settings(root)) as first:
            plain = await first.put("b@x")
            big = await first.put("c@x", body=b"z" * 300_000)
            over = await first.put("d@x")
            first.spool.settle(plain.ref, waiting(Held(0, 500.0, 2), detail="450 4.2.0 try later"))
            report = envelope(first.spool.next_id(over.ref), "a@example.org")
            future = first.spool.settle(over.ref, done(), (report, TRACE, b"it failed\r\n"))
            assert future is not None
            await future
            await first.spool.tried([plain.ref])
            return {"plain": plain.envelope.id, "big": big.envelope.id, "report": report.id}

    return asyncio.run(main())


def test_check_of_a_sound_spool_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path)
    before = {path: path.lstat().st_mtime_ns for path in found(tmp_path, "**/*")}
    assert posthof("check", str(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "3 live messages to 3 recipients in 1 lanes" in out
    assert out.rstrip().endswith("sound")
    assert {path: path.lstat().st_mtime_ns for path in found(tmp_path, "**/*")} == before


def test_check_of_a_damaged_spool_names_the_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path)
    (segment,) = found(tmp_path, "lanes/*/1-1.seg")
    data = bytearray(segment.read_bytes())
    data[data.index(BODY)] ^= 1
    segment.write_bytes(data)
    (blob,) = found(tmp_path, "lanes/*/*.blob")
    blob.unlink()
    assert posthof("check", str(tmp_path)) == 1
    out = capsys.readouterr().out
    assert "do not check, valid records follow" in out
    assert "the content of a live message is missing" in out


def test_owners_tells_who_has_which_lanes_and_which_wait_for_somebody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path)
    (worker,) = [path.name for path in found(tmp_path, "workers/*")]
    (tmp_path / "workers" / worker / "pod").write_text("edge-1")
    (tmp_path / "workers" / worker / "load").write_text(f"{3:015d}\n")
    assert posthof("owners", str(tmp_path)) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["POD", "WORKER", "STATE", "LANES", "MESSAGES"]
    assert row.split() == ["edge-1", worker, "open", "1", "3"]

    (lane,) = found(tmp_path, "lanes/*")
    (lane / "free.1").symlink_to("1-1.seg:0")
    (tmp_path / "workers" / worker / "latch").write_text("fenced by another worker")
    assert posthof("owners", str(tmp_path)) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["edge-1", worker, "fenced", "0", "3"], ["-", "-", "free", "1", "-"]]


def test_what_is_no_spool_is_not_made_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert posthof("check", str(tmp_path / "nothing")) == 2
    assert not (tmp_path / "nothing").exists()
    assert "is not a spool" in capsys.readouterr().err


def test_dump_prints_every_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = fill(tmp_path)
    assert posthof("dump", str(tmp_path)) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["type"] for row in rows][:2] == ["start", "accept"]
    assert {row["type"] for row in rows} == {"start", "accept", "settle", "try"}
    (settle,) = [row for row in rows if row["type"] == "settle" and row["id"] == ids["plain"]]
    assert settle["state"]["detail"] == "450 4.2.0 try later"
    (with_report,) = [row for row in rows if "report" in row]
    assert with_report["report"]["id"] == ids["report"]
    assert with_report["flags"] == ["at_once", "done", "report"]
    (blob,) = [row for row in rows if "blob" in row]
    assert blob["blob"]["size"] == 300_000


def test_dump_prints_what_is_live_and_the_content_of_one(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    ids = fill(tmp_path)
    assert posthof("dump", "--live", str(tmp_path)) == 0
    rows = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert {row["id"] for row in rows} == set(ids.values())
    for name, body in (("plain", BODY), ("big", b"z" * 300_000), ("report", b"it failed\r\n")):
        assert posthof("dump", "--content", ids[name], str(tmp_path)) == 0
        assert capsysbinary.readouterr().out == TRACE + body
    assert posthof("dump", "--content", "nothing-1", str(tmp_path)) == 2
    assert posthof("dump", "--content", ids["plain"] + "9", str(tmp_path)) == 2
