"""One worker: accept, settle, read, start again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kit.spools import BODY, content, done, killed, running, settings, until, waiting
from posthof_pod.model import Held
from posthof_pod.spool import journal


def test_what_was_committed_is_replayed_after_a_kill(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as first:
            one = await first.put(body=BODY + b"1")
            two = await first.put(body=BODY + b"2")
            three = await first.put(body=BODY + b"3")
            first.spool.settle(two.ref, done())
            await asyncio.sleep(0.1)
        async with running(settings(tmp_path)) as second:
            assert await second.spool.adopt_now() <= 1
            assert await second.bodies() == {one.envelope.id: BODY + b"1", three.envelope.id: BODY + b"3"}
            assert second.fields("adopted")["messages"] == 2
        async with running(settings(tmp_path)) as third:
            await third.spool.adopt_now()
            assert await third.bodies() == {one.envelope.id: BODY + b"1", three.envelope.id: BODY + b"3"}
            for live in third.lives:
                third.spool.settle(live.ref, done())
        assert list((tmp_path / "lanes").iterdir()) == []
        assert list((tmp_path / "damaged").iterdir()) == []
        assert [path.name for path in (tmp_path / "workers").iterdir()] == [first.spool.worker_id]

    asyncio.run(main())


def test_the_state_of_a_recipient_survives_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(settings(tmp_path)) as first:
            one = await first.put("a@x", "b@x", "c@x")
            first.spool.settle(one.ref, waiting(Held(1, 5000.0, 3, True), Held(2, float("inf"), 1)))
            first.spool.settle(one.ref, done(0))
            state = await first.spool.state(one.ref)
            assert state.done == (0,)
            assert await content(first.spool, one.ref) == BODY
        async with running(settings(tmp_path)) as second:
            await second.spool.adopt_now()
            (live,) = second.lives
            assert live.waiting == (Held(1, 5000.0, 3, True), Held(2, float("inf"), 1))
            assert not live.is_tried

    asyncio.run(main())


def test_settles_of_many_closed_lanes_are_synced_a_few_lanes_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a commit would wait for hundreds of syncs whenever a long queue is tried again."""

    async def main() -> None:
        monkeypatch.setattr(journal, "CLOSED_DELAY", 0.05)
        async with running(settings(tmp_path, lane_messages=1)) as first:
            stored = [await first.put() for _ in range(60)]
            core = first.spool._core
            work, synced = core.journal.work, list[int]()

            def watched(batch: journal._Batch) -> None:
                synced.append(sum(write.is_synced for write in batch.writes))
                work(batch)

            monkeypatch.setattr(core.journal, "work", watched)
            for one in stored:
                first.spool.settle(one.ref, waiting(Held(0, 5000.0, 1)))
            await until(lambda: sum(synced) >= 59)
            assert max(synced) <= journal.MOST_SYNCS
            await asyncio.wait_for(first.put(), 10)
        async with running(settings(tmp_path)) as second:
            await second.spool.adopt_now()
            assert sum(live.waiting == (Held(0, 5000.0, 1),) for live in second.lives) == 60

    asyncio.run(main())
