"""Several workers: take-over, fencing, zombies, poison."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from kit.faulty import FaultyVolume
from kit.spools import BODY, Harness, Lying, content, done, found, killed, running, settings, until, waiting
from posthof_pod.model import Held
from posthof_pod.replies import Temporary
from posthof_pod.spool import FlockLiveness, Verdict, Volume, adopt, layout, new_worker
from posthof_pod.spool.check import check
from posthof_pod.spool.protocol import Holding


def test_a_surviving_worker_takes_over_by_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path)) as survivor:
            mine = await survivor.put(body=BODY + b"mine")
            async with killed(settings(tmp_path)) as dying:
                one = await dying.put(body=BODY + b"1")
                two = await dying.put(body=BODY + b"2")
                dying.spool.settle(two.ref, waiting(Held(0, 9000.0, 2)))
                await asyncio.sleep(0.05)
                assert survivor.lives == []
            await until(lambda: len(survivor.lives) == 2)
            assert await survivor.bodies() == {one.envelope.id: BODY + b"1", two.envelope.id: BODY + b"2"}
            by_id = {live.envelope.id: live for live in survivor.lives}
            assert by_id[one.envelope.id].is_tried
            assert not by_id[two.envelope.id].is_tried
            assert by_id[two.envelope.id].waiting == (Held(0, 9000.0, 2),)
            fields = survivor.fields("adopted")
            assert fields["old"] == dying.spool.worker_id
            assert fields["messages"] == 2
            assert fields["possible_duplicates"] == 1
            assert survivor.spool.stats()["possible_duplicates"] == 1
            assert await content(survivor.spool, mine.ref) == BODY + b"mine"

    asyncio.run(main())


def test_two_new_workers_share_what_dead_ones_left_and_take_nothing_twice(tmp_path: Path) -> None:
    async def main() -> None:
        ids = set()
        async with killed(settings(tmp_path, lane_messages=5)) as dead:
            for _ in range(100):
                ids.add((await dead.put()).envelope.id)
        async with running(settings(tmp_path)) as one, running(settings(tmp_path)) as two:
            await asyncio.gather(one.spool.adopt_now(), two.spool.adopt_now())
            await until(lambda: len(one.lives) + len(two.lives) == 100)
            assert {live.envelope.id for live in one.lives + two.lives} == ids

    asyncio.run(main())


def test_a_zombie_can_promise_nothing_after_it_was_fenced_and_loses_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        zombie = Harness(settings(tmp_path), liveness=Lying(set()))
        await zombie.spool.start()
        one = await zombie.put(body=BODY + b"1")
        two = await zombie.put(body=BODY + b"2")
        liar = Harness(settings(tmp_path), liveness=Lying({zombie.spool.worker_id}))
        await liar.spool.start()
        await liar.spool.adopt_now()
        assert await liar.bodies() == {one.envelope.id: BODY + b"1", two.envelope.id: BODY + b"2"}
        with pytest.raises(Temporary):
            await zombie.put(body=BODY + b"never")
        assert zombie.spool.is_fenced
        assert not zombie.spool.may_dot(one.ref)
        zombie.spool.settle(one.ref, done())  # comes too late to count
        zombie.spool.abandon()
        liar.spool.abandon()
        findings = [finding.text for finding in check(Volume(tmp_path)).findings]
        assert any("never acknowledged" in text for text in findings)
        third = Harness(settings(tmp_path))
        await third.spool.start()
        await third.spool.adopt_now()
        assert set(await third.bodies()) == {one.envelope.id, two.envelope.id}
        third.spool.abandon()

    asyncio.run(main())


def test_a_lane_with_a_zombies_new_segment_is_replayed_without_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            one = await first.put(body=BODY + b"1")
            two = await first.put(body=BODY + b"2")
        async with killed(settings(tmp_path)) as second:
            await second.spool.adopt_now()
            for live in second.lives:
                if live.envelope.id == two.envelope.id:
                    second.spool.settle(live.ref, done())
            await asyncio.sleep(0.05)
        # The zombie of claim 1 wakes up in the middle of a compaction: its copies come long after the take-over.
        (segment,) = found(tmp_path, "lanes/*/1-1.seg")
        data = segment.read_bytes()
        from posthof_pod.spool import protocol, record

        lane = segment.parent.name
        start = record.Start(lane, 1, 2, first.spool.worker_id)
        records = data[data.index(data[:8], 16) - 0 :]
        head = b"".join(protocol.open_parts(start, data[:8]))
        (segment.parent / "1-2.seg").write_bytes(head + records)
        async with killed(settings(tmp_path)) as third:
            await third.spool.adopt_now()
            assert set(await third.bodies()) == {one.envelope.id}

    asyncio.run(main())


def test_a_presumed_dead_workers_dots_get_time_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopt, "DOTS_END", 0.3)

    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            await first.put()
            liar = Lying({first.spool.worker_id}, Verdict.DEAD)
            async with running(settings(tmp_path), liveness=liar) as second:
                loop = asyncio.get_running_loop()
                began = loop.time()
                assert await second.spool.adopt_now() + len(second.lives) >= 1
                await until(lambda: second.lives)
                assert loop.time() - began >= 0.25

    asyncio.run(main())


def test_the_lock_proves_who_is_dead(tmp_path: Path) -> None:
    disk = Volume(tmp_path)
    for folder in (layout.WORKERS, layout.worker("w1"), layout.worker("w2")):
        disk.mkdir(folder)
    one, two = FlockLiveness(), FlockLiveness()
    assert one.judge("w2") is Verdict.ALIVE  # before it begins it judges nobody
    one.begin(disk, "w1")
    two.begin(disk, "w2")
    with pytest.raises(BlockingIOError):
        FlockLiveness().begin(disk, "w2")
    assert one.judge("w2") is Verdict.ALIVE
    two.end()
    assert one.judge("w2") is Verdict.PROVEN
    assert one.judge("w3") is Verdict.PROVEN
    one.end()


def test_a_lane_that_kills_who_takes_it_is_set_aside(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            await first.put()
        (lane,) = (tmp_path / "lanes").iterdir()
        for claim in (2, 3, 4):
            os.symlink(new_worker(), lane / f"own.{claim}")
        async with running(settings(tmp_path)) as second:
            assert await second.spool.adopt_now() == 0
            assert second.fields("poisoned")["lane"] == lane.name
            assert second.spool.stats()["poisoned_lanes"] == 1
            assert not (lane / "own.5").exists()
        assert check(Volume(tmp_path)).is_damaged
        for claim in (4, 3, 2):
            (lane / f"own.{claim}").unlink()
        async with killed(settings(tmp_path)) as third:
            await third.spool.adopt_now()
            assert len(third.lives) == 1

    asyncio.run(main())


def test_a_take_over_that_breaks_off_is_begun_again_by_the_same_worker(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            one = await first.put()
        volume = FaultyVolume(tmp_path)
        volume.fail("create", part="2-1.seg")
        volume.fail("pwritev", part="2-1.seg")
        async with running(settings(tmp_path), volume=volume) as second:
            for _ in range(5):
                await second.spool.adopt_now()
            assert [live.envelope.id for live in second.lives] == [one.envelope.id]
            assert "take_over_failed" in second.names()

    asyncio.run(main())


def test_more_than_a_worker_can_hold_is_left_to_others_and_counted(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path, lane_messages=2)) as first:
            for _ in range(10):
                await first.put()
        async with running(settings(tmp_path), max_live=3) as second:
            await second.spool.adopt_now()
            assert len(second.lives) == 4
            assert second.spool.stats()["unowned_lanes"] == 3
            async with running(settings(tmp_path)) as third:
                await third.spool.adopt_now()
                await until(lambda: len(third.lives) == 6)

    asyncio.run(main())


def test_no_trace_is_left_of_a_worker_that_stopped_with_nothing_queued(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path)) as first:
            stored = [await first.put() for _ in range(3)]
            for one in stored:
                first.spool.settle(one.ref, done())
        assert [path.name for path in found(tmp_path, "**/*") if path.name not in layout.FOLDERS] == []

    asyncio.run(main())


def test_a_clean_stop_frees_lanes_seals_them_and_removes_the_latch(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path)) as first:
            one = await first.put()
        (lane,) = (tmp_path / "lanes").iterdir()
        assert (lane / "free.1").is_symlink()
        size = (lane / "1-1.seg").stat().st_size
        assert os.readlink(lane / "free.1") == f"1-1.seg:{size}"
        assert list((tmp_path / "workers").iterdir()) == []
        async with running(settings(tmp_path)) as second:
            await second.spool.adopt_now()
            assert [live.envelope.id for live in second.lives] == [one.envelope.id]
            assert "fenced_other" not in second.names()

    asyncio.run(main())


def test_the_folder_of_a_dead_worker_goes_when_no_lane_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopt, "THOROUGH", 0.05)

    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            await first.put()
        async with running(settings(tmp_path)) as second:
            await until(lambda: not (tmp_path / "workers" / first.spool.worker_id).exists())
            assert len(second.lives) == 1

    asyncio.run(main())


def test_a_lane_half_removed_by_a_dead_worker_is_swept(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            await first.put()
        (lane,) = (tmp_path / "lanes").iterdir()
        lane.rename(lane.parent / f".gone-{lane.name}")
        async with running(settings(tmp_path)) as second:
            await second.spool.adopt_now()
            assert second.lives == []
            assert list((tmp_path / "lanes").iterdir()) == []

    asyncio.run(main())


def test_an_accept_that_claims_at_once_or_a_try_marks_what_may_be_doubled(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            untried = await first.put(at_once=False)
            tried = await first.put(at_once=False)
            assert not first.spool.may_dot(tried.ref)
            await first.spool.tried([tried.ref])
            assert first.spool.may_dot(tried.ref)
            assert not first.spool.may_dot(untried.ref)
        async with running(settings(tmp_path)) as second:
            await second.spool.adopt_now()
            assert {live.envelope.id: live.is_tried for live in second.lives} == {
                untried.envelope.id: False,
                tried.envelope.id: True,
            }
            assert second.spool.stats()["replayed_tried"] == 1

    asyncio.run(main())


def test_after_a_settle_a_new_try_is_needed_for_those_who_wait(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path)) as first:
            one = await first.put()
            assert first.spool.may_dot(one.ref)
            first.spool.settle(one.ref, waiting(Held(0, 5.0, 1)))
            assert not first.spool.may_dot(one.ref)
            two = await first.put("a@x", "b@y", "c@y")
            first.spool.settle(two.ref, waiting(Held(0, 5.0, 1)))
            assert first.spool.may_dot(two.ref, (1, 2))
            assert not first.spool.may_dot(two.ref, (0,))
            await first.spool.tried([one.ref, two.ref])
            assert first.spool.may_dot(one.ref, (0,))
            assert first.spool.may_dot(two.ref, (0,))

    asyncio.run(main())


def test_hundreds_of_tries_need_few_records_and_one_sync(tmp_path: Path) -> None:
    async def main() -> None:
        volume = FaultyVolume(tmp_path)
        async with running(settings(tmp_path), volume=volume) as first:
            stored = await asyncio.gather(*[first.put(at_once=False) for _ in range(350)])
            before = volume.calls["fdatasync"]
            await first.spool.tried([one.ref for one in stored])
            assert volume.calls["fdatasync"] - before <= 2
            assert all(first.spool.may_dot(one.ref) for one in stored)

    asyncio.run(main())


def test_a_segment_of_settles_has_no_end_and_keeps_none_in_memory(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path)) as first:
            for _ in range(20):
                await first.put()
        async with running(settings(tmp_path)) as second:
            await second.spool.adopt_now()
            for attempts in range(20):
                for live in second.lives:
                    second.spool.settle(live.ref, waiting(Held(0, 5000.0, attempts)))
            (lane,) = second.spool._core.lanes.values()
            assert lane.current is not None
            assert len(lane.current.end) == 0
        (written,) = found(tmp_path, "lanes/*/2-1.seg")
        assert written.read_bytes().count(b"450 later") == 400
        async with running(settings(tmp_path)) as third:
            await third.spool.adopt_now()
            assert {live.waiting for live in third.lives} == {(Held(0, 5000.0, 19),)}
            assert len(third.lives) == 20

    asyncio.run(main())


@pytest.mark.parametrize("pause", [0.0, 0.005, 0.02, 0.05])
def test_a_stop_in_the_middle_of_a_take_over_gives_back_what_was_claimed(tmp_path: Path, pause: float) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path, lane_messages=2)) as dead:
            ids = {(await dead.put()).envelope.id for _ in range(80)}
        async with running(settings(tmp_path)) as second:
            await asyncio.sleep(pause)
        assert not found(tmp_path, f"workers/{second.spool.worker_id}/*")
        for lane in (tmp_path / "lanes").iterdir():
            files = layout.sort_out(os.listdir(lane))
            last = os.readlink(lane / f"own.{files.claim}")
            assert last == dead.spool.worker_id or files.claim in files.frees
        async with running(settings(tmp_path)) as third:
            await third.spool.adopt_now()
            assert {live.envelope.id for live in third.lives} == ids
            assert len(third.lives) == len(ids)

    asyncio.run(main())


def test_a_lane_that_may_be_poison_is_taken_alone(tmp_path: Path) -> None:
    """If its taker dies of it, no other lane is claimed and not begun; if of another one, it is not blamed."""

    async def main() -> None:
        async with killed(settings(tmp_path, lane_messages=2)) as dead:
            for _ in range(40):
                await dead.put()
        suspect = min((tmp_path / "lanes").iterdir())
        (suspect / "own.2").symlink_to(dead.spool.worker_id)
        harness = Harness(settings(tmp_path))
        adopter = harness.spool._adopter
        filling: set[str] = set()
        beside: list[str] = []
        read, bring_in = adopter._read, adopter._bring_in

        async def reading(name: str, holding: Holding, *, is_proven: bool) -> adopt.Taken | None:
            if name == suspect.name:
                beside.extend(filling)
            return await read(name, holding, is_proven=is_proven)

        async def bringing(taken: adopt.Taken) -> None:
            filling.add(taken.lane.name)
            await asyncio.sleep(0.01)
            await bring_in(taken)
            filling.discard(taken.lane.name)

        adopter._read, adopter._bring_in = reading, bringing  # type: ignore[method-assign]  # to see when they run
        await harness.spool.start()
        await until(lambda: len(harness.lives) == 40)
        await harness.spool.stop()
        assert beside == []

    asyncio.run(main())
