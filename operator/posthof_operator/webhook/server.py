"""The webhook's process: HTTPS for the API server, health and metrics for the kubelet. Any replica answers.

Rules of this file
- It never writes to the cluster, and nothing waits for it: without an answer the API server takes the object
  (failurePolicy Ignore), and conditions tell what is wrong with it.
- Its pair comes from the Secret that the operator keeps, and is taken anew without a restart. A new pair is a new
  context, so that it may have another kind of key; sessions that are open go on.
- Ready means: a pair is there, and the objects have been listed once.
- A review that cannot be judged because of a fault of ours passes with a warning.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import signal
import ssl
import tempfile
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from posthof_operator import health
from posthof_operator.access import Access
from posthof_operator.api import Api, ApiError
from posthof_operator.metrics import Metrics
from posthof_operator.resources import OURS, Raw
from posthof_operator.settings import Settings
from posthof_operator.store import Store
from posthof_operator.watches import Subject, Watches
from posthof_operator.webhook.judge import Answer, judge
from posthof_operator.webhook.view import View

LARGEST = 16 * 1024 * 1024  # bytes of a review; two objects of an API server's largest size, and more
LOOK = 30.0  # seconds between looks at the Secret; a pair is renewed a month before it ends
SOON = 1.0  # while there is none yet
SETTLE = 3.0  # seconds from a signal to the end: until nobody is sent here any more

log = logging.getLogger("posthof_operator.webhook")


class Identity:
    """The pair that is presented. `context` stays; what it presents changes."""

    def __init__(self) -> None:
        self.context = _context()
        self._current: ssl.SSLContext | None = None
        self._pair = (b"", b"")
        self.context.sni_callback = self._choose  # asked for every handshake, also without a name

    @property
    def is_there(self) -> bool:
        return self._current is not None

    def take(self, chain: bytes, key: bytes) -> bool:
        """Present this pair from now on. Returns whether it is another; a bad one leaves the one before."""
        if (chain, key) == self._pair:
            return False
        fresh = _context()
        try:
            with tempfile.NamedTemporaryFile() as file:  # the ssl module loads pairs from files only
                file.write(key + b"\n" + chain)
                file.flush()
                fresh.load_cert_chain(file.name)
        except (ssl.SSLError, ValueError) as error:
            log.error("the pair of the webhook cannot be used: %s", error)
            return False
        self._current, self._pair = fresh, (chain, key)
        return True

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
        if self._current is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._current
        return None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Webhook:
    """Answers reviews from what it sees of the cluster."""

    def __init__(self, view: View, metrics: Metrics) -> None:
        self._view, self._metrics = view, metrics

    def app(self) -> web.Application:
        app = web.Application(client_max_size=LARGEST)
        app.router.add_post("/validate", self._validate)
        return app

    async def _validate(self, http: web.Request) -> web.Response:
        try:
            review = msgspec.json.decode(await http.read())
            request, version = review["request"], review["apiVersion"]
            uid = str(request["uid"])
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            return web.Response(status=400, text=f"this is no AdmissionReview: {type(error).__name__}\n")
        answer = self._answer(request)
        self._metrics.reviews.labels(
            request.get("kind", {}).get("kind", ""), "allowed" if answer.is_allowed else "refused"
        ).inc()
        return web.json_response(body(version, uid, answer), dumps=lambda raw: msgspec.json.encode(raw).decode())

    def _answer(self, request: Raw) -> Answer:
        try:
            return judge(request, self._view)
        except Exception as error:
            log.exception("a review of %s %s", request.get("kind"), request.get("name"))
            return Answer(warnings=(f"posthof: not checked ({type(error).__name__}); see the object's conditions",))


def body(version: str, uid: str, answer: Answer) -> Raw:
    """The AdmissionReview that answers."""
    response: Raw = {"uid": uid, "allowed": answer.is_allowed}
    if answer.warnings:
        response["warnings"] = list(answer.warnings)
    if not answer.is_allowed:
        response["status"] = {"code": 403, "reason": "Forbidden", "message": answer.message}
    return {"apiVersion": version, "kind": "AdmissionReview", "response": response}


async def run(settings: Settings, access: Access) -> int:
    """The process's life. Exit status 0 after a signal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stop.set)
    metrics = Metrics()
    async with Api(access, metrics) as api, serve(settings, api, metrics):
        await stop.wait()
        await asyncio.sleep(SETTLE)
    return 0


@contextlib.asynccontextmanager
async def serve(settings: Settings, api: Api, metrics: Metrics) -> AsyncIterator[tuple[int, int]]:
    """Answer while the block runs. Gives the ports of HTTPS and of health."""
    store, identity = Store(), Identity()
    view = View(store)
    watches = Watches(api, store, metrics)
    is_synced = asyncio.Event()

    def is_ready() -> str:
        if not identity.is_there:
            return "the operator has not made the certificate yet"
        return "" if is_synced.is_set() else "the objects are not listed yet"

    async def sync() -> None:
        kinds = [Subject(kind, is_metadata_only=False) for kind in OURS] + [Subject("Namespace")]
        await watches.want("webhook", kinds)
        is_synced.set()

    tasks = [asyncio.create_task(sync()), asyncio.create_task(_follow(settings, api, identity))]
    runner = web.AppRunner(Webhook(view, metrics).app(), access_log=None, shutdown_timeout=5.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, None, settings.webhook_port, ssl_context=identity.context)
        await site.start()
        async with health.serve(settings, metrics, lambda: "", is_ready) as port:
            yield health.port_of(runner), port
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await watches.close()
        await runner.cleanup()


async def _follow(settings: Settings, api: Api, identity: Identity) -> None:
    """Take the pair of the Secret, whenever it is another."""
    name = f"{settings.webhook_service}-tls"
    while True:
        try:
            secret = await api.get("Secret", settings.namespace, name)
            data = (secret or {}).get("data") or {}
            if "tls.crt" in data and "tls.key" in data:
                taken = identity.take(base64.b64decode(data["tls.crt"]), base64.b64decode(data["tls.key"]))
                if taken:
                    log.info("the webhook presents the pair of Secret %s", name)
        except ApiError as error:
            log.warning("the webhook's pair: %s", error)
        await asyncio.sleep(LOOK if identity.is_there else SOON)
