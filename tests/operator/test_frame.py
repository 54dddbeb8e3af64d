"""The way in and the way out: the client, the store, the queue, the watches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from kit.fakeapi import Failure, FakeApi, until
from posthof_operator.access import Access
from posthof_operator.api import Api, ApiError
from posthof_operator.metrics import Metrics
from posthof_operator.resources import Key
from posthof_operator.store import Change, Store
from posthof_operator.watches import Subject, Watches, compare
from posthof_operator.workqueue import Task, WorkQueue

MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "ns"}, "data": {"x": "1"}}


@contextlib.asynccontextmanager
async def client() -> AsyncIterator[tuple[FakeApi, Api]]:
    async with FakeApi() as server, Api(Access(server=server.url), Metrics()) as api:
        yield server, api


def test_apply_creates_changes_and_takes_away_what_is_no_longer_said() -> None:
    async def story() -> None:
        async with client() as (_, api):
            made = await api.apply(MAP)
            assert made["data"] == {"x": "1"}
            same = await api.apply(MAP)
            assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
            changed = await api.apply({**MAP, "data": {"y": "2"}})
            assert changed["data"] == {"y": "2"}
            other = await api.apply({**MAP, "data": {"z": "3"}}, manager="another")
            assert other["data"] == {"y": "2", "z": "3"}

    asyncio.run(story())


def test_status_is_apart_and_conditions_of_two_writers_are_merged() -> None:
    async def story() -> None:
        async with client() as (server, api):
            server.put({"kind": "MTA", "metadata": {"name": "edge", "namespace": "ns"}, "spec": {"replicas": 1}})
            key = Key("MTA", "ns", "edge")
            await api.apply_status(key, {"conditions": [{"type": "Ready", "status": "True"}], "domains": 3})
            await api.apply_status(key, {"conditions": [{"type": "DNS", "status": "False"}]}, manager="dns")
            after = await api.apply_status(key, {"conditions": [{"type": "Ready", "status": "False"}]})
            assert {one["type"]: one["status"] for one in after["status"]["conditions"]} == {
                "Ready": "False",
                "DNS": "False",
            }
            assert "domains" not in after["status"]
            assert after["metadata"]["generation"] == 1

    asyncio.run(story())


def test_an_error_says_what_the_api_server_said() -> None:
    async def story() -> None:
        async with client() as (server, api):
            assert await api.get("MTA", "ns", "none") is None
            await api.create(MAP)
            with pytest.raises(ApiError) as conflict:
                await api.create(MAP)
            assert conflict.value.is_conflict

            def refuse(request: object) -> None:
                raise Failure(422, "Invalid", "spec.x: no")

            server.before = refuse
            with pytest.raises(ApiError, match=r"spec\.x: no") as refused:
                await api.apply(MAP)
            assert refused.value.is_final
        with pytest.raises(ApiError) as away:
            async with Api(Access(server="http://127.0.0.1:9"), Metrics()) as nobody:
                await nobody.get("MTA", "ns", "none")
        assert away.value.status == 0

    asyncio.run(story())


def test_long_lists_come_in_pages() -> None:
    async def story() -> None:
        async with client() as (server, api):
            for number in range(1201):
                server.put({**MAP, "metadata": {"name": f"m{number}", "namespace": "ns"}})
            assert len(await api.list_("ConfigMap", "ns")) == 1201
            assert server.counts()["list"] == 3

    asyncio.run(story())


def test_the_store_keeps_the_newest_and_knows_what_a_change_means() -> None:
    store = Store()
    told: list[Change] = []
    store.listeners.append(lambda key, change: told.append(change))

    def version(number: int, **more: object) -> dict:
        metadata = {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": str(number), "managedFields": [{}]}
        return {"metadata": metadata, "spec": {"x": 1}, **more}

    assert store.put("MTA", version(5)) is Change.MEANING
    assert store.put("MTA", version(4, spec={"x": 0})) is Change.NONE
    assert store.put("MTA", version(5)) is Change.NONE
    assert store.put("MTA", version(6, status={"ready": "1/1"})) is Change.STATUS
    assert store.put("MTA", version(7, spec={"x": 2})) is Change.MEANING
    found = store.get(Key("MTA", "ns", "a"))
    assert found is not None
    assert found["spec"] == {"x": 2}
    assert "managedFields" not in found["metadata"]
    assert not store.remove(Key("MTA", "ns", "a"), uid="another")
    assert store.remove(Key("MTA", "ns", "a"), uid="u")
    assert told == [Change.MEANING, Change.STATUS, Change.MEANING, Change.MEANING]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_task_stands_in_the_queue_once_and_is_never_worked_on_twice_at_a_time() -> None:
    async def story() -> None:
        clock = Clock()
        queue = WorkQueue(now=clock, chance=lambda: 0.5)
        one, two = Task("mta", Key("MTA", "ns", "a")), Task("mta", Key("MTA", "ns", "b"))
        queue.add(one)
        queue.add(one)
        queue.add(two)
        assert [await queue.take(), await queue.take()] == [one, two]
        queue.add(one)  # changed while it is worked on
        assert queue.depth == 0
        queue.done(one)
        assert await queue.take() == one
        assert queue.failed(one) == pytest.approx(0.2)
        clock.now = 0.3
        assert await queue.take() == one
        assert queue.failed(one) == pytest.approx(0.4)
        queue.add(one)  # the mend
        assert await queue.take() == one
        queue.done(one)
        queue.add(two, 60.0)
        queue.done(two)
        queue.add(two, 5.0)
        queue.add(two, 30.0)
        assert queue.delayed == 1
        clock.now = 5.5
        assert await queue.take() == two

    asyncio.run(story())


def test_rooms_take_turns() -> None:
    async def story() -> None:
        queue = WorkQueue()
        for number in range(3):
            queue.add(Task("domains", Key("MailDomain", "ns", f"d{number}")))
        queue.add(Task("mta", Key("MTA", "ns", "edge")))
        queue.drop("domains", Key("MailDomain", "ns", "d1"))
        assert [(await queue.take()).key.name for _ in range(3)] == ["d0", "edge", "d2"]

    asyncio.run(story())


def test_a_watch_follows_and_begins_again_when_the_server_forgot() -> None:
    async def story() -> None:
        async with client() as (server, api):
            store = Store()
            watches = Watches(api, store, Metrics())
            server.put(MAP)
            await watches.want("me", [Subject("ConfigMap", "ns")])
            key = Key("ConfigMap", "ns", "a")
            held = store.held(key)
            assert held is not None
            assert "data" not in held.raw()
            server.put({**MAP, "metadata": {"name": "b", "namespace": "ns"}})
            await until(lambda: store.count("ConfigMap") == 2)
            server.vanish("ConfigMap", "a", "ns")
            server.forget()
            server.put({**MAP, "metadata": {"name": "c", "namespace": "ns"}})
            await until(lambda: [k.name for k in store.keys("ConfigMap")] == ["b", "c"])
            server.remove("ConfigMap", "b", "ns")
            await until(lambda: store.count("ConfigMap") == 1)
            await watches.want("me", [])
            assert store.count("ConfigMap") == 0
            await watches.close()

    asyncio.run(story())


def test_a_silent_watch_is_begun_again_where_it_was() -> None:
    async def story() -> None:
        async with client() as (server, api):
            server.put(MAP)
            (page,) = [page async for page in api.pages("ConfigMap", "ns")]
            seen = [event async for event in api.watch("ConfigMap", "ns", page.version, silence=0.05)]
            assert seen == []
            server.put({**MAP, "data": {"x": "2"}})
            async for event in api.watch("ConfigMap", "ns", page.version, silence=5.0):
                assert event.object["data"] == {"x": "2"}
                break

    asyncio.run(story())


def test_a_list_finds_what_no_watch_told_of() -> None:
    async def story() -> None:
        async with client() as (server, api):
            store = Store()
            subject = Subject("ConfigMap", "ns")
            for name in "abc":
                server.put({**MAP, "metadata": {"name": name, "namespace": "ns"}})
            _, first = await compare(api, store, subject)
            assert first == (3, 0)
            server.vanish("ConfigMap", "a", "ns")
            server.put({**MAP, "metadata": {"name": "b", "namespace": "ns"}, "data": {"x": "2"}})
            _, second = await compare(api, store, subject)
            assert second == (1, 1)
            _, third = await compare(api, store, subject)
            assert third == (0, 0)

    asyncio.run(story())
