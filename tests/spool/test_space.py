"""Segments and lanes: rolling over, leaving, compaction, sharing; and what all of it costs."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.faulty import FaultyVolume
from kit.spools import BODY, TRACE, Harness, content, done, envelope, found, killed, running, settings, until, waiting
from posthof_pod.model import Envelope, Held, Recipient, Settlement
from posthof_pod.replies import Temporary
from posthof_pod.spool import BlobReader, Damaged, Gone, Stored, adopt, journal, keeper, share, sharing
from posthof_pod.spool.volume import Room


def files(root: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in root.glob(pattern))


def test_segments_roll_over_and_leave_oldest_first(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path, segment_bytes=20_000)) as first:
            stored = [await first.put(body=b"x" * 1000) for _ in range(60)]
            names = files(tmp_path, "lanes/*/*.seg")
            assert len(names) >= 4
            assert all(path.stat().st_size <= 20_000 for path in found(tmp_path, "lanes/*/*.seg"))
            for one in stored[30:]:
                first.spool.settle(one.ref, done())
            await asyncio.sleep(0.1)
            assert "1-1.seg" in files(tmp_path, "lanes/*/*.seg")
            for one in stored[:30]:
                first.spool.settle(one.ref, done())
            await until(lambda: len(files(tmp_path, "lanes/*/*.seg")) == 1)
            assert first.spool.stats()["removed_segments"] >= 3

    asyncio.run(main())


def test_done_mail_stays_done_after_every_compaction_and_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "EVERY", 0.02)
    monkeypatch.setattr(keeper, "STEP", 0.01)
    monkeypatch.setattr(journal, "CLOSED_DELAY", 0.01)
    chance = random.Random(3)
    config = settings(tmp_path, segment_bytes=12_000, lane_messages=40, lane_bytes=60_000, blob_threshold=2500)

    async def main() -> None:
        live: dict[str, tuple[bytes, tuple[Held, ...]]] = {}
        compacted = 0.0
        for turn in range(8):
            harness = Harness(config)
            await harness.spool.start()
            await harness.spool.adopt_now()
            await until(lambda harness=harness: len(harness.lives) >= len(live))
            found = {one.envelope.id: (await content(harness.spool, one.ref), one.waiting) for one in harness.lives}
            assert found == live
            refs = {one.envelope.id: one.ref for one in harness.lives}
            for n in range(60):
                body = b"%d-%d " % (turn, n) + b"x" * chance.choice((50, 600, 3000))
                one = await harness.put("a@x", "b@x", body=body)
                refs[one.envelope.id] = one.ref
                live[one.envelope.id] = (body, (Held(0, 1000.0, 0), Held(1, 1000.0, 0)))
            for name in list(live):
                body, held = live[name]
                if chance.random() < 0.9:
                    harness.spool.settle(refs[name], done(0, 1))
                    del live[name]
                elif chance.random() < 0.7:
                    later = Held(1, float(turn), held[-1].attempts + 1, True)
                    harness.spool.settle(refs[name], Settlement((0,), (later,), "GreetingRefused", f"421 {turn}"))
                    live[name] = (body, (later,))
            await asyncio.sleep(0.25)
            for name, (body, held) in live.items():
                assert await content(harness.spool, refs[name]) == body
                state = await harness.spool.state(refs[name])
                assert state.waiting == held
                if held[-1].attempts:
                    assert state.reason == "GreetingRefused"
            compacted += harness.spool.stats()["compacted"]
            assert harness.spool.live == len(live)
            if turn % 2:
                await harness.spool.stop()
            else:
                harness.spool.abandon()
        assert compacted > 20
        assert len(files(tmp_path, "lanes/*/*.blob")) == sum(len(body) > 2500 for body, _ in live.values())

    asyncio.run(main())


def test_a_settle_that_overtakes_a_copy_is_not_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "EVERY", 1000.0)

    async def main() -> None:
        async with killed(settings(tmp_path, segment_bytes=10_000)) as first:
            await asyncio.sleep(0.05)
            stored = [await first.put(body=b"x" * 1000) for _ in range(20)]
            for one in stored[:7] + stored[8:]:
                first.spool.settle(one.ref, done())
            kept = stored[7]
            (lane,) = first.spool._core.lanes.values()
            compactor = first.spool._keeper._compactor
            task = asyncio.ensure_future(compactor.compact(lane))
            await asyncio.sleep(0)
            first.spool.settle(kept.ref, waiting(Held(0, 50.0, 2)))  # while the copy is being read
            await task
            await asyncio.sleep(0.05)
            assert await compactor.compact(lane) in (0, 1)
            await asyncio.sleep(0.05)
            assert (await first.spool.state(kept.ref)).waiting == (Held(0, 50.0, 2),)
        async with killed(settings(tmp_path)) as second:
            await second.spool.adopt_now()
            assert [(one.envelope.id, one.waiting) for one in second.lives] == [
                (kept.envelope.id, (Held(0, 50.0, 2),))
            ]

    asyncio.run(main())


def test_a_full_lane_is_closed_and_the_next_mail_goes_to_another(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path, lane_messages=10)) as first:
            stored = [await first.put() for _ in range(35)]
            assert len({one.envelope.id.split("-")[0] for one in stored}) == 4
            states = [lane["state"] for lane in first.spool.lanes()]
            assert states.count("open") == 1
            for one in stored:
                first.spool.settle(one.ref, done())
            await until(lambda: len(list((tmp_path / "lanes").iterdir())) == 1)

    asyncio.run(main())


def test_content_over_the_threshold_streams_into_a_file_of_its_own(tmp_path: Path) -> None:
    parts = [bytes([n]) * 70_000 for n in range(20)]

    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            blob = first.spool.blob()
            for part in parts:
                blob.write(part)
                await blob.drain()
            size = blob.size
            one = await first.spool.commit(envelope(blob.id, size=size), TRACE, blob, at_once=True)
            assert one.envelope.id == blob.id
            assert not isinstance(one.body, bytes)
            assert await one.body.head(3) == b"\0\0\0"
            assert await content(first.spool, one.ref) == b"".join(parts)
            big = await first.put(body=b"y" * 300_000)
            assert await content(first.spool, big.ref) == b"y" * 300_000
            assert len(files(tmp_path, "lanes/*/*.blob")) == 2
        async with running(settings(tmp_path)) as second:
            await second.spool.adopt_now()
            assert await second.bodies() == {one.envelope.id: b"".join(parts), big.envelope.id: b"y" * 300_000}
            for live in second.lives:
                second.spool.settle(live.ref, done())
            await until(lambda: not files(tmp_path, "lanes/*/*.blob"))

    asyncio.run(main())


def test_an_aborted_blob_leaves_nothing_and_an_orphan_goes_at_the_take_over(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            one = await first.put()
            blob = first.spool.blob()
            blob.write(b"z" * 400_000)
            await until(lambda: files(tmp_path, "lanes/*/*.blob"))
            blob.abort()
            await until(lambda: not files(tmp_path, "lanes/*/*.blob"))
            orphan = first.spool.blob()
            orphan.write(b"z" * 400_000)
            await until(lambda: files(tmp_path, "lanes/*/*.blob"))
        async with running(settings(tmp_path)) as second:
            await second.spool.adopt_now()
            await until(lambda: not files(tmp_path, "lanes/*/*.blob"))
            assert [live.envelope.id for live in second.lives] == [one.envelope.id]

    asyncio.run(main())


def test_a_blob_that_cannot_be_written_refuses_its_message_only(tmp_path: Path) -> None:
    async def main() -> None:
        volume = FaultyVolume(tmp_path)
        async with killed(settings(tmp_path), volume=volume) as first:
            await first.put()
            for call in ("fdatasync", "pwritev", "create"):
                volume.fail(call, part=".blob")
                with pytest.raises(Temporary):
                    await first.put(body=b"z" * 300_000)
            one = await first.put(body=b"z" * 300_000)
            assert first.spool.live == 2
            await asyncio.sleep(0.05)
        async with killed(settings(tmp_path)) as second:
            await second.spool.adopt_now()
            assert len(second.lives) == 2
            assert (await second.bodies())[one.envelope.id] == b"z" * 300_000

    asyncio.run(main())


def test_a_blob_with_a_flipped_bit_says_so_before_the_dot(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path)) as first:
            one = await first.put(body=b"z" * 600_000)
            (path,) = found(tmp_path, "lanes/*/*.blob")
            data = bytearray(path.read_bytes())
            data[300_000] ^= 1
            path.write_bytes(data)
            got: list[bytes] = []
            with pytest.raises(Damaged):
                await send(one.body, got.append)
            assert sum(map(len, got)) == 600_000
            first.spool.settle(one.ref, done())

    asyncio.run(main())


def test_a_blob_on_a_volume_that_does_not_answer_is_not_called_damaged(tmp_path: Path) -> None:
    async def main() -> None:
        volume = FaultyVolume(tmp_path)
        async with running(settings(tmp_path), volume=volume) as first:
            one = await first.put(body=b"z" * 600_000)
            assert isinstance(one.body, BlobReader)
            volume.fail("open", part=".blob")
            with pytest.raises(Temporary):
                await one.body.read()
            volume.fail("read", part=".blob")
            with pytest.raises(Temporary):
                await one.body.head(10)
            assert await one.body.read() == b"z" * 600_000
            (path,) = found(tmp_path, "lanes/*/*.blob")
            path.unlink()
            with pytest.raises(Damaged):
                await one.body.read()

    asyncio.run(main())


def test_the_cache_is_bounded_and_the_rest_is_read_from_the_volume(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path, cache_bytes=50_000)) as first:
            stored = [await first.put(body=b"%d" % n + b"x" * 4000) for n in range(40)]
            assert first.spool.stats()["cached_bytes"] <= 50_000
            assert isinstance(first.spool.read(stored[-1].ref), Stored)
            assert not isinstance(read := first.spool.read(stored[0].ref), Stored)
            assert (await read).body == b"0" + b"x" * 4000
            for n, one in enumerate(stored):
                assert (await content(first.spool, one.ref)).startswith(b"%dx" % n)
                assert (await first.spool.envelope(one.ref)).id == one.envelope.id
            for one in stored:
                first.spool.settle(one.ref, done())
            assert first.spool.stats()["cached_bytes"] == 0
            with pytest.raises(Gone):
                await content(first.spool, stored[0].ref)
            assert first.spool.settle(stored[0].ref, done()) is None
            assert first.spool.stats()["late_settles"] == 1
            assert first.spool.stats()["possible_duplicates"] == 0  # whoever has it now counts what it finds tried

    asyncio.run(main())


def test_a_ref_finds_its_message_and_an_old_one_finds_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path)) as first:
            one = await first.put()
            assert first.spool.find(one.envelope.id) == one.ref
            assert first.spool.id_of(one.ref) == one.envelope.id
            first.spool.settle(one.ref, done())
            assert first.spool.find(one.envelope.id) is None
            assert first.spool.find("nothing") is None
            two = await first.put()
            assert two.ref != one.ref
            with pytest.raises(Gone):
                first.spool.id_of(one.ref)

    asyncio.run(main())


def test_a_message_whose_client_left_before_the_sync_is_scheduled_all_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path)) as first:
            message = first.spool.next_id()
            held = (Held(0, float("inf"), 0),)
            future = first.spool.commit(envelope(message), TRACE, BODY, at_once=True, waiting=held)
            future.cancel()
            await until(lambda: first.lives)
            assert first.lives[0].envelope.id == message
            assert first.lives[0].waiting == held
            first.spool.settle(first.lives[0].ref, done())

    asyncio.run(main())


def test_a_live_message_costs_the_index_at_most_150_bytes(tmp_path: Path) -> None:
    count = 50_000

    async def main() -> None:
        async with killed(settings(tmp_path, cache_bytes=0, sync=False)) as first:
            body = b"x" * 100

            async def fill(some: int) -> None:
                for _ in range(some // 500):
                    futures = []
                    for _ in range(500):
                        message = first.spool.next_id()
                        mail = Envelope(message, "a@example.org", (Recipient("b@example.org"),), 1.0, 100)
                        futures.append(first.spool.commit(mail, TRACE, body, at_once=False))
                    await futures[-1]
                    del futures

            await fill(4000)
            await asyncio.sleep(0.1)
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            await fill(count)
            await asyncio.sleep(0.1)
            gc.collect()
            each = (tracemalloc.get_traced_memory()[0] - before) / count
            tracemalloc.stop()
            assert first.spool.live == count + 4000
            assert each <= 150, each

    asyncio.run(main())


def test_space_is_watched_and_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "EVERY", 0.02)
    monkeypatch.setattr(keeper, "STEP", 0.01)

    async def main() -> None:
        volume = FaultyVolume(tmp_path)
        volume.fake_room = Room(1_000_000, 500_000, 0, 0)
        async with running(settings(tmp_path, max_usage=0.9), volume=volume) as first:
            await until(lambda: first.spool.stats()["volume_bytes"])
            assert first.spool.room(100_000)
            assert not first.spool.room(450_000)
            volume.fake_room = Room(1_000_000, 50_000, 0, 0)
            await until(lambda: not first.spool.room(0))
            await asyncio.sleep(0.1)
            volume.fake_room = Room(1_000_000, 500_000, 100, 5)
            await until(lambda: first.spool.stats()["volume_inodes_free"] == 5)
            assert not first.spool.room(0)
            volume.fake_room = Room(1_000_000, 500_000, 100, 50)
            await until(lambda: first.spool.room(0))
            assert first.names() == ["full", "room_again"]

    asyncio.run(main())


def test_the_size_of_the_mta_limits_all_workers_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "EVERY", 0.02)
    monkeypatch.setattr(keeper, "STEP", 0.01)

    async def main() -> None:
        config = settings(tmp_path, size=100_000, max_usage=0.5)
        async with running(config) as first, running(config) as second:
            assert first.spool.room(1000)
            for _ in range(15):
                await first.put(body=b"x" * 4000)
            second.spool._keeper.space._walked = float("-inf")
            await until(lambda: not second.spool.room(1000))

    asyncio.run(main())


async def send(body: bytes | BlobReader, write: Callable[[bytes], None]) -> None:
    """As a session does: every chunk goes out before it is known whether all of them are right."""
    assert isinstance(body, BlobReader)
    async for chunk in body.chunks():
        write(chunk)


@pytest.fixture
def quick_sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "EVERY", 0.02)
    monkeypatch.setattr(keeper, "STEP", 0.01)
    monkeypatch.setattr(sharing, "OFFER_LASTS", 0.3)


@pytest.mark.usefixtures("quick_sharing")
def test_a_worker_that_is_behind_gives_lanes_to_one_with_little_to_do(tmp_path: Path) -> None:
    async def main() -> None:
        config = settings(tmp_path, lane_messages=10)
        async with running(config) as busy, running(config) as idle:
            stored = [await busy.put() for _ in range(100)]
            await asyncio.sleep(0.1)
            assert idle.lives == []
            busy.spool.note_late(60.0)
            await until(lambda: len(idle.lives) >= 20)
            busy.spool.note_late(0.0)
            await until(lambda: busy.spool.live + idle.spool.live == 100)
            given = {live.envelope.id for live in idle.lives}
            assert given <= {one.envelope.id for one in stored}
            by_id = {one.envelope.id: one.ref for one in stored}
            assert given <= {name for name in by_id if by_id[name] in busy.gone}
            assert idle.spool.live <= 60
            for name in given:
                with pytest.raises(Gone):
                    await content(busy.spool, by_id[name])
                assert not busy.spool.may_dot(by_id[name])

    asyncio.run(main())


@pytest.mark.usefixtures("quick_sharing")
def test_an_offered_lane_nobody_takes_is_claimed_back_and_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        config = settings(tmp_path, lane_messages=10)
        async with killed(config) as first:
            stored = [await first.put(body=BODY + b"%d" % n) for n in range(12)]
            first.spool.settle(stored[1].ref, waiting(Held(0, 70.0, 3)))
            (lane,) = [lane for lane in first.spool._core.lanes.values() if lane.state.value == "closed"]
            await first.spool._keeper._sharer.leave(lane)
            assert lane.state.value == "offered"
            assert files(tmp_path, "offers/*") == [lane.name]
            assert first.lives == []
            await until(lambda: "claimed_back" in first.names())
            await until(lambda: len(first.lives) == 10)
            assert files(tmp_path, "offers/*") == []
            assert {live.envelope.id for live in first.lives} == {one.envelope.id for one in stored[:10]}
            assert first.lives[1].waiting == (Held(0, 70.0, 3),)
            first.spool.settle(stored[0].ref, done())
            await asyncio.sleep(0.05)
        async with killed(config) as second:
            await second.spool.adopt_now()
            await until(lambda: len(second.lives) == 11)
            assert {live.envelope.id for live in second.lives} == {one.envelope.id for one in stored[1:]}

    asyncio.run(main())


@pytest.mark.usefixtures("quick_sharing")
def test_a_lane_leaves_only_after_its_running_attempts_ended(tmp_path: Path) -> None:
    async def main() -> None:
        config = settings(tmp_path, lane_messages=3)
        async with running(config) as first:
            stored = [await first.put() for _ in range(5)]
            first.busy = [stored[0].ref]
            (lane,) = [lane for lane in first.spool._core.lanes.values() if lane.state.value == "closed"]
            leaving = asyncio.ensure_future(first.spool._keeper._sharer.leave(lane))
            await asyncio.sleep(0.05)
            assert not leaving.done()
            assert first.spool.may_dot(stored[0].ref)
            assert not first.spool.may_dot(stored[1].ref)
            first.spool.settle(stored[0].ref, done())
            await leaving
            async with running(config) as second:
                await second.spool._keeper._sharer.take_offers()
                await second.spool._adopter.scan(is_thorough=True)
                await until(lambda: "given" in first.names() or "claimed_back" in first.names())

    asyncio.run(main())


@pytest.mark.usefixtures("quick_sharing")
def test_the_taker_of_a_lane_replays_no_more_than_was_given(tmp_path: Path) -> None:
    async def main() -> None:
        config = settings(tmp_path, lane_messages=10)
        async with running(config) as busy:
            for _ in range(30):
                await busy.put()
            lanes = [lane for lane in busy.spool._core.lanes.values() if lane.state.value == "closed"]
            async with running(config) as idle:
                await asyncio.sleep(0.05)
                await busy.spool._keeper._sharer.leave(lanes[0])
                await until(lambda: len(idle.lives) == 10)
                await until(lambda: "given" in busy.names())
                assert busy.spool.live == 20
                assert idle.spool.live == 10

    asyncio.run(main())


def test_who_takes_and_gives_what_follows_the_loads() -> None:
    assert not sharing.should_wait(0, [0], 2000)
    assert not sharing.should_wait(5000, [2000], 2000)
    assert sharing.should_wait(100_000, [2000, 200_000], 2000)
    assert sharing.lanes_to_offer(100, [10], {"a": 50, "b": 40, "c": 0}, 1.0) == []
    assert sharing.lanes_to_offer(100, [60], {"a": 50}, 60.0) == []
    assert sharing.lanes_to_offer(100, [], {"a": 50}, 60.0) == []
    assert sharing.lanes_to_offer(100, [10], {"a": 40, "b": 30, "c": 10, "d": 0}, 60.0) == ["a"]
    assert sharing.should_take(0, 1)
    assert not sharing.should_take(10, 20)
    assert sharing.read_offer("w1:50") == ("w1", 50)
    assert sharing.read_offer("nonsense") == ("", 0)
    assert sharing.read_load(sharing.load_text(77)) == 77
    assert sharing.read_load(b"") == 0


def test_tests_here_know_the_parts_they_slow_down() -> None:
    assert adopt.THOROUGH > keeper.EVERY > keeper.STEP
    assert share.SLICE > 0
