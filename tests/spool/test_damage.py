"""Bytes that are not what was written: torn ends, flipped bits, mail that looks like records."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from kit.spools import BODY, Harness, content, done, found, killed, running, settings, until
from posthof_pod.spool import Damaged, Volume, record, replay
from posthof_pod.spool.check import Weight, check


def the_segment(root: Path, name: str = "1-1.seg") -> Path:
    (found,) = root.glob(f"lanes/*/{name}")
    return found


async def adopt(root: Path) -> Harness:
    harness = Harness(settings(root))
    await harness.spool.start()
    await harness.spool.adopt_now()
    return harness


def test_a_flipped_bit_in_a_middle_record_costs_that_message_only_and_is_reported(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            stored = [await first.put(body=BODY + b"%d" % n) for n in range(5)]
        segment = the_segment(tmp_path)
        data = bytearray(segment.read_bytes())
        data[data.index(BODY + b"2") + 5] ^= 4
        segment.write_bytes(data)
        second = await adopt(tmp_path)
        try:
            assert await second.bodies() == {stored[n].envelope.id: BODY + b"%d" % n for n in (0, 1, 3, 4)}
            assert "damaged" in second.names()
            assert second.spool.stats()["damaged"] == 1
            for live in second.lives:
                second.spool.settle(live.ref, done())
            await until(lambda: not list((tmp_path / "lanes").iterdir()))
            (kept,) = found(tmp_path, "damaged/*/1-1.seg")
            assert kept.read_bytes() == data
            await until(lambda: "set_aside" in second.names())
        finally:
            await second.spool.stop()

    asyncio.run(main())


def test_a_flipped_bit_in_a_sealed_segment_is_found_when_the_message_is_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path)) as first:
            stored = [await first.put(body=BODY + b"%d" % n) for n in range(3)]
        segment = the_segment(tmp_path)
        data = bytearray(segment.read_bytes())
        data[data.index(BODY + b"1") + 5] ^= 4
        segment.write_bytes(data)
        second = await adopt(tmp_path)
        try:
            by_id = {live.envelope.id: live.ref for live in second.lives}
            assert len(by_id) == 3
            assert await content(second.spool, by_id[stored[0].envelope.id]) == BODY + b"0"
            with pytest.raises(Damaged):
                await content(second.spool, by_id[stored[1].envelope.id])
            assert "damaged" in second.names()
            for ref in by_id.values():
                second.spool.settle(ref, done())
            await until(lambda: not list((tmp_path / "lanes").iterdir()))
            assert len(list((tmp_path / "damaged").iterdir())) == 1
        finally:
            await second.spool.stop()

    asyncio.run(main())


def test_a_torn_end_is_passed_over_counted_and_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            one = await first.put(body=BODY + b"1")
            await first.put(body=BODY + b"2")
        segment = the_segment(tmp_path)
        data = segment.read_bytes()
        segment.write_bytes(data[: data.index(BODY + b"2") + 7])
        second = await adopt(tmp_path)
        assert await second.bodies() == {one.envelope.id: BODY + b"1"}
        assert second.names().count("torn") == 1
        second.spool.abandon()
        third = await adopt(tmp_path)
        assert await third.bodies() == {one.envelope.id: BODY + b"1"}
        assert "torn" not in third.names()
        third.spool.abandon()

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(16))
def test_no_start_fails_and_no_mail_is_made_up_whatever_the_bytes_are(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    async def main() -> None:
        async with (killed if seed % 2 else running)(settings(tmp_path)) as first:
            stored = [await first.put(body=BODY + b"%d" % n) for n in range(6)]
            first.spool.settle(stored[0].ref, done())
            await asyncio.sleep(0.03)
        segment = the_segment(tmp_path)
        data = bytearray(segment.read_bytes())
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(data))
            match chance.randrange(4):
                case 0:
                    data[at] ^= 1 << chance.randrange(8)
                case 1:
                    data[at : at + 512] = bytes(len(data[at : at + 512]))
                case 2:
                    del data[at:]
                case _:
                    data[at : at + 64] = chance.randbytes(len(data[at : at + 64]))
            if not data:
                break
        segment.write_bytes(data)
        second = await adopt(tmp_path)
        wanted = {one.envelope.id: one.body for one in stored}
        for live in second.lives:
            assert live.envelope.id in wanted
            try:
                assert await content(second.spool, live.ref) == wanted[live.envelope.id]
            except Damaged:
                continue
        check(Volume(tmp_path))
        second.spool.abandon()

    asyncio.run(main())


def test_a_body_that_contains_a_copied_record_makes_no_message(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            await first.put(body=BODY + b"1")
            old = the_segment(tmp_path).read_bytes()
            copied = await first.put(body=old)
            middle = await first.put(body=old[8:])
            await first.put(body=BODY + b"last")
        segment = the_segment(tmp_path)
        data = bytearray(segment.read_bytes())
        at = data.index(old, 8)
        data[at - 40] ^= 1  # the record around the copy goes bad: the search for the next one runs through it
        segment.write_bytes(data)
        second = await adopt(tmp_path)
        bodies = await second.bodies()
        # The copy holds this segment's own nonce, so what it shows is the first message again: known, not made up.
        assert copied.envelope.id not in bodies
        assert bodies[middle.envelope.id] == old[8:]
        assert len(bodies) == 3
        second.spool.abandon()

    asyncio.run(main())


def test_records_of_another_segment_in_a_body_are_never_taken_for_records(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path / "other")) as other:
            await other.put(body=BODY + b"foreign")
        foreign = the_segment(tmp_path / "other").read_bytes()
        async with killed(settings(tmp_path / "mine")) as first:
            await first.put(body=foreign)
            kept = await first.put(body=BODY)
        segment = the_segment(tmp_path / "mine")
        data = bytearray(segment.read_bytes())
        data[data.index(foreign) - 40] ^= 1
        segment.write_bytes(data)
        second = await adopt(tmp_path / "mine")
        assert await second.bodies() == {kept.envelope.id: BODY}
        second.spool.abandon()

    asyncio.run(main())


def test_a_bad_end_is_not_believed_the_records_are(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path)) as first:
            stored = [await first.put(body=BODY + b"%d" % n) for n in range(3)]
        segment = the_segment(tmp_path)
        data = bytearray(segment.read_bytes())
        data[-30] ^= 1
        segment.write_bytes(data)
        second = await adopt(tmp_path)
        assert set(await second.bodies()) == {one.envelope.id for one in stored}
        second.spool.abandon()

    asyncio.run(main())


def test_the_first_copy_of_the_nonce_may_go_bad(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            one = await first.put()
        segment = the_segment(tmp_path)
        data = bytearray(segment.read_bytes())
        data[3] ^= 1
        segment.write_bytes(data)
        second = await adopt(tmp_path)
        assert set(await second.bodies()) == {one.envelope.id}
        assert "damaged" in second.names()
        second.spool.abandon()

    asyncio.run(main())


def test_a_segment_of_another_lane_is_not_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path / "a")) as first:
            await first.put()
        async with killed(settings(tmp_path / "b")) as second:
            await second.put()
        the_segment(tmp_path / "b").write_bytes(the_segment(tmp_path / "a").read_bytes())
        third = await adopt(tmp_path / "b")
        assert third.lives == []
        assert "damaged" in third.names()
        third.spool.abandon()

    asyncio.run(main())


def test_check_finds_what_is_torn_damaged_or_in_the_way(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path, blob_threshold=1000)) as first:
            [await first.put(body=BODY + b"%d" % n) for n in range(4)]
            await first.put(body=b"z" * 5000)
            aborted = first.spool.blob()
            aborted.write(b"y" * 300_000)
            await until(lambda: aborted.pending == 0)
        summary = check(Volume(tmp_path))
        assert summary.messages == 5
        assert not summary.is_damaged
        assert any("no live message has it" in finding.text for finding in summary.findings)
        segment = the_segment(tmp_path)
        data = bytearray(segment.read_bytes())
        data[data.index(BODY + b"1") + 3] ^= 1
        segment.write_bytes(bytes(data) + b"torn")
        (blob,) = [path for path in found(tmp_path, "lanes/*/*.blob") if path.stat().st_size == 5000]
        blob.write_bytes(b"z" * 4999 + b"y")
        texts = [finding.text for finding in check(Volume(tmp_path)).findings if finding.weight is Weight.DAMAGE]
        assert len(texts) == 2
        assert any(finding.text.startswith("4 bytes") for finding in check(Volume(tmp_path)).findings)

    asyncio.run(main())


def frame(kind: int, flags: int, meta: bytes, nonce: bytes, version: int = record.VERSION) -> bytes:
    data = b"".join(record.frame(nonce, kind, flags, meta))
    if version == record.VERSION:
        return data
    from zlib import crc32

    head = bytearray(data[:20])
    head[8] = version
    return bytes(head) + record.CRC.pack(crc32(meta, crc32(bytes(head)))) + meta


def test_unknown_records_are_skipped_and_their_segment_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            one = await first.put()
        segment = the_segment(tmp_path)
        data = segment.read_bytes()
        segment.write_bytes(data + frame(77, 0, b"from the future", data[:8]))
        second = await adopt(tmp_path)
        assert set(await second.bodies()) == {one.envelope.id}
        second.spool.settle(second.lives[0].ref, done())
        await asyncio.sleep(0.2)
        assert segment.exists()
        await second.spool.stop()
        assert segment.exists()

    asyncio.run(main())


@pytest.mark.parametrize(("kind", "flags", "version"), [(77, record.CRITICAL, 1), (record.ACCEPT, 0, 2)])
def test_a_critical_record_makes_an_older_version_leave_the_lane_alone(
    tmp_path: Path, kind: int, flags: int, version: int
) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            await first.put()
        segment = the_segment(tmp_path)
        data = segment.read_bytes()
        segment.write_bytes(data + frame(kind, flags, b"12345678new", data[:8], version))
        before = segment.read_bytes()
        for _ in range(4):
            second = await adopt(tmp_path)
            assert second.lives == []
            assert "newer" in second.names()
            assert await second.spool.adopt_now() == 0
            await second.spool.stop()
            assert segment.read_bytes() == before

    asyncio.run(main())


def test_a_scan_reads_the_same_through_any_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            for n in range(30):
                await first.put(body=BODY * (n % 7) + b"%d" % n)
        segment = the_segment(tmp_path)
        data = bytearray(segment.read_bytes())
        data[len(data) // 2] ^= 1
        segment.write_bytes(data)
        lane = segment.parent.name
        whole = replay.scan(Volume(tmp_path), lane, 1, 1)
        for window in (32, 100, 333, 1000):
            monkeypatch.setattr(replay, "WINDOW", window)
            part = replay.scan(Volume(tmp_path), lane, 1, 1)
            assert part.records == whole.records
            assert part.gaps == whole.gaps

    asyncio.run(main())
