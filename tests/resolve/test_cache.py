"""The cache: how long, how often, and what serves when DNS is away. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kit.virtual import run
from posthof_pod.resolve.cache import Cache
from posthof_pod.resolve.wire import Answer, Record, Unanswered


class Server:
    """A DNS that is a value."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = some("192.0.2.1", 300)
        self.takes = 0.1
        self.is_away = False

    async def query(self, name: str, kind: str) -> Answer:
        self.asked += 1
        await asyncio.sleep(self.takes)
        if self.is_away:
            raise Unanswered("no answer")
        return self.answer


def some(address: str, ttl: int) -> Answer:
    return Answer(True, (Record("a.test", "A", ttl, address),), 60)


NOTHING = Answer(False, (), 900)


Data = Callable[..., Awaitable[list[object]]]


def play(story: Callable[[Server, Cache, Data], Awaitable[None]], size: int = 9) -> None:
    async def main() -> None:
        server = Server()
        cache = Cache(server.query, size=size)

        async def data(name: str = "a.test") -> list[object]:
            result = await cache.lookup(name, "A", asyncio.get_running_loop().time())
            return [record.data for record in result.records]

        await story(server, cache, data)

    run(main)


def test_an_answer_holds_for_its_ttl():
    async def story(server: Server, cache: Cache, data: Data) -> None:
        assert await data() == ["192.0.2.1"]
        server.answer = some("192.0.2.2", 300)
        await asyncio.sleep(299)
        assert await data() == ["192.0.2.1"]
        await asyncio.sleep(2)
        assert await data() == ["192.0.2.2"]
        assert server.asked == 2

    play(story)


@pytest.mark.parametrize(("ttl", "holds"), [(0, 5), (10**9, 86400)])
def test_ttls_count_between_5_seconds_and_a_day(ttl: int, holds: float):
    async def story(server: Server, cache: Cache, data: Data) -> None:
        server.answer = some("192.0.2.1", ttl)
        await data()
        await asyncio.sleep(holds - 0.5)
        await data()
        assert server.asked == 1
        await asyncio.sleep(1)
        await data()
        assert server.asked == 2

    play(story)


def test_there_is_none_holds_as_the_soa_says():
    async def story(server: Server, cache: Cache, data: Data) -> None:
        server.answer = NOTHING
        assert await data() == []
        await asyncio.sleep(899)
        assert await data() == []
        assert server.asked == 1
        await asyncio.sleep(2)
        await data()
        assert server.asked == 2

    play(story)


def test_the_same_question_at_once_goes_out_once():
    async def story(server: Server, cache: Cache, data: Data) -> None:
        assert await asyncio.gather(*(data() for _ in range(50))) == [["192.0.2.1"]] * 50
        assert server.asked == 1

    play(story)


def test_a_caller_that_gives_up_does_not_spoil_it_for_the_others():
    async def story(server: Server, cache: Cache, data: Data) -> None:
        first = asyncio.ensure_future(data())
        await asyncio.sleep(0.01)
        second = asyncio.ensure_future(data())
        await asyncio.sleep(0.01)
        first.cancel()
        assert await second == ["192.0.2.1"]

    play(story)


def test_a_failure_is_remembered_for_2_seconds():
    async def story(server: Server, cache: Cache, data: Data) -> None:
        server.is_away = True
        for _ in range(5):
            with pytest.raises(Unanswered, match="no answer"):
                await data()
        assert server.asked == 1
        server.is_away = False
        await asyncio.sleep(2.5)
        assert await data() == ["192.0.2.1"]

    play(story)


def test_an_old_answer_serves_while_dns_is_away_for_3_days():
    async def story(server: Server, cache: Cache, data: Data) -> None:
        await data()
        server.is_away = True
        await asyncio.sleep(1000)
        assert await data() == ["192.0.2.1"]
        asked = server.asked
        assert await data() == ["192.0.2.1"]
        assert server.asked == asked  # it is not asked again for each mail
        await asyncio.sleep(31)
        assert await data() == ["192.0.2.1"]
        assert server.asked == asked + 1
        await asyncio.sleep(3 * 86400)
        with pytest.raises(Unanswered):
            await data()

    play(story)


def test_an_old_answer_serves_after_1_8_seconds_of_silence_and_the_new_one_is_kept():
    async def story(server: Server, cache: Cache, data: Data) -> None:
        await data()
        await asyncio.sleep(1000)
        server.takes, server.answer = 10.0, some("192.0.2.2", 300)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await data() == ["192.0.2.1"]
        assert loop.time() - began == pytest.approx(1.8)
        await asyncio.sleep(10)
        assert await data() == ["192.0.2.2"]

    play(story)


def test_an_old_does_not_exist_is_never_served_stale():
    async def story(server: Server, cache: Cache, data: Data) -> None:
        server.answer = NOTHING
        await data()
        server.is_away = True
        await asyncio.sleep(1000)
        with pytest.raises(Unanswered):
            await data()

    play(story)


def test_memory_is_bounded_and_the_oldest_leave():
    async def story(server: Server, cache: Cache, data: Data) -> None:
        for n in range(20):
            await data(f"n{n}.test")
        assert cache.peek("n19.test", "A", 5.0) is not None
        assert cache.peek("n0.test", "A", 5.0) is None
        assert len(cache._results) == 9

    play(story)


def test_large_texts_of_strangers_leave_for_others() -> None:
    async def main() -> None:
        async def query(name: str, kind: str) -> Answer:
            return Answer(True, (Record(name, kind, 300, b"x" * 1000),), 60)

        cache = Cache(query, octets=5000)
        for n in range(50):
            await cache.lookup(f"{n}.test", "TXT", 0.0)
        await cache.lookup("49.test", "TXT", 1000.0)  # anew in the same place
        kept = [n for n in range(50) if cache.peek(f"{n}.test", "TXT", 1.0) is not None]
        assert kept == [45, 46, 47, 48, 49]
        cache.clear()
        await cache.lookup("again.test", "TXT", 0.0)
        assert cache.peek("again.test", "TXT", 1.0) is not None

    run(main)
