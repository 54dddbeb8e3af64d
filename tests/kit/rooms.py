"""Rooms of the operator at work against the small API server, without kopf: the store is fed by the same watches.

    async with FakeApi() as server, at_work([Certificates()], server=server) as world:
        server.put({...})
        await until(lambda: server.get(...)["status"] ...)

Rules
- Everything is real but the API server and kopf; the clock may be moved (`clock.forward`).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Callable, Sequence

from kit.fakeapi import FakeApi
from posthof_operator import crew, informer, routes
from posthof_operator.access import Access
from posthof_operator.api import Api
from posthof_operator.metrics import Metrics
from posthof_operator.records import Records
from posthof_operator.resources import Key
from posthof_operator.settings import Settings
from posthof_operator.store import Store
from posthof_operator.watches import Watches
from posthof_operator.workqueue import WorkQueue
from posthof_operator.world import Prepared, Reconciler, Requeue, World


class Clock:
    """The true time, moved."""

    def __init__(self) -> None:
        self.ahead = datetime.timedelta()

    def __call__(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC) + self.ahead

    def forward(self, **by: float) -> None:
        self.ahead += datetime.timedelta(**by)


class Deaf:
    """A room that another test is about."""

    def __init__(self, room: str, kind: str) -> None:
        self.room, self.kind = room, kind

    async def reconcile(self, key: Key, world: World) -> Requeue | None:
        return None


_OTHERS = (("mta", "MTA"), ("workloads", "MTA"), ("domains", "MailDomain"), ("dns", "MailDomain"))


@contextlib.asynccontextmanager
async def at_work(
    rooms: Sequence[Reconciler] | Callable[[Store], Sequence[Reconciler]],
    *,
    settings: Settings | None = None,
    clock: Clock | None = None,
    server: FakeApi,
) -> AsyncIterator[World]:
    """The rooms work until the block ends. Objects that are there before are known from the start."""
    told = settings or Settings(namespace="posthof")
    metrics, store = Metrics(), Store()
    async with Api(Access(server=server.url), metrics) as api:
        world = World(
            settings=told,
            api=api,
            store=store,
            queue=WorkQueue(),
            watches=Watches(api, store, metrics),
            records=Records(api, told.identity),
            metrics=metrics,
            clock=clock or Clock(),
        )
        made = rooms(store) if callable(rooms) else rooms
        world.register(made)
        routes.follow(world)
        world.register([Deaf(name, kind) for name, kind in _OTHERS if name not in world.rooms])
        await world.watches.want("test", [*informer.SUBJECTS, informer.NAMESPACES])
        for prepared in made:
            if isinstance(prepared, Prepared):
                await prepared.prepare(world)
        task = asyncio.create_task(crew.work(world, 4))
        try:
            yield world
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await world.watches.close()
