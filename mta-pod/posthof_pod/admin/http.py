"""Health, metrics and the admin API, for all workers of this house.

    GET  /healthz                    200 while a worker lives
    GET  /readyz                     200 while mail is taken
    GET  /metrics                    Prometheus text
    GET  /api/v1/config              what runs, what the manifests say, why the newest is refused
    GET  /api/v1/workers
    GET  /api/v1/report              what a pod tells the operator (posthof_crds.report)
    GET  /api/v1/client/ADDRESS      the selections of pods that address is in
    GET  /api/v1/queue               ?sender= recipient= destination= state= id= limit=
    GET  /api/v1/queue/ID            one message with its recipients and the last reply
    GET  /api/v1/queue/ID/content    the message itself (token)
    GET  /api/v1/trace               ?q=ID|ADDRESS|@DOMAIN|MESSAGE-ID & limit=
    POST /api/v1/queue/flush, hold, release, delete   a QueueFilter as JSON (token)
    POST /api/v1/reload              read the manifests now (token)

Rules of this file
- What changes something or shows a mail's content needs `Authorization: Bearer <token>` (token.py). Nothing else that
  a browser would send by itself is taken for proof, so another site cannot act through one.
- The Host header must be an address, localhost or a name of ours: a name that an attacker points at this address
  (DNS rebinding) is refused. No CORS headers, ever.
- Answers are JSON, not cached, and say in `error` what is wrong.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from posthof_pod.admin import token
from posthof_pod.admin.waiting import LIMIT, STATES, QueueFilter, QueueItem, QueuePage
from posthof_pod.observe.metrics import Stats, merged

if TYPE_CHECKING:
    from posthof_pod.admin.supervisor import Supervisor

ACTIONS = ("flush", "hold", "release", "delete")
BODY = 1024 * 1024  # of a request: 10,000 ids fit
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def serve(supervisor: Supervisor, sockets: list[socket.socket]) -> AsyncIterator[None]:
    """Answer on bound sockets as long as the block runs."""
    runner = web.AppRunner(application(supervisor), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        for one in sockets:
            await web.SockSite(runner, one).start()
        yield
    finally:
        await runner.cleanup()


def application(supervisor: Supervisor) -> web.Application:
    api = API(supervisor)
    app = web.Application(middlewares=[api.guard], client_max_size=BODY)
    app.router.add_get("/", api.index)
    app.router.add_get("/healthz", api.healthz)
    app.router.add_get("/readyz", api.readyz)
    app.router.add_get("/metrics", api.metrics)
    app.router.add_get("/api/v1/config", api.config)
    app.router.add_get("/api/v1/workers", api.workers)
    app.router.add_get("/api/v1/report", api.report)
    app.router.add_get("/api/v1/client/{address}", api.client)
    app.router.add_get("/api/v1/queue", api.queue)
    app.router.add_get("/api/v1/queue/{id}", api.message)
    app.router.add_get("/api/v1/queue/{id}/content", api.content)
    app.router.add_get("/api/v1/trace", api.trace)
    app.router.add_post("/api/v1/queue/{action}", api.change)
    app.router.add_post("/api/v1/reload", api.reload)
    return app


class API:
    """The handlers. They ask the crew; they know no message themselves."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._house = supervisor
        self._names = {"localhost", socket.gethostname().lower(), supervisor.config.hostname.lower()}

    # ------------------------------------------------------------------ who may ask

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check_host(request)
            response = await handler(request)
        except web.HTTPException as error:
            response = answer({"error": error.text or error.reason}, error.status)
            for name in ("Allow", "WWW-Authenticate"):
                if name in error.headers:
                    response.headers[name] = error.headers[name]
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            response = answer({"error": str(error)}, 400)
        except Exception as error:
            self._house.events.internal_error(f"http {request.path}", error)
            response = answer({"error": "internal error; the log has it"}, 500)
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    def _check_host(self, request: web.Request) -> None:
        name = host_name(request.headers.get("Host", ""))
        if not (name in self._names or name.endswith(".localhost") or _is_address(name)):
            raise web.HTTPMisdirectedRequest(
                text=f"this is not {name}; ask by address, localhost or the MTA's hostname"
            )
        origin = request.headers.get("Origin")
        if origin and host_name(origin.partition("://")[2]) != name:
            raise web.HTTPForbidden(text="requests from other sites are not answered")

    def _check_token(self, request: web.Request) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.is_same(given.strip(), self._house.token):
            raise web.HTTPUnauthorized(
                text=f"this needs the token in {self._house.config.state_dir}/{token.NAME}",
                headers={"WWW-Authenticate": "Bearer"},
            )

    # ------------------------------------------------------------------ health

    async def index(self, request: web.Request) -> web.Response:
        paths = sorted({r.resource.canonical for r in request.app.router.routes() if r.resource is not None})
        return answer({"mta": self._house.config.name, "hostname": self._house.config.hostname, "paths": paths})

    async def healthz(self, request: web.Request) -> web.Response:
        return self._health(self._house.is_healthy)

    async def readyz(self, request: web.Request) -> web.Response:
        return self._health(self._house.is_ready)

    def _health(self, is_well: bool) -> web.Response:
        states = {worker.name: str(worker.state) for worker in self._house.crew.workers}
        told = {"ok": is_well, "stopping": self._house.is_stopping, "workers": states}
        return answer(told, 200 if is_well else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        return await metrics_of(self._house)

    async def config(self, request: web.Request) -> web.Response:
        house = self._house
        return answer(
            {
                "running": {worker.name: worker.revision for worker in house.crew.workers},
                "desired": house.desired,
                "refused": house.refused,
                "restart_needed_for": house.restart_for,
                "config": house.config,
            }
        )

    async def workers(self, request: web.Request) -> web.Response:
        found = [
            {
                "name": worker.name,
                "pid": worker.pid,
                "state": str(worker.state),
                "spool_id": worker.spool_id,
                "age": round(worker.age, 1),
                "revision": worker.revision,
            }
            for worker in self._house.crew.workers
        ]
        return answer({"workers": found})

    async def report(self, request: web.Request) -> web.Response:
        from posthof_pod.admin.public import identity, report

        return answer(await report(self._house, identity()))

    async def client(self, request: web.Request) -> web.Response:
        address = request.match_info["address"]
        return answer({"address": address, "pods": self._house.crew.pods.get(address, ())})

    # ------------------------------------------------------------------ the queue

    async def queue(self, request: web.Request) -> web.Response:
        return answer(await self._list(_filter_in(request)))

    async def _list(self, wanted: QueueFilter) -> QueuePage:
        answers, missing = await self._house.crew.ask_all("queue.list", wanted)
        page = QueuePage([], missing=missing)
        for worker, told in answers:
            one = msgspec.convert(told, QueuePage)
            page.total += one.total
            for item in one.items:
                item.worker = worker.name
            page.items += one.items
        page.items.sort(key=lambda item: item.arrived)
        del page.items[wanted.limit :]
        return page

    async def message(self, request: web.Request) -> web.Response:
        answers, missing = await self._house.crew.ask_all("queue.show", {"id": request.match_info["id"]})
        for worker, told in answers:
            if told is not None:
                item = msgspec.convert(told, QueueItem)
                item.worker = worker.name
                return answer(item)
        raise _unknown(request.match_info["id"], missing)

    async def content(self, request: web.Request) -> web.Response:
        self._check_token(request)
        answers, missing = await self._house.crew.ask_all("queue.content", {"id": request.match_info["id"]})
        for _, told in answers:
            if told is not None:
                return web.Response(body=told, headers={"Content-Type": "application/octet-stream"})
        raise _unknown(request.match_info["id"], missing)

    async def change(self, request: web.Request) -> web.Response:
        self._check_token(request)
        action = request.match_info["action"]
        if action not in ACTIONS:
            raise web.HTTPNotFound(text=f"no such action: {action}; there are {', '.join(ACTIONS)}")
        wanted = msgspec.json.decode(await request.read(), type=QueueFilter)
        if wanted.is_empty and not wanted.all:
            raise web.HTTPBadRequest(text='an empty filter means every message; say so with {"all": true}')
        answers, missing = await self._house.crew.ask_all(f"queue.{action}", wanted)
        count = sum(int(told["count"]) for _, told in answers)
        return answer({"action": action, "count": count, "missing": missing})

    async def trace(self, request: web.Request) -> web.Response:
        wanted = request.query.get("q", "").strip()
        if not wanted:
            raise web.HTTPBadRequest(text="q: a queue id, an address, @domain or a Message-ID")
        limit = _number(request, "limit", 1000)
        answers, missing = await self._house.crew.ask_all("trace.search", {"wanted": wanted, "limit": limit})
        lines = sorted((raw for _, told in answers for raw in told), key=_time_of)[-limit:]
        waiting = await self._waiting(wanted)
        body = b'{"events":[%b],"queued":%b,"missing":%b}' % (
            b",".join(lines),
            msgspec.json.encode(waiting),
            msgspec.json.encode(missing),
        )
        return web.Response(body=body, content_type="application/json")

    async def _waiting(self, wanted: str) -> list[QueueItem]:
        """What is queued under this name: the ring may have forgotten how it came here."""
        if "@" not in wanted:
            return (await self._list(QueueFilter(ids=[wanted], limit=1))).items
        if wanted.startswith("<"):
            return []
        found = {
            item.id: item
            for one in (QueueFilter(sender=wanted, limit=100), QueueFilter(recipient=wanted, limit=100))
            for item in (await self._list(one)).items
        }
        return sorted(found.values(), key=lambda item: item.arrived)

    async def reload(self, request: web.Request) -> web.Response:
        self._check_token(request)
        errors = await self._house.reload()
        return answer({"errors": errors, "desired": self._house.desired}, 422 if errors else 200)


async def metrics_of(house: Supervisor) -> web.Response:
    """Prometheus text: all workers, and the house itself."""
    from posthof_pod.admin.exposition import exposition

    own: Stats = {
        "posthof_uptime_seconds": round(time.monotonic() - house.started, 3),
        f'posthof_build_info{{version="{installed_version()}"}}': 1,
        "posthof_lease_renewals_total": house.fleet.renewals,
    }
    stats = merged([await house.crew.stats(), house.events.stats(), own])
    return web.Response(body=exposition(stats), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def answer(told: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(told), status=status, content_type="application/json")


def host_name(authority: str) -> str:
    """ "[::1]:8025" -> "::1", "Example.org:80" -> "example.org"."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _filter_in(request: web.Request) -> QueueFilter:
    query = request.query
    known = {"sender", "recipient", "destination", "state", "id", "limit"}
    if unknown := sorted(set(query) - known):
        raise web.HTTPBadRequest(text=f"unknown: {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    wanted = QueueFilter(ids=query.getall("id", []), limit=_number(request, "limit", LIMIT))
    for name in ("sender", "recipient", "destination", "state"):
        setattr(wanted, name, query.get(name, ""))
    if wanted.state and wanted.state not in STATES:
        raise web.HTTPBadRequest(text=f"state: one of {', '.join(STATES)}")
    return wanted


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise web.HTTPBadRequest(text=f"{name}: a number from 1 to 1000000")
    return int(text)


def _unknown(queue_id: str, missing: list[str]) -> web.HTTPException:
    more = f" (no answer from worker {', '.join(missing)})" if missing else ""
    return web.HTTPNotFound(text=f"no message {queue_id} is queued{more}")


def _time_of(raw: bytes) -> bytes:
    """The line's time: it is its first field."""
    return raw[9:33]


def installed_version() -> str:
    try:
        return version("posthof")
    except PackageNotFoundError:
        return "unknown"
