"""ACME servers beside a running house: their questions over HTTP are answered, and on one machine certificates are
ordered from them. In a pod the operator orders, and all that is here is the answers.

Rules of this file
- A configuration that was swapped in is followed at once (`poke`); otherwise it is looked at once in a while.
- Nothing here stops mail: what cannot be bound or ordered is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from posthof_certs.background import background
from posthof_crds.engine import EngineConfig
from posthof_crds.ports import container_port
from posthof_pod.admin.challenges import Challenges
from posthof_pod.admin.orders import Orders
from posthof_pod.admin.prepare import http01_ports
from posthof_pod.config.secrets import key

EVERY = 60.0  # seconds between looks at what is due

InForce = Callable[[], tuple[EngineConfig, Mapping[str, bytes]]]


class Authorities:
    """`in_force` gives the configuration and its secrets; `renewed` is awaited when other pairs are there; `bound`
    are the sockets of the start, by port."""

    def __init__(
        self,
        in_force: InForce,
        orders: Orders,
        bound: dict[int, list[socket.socket]],
        *,
        renewed: Callable[[], Awaitable[None]],
        warn: Callable[[str], object],
        is_pod: bool,
    ) -> None:
        self._in_force, self._orders, self._renewed, self._warn, self._is_pod = (
            in_force,
            orders,
            renewed,
            warn,
            is_pod,
        )
        self._answers = Challenges(self.thumbprints, bound)
        self._ordering, self._answering = asyncio.Event(), asyncio.Event()

    def poke(self) -> None:
        """Another configuration is in force."""
        self._ordering.set()
        self._answering.set()

    def thumbprints(self) -> dict[str, str]:
        """DNS name -> the account that orders its certificate over HTTP."""
        config, secrets = self._in_force()
        found: dict[str, str] = {}
        for one in config.certificates.values():
            if not one.http01_port:
                continue
            if one.thumbprint is not None:
                word = secrets.get(key(one.thumbprint), b"").decode("ascii", "replace")
            else:
                word = self._orders.thumbprint(one)
            found |= dict.fromkeys(one.dns_names, word) if word else {}
        return found

    def answered(self) -> tuple[str, ...]:
        """TLSCerts for which an ACME server gets its answers here."""
        known, ports = self.thumbprints(), self._answers.ports
        config, _ = self._in_force()
        return tuple(
            one.name
            for one in config.certificates.values()
            if one.http01_port and self._port(one.http01_port) in ports and known.keys() >= set(one.dns_names)
        )

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._answer())
            if not self._is_pod:
                group.create_task(self._order())

    async def _answer(self) -> None:
        try:
            while True:
                config, _ = self._in_force()
                for problem in await self._answers.follow(set(http01_ports(config, self._port))):
                    self._warn(problem)
                await self._answering.wait()
                self._answering.clear()
        finally:
            await self._answers.close()

    async def _order(self) -> None:
        loop = asyncio.get_running_loop()

        def warn(text: str) -> None:
            loop.call_soon_threadsafe(self._warn, text)

        while True:
            tend = partial(self._orders.tend, *self._in_force(), time.time(), warn)
            if await asyncio.wrap_future(background(tend)):
                await self._renewed()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ordering.wait(), EVERY)
            self._ordering.clear()

    def _port(self, port: int) -> int:
        return container_port(port) if self._is_pod else port
