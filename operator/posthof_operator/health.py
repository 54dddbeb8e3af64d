"""Is this replica alive, and what does it count: GET /healthz, /readyz, /metrics. And the canary behind /healthz.

Rules of this file
- Alive means: what is changed in the cluster reaches us. The holder of the Lease touches a ConfigMap of its own, and
  wants to see it come back through kopf's watch. A watch that went silent fails liveness, and the kubelet mends it.
- An API server that is away is no reason to die: the canary's age counts only from a touch that was written.
- A replica that waits for the Lease is alive and ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from posthof_operator.api import Api, ApiError
from posthof_operator.informer import CANARY
from posthof_operator.metrics import Metrics
from posthof_operator.resources import GROUP, MANAGED_BY, MANAGER, Raw
from posthof_operator.settings import Settings

NAME = "posthof-operator-canary"
TOUCHED = f"{GROUP}/touched"
EVERY = 45.0
LATE = 150.0  # seconds from a touch to the belief that it will not come back

log = logging.getLogger("posthof_operator.health")


class Canary:
    """A ConfigMap that this replica touches and wants to see again."""

    def __init__(
        self, api: Api, settings: Settings, metrics: Metrics, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._api, self._settings, self._metrics, self._now = api, settings, metrics, now
        self._waiting: dict[str, float] = {}  # what was written and has not come back, and since when
        self._came = now()

    @property
    def namespace(self) -> str:
        """Ours, or the first that is watched."""
        watched = self._settings.watch
        return self._settings.namespace if not watched or self._settings.namespace in watched else watched[0]

    @property
    def lateness(self) -> float:
        """Seconds that the oldest touch is outstanding; 0: all came back."""
        return self._now() - min(self._waiting.values(), default=self._now())

    @property
    def is_fine(self) -> bool:
        return self.lateness < LATE

    async def run(self) -> None:
        while True:
            await self.touch()
            self._metrics.canary.set(self._now() - self._came)
            await asyncio.sleep(EVERY)

    async def touch(self) -> None:
        word = f"{self._settings.identity} {self._now():.3f}"
        self._waiting[word] = self._now()  # before the answer: the watch may be faster
        try:
            await self._api.apply(self._object(word))
        except ApiError as error:
            self._waiting.pop(word, None)
            log.warning("the canary was not touched: %s", error)

    def seen(self, raw: Raw) -> None:
        """An event of the canary came through the watch: it tells of this touch and all before it."""
        word = (raw["metadata"].get("annotations") or {}).get(TOUCHED, "")
        if raw["metadata"]["name"] != NAME or not word.startswith(f"{self._settings.identity} "):
            return
        at = self._waiting.get(word, self._now())
        self._waiting = {other: since for other, since in self._waiting.items() if since > at}
        self._came = self._now()
        self._metrics.canary.set(0)

    def _object(self, word: str) -> Raw:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": NAME,
                "namespace": self.namespace,
                "labels": {CANARY: "true", "app.kubernetes.io/name": "posthof", MANAGED_BY: MANAGER},
                "annotations": {TOUCHED: word},
            },
        }


@contextlib.asynccontextmanager
async def serve(
    settings: Settings, metrics: Metrics, is_alive: Callable[[], str], is_ready: Callable[[], str] = lambda: ""
) -> AsyncIterator[int]:
    """Answer while the block runs; gives the port. `is_alive()` and `is_ready()` are "" or what is wrong."""

    async def healthz(_: web.Request) -> web.Response:
        wrong = is_alive()
        return web.Response(text=f"{wrong or 'ok'}\n", status=503 if wrong else 200)

    async def readyz(_: web.Request) -> web.Response:
        wrong = is_ready()
        return web.Response(text=f"{wrong or 'ok'}\n", status=503 if wrong else 200)

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", show)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, None, settings.metrics_port)
        await site.start()
        yield port_of(runner)
    finally:
        await runner.cleanup()


def port_of(runner: web.AppRunner) -> int:
    """Of the IPv4 socket where there is one: with port 0 (tests) each family has a port of its own."""
    return int(min(runner.addresses, key=lambda address: ":" in address[0])[1])
