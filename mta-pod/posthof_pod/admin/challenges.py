"""An ACME server's questions over HTTP (RFC 8555 8.3): GET /.well-known/acme-challenge/TOKEN on the ports of http01.

Rules of this file
- The answer is the token and the account's thumbprint: nothing is stored for an order, and every pod answers alike.
  Who asks with a token of their own learns what is public, and gains nothing: an order needs the account's key.
- Only for the names of certificates that are ordered so; anything else is 404.
- Ports are opened and closed as the configuration wants them; one that cannot be bound is told, and mail goes on.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from aiohttp import web

from posthof_certs import acme
from posthof_crds.engine import HTTPSettings
from posthof_pod.admin.prepare import bind_public
from posthof_pod.admin.sockets import BindFailed

PATH = "/.well-known/acme-challenge/{token}"

Thumbprints = Mapping[str, str]  # DNS name -> thumbprint of the account that orders its certificate


class Challenges:
    """`bound`: sockets that were bound at the start, while privileged, by port."""

    def __init__(self, thumbprints: Callable[[], Thumbprints], bound: dict[int, list[socket.socket]]) -> None:
        self._thumbprints, self._bound = thumbprints, bound
        self._runners: dict[int, web.AppRunner] = {}

    @property
    def ports(self) -> set[int]:
        """Those that are served."""
        return set(self._runners)

    async def follow(self, ports: set[int]) -> list[str]:
        """Serve exactly these ports. Returns what is wrong."""
        problems = []
        for port in sorted(self._runners.keys() - ports):
            await self._runners.pop(port).cleanup()
        for port in sorted(ports - self._runners.keys()):
            try:
                sockets = self._bound.pop(port, None) or bind_public(HTTPSettings(host="", port=port))
            except BindFailed as error:
                problems.append(f"ACME servers cannot ask here: {error}")
                continue
            self._runners[port] = await self._serve(sockets)
        return problems

    async def close(self) -> None:
        await self.follow(set())
        for sockets in self._bound.values():
            for one in sockets:
                one.close()

    async def _serve(self, sockets: list[socket.socket]) -> web.AppRunner:
        app = web.Application(client_max_size=1024)
        app.router.add_get(PATH, self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        for one in sockets:
            await web.SockSite(runner, one).start()
        return runner

    async def _answer(self, request: web.Request) -> web.Response:
        known = self._thumbprints()
        host = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdecimal() else request.host
        thumbprint = known.get(host.lower().rstrip("."), "")
        body = acme.answer(request.match_info["token"], thumbprint) if thumbprint else None
        if body is None:
            raise web.HTTPNotFound(text="nobody was asked to prove this name here\n")
        return web.Response(text=body, content_type="application/octet-stream")
