"""One worker: accept, settle, read, start again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kit.spools import BODY, content, done, killed, running, settings, waiting
from posthof_pod.model import Held


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
