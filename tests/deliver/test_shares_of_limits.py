"""The pool keeps to its share of what a destination allows the fleet, and to rates, in virtual time."""

from __future__ import annotations

import asyncio

from kit.poolworld import EPOCH, World, direct, play
from posthof_pod.schedule.rates import Bucket
from posthof_pod.schedule.slices import NOTHING, TURN, WHOLE, Portion


def quarter(which: int = 0) -> Portion:
    portion = Portion(WHOLE.part(which, 1, 4))
    portion.move(EPOCH)
    return portion


def test_a_worker_with_a_quarter_opens_a_quarter_of_the_connections():
    async def story(world: World) -> None:
        world.add(direct("a.test"), 2000)
        await asyncio.sleep(60)
        assert world.most_per_address["a.test"] == 5
        assert world.pool.is_within

    play(story, portion=quarter())


def test_a_worker_with_nothing_sends_nothing_and_with_something_again_everything():
    portion = Portion(NOTHING)

    async def story(world: World) -> None:
        world.add(direct("a.test"), 100)
        await asyncio.sleep(30)
        assert world.connects == []
        portion.set(WHOLE)
        await asyncio.sleep(30)
        assert len(world.left) == 100

    play(story, portion=portion)


def test_with_less_than_before_idle_sessions_end_at_once_and_busy_ones_after_their_batch():
    portion = Portion()

    async def story(world: World) -> None:
        world.send_time = 0.5
        world.add(direct("a.test", connections_start=20, idle=60.0), 20)
        await asyncio.sleep(5)
        assert world.pool.status("direct:a.test").idle == 20
        portion.set(WHOLE.part(0, 1, 4))
        world.pool.share()
        assert world.pool.status("direct:a.test").idle == 5
        world.add(direct("b.test", connections_start=20), 2000)
        await asyncio.sleep(5)
        portion.set(WHOLE.part(0, 1, 20))
        world.pool.share()
        assert not world.pool.is_within
        await asyncio.sleep(11 * world.send_time)
        assert world.pool.is_within
        assert world.pool.status("direct:b.test").sessions == 1

    play(story, portion=portion)


def test_a_limit_of_one_is_everybodys_in_turn_and_nobodys_at_the_same_time():
    async def story(worlds: list[World]) -> None:
        for world in worlds:
            world.add(direct("a.test", connections_start=1, connections=1), 2000)
        ends = asyncio.get_running_loop().time() + 30 * TURN
        while asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(0.05)
            assert sum(world.running for world in worlds) <= 1
        assert all(len(world.left) > 20 for world in worlds)

    async def main(first: World) -> None:
        worlds = [first, *(World(portion=quarter(n)) for n in (1, 2, 3))]
        for world in worlds[1:]:
            world.pool.start()
        await story(worlds)
        for world in worlds[1:]:
            await world.pool.drain(1.0)

    play(main, portion=quarter(0))


def test_messages_a_minute_leave_evenly_over_open_sessions():
    async def story(world: World) -> None:
        world.send_time = 0.01
        world.add(direct("a.test", message_rate=120), 1000)
        await asyncio.sleep(60)
        when = [at for at, _, _ in world.left]
        assert 115 <= len(when) <= 123
        for second in range(59):
            assert sum(second <= at < second + 1 for at in when) <= 4
        assert len(world.connects) <= 3  # they idle and are used again

    play(story)


def test_a_rate_is_divided_by_the_width_of_the_slice():
    async def story(world: World) -> None:
        world.send_time = 0.01
        world.add(direct("a.test", message_rate=240), 1000)
        await asyncio.sleep(60)
        assert 55 <= len(world.left) <= 62

    play(story, portion=quarter())


def test_a_destination_that_gets_little_mail_is_not_forgotten_before_its_rate_is():
    async def story(world: World) -> None:
        world.send_time = 0.01
        for _ in range(20):
            world.add(direct("a.test", message_rate=1), 1)  # a quarter of one a minute is ours
            await asyncio.sleep(130)
        assert len(world.left) <= 1 + 20 * 130 / 240

    play(story, portion=quarter())


def test_new_connections_a_minute_are_limited():
    async def story(world: World) -> None:
        world.add(direct("a.test", connection_rate=6, messages_per_connection=1), 1000)
        await asyncio.sleep(60)
        assert 6 <= len(world.connects) <= 7

    play(story)


def test_what_waits_for_a_rate_is_held_back_by_the_destination_and_what_waits_for_us_is_not():
    async def story(world: World) -> None:
        world.send_time = 0.01
        world.add(direct("rated.test", message_rate=6), 50)
        world.add(direct("free.test"), 1)
        await asyncio.sleep(2)
        assert world.pool.status("direct:rated.test").is_held_back
        assert not world.pool.status("direct:free.test").is_held_back

    play(story)


def test_a_bucket_lets_out_what_its_rate_says_whatever_it_is_asked():
    bucket = Bucket(600, 0.5)  # 5 a second
    out = sum(bucket.take(100, at / 10) for at in range(1001))
    assert 500 <= out <= 506


def test_a_bucket_of_no_width_lets_nothing_out_and_one_that_widens_goes_on():
    bucket = Bucket(600, 0.0)
    assert bucket.take(5, 1000.0) == 0
    assert Bucket.follow(bucket, 600, 1.0) is bucket
    assert bucket.take(5, 1001.0) == 5
    assert Bucket.follow(bucket, 0, 1.0) is None


def test_a_clock_that_goes_back_fills_nothing():
    bucket = Bucket(60)
    assert bucket.take(5, 1000.0) == 1
    assert bucket.take(5, 900.0) == 0
    assert bucket.take(5, 901.0) == 1


def test_peers_can_help_where_our_share_is_the_limit_and_not_where_the_destination_is():
    async def story(world: World) -> None:
        world.send_time = 5.0
        world.add(direct("shared.test"), 500)
        await asyncio.sleep(30)
        status = world.pool.status("direct:shared.test")
        assert status.is_held_back
        assert not status.is_hopeless

    async def slowed(world: World) -> None:
        world.send_time = 5.0
        world.add(direct("slow.test", connections_start=2), 500)
        await asyncio.sleep(2)
        assert world.pool.status("direct:slow.test").is_hopeless

    async def alone(world: World) -> None:
        world.add(direct("rated.test", message_rate=6), 500)
        await asyncio.sleep(5)
        assert world.pool.status("direct:rated.test").is_hopeless

    play(story, portion=quarter())
    play(slowed, portion=quarter())
    play(alone)
