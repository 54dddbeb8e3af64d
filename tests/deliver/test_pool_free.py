"""What of the ready mail waits for nothing but a worker: that alone may ask for more pods."""

from __future__ import annotations

import asyncio

import pytest

from kit.poolworld import EPOCH, World, direct, local, play
from posthof_pod.deliver.connection import Unreachable
from posthof_pod.model import Reason


def test_mail_that_finds_no_session_of_ours_is_free_and_its_age_is_told() -> None:
    async def story(world: World) -> None:
        world.add(direct("a.test", connections_start=50, connections=50), 1000)
        await asyncio.sleep(20)
        free, since = world.pool.free()
        assert 500 < free < 1000
        assert since - EPOCH < 1
        assert world.pool.busy_share == 1.0
        assert world.pool.begun == sum(world.batches) >= len(world.left)

    play(story, capacity=4)


def test_mail_at_the_limit_of_its_destination_is_not_free() -> None:
    async def story(world: World) -> None:
        world.add(direct("a.test", connections_start=2, connections=2), 1000)
        await asyncio.sleep(20)
        assert world.backlog.totals().ready > 500
        assert world.pool.free() == (0, float("inf"))
        assert world.pool.busy_share == pytest.approx(2 / 500)

    play(story)


def test_mail_for_a_destination_that_does_not_answer_is_not_free_ready_or_deferred() -> None:
    async def story(world: World) -> None:
        world.unreachable["dead.test"] = Unreachable(Reason.CONNECT_FAILED, "dead.test", "no")
        world.add(direct("dead.test"), 1000)
        seen = []
        for _ in range(60):
            await asyncio.sleep(10)
            seen.append(world.pool.free()[0])
        assert max(seen[1:]) == 0
        assert len(world.backlog) == 1000
        assert world.pool.begun == 0

    play(story)


def test_mail_for_our_own_mailboxes_is_never_held_back() -> None:
    async def story(world: World) -> None:
        world.send_time = 5.0
        world.add(local("bob"), 5000)
        await asyncio.sleep(1)
        assert world.pool.free()[0] > 0

    play(story)
