"""The operator killed at every request that writes: another one ends in the same place, and then is silent."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from kit.fakeapi import Failure, FakeApi, Request, until
from kit.operated import NS, bind_claim, domain, is_, mta, operated, policy

TOGETHER = 8  # clusters at one time
READS = ("get", "list", "watch")
KINDS = ("Deployment", "Service", "ConfigMap", "Secret", "Role", "RoleBinding", "ServiceAccount", "NetworkPolicy")


class Killer:
    """Ends the operator at its request number `at`: before it took effect, or after it did and before the answer."""

    def __init__(self, at: int, *, is_done_first: bool) -> None:
        self.at, self.is_done_first = at, is_done_first
        self.count = 0
        self.is_dead = False

    def before(self, request: Request) -> None:
        self.count += request.verb not in READS
        if self.is_dead or (self.count > self.at and not self.is_done_first):
            self.is_dead = True
            raise Failure(503, "ServiceUnavailable", "dead")

    def after(self, request: Request) -> None:
        if self.count > self.at:
            self.is_dead = True
            raise Failure(503, "ServiceUnavailable", "dead")


def fill(server: FakeApi) -> None:
    server.put(mta())
    server.put(domain("acme"))
    server.put(policy("out", match={"clients": ["10.0.0.0/8"]}, action={"type": "Direct"}))


async def life(server: FakeApi, killer: Killer | None = None) -> bool:
    """Until all is well, or dead. Returns whether it lived."""
    server.before = killer.before if killer else lambda request: None
    server.after = killer.after if killer else lambda request: None
    async with operated(server) as (pods, world):

        def is_over() -> bool:
            if killer is not None and killer.is_dead:
                return True
            if server.get("PersistentVolumeClaim", "edge-spool", NS):
                bind_claim(server)
            return (
                is_(server, "MTA", "edge", "Ready")
                and is_(server, "MailDomain", "acme", "Ready")
                and is_(server, "RelayPolicy", "out", "Ready")
                and world.queue.is_idle
            )

        async def deploy() -> None:
            while True:
                if server.get("Deployment", "edge", NS):
                    await pods.deploy("edge", NS)
                await asyncio.sleep(0.01)

        deploying = asyncio.create_task(deploy())
        try:
            await until(is_over)
        finally:
            deploying.cancel()
    return killer is None or not killer.is_dead


def picture(server: FakeApi) -> dict[Any, Any]:
    """Everything of ours as it is, without what no two clusters have in common."""
    found = {}
    for (kind, namespace, name), raw in server.objects.items():
        if kind in KINDS and not name.endswith("-report"):
            body = copy.deepcopy({key: value for key, value in raw.items() if key not in ("metadata", "status")})
            for field in ("binaryData", "data"):
                body.pop(field, None)
            labels = raw["metadata"].get("labels")
            found[kind, namespace, name] = (body, labels, len(raw["metadata"].get("ownerReferences", ())))
    return found


async def undisturbed() -> tuple[dict[Any, Any], int]:
    async with FakeApi() as server:
        fill(server)
        assert await life(server)
        return picture(server), len(server.writes)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("is_done_first", [False, True], ids=["before", "after"])
def test_killed_at_any_write_another_one_ends_in_the_same_place(is_done_first: bool) -> None:
    async def story(at: int, wanted: dict[Any, Any]) -> None:
        async with FakeApi() as server:
            fill(server)
            if await life(server, Killer(at, is_done_first=is_done_first)):
                return  # it needed fewer writes this time
            assert await life(server)
            assert picture(server) == wanted
            if at % 5:
                return
            before = len(server.writes)
            assert await life(server)
            assert [one for one in server.writes[before:] if one.kind != "Event"] == []

    async def stories() -> None:
        wanted, count = await undisturbed()
        assert count > 15
        for begin in range(0, count, TOGETHER):
            await asyncio.gather(*(story(at, wanted) for at in range(begin, min(begin + TOGETHER, count))))

    asyncio.run(stories())


def test_killed_again_and_again_each_one_a_write_later_it_gets_there() -> None:
    async def story() -> None:
        wanted, _ = await undisturbed()
        async with FakeApi() as server:
            fill(server)
            for at in range(60):
                if await life(server, Killer(at % 7, is_done_first=at % 2 == 0)):
                    break
            assert await life(server)
            assert picture(server) == wanted

    asyncio.run(story())
