"""A coroutine runs on the loop without a task of its own."""

from __future__ import annotations

import asyncio

import uvloop

from posthof_pod.listen.steps import INTERNAL, PENDING, STOPPING, run
from posthof_pod.replies import Permanent, Reply, Temporary

OK = Reply(250, "2.0.0", "OK")


class Ear:
    def __init__(self) -> None:
        self.results: list[object] = []
        self.faults: list[BaseException] = []

    def fault(self, where: str, error: BaseException) -> None:
        self.faults.append(error)


def test_what_does_not_wait_is_there_at_once() -> None:
    async def work() -> Reply:
        return OK

    ear = Ear()
    assert run(work(), ear.results.append, ear.fault) == OK
    assert ear.results == []


def test_what_waits_comes_by_callback_and_without_a_task() -> None:
    async def main() -> None:
        loop, ear = asyncio.get_running_loop(), Ear()
        first, second = loop.create_future(), loop.create_future()

        async def deeper() -> str:
            return str(await second)

        async def work() -> str:
            before = len(asyncio.all_tasks())
            text = await first
            await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) == before
            return text + await deeper()

        assert run(work(), ear.results.append, ear.fault) is PENDING
        first.set_result("a")
        second.set_result("b")
        for _ in range(10):
            await asyncio.sleep(0)
        assert ear.results == ["ab"]
        assert ear.faults == []

    uvloop.run(main())
    asyncio.run(main())


def test_a_failure_is_its_reply_and_no_fault() -> None:
    async def work(failure: Exception) -> Reply:
        raise failure

    ear = Ear()
    later, never = Reply(451, "4.2.0", "Later"), Reply(550, "5.1.1", "Never")
    assert run(work(Temporary(later, "why")), ear.results.append, ear.fault) == later
    assert run(work(Permanent(never, "why")), ear.results.append, ear.fault) == never
    assert ear.faults == []


def test_a_foreign_exception_is_a_451_and_told() -> None:
    async def main() -> None:
        ear = Ear()
        future = asyncio.get_running_loop().create_future()

        async def work() -> None:
            await future

        assert run(work(), ear.results.append, ear.fault) is PENDING
        future.set_exception(OSError("disk"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert ear.results == [INTERNAL]
        assert isinstance(ear.faults[0], OSError)

    uvloop.run(main())


def test_a_cancelled_future_is_a_451_of_the_stop() -> None:
    async def main() -> None:
        ear = Ear()
        future = asyncio.get_running_loop().create_future()

        async def work() -> None:
            await future

        run(work(), ear.results.append, ear.fault)
        future.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert ear.results == [STOPPING]
        assert ear.faults == []

    uvloop.run(main())


def test_futures_and_tasks_are_taken_as_they_are() -> None:
    async def main() -> None:
        loop, ear = asyncio.get_running_loop(), Ear()
        ready = loop.create_future()
        ready.set_result(OK)
        assert run(ready, ear.results.append, ear.fault) == OK

        async def with_a_time_out() -> Reply:
            async with asyncio.timeout(5):
                await asyncio.sleep(0)
            return OK

        assert run(loop.create_task(with_a_time_out()), ear.results.append, ear.fault) is PENDING
        for _ in range(10):
            await asyncio.sleep(0)
        assert ear.results == [OK]

    uvloop.run(main())
