"""Who may reconcile, and whether it still hears: the Lease and the canary, with a clock of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from kit.fakeapi import Failure, FakeApi, Request, until
from posthof_operator.access import Access
from posthof_operator.api import Api
from posthof_operator.election import Election, Lost
from posthof_operator.health import LATE, Canary
from posthof_operator.metrics import Metrics
from posthof_operator.settings import Settings


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def client() -> AsyncIterator[tuple[FakeApi, Api]]:
    async with FakeApi() as server, Api(Access(server=server.url), Metrics()) as api:
        yield server, api


def election(api: Api, name: str, clock: Clock) -> Election:
    return Election(api, "posthof", name, Metrics(), duration=15.0, deadline=10.0, renew=0.005, now=clock)


def holder(server: FakeApi) -> str:
    lease = server.get("Lease", "posthof-operator", "posthof")
    return lease["spec"]["holderIdentity"] if lease else ""


def test_of_many_that_begin_at_once_one_wins() -> None:
    async def story() -> None:
        async with client() as (server, api):
            clock = Clock()
            waiting = [asyncio.create_task(election(api, f"r{n}", clock).win()) for n in range(5)]
            await until(lambda: any(task.done() for task in waiting))
            await asyncio.sleep(0.1)
            assert [task.done() for task in waiting].count(True) == 1
            assert holder(server).startswith("r")
            for task in waiting:
                task.cancel()

    asyncio.run(story())


def test_a_holder_that_died_is_followed_after_its_time_and_not_before() -> None:
    async def story() -> None:
        async with client() as (server, api):
            clock = Clock()
            await election(api, "one", clock).win()  # and it never renews
            two = asyncio.create_task(election(api, "two", clock).win())
            await asyncio.sleep(0.05)
            clock.now = 14.9
            await asyncio.sleep(0.05)
            assert not two.done()
            clock.now = 15.1
            await until(two.done)
            assert holder(server) == "two"

    asyncio.run(story())


def test_a_holder_that_cannot_renew_has_lost_before_another_may_begin() -> None:
    async def story() -> None:
        async with client() as (server, api):
            clock = Clock()
            one = election(api, "one", clock)
            await one.win()

            def away(request: Request) -> None:
                raise Failure(503, "ServiceUnavailable", "away")

            server.before = away
            keeping = asyncio.create_task(one.keep())
            await asyncio.sleep(0.05)
            assert not keeping.done()
            clock.now = 10.1
            with pytest.raises(Lost, match="could not be renewed"):
                await keeping
            assert not one.is_leader

    asyncio.run(story())


def test_a_holder_whose_lease_is_anothers_has_lost_at_once() -> None:
    async def story() -> None:
        async with client() as (server, api):
            one = election(api, "one", Clock())
            await one.win()
            lease = server.get("Lease", "posthof-operator", "posthof")
            lease["spec"]["holderIdentity"] = "two"
            server.put(lease)
            with pytest.raises(Lost, match="two holds"):
                await one.keep()
            await one.release()
            assert holder(server) == "two"

    asyncio.run(story())


def test_a_touch_that_does_not_come_back_is_a_silent_watch() -> None:
    async def story() -> None:
        async with client() as (server, api):
            clock = Clock()
            canary = Canary(api, Settings(namespace="posthof", identity="me"), Metrics(), now=clock)
            await canary.touch()
            touched = server.get("ConfigMap", "posthof-operator-canary", "posthof")
            clock.now = 60.0
            await canary.touch()
            assert canary.is_fine
            canary.seen(touched)  # the first one came
            clock.now = 60.0 + LATE - 1
            assert canary.is_fine
            clock.now = 60.0 + LATE + 1
            assert not canary.is_fine  # the second one did not
            canary.seen(server.get("ConfigMap", "posthof-operator-canary", "posthof"))
            assert canary.is_fine

    asyncio.run(story())


def test_an_api_server_that_is_away_is_no_silent_watch() -> None:
    async def story() -> None:
        async with client() as (server, api):
            clock = Clock()
            canary = Canary(api, Settings(namespace="posthof", identity="me"), Metrics(), now=clock)

            def away(request: Request) -> None:
                raise Failure(503, "ServiceUnavailable", "away")

            server.before = away
            await canary.touch()
            clock.now = LATE * 2
            assert canary.is_fine

    asyncio.run(story())


def test_the_canary_lives_where_it_is_watched() -> None:
    def lives(watch: tuple[str, ...]) -> str:
        return Canary(api=None, settings=Settings(namespace="a", watch=watch), metrics=Metrics()).namespace

    assert (lives(()), lives(("b", "a")), lives(("b", "c"))) == ("a", "a", "b")
