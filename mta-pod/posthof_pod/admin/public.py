"""What the network may ask a house: is it well, does it take mail, its metrics; with the key, the operator's report.

    GET  /healthz    200 while a worker lives, or while the house waits for its first configuration
    GET  /readyz     200 while mail is taken; else why not
    GET  /metrics    Prometheus text
    GET  /load       how busy it is, for KEDA: numbers as JSON
    GET  /report     posthof_crds.report.Report as JSON, with `Authorization: Bearer <the report key>`

Rules of this file
- Nothing here changes anything or shows a mail; the admin API stays on loopback (http.py).
- The key is a mounted file, read at each request (its Secret may be replaced), compared in constant time. Without the
  file there are no reports.
- It answers before there is a house: then it says what the house waits for.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from posthof_crds import report as reports
from posthof_crds.report import AccountUse, ClientCounts, QueueCounts, Report, SpoolState, VolumeNumbers
from posthof_pod.admin import token
from posthof_pod.admin.http import Handler, answer, installed_version, metrics_of
from posthof_pod.admin.load import for_keda
from posthof_pod.listen.seen import summed
from posthof_pod.observe.metrics import Stats

if TYPE_CHECKING:
    from posthof_pod.admin.supervisor import Supervisor

KEY = Path("/etc/posthof/report/token")
LOOK_MAX = 10.0  # seconds since a worker last saw its latch on the volume; more, and the volume does not answer


class Identity(NamedTuple):
    """Which pod this is."""

    pod: str = ""
    node: str = ""
    key: Path = KEY


class Front:
    """The public face of a house, also before it is there. `waiting`: what it waits for."""

    def __init__(self, identity: Identity, house: Supervisor | None = None) -> None:
        self.identity, self.house = identity, house
        self.waiting = "the house begins"
        self.is_volume_refused = False  # that is what it waits for
        self.desired = ""  # the newest revision that has arrived, as long as there is no house
        self._begun = time.monotonic()

    @property
    def is_healthy(self) -> bool:
        return self.house is None or self.house.is_healthy

    @property
    def why_not_ready(self) -> str:
        """ "" while mail is taken."""
        house = self.house
        if house is None:
            return self.waiting
        if house.is_ready:
            return ""
        if house.is_stopping:
            return "it is stopping"
        return "its workers read the spool" if house.is_healthy else "no worker lives"

    async def report(self) -> Report:
        """What the operator wants to know."""
        identity, house = self.identity, self.house
        if house is not None:
            return await report(house, identity)
        return Report(
            pod=identity.pod,
            node=identity.node,
            version=installed_version(),
            desired=self.desired,
            refused=(self.waiting,),
            spool=SpoolState(healthy=not self.is_volume_refused, reason=self.waiting, refused=self.is_volume_refused),
            uptime_seconds=round(time.monotonic() - self._begun, 1),
        )


async def report(house: Supervisor, identity: Identity) -> Report:
    """Of a house that runs."""
    stats = await house.crew.stats()
    served = await house.served()
    return Report(
        pod=identity.pod,
        node=identity.node,
        version=installed_version(),
        revision=house.revision,
        desired=house.newest,
        refused=(*house.refused, *house.complaints, *_restart(house)),
        ready=house.is_ready,
        draining=house.is_stopping,
        workers=len(house.crew.ready),
        sessions=int(stats.get('posthof_sessions_open{direction="in"}', 0)),
        certificates=served,
        challenges=house.authorities.answered(),
        unproven=house.proof.unproven,
        queue=_queue(stats),
        spool=_spool(stats, len(house.crew.ready), house),
        take_overs=house.fleet.take_overs.recent,
        load=house.crew.load(stats) if house.crew.ready else None,
        clients=await _clients(house),
        accounts=await _accounts(house),
        uptime_seconds=round(time.monotonic() - house.started, 1),
    )


async def _clients(house: Supervisor) -> ClientCounts | None:
    answers, _ = await house.crew.ask_all("clients")
    if not answers:
        return None
    total, private, addresses = summed([counts for _, counts in answers])
    return ClientCounts(total=total, private=private, addresses=addresses)


async def _accounts(house: Supervisor) -> dict[str, AccountUse]:
    """Every worker knows the fleet's counts; the largest is the newest."""
    if not house.config.credentials:
        return {}
    answers, _ = await house.crew.ask_all("accounts")
    found: dict[str, AccountUse] = {}
    for _, uses in answers:
        for name, (last_used, messages, held) in uses.items():
            before = found.get(name, AccountUse())
            found[name] = AccountUse(
                last_used=max(before.last_used, last_used),
                messages=max(before.messages, messages),
                held=before.held or held,
            )
    return found


def _restart(house: Supervisor) -> list[str]:
    if not house.restart_for:
        return []
    return [f"{', '.join(house.restart_for)} changed, which takes effect at the next start of the pod"]


