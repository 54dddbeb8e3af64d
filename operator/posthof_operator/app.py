"""The operator put together: the only file that names every room.

A replica's life
  wait     answer health and metrics, and wait for the Lease
  read     list everything once, so that nothing is decided on half of it
  work     watch (kopf), reconcile (crew), list again every few minutes, renew the Lease, touch the canary
  end      a signal: give the Lease back, status 0. The Lease lost, or a part that failed: status 1, at once
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator

from posthof_operator import crew, dkim, health, informer, namespaces, routes
from posthof_operator.access import Access
from posthof_operator.api import Api, ApiError
from posthof_operator.certs.reconcile import Certificates
from posthof_operator.credentials import Credentials
from posthof_operator.dns import reconcile as dns
from posthof_operator.domains import Domains
from posthof_operator.election import Election, Lost
from posthof_operator.flow import MTARoom
from posthof_operator.health import Canary
from posthof_operator.informer import Informer
from posthof_operator.metrics import Metrics
from posthof_operator.observed import Observed
from posthof_operator.policies import Policies
from posthof_operator.records import Records
from posthof_operator.reports import Reporters
from posthof_operator.settings import Settings
from posthof_operator.store import Store
from posthof_operator.trust import Trust
from posthof_operator.watches import Watches
from posthof_operator.webhook.keeper import Keeper
from posthof_operator.workloads import Workloads
from posthof_operator.workqueue import WorkQueue
from posthof_operator.world import Postponed, Prepared, Reconciler, World

log = logging.getLogger("posthof_operator")


def rooms(store: Store, reporters: Reporters) -> list[Reconciler]:
    """Every reconciler. Their order says nothing."""
    return [
        MTARoom(store, reporters),
        Workloads(),
        Domains(),
        Policies(),
        Trust(),
        dkim.Keys(),
        dkim.Domains(),
        Credentials(),
        Certificates(),
        dns.Domains(),
        dns.Houses(),
    ]


@contextlib.asynccontextmanager
async def world(settings: Settings, api: Api, metrics: Metrics) -> AsyncIterator[World]:
    """A world that knows nothing yet, with its rooms; what it watches by itself ends with the block."""
    store = Store()
    made = World(
        settings=settings,
        api=api,
        store=store,
        queue=WorkQueue(),
        watches=Watches(api, store, metrics),
        records=Records(api, settings.identity),
        metrics=metrics,
    )
    reporters = Reporters()
    made.register(rooms(store, reporters))
    routes.follow(made)
    observed = Observed(store)
    metrics.registry.register(observed)
    try:
        yield made
    finally:
        metrics.registry.unregister(observed)
        await made.watches.close()
        await reporters.close()


async def run(settings: Settings, access: Access) -> int:
    """A replica's life. Returns the exit status."""
    metrics = Metrics()
    stop = asyncio.Event()
    _on_signals(stop)
    async with Api(access, metrics) as api:
        canary = Canary(api, settings, metrics)
        election = Election(api, settings.namespace, settings.identity, metrics)

        def is_alive() -> str:
            is_silent = election.is_leader and not canary.is_fine
            return f"the canary is {canary.lateness:.0f} s late: a watch is silent" if is_silent else ""

        async with health.serve(settings, metrics, is_alive):
            if not await _won(election, stop):
                return 0
            status = 0
            try:
                async with world(settings, api, metrics) as made:
                    await work(made, access, election=election, canary=canary, stop=stop)
            except* Lost as group:
                log.error("%s", group.exceptions[0])
                status = 1
            finally:
                await election.release()
            return status


async def work(world: World, access: Access, *, election: Election, canary: Canary, stop: asyncio.Event) -> None:
    """Reconcile until `stop`. Raises what a part of it raises, in a group."""
    settings, store, metrics = world.settings, world.store, world.metrics
    watch = Informer(access, settings, store=store, metrics=metrics, on_canary=canary.seen)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(election.keep(), name="election")]
        await read(world)
        await prepare(world)
        tasks += [
            group.create_task(crew.work(world, settings.workers), name="crew"),
            group.create_task(_list_again(world), name="lists"),
            group.create_task(namespaces.follow(world.api, store, settings), name="namespaces"),
            group.create_task(canary.run(), name="canary"),
            group.create_task(Keeper(settings).run(world), name="webhook certificate"),
        ]
        await watch.run(stop)  # kopf takes the signals from here on, and returns when one came
        stop.set()
        for task in tasks:
            task.cancel()


async def prepare(world: World) -> None:
    """What a room must know before anything is decided: tried until it does."""
    for room in world.rooms.values():
        while isinstance(room, Prepared):
            try:
                await room.prepare(world)
                break
            except (ApiError, Postponed) as error:
                log.warning("%s: %s", room.room, error)
                await asyncio.sleep(1.0)


async def read(world: World) -> None:
    """List everything once, however long the API server needs."""
    while True:
        try:
            await informer.relist(world.api, world.store, world.settings, world.metrics)
            await namespaces.look(world.api, world.store, world.settings)
            return
        except ApiError as error:
            log.warning("the first list: %s", error)
            await asyncio.sleep(1.0)


async def _list_again(world: World) -> None:
    """What vanished while a watch was down is told by nobody: list, compare, prune."""
    while True:
        await asyncio.sleep(world.settings.relist)
        try:
            found = await informer.relist(world.api, world.store, world.settings, world.metrics)
        except ApiError as error:
            log.warning("the list of every few minutes: %s", error)
            continue
        for kind, one in found.items():
            if one.changed or one.gone:
                world.metrics.missed.labels(kind).inc(one.changed + one.gone)
                log.warning("no watch told of %d %s changed and %d gone", one.changed, kind, one.gone)


async def _won(election: Election, stop: asyncio.Event) -> bool:
    """False: told to stop before."""
    wins, stops = asyncio.create_task(election.win()), asyncio.create_task(stop.wait())
    await asyncio.wait((wins, stops), return_when=asyncio.FIRST_COMPLETED)
    for task in (wins, stops):
        task.cancel()
    if wins.done() and not wins.cancelled():
        wins.result()
        return True
    return False


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stop.set)
