"""Our own MTA-STS policies, served by HTTPS (RFC 8461 3.3): GET /.well-known/mta-sts.txt at mta-sts.<domain>.

Rules of this file
- Served from the configuration and the certificates in force (policies.py); anything else is 404.
- The certificate is chosen at each handshake, so a renewed one is in use at once.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from posthof_pod.admin.policies import policy_of

if TYPE_CHECKING:
    from posthof_pod.admin.supervisor import Supervisor

PATH = "/.well-known/mta-sts.txt"


def front_context(current: Callable[[], ssl.SSLContext | None]) -> ssl.SSLContext:
    """A context without a certificate that passes each handshake on to the one in force."""
    front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    front.minimum_version = ssl.TLSVersion.TLSv1_2

    def choose(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> int | None:
        context = current()
        if context is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = context
        if context.sni_callback is not None:  # several certificates: the one of that name
            context.sni_callback(connection, name, context)  # type: ignore[arg-type]  # as the loop calls it
        return None

    front.sni_callback = choose
    return front


@contextlib.asynccontextmanager
async def serve_policies(house: Supervisor, sockets: list[socket.socket]) -> AsyncIterator[None]:
    """Answer on bound sockets as long as the block runs."""
    if not sockets:
        yield
        return

    async def answer(request: web.Request) -> web.Response:
        found = policy_of(house.config, house.proof.unproven, request.host)
        if found is None:
            raise web.HTTPNotFound(text="no MTA-STS policy under this name\n")
        return web.Response(text=found, content_type="text/plain", headers={"Cache-Control": "max-age=60"})

    app = web.Application(client_max_size=1024)
    app.router.add_get(PATH, answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        for one in sockets:
            await web.SockSite(runner, one, ssl_context=front_context(house.policy_context)).start()
        yield
    finally:
        await runner.cleanup()