def _queue(stats: Stats) -> QueueCounts:
    """Mail that is being sent waits for nothing but its turn."""
    count = {
        state: int(stats.get(f'posthof_queue_messages{{state="{state}"}}', 0))
        for state in ("ready", "sending", "deferred", "held")
    }
    return QueueCounts(
        ready=count["ready"] + count["sending"],
        deferred=count["deferred"],
        held=count["held"],
        oldest_ready_seconds=round(float(stats.get("posthof_queue_oldest_ready_seconds", 0.0)), 1),
    )


def _spool(stats: Stats, workers: int, house: Supervisor) -> SpoolState:
    reason = ""
    look = float(stats.get("posthof_spool_look_age_seconds", 0.0))
    if not workers:
        reason = "no worker has the spool open"
    elif stats.get("posthof_spool_is_full", 0):
        reason = "it is full: new mail is answered with 452"
    elif look > LOOK_MAX:
        reason = f"the volume has not answered for {look:.0f} s"
    elif poisoned := int(stats.get("posthof_spool_poisoned_lanes", 0)):
        reason = f"{poisoned} lanes are set aside: three workers died over them (posthof spool check)"
    elif (seeing := house.fleet.visibility) is not None and seeing.unseen:
        reason = seeing.unseen
    elif trouble := house.fleet.trouble:
        reason = f"{trouble}; peers may take its mail over, and it cannot tell who is dead"
    return SpoolState(
        healthy=not reason,
        reason=reason,
        volume=_volume(house),
        used_bytes=int(stats.get("posthof_spool_bytes", 0)),
        free_bytes=int(stats.get("posthof_spool_free_bytes", 0)),
    )


def _volume(house: Supervisor) -> VolumeNumbers:
    found, seeing = house.volume, house.fleet.visibility
    return VolumeNumbers(
        file_system=found.file_system,
        sync_median_seconds=found.sync_median,
        sync_p99_seconds=found.sync_p99,
        folder_sync_p99_seconds=found.folder_p99,
        clock_offset_seconds=found.clock_offset,
        visible_seconds=round(seeing.worst, 3) if seeing is not None and seeing.worst is not None else None,
        free_bytes=found.free_bytes,
        free_inodes=found.free_inodes,
        warnings=found.warnings,
    )


# ---------------------------------------------------------------------- HTTP


@contextlib.asynccontextmanager
async def serve_front(front: Front, sockets: list[socket.socket]) -> AsyncIterator[None]:
    """Answer on bound sockets as long as the block runs."""
    if not sockets:
        yield
        return
    runner = web.AppRunner(application(front), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        for one in sockets:
            await web.SockSite(runner, one).start()
        yield
    finally:
        await runner.cleanup()


def serve_public(house: Supervisor, sockets: list[socket.socket]) -> contextlib.AbstractAsyncContextManager[None]:
    """The same for a house that runs already."""
    return serve_front(Front(identity(), house), sockets)


def application(front: Front) -> web.Application:
    doors = _Doors(front)
    app = web.Application(middlewares=[_plainly], client_max_size=1024)
    app.router.add_get("/healthz", doors.healthz)
    app.router.add_get("/readyz", doors.readyz)
    app.router.add_get("/metrics", doors.metrics)
    app.router.add_get("/load", doors.load)
    app.router.add_get("/report", doors.report)
    return app


@web.middleware
async def _plainly(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as JSON; nothing is cached."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = answer({"error": error.text or error.reason}, error.status)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


class _Doors:
    """The handlers."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def healthz(self, request: web.Request) -> web.Response:
        is_well = self._front.is_healthy
        return answer({"ok": is_well}, 200 if is_well else 503)

    async def readyz(self, request: web.Request) -> web.Response:
        why = self._front.why_not_ready
        return answer({"ok": not why, "why": why}, 503 if why else 200)

    async def metrics(self, request: web.Request) -> web.Response:
        house = self._front.house
        if house is None:
            raise web.HTTPServiceUnavailable(text=self._front.waiting)
        return await metrics_of(house)

    async def load(self, request: web.Request) -> web.Response:
        house = self._front.house
        if house is None or not house.crew.ready:
            raise web.HTTPServiceUnavailable(text=self._front.why_not_ready or "no worker is ready")
        return answer(for_keda(house.crew.load(await house.crew.stats())))

    async def report(self, request: web.Request) -> web.Response:
        wanted = _key(self._front.identity.key)
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if not wanted or scheme.lower() != "bearer" or not token.is_same(given.strip(), wanted):
            raise web.HTTPUnauthorized(text="this needs the report key")
        told = reports.encode(await self._front.report())
        return web.Response(body=told, content_type="application/json")


def _key(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeError):
        return ""


def identity() -> Identity:
    """As the environment says (the operator sets it from the pod itself)."""
    given = os.environ.get
    name = given("POSTHOF_POD", "") or socket.gethostname()
    return Identity(name, given("POSTHOF_NODE", ""), Path(given("POSTHOF_REPORT_KEY", "") or KEY))
