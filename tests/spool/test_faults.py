"""Errors of the volume: what is promised then, and what is not."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from kit.faulty import FaultyVolume
from kit.spools import BODY, TRACE, Harness, content, done, envelope, killed, running, settings, until, waiting
from posthof_pod.model import Held
from posthof_pod.replies import Temporary
from posthof_pod.spool.volume import Room


async def replayed(path: Path) -> dict[str, bytes]:
    async with killed(settings(path)) as after:
        await after.spool.adopt_now()
        return await after.bodies()


@pytest.mark.parametrize(
    ("call", "part", "short"),
    [
        ("pwritev", ".seg", False),
        ("pwritev", ".seg", True),
        ("fdatasync", ".seg", False),
        ("create", ".seg", False),
        ("fsync_dir", "lanes/", False),
        ("fsync_dir", "lanes", False),
        ("mkdir", "lanes/", False),
        ("symlink", "own.1", False),
    ],
)
def test_an_error_answers_451_and_the_refused_mail_never_comes_back(
    tmp_path: Path, call: str, part: str, short: bool
) -> None:
    async def main() -> None:
        volume = FaultyVolume(tmp_path)
        async with killed(settings(tmp_path), volume=volume) as first:
            volume.fail(call, part=part, short=short)
            with pytest.raises(Temporary) as caught:
                await first.put(body=BODY + b"refused")
            assert caught.value.reply.code in (451, 452)
            kept = await first.put(body=BODY + b"kept")
            assert first.spool.live == 1
            await asyncio.sleep(0.05)
        assert await replayed(tmp_path) == {kept.envelope.id: BODY + b"kept"}

    asyncio.run(main())


def test_an_fsync_that_fails_once_and_then_succeeds_is_not_believed(tmp_path: Path) -> None:
    async def main() -> None:
        volume = FaultyVolume(tmp_path)
        async with killed(settings(tmp_path), volume=volume) as first:
            one = await first.put(body=BODY + b"1")
            volume.fail("fdatasync", part=".seg")
            with pytest.raises(Temporary):
                await first.put(body=BODY + b"2")
            three = await first.put(body=BODY + b"3")
            segments = {path for name, path in volume.journal if name == "pwritev" and path.endswith(".seg")}
            assert {path.rsplit("/")[-1] for path in segments} == {"1-1.seg", "1-2.seg"}
            after = [path for name, path in volume.journal if name == "pwritev"]
            assert after[-1].endswith("1-2.seg")
            assert "segment_given_up" in first.names()
            assert first.spool.stats()["refused_after_append"] == 1
            assert await content(first.spool, one.ref) == BODY + b"1"
            await asyncio.sleep(0.05)
        assert await replayed(tmp_path) == {one.envelope.id: BODY + b"1", three.envelope.id: BODY + b"3"}

    asyncio.run(main())


def test_unsynced_settles_are_written_again_and_no_dot_is_sent_before(tmp_path: Path) -> None:
    async def main() -> None:
        volume = FaultyVolume(tmp_path)
        async with killed(settings(tmp_path, settle_delay=0.05), volume=volume) as first:
            one, two, three = [await first.put("a@x", "b@x", body=BODY + b"%d" % n) for n in range(3)]
            volume.fail("fdatasync", part=".seg", times=2)
            first.spool.settle(one.ref, done(0, 1))
            first.spool.settle(two.ref, waiting(Held(1, 77.0, 4), reason="GreetingRefused", detail="421 busy"))
            first.spool.settle(two.ref, done(0))
            assert first.spool.may_dot(three.ref)
            await until(lambda: "segment_given_up" in first.names())
            assert not first.spool.may_dot(three.ref)
            await until(lambda: first.spool.may_dot(three.ref))
            state = await first.spool.state(two.ref)
            assert state.waiting == (Held(1, 77.0, 4),)
        async with killed(settings(tmp_path)) as second:
            await second.spool.adopt_now()
            assert {live.envelope.id: live.waiting for live in second.lives} == {
                two.envelope.id: (Held(1, 77.0, 4),),
                three.envelope.id: (Held(0, 1000.0, 0), Held(1, 1000.0, 0)),
            }

    asyncio.run(main())


def test_a_report_lies_in_the_settle_that_caused_it_also_when_that_is_written_again(tmp_path: Path) -> None:
    async def main() -> None:
        volume = FaultyVolume(tmp_path)
        async with killed(settings(tmp_path), volume=volume) as first:
            one = await first.put()
            message = first.spool.next_id(one.ref)
            volume.fail("fdatasync", part=".seg", times=1)
            report = (envelope(message, "sender@x"), TRACE, b"it failed\r\n")
            future = first.spool.settle(one.ref, done(), report)
            assert future is not None
            stored = await future
            assert first.names().count("segment_given_up") == 1
            assert await content(first.spool, stored.ref) == b"it failed\r\n"
            assert first.spool.live == 1
            await asyncio.sleep(0.05)
        async with killed(settings(tmp_path)) as second:
            await second.spool.adopt_now()
            assert await second.bodies() == {message: b"it failed\r\n"}
            state = await second.spool.state(second.lives[0].ref)
            assert [held.recipient for held in state.waiting] == [0]

    asyncio.run(main())


def test_a_full_disk_answers_452_and_gives_the_reserve_to_the_settles(tmp_path: Path) -> None:
    async def main() -> None:
        volume = FaultyVolume(tmp_path)
        async with killed(settings(tmp_path, reserve_bytes=100_000), volume=volume) as first:
            reserve = tmp_path / "workers" / first.spool.worker_id / "reserve"
            await until(lambda: reserve.exists() and reserve.stat().st_size == 100_000)
            await until(lambda: first.spool.stats()["reserve_bytes"] == 100_000)
            volume.fail("pwritev", part=".seg", error=errno.ENOSPC)
            volume.fake_room = Room(10**9, 1000, 0, 0)
            with pytest.raises(Temporary) as caught:
                await first.put()
            assert caught.value.reply.code == 452
            assert not first.spool.room(1)
            await until(lambda: not reserve.exists())

    asyncio.run(main())


def test_a_disk_that_stays_broken_is_not_hammered_and_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        volume = FaultyVolume(tmp_path)
        async with killed(settings(tmp_path), volume=volume) as first:
            one = await first.put()
            volume.fail("pwritev", part=".seg", times=10_000)
            for _ in range(5):
                with pytest.raises(Temporary):
                    await first.put()
            first.spool.settle(one.ref, done())
            await asyncio.sleep(0.3)
            assert volume.calls["pwritev"] < 30
            assert not first.spool.room(1)
            volume.heal()
            await until(lambda: first.spool.room(1))
            two = await first.put()
            await asyncio.sleep(0.05)
        assert await replayed(tmp_path) == {two.envelope.id: BODY}

    asyncio.run(main())


def test_a_look_that_fails_is_neither_open_nor_fenced(tmp_path: Path) -> None:
    async def main() -> None:
        volume = FaultyVolume(tmp_path)
        async with killed(settings(tmp_path), volume=volume) as first:
            one = await first.put()
            volume.fail("look", error=errno.ESTALE, times=10_000)
            with pytest.raises(Temporary):
                await first.put(body=b"not promised")
            assert not first.spool.is_fenced
            await until(lambda: not first.spool.may_dot(one.ref))
            volume.heal()
            await until(lambda: first.spool.may_dot(one.ref))
            two = await first.put()
            await asyncio.sleep(0.05)
        assert set(await replayed(tmp_path)) == {one.envelope.id, two.envelope.id}

    asyncio.run(main())


def test_a_fenced_worker_promises_nothing_and_says_how_many_dots_it_sent(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            one = await first.put()
            assert first.spool.may_dot(one.ref)
            latch = tmp_path / "workers" / first.spool.worker_id / "latch"
            latch.write_text("fenced by somebody else, who came and took it all")
            with pytest.raises(Temporary):
                await first.put()
            assert first.spool.is_fenced
            assert not first.spool.may_dot(one.ref)
            assert not await first.spool.look()
            assert first.fields("fenced")["dots"] == 1
            with pytest.raises(Temporary):
                await first.put()
            assert first.spool.settle(one.ref, done()) is None

    asyncio.run(main())


def test_the_order_of_a_first_promise_is_write_sync_names_look(tmp_path: Path) -> None:
    async def main() -> None:
        volume = FaultyVolume(tmp_path)
        async with killed(settings(tmp_path), volume=volume) as first:
            await asyncio.sleep(0.05)
            volume.journal.clear()
            await first.put()
            calls = [name for name, path in volume.journal if "load" not in path]
            assert calls[:8] == [
                "mkdir",
                "symlink",
                "create",
                "pwritev",
                "fdatasync",
                "fsync_dir",
                "fsync_dir",
                "look",
            ]
            volume.journal.clear()
            await first.put()
            calls = [name for name, path in volume.journal if "load" not in path]
            assert calls[:3] == ["pwritev", "fdatasync", "look"]

    asyncio.run(main())


def test_many_messages_share_one_sync_and_one_look(tmp_path: Path) -> None:
    async def main() -> None:
        volume = FaultyVolume(tmp_path)
        async with killed(settings(tmp_path), volume=volume) as first:
            await first.put()
            before = dict(volume.calls)
            await asyncio.gather(*[first.put() for _ in range(1000)])
            assert volume.calls["fdatasync"] - before["fdatasync"] <= 3
            assert volume.calls["pwritev"] - before["pwritev"] <= 6

    asyncio.run(main())


def test_without_sync_nothing_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    monkeypatch.setattr(os, "fsync", synced.append)

    async def main() -> None:
        async with killed(settings(tmp_path, sync=False)) as first:
            await first.put()
        assert synced == []

    asyncio.run(main())


def test_an_event_for_each_thing_a_person_may_want_to_know(tmp_path: Path) -> None:
    async def main() -> None:
        harness: Harness
        async with running(settings(tmp_path)) as harness:
            await harness.put()
            assert harness.events == []

    asyncio.run(main())
