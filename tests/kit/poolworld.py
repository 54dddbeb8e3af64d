"""Peers, DNS and flow as the delivery pool meets them, in virtual time.

def test_x():
    async def story(world: World) -> None:
        world.add(direct("a.test"))
        await asyncio.sleep(1)
        assert world.left

    play(story)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from kit.virtual import run
from posthof_crds.engine import DestinationLimits
from posthof_pod.deliver.connection import Unreachable
from posthof_pod.deliver.pool import Pool
from posthof_pod.deliver.site import Setback
from posthof_pod.model import Destination, DestinationKind, Host, Reason, Route, Taken
from posthof_pod.schedule.backlog import Backlog
from posthof_pod.schedule.slices import Portion

EPOCH = 1_700_000_000.0


def direct(name: str, **limits: int | float) -> Destination:
    return Destination(
        key=f"direct:{name}", kind=DestinationKind.DIRECT, name=name, limits=DestinationLimits(**limits)
    )


def local(name: str) -> Destination:
    return Destination(key=f"local:{name}", kind=DestinationKind.LOCAL, name=name)


class Session:
    """A connection that is a value."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.is_usable = True
        self.sent = 0
        self.has_quit = False

    async def quit(self) -> None:
        await asyncio.sleep(0.05)
        self.has_quit = True
        self.is_usable = False

    def abort(self) -> None:
        self.is_usable = False


class World:
    """Peers, DNS and flow, as the pool meets them. Times in seconds of the virtual clock."""

    def __init__(self, *, capacity: int = 500, portion: Portion | None = None) -> None:
        self.backlog = Backlog()
        self.connect_time = 0.05
        self.send_time = 0.2
        self.sites: dict[str, list[str]] = {}  # domain -> addresses; default: an address of its own
        self.unreachable: dict[str, Unreachable] = {}  # by address
        self.unroutable: dict[str, Exception] = {}  # by domain
        self.on_attempt: Callable[[list[Taken], Session | None], Awaitable[bool]] | None = None
        self.connects: list[tuple[float, str]] = []
        self.resolved: list[str] = []
        self.sessions: list[Session] = []
        self.left: list[tuple[float, str, int]] = []  # when, destination, ref
        self.batches: list[int] = []
        self.setbacks: list[tuple[float, int, Setback]] = []  # when, ref
        self.told: list[str] = []
        self.errors: list[BaseException] = []
        self.running = self.most_running = 0
        self.per_address: dict[str, int] = {}
        self.most_per_address: dict[str, int] = {}
        self.retry_after = 120.0
        self.next_ref = 1 << 32
        self.pool = Pool(
            self.backlog,
            self,
            connect=self._connect,
            attempt=self._attempt,
            failed=self._failed,
            watcher=self,
            capacity=capacity,
            clock=self.now,
            portion=portion,
        )

    def now(self) -> float:
        return EPOCH + asyncio.get_running_loop().time() if asyncio._get_running_loop() else EPOCH

    def add(self, destination: Destination, count: int = 1, sender: str = "a@x.test") -> list[int]:
        refs = []
        for _ in range(count):
            self.next_ref += 1
            refs.append(self.next_ref)
            self.backlog.add(self.next_ref, (0,), destination, now=self.now(), sender=sender)
        self.pool.kick()
        return refs

    async def route(self, destination: Destination, now: float) -> Route:
        name = destination.name
        self.resolved.append(name)
        if name in self.unroutable:
            raise self.unroutable[name]
        addresses = self.sites.get(name, [name])
        return Route("|".join(addresses), tuple(Host(a, a, 25) for a in addresses), now + 3600)

    async def _connect(self, host: Host, destination: Destination) -> Session:
        self.connects.append((self.now() - EPOCH, host.address))
        await asyncio.sleep(self.connect_time)
        if host.address in self.unreachable:
            raise self.unreachable[host.address]
        session = Session(host)
        self.sessions.append(session)
        return session

    async def _attempt(self, takens: list[Taken], session: Session | None) -> bool:
        self.batches.append(len(takens))
        if self.on_attempt is not None:
            return await self.on_attempt(takens, session)
        return await self.deliver(takens, session)

    async def deliver(self, takens: list[Taken], session: Session | None) -> bool:
        place = session.host.address if session else "local"
        self.running += 1
        self.per_address[place] = self.per_address.get(place, 0) + 1
        self.most_running = max(self.most_running, self.running)
        self.most_per_address[place] = max(self.most_per_address.get(place, 0), self.per_address[place])
        for taken in takens:
            await asyncio.sleep(self.send_time)
            self.left.append((self.now() - EPOCH, taken.destination.name, taken.ref))
            self.backlog.done(taken.unit)
        self.running -= 1
        self.per_address[place] -= 1
        return True

    async def _failed(self, takens: list[Taken], setback: Setback) -> None:
        for taken in takens:
            self.setbacks.append((self.now() - EPOCH, taken.ref, setback))
            if setback.is_permanent:
                self.backlog.done(taken.unit)
            else:
                due = self.now() + self.retry_after
                self.backlog.defer(taken.unit, due, taken.attempts + 1, taken.notified, reason=setback.reason)

    def site_down(self, site: str, reason: Reason, reply: str) -> None:
        self.told.append(f"down {site}")

    def site_up(self, site: str) -> None:
        self.told.append(f"up {site}")

    def internal_error(self, where: str, error: BaseException) -> None:
        self.errors.append(error)


def play(story: Callable[[World], Awaitable[None]], **settings: Any) -> World:
    """Run a story with a started pool, in virtual time."""

    async def main() -> World:
        world = World(**settings)
        world.pool.start()
        await story(world)
        await world.pool.drain(1.0)
        return world

    return run(main)
