"""With Roles alone, the labels of the watched namespaces are asked one by one."""

from __future__ import annotations

import asyncio

import pytest

from kit.fakeapi import FakeApi, until
from posthof_operator import namespaces
from posthof_operator.access import Access
from posthof_operator.api import Api
from posthof_operator.metrics import Metrics
from posthof_operator.resources import Key
from posthof_operator.settings import Settings
from posthof_operator.store import Store


def labelled(**labels: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", "labels": labels}}


def test_labels_are_known_followed_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "EVERY", 0.01)
    store, settings = Store(), Settings(watch=("team", "gone"))
    key = Key("Namespace", "", "team")

    async def story() -> None:
        async with FakeApi() as server, Api(Access(server=server.url), Metrics()) as api:
            server.put(labelled(may="no"))
            await namespaces.look(api, store, settings)
            held = store.held(key)
            assert held is not None
            assert held.labels == {"may": "no"}
            assert store.count("Namespace") == 1
            assert {one.verb for one in server.requests} == {"get"}

            task = asyncio.create_task(namespaces.follow(api, store, settings))
            server.put(labelled(may="yes"))
            await until(lambda: (held := store.held(key)) and held.labels == {"may": "yes"})
            server.remove("Namespace", "team")
            await until(lambda: store.held(key) is None)
            task.cancel()

    asyncio.run(story())


def test_with_rights_for_the_whole_cluster_nothing_is_asked() -> None:
    async def story() -> None:
        async with FakeApi() as server, Api(Access(server=server.url), Metrics()) as api:
            await namespaces.follow(api, Store(), Settings())
            assert server.requests == []

    asyncio.run(story())
