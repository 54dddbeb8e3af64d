"""The process beside a worker that syncs and looks: what it answers, what its death costs, what it holds."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from kit.faulty import FaultyVolume
from kit.spools import BODY, Harness, done, killed, running, settings, until
from posthof_pod.replies import Temporary
from posthof_pod.spool import layout
from posthof_pod.spool.protocol import Call, fence, perform
from posthof_pod.spool.syncer import Syncer
from posthof_pod.spool.volume import Volume


def syncer_of(harness: Harness) -> Syncer:
    syncer = harness.spool._journal.syncer
    assert isinstance(syncer, Syncer)
    return syncer


def pid_of(harness: Harness) -> int:
    return syncer_of(harness)._process.pid


def held_by(pid: int) -> list[str]:
    """What a process has open of a spool."""
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return [Path(link).name for link in links if link.endswith((".seg", "latch", "lock"))]


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def counted(harness: Harness) -> list[object]:
    """One entry for each request the mate gets from now on."""
    asked: list[object] = []
    syncer = syncer_of(harness)
    ask = syncer.sync

    def sync(log: object, done: object) -> None:
        asked.append(log)
        ask(log, done)  # type: ignore[arg-type]  # as it came

    syncer.sync = sync  # type: ignore[method-assign]  # watched
    return asked


def test_the_mate_syncs_what_the_loop_wrote_and_a_fresh_start_finds_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path), has_mate=True) as first:
            await first.put(body=BODY + b"0")  # makes lane and segment: the thread's work
            asked = counted(first)
            ids = {(await first.put(body=BODY + b"%d" % n)).envelope.id for n in range(1, 4)}
            assert len(asked) == 3
            assert first.spool.stats()["look_age"] < 5
            pid = pid_of(first)
        await until(lambda: is_gone(pid))
        async with killed(settings(tmp_path), has_mate=True) as second:
            await second.spool.adopt_now()
            assert ids < set(await second.bodies())

    asyncio.run(main())


def test_it_holds_the_current_segment_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path, segment_bytes=3000), has_mate=True) as harness:
            refs = [(await harness.put(body=BODY * 20)).ref for _ in range(2)]
            assert held_by(pid_of(harness)) == ["1-1.seg"]
            refs += [(await harness.put(body=BODY * 20)).ref for _ in range(6)]
            last = harness.spool._core.open_lane
            assert last is not None
            assert last.current is not None
            assert held_by(pid_of(harness)) in ([str(last.current.name)], [])
            for ref in refs:
                harness.spool.settle(ref, done())

    asyncio.run(main())


def test_a_mate_that_dies_leaves_what_it_was_asked_unpromised_and_the_thread_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path), has_mate=True) as first:
            kept = [await first.put(body=BODY + b"before")]
            kept.append(await first.put(body=BODY + b"before, by the mate"))
            pid = pid_of(first)
            os.kill(pid, signal.SIGSTOP)
            asked = counted(first)
            waits = asyncio.ensure_future(first.put(body=BODY + b"refused"))
            await until(lambda: asked)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(Temporary):
                await waits
            kept.append(await first.put(body=BODY + b"after"))
            assert {"mate_lost", "segment_given_up"} <= set(first.names())
        async with killed(settings(tmp_path)) as second:
            await second.spool.adopt_now()
            assert set(await second.bodies()) == {one.envelope.id for one in kept}

    asyncio.run(main())


def test_a_mate_that_hangs_is_ended_and_the_thread_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(Syncer.__init__, "__kwdefaults__", {"hung": 0.2})
        async with running(settings(tmp_path), has_mate=True) as harness:
            await harness.put()
            pid = pid_of(harness)
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(Temporary):
                await harness.put(body=BODY + b"not promised")
            await until(lambda: is_gone(pid))
            assert "mate_lost" in harness.names()
            await harness.put(body=BODY + b"after")

    asyncio.run(main())


def test_an_idle_mate_that_dies_costs_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path), has_mate=True) as harness:
            refs = [(await harness.put()).ref for _ in range(2)]
            os.kill(pid_of(harness), signal.SIGKILL)
            await until(lambda: "mate_lost" in harness.names())
            refs.append((await harness.put()).ref)
            assert "segment_given_up" not in harness.names()
            for ref in refs:
                harness.spool.settle(ref, done())

    asyncio.run(main())


def test_a_worker_that_was_fenced_hears_it_from_its_mate(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path), has_mate=True) as harness:
            for _ in range(2):
                await harness.put()
            asked = counted(harness)
            disk = Volume(tmp_path)
            steps = fence(harness.spool.worker_id, "another")
            result = None
            try:
                while True:
                    call: Call = steps.send(result)
                    try:
                        result = perform(disk, call)
                    except OSError as error:
                        result = perform(disk, steps.throw(error))
            except StopIteration:
                pass
            with pytest.raises(Temporary):
                await harness.put()
            assert asked
            assert harness.spool.is_fenced

    asyncio.run(main())


@pytest.mark.parametrize("short", [False, True])
def test_an_error_of_a_write_on_the_loop_gives_the_segment_up(tmp_path: Path, short: bool) -> None:
    async def main() -> None:
        volume = FaultyVolume(tmp_path)
        async with killed(settings(tmp_path), volume=volume, has_mate=True) as first:
            kept = [await first.put() for _ in range(2)]
            volume.fail("pwritev", part=".seg", short=short)
            with pytest.raises(Temporary):
                await first.put(body=BODY + b"refused")
            kept.append(await first.put())
            assert "segment_given_up" in first.names()
        async with killed(settings(tmp_path)) as second:
            await second.spool.adopt_now()
            assert set(await second.bodies()) == {one.envelope.id for one in kept}

    asyncio.run(main())


def test_on_a_volume_that_others_write_too_there_is_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path), volume=Volume(tmp_path, direct=True), has_mate=True) as harness:
            assert harness.spool._journal.syncer is None

    asyncio.run(main())


def test_it_has_no_lock_of_the_workers(tmp_path: Path) -> None:
    """The flock is the proof that a worker lives: nobody else may hold it."""

    async def main() -> None:
        async with killed(settings(tmp_path), has_mate=True) as harness:
            await harness.put()
            await harness.put()
            lock = Path(layout.worker(harness.spool.worker_id)) / "lock"
            assert (tmp_path / lock).exists()
            assert held_by(pid_of(harness)) == ["1-1.seg"]

    asyncio.run(main())
