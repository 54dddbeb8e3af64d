"""An API server over TLS that knows get and watch of named objects, and Leases: what a pod of ours asks, and no more.

It runs in a thread of its own, so that real processes can ask it. `account` is a service account's folder with a
token and the CA; both can be replaced, as a kubelet does.

    with ApiServer(tmp_path) as api:
        api.put("configmaps", "edge-config-0", {"config": b"..."})
        api.away()      # nobody listens any more
        api.back()
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kit.peers import free_port


class ApiServer:
    """`requests`: "get configmaps/edge-config-0" and the like, in order. `leases`: by name, as stored."""

    def __init__(self, folder: Path, namespace: str = "mail") -> None:
        self.account = folder / "account"
        self.account.mkdir()
        self.namespace = namespace
        self.port = free_port()
        self.requests: list[str] = []
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.leases: dict[str, dict[str, Any]] = {}
        self.denied: set[str] = set()  # "configmaps/edge-config-0"; "leases/" for all Leases
        self._token = ""
        self._version = 0
        self._watchers: set[tuple[str, str, asyncio.Queue[dict[str, Any]]]] = set()
        self._runner: web.AppRunner | None = None
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.renew()

    @property
    def environment(self) -> dict[str, str]:
        """What tells a pod where it is."""
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.port),
            "POSTHOF_ACCOUNT": str(self.account),
        }

    def __enter__(self) -> Self:
        self._thread.start()
        self.back()
        return self

    def __exit__(self, *_: object) -> None:
        self.away()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def _call(self, act: Callable[[], Any]) -> Any:
        """In the server's thread."""

        async def run() -> Any:
            found = act()
            return await found if asyncio.iscoroutine(found) else found

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    # ------------------------------------------------------------------ for tests

    def renew(self) -> None:
        """Another CA with another certificate, and another token; the old ones are refused from now on."""
        self._pair = _pair(self.account.parent)
        self._token = f"token-{x509.random_serial_number():x}"
        _replace(self.account / "ca.crt", self._pair[0].read_text())
        _replace(self.account / "token", self._token)

    def back(self) -> None:
        self._call(self._start)

    def away(self) -> None:
        self._call(self._stop)

    def put(self, kind: str, name: str, contents: dict[str, bytes]) -> None:
        self._call(lambda: self._put(kind, name, contents))

    def remove(self, kind: str, name: str) -> None:
        self._call(lambda: self._remove(kind, name))

    def remove_lease(self, name: str) -> None:
        self._call(lambda: self.leases.pop(name, None))

    # ------------------------------------------------------------------ the server

    async def _start(self) -> None:
        if self._runner is not None:
            return
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/{namespace}/{kind}/{name}", self._get)
        app.router.add_get("/api/v1/namespaces/{namespace}/{kind}", self._watch)
        leases = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        app.router.add_get(leases, self._list_leases)
        app.router.add_post(leases, self._create_lease)
        for method in ("GET", "PATCH", "DELETE"):
            app.router.add_route(method, leases + "/{name}", self._one_lease)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._pair)
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context, reuse_address=True).start()

    async def _stop(self) -> None:
        runner, self._runner = self._runner, None
        for _, _, queue in self._watchers:
            queue.put_nowait({})
        if runner is not None:
            await runner.cleanup()

    def _put(self, kind: str, name: str, contents: dict[str, bytes]) -> None:
        self._version += 1
        field = "data" if kind == "secrets" else "binaryData"
        is_new = (kind, name) not in self.objects
        self.objects[kind, name] = {
            "metadata": {"name": name, "resourceVersion": str(self._version)},
            field: {key: base64.b64encode(content).decode() for key, content in contents.items()},
        }
        self._tell(kind, name, "ADDED" if is_new else "MODIFIED")

    def _remove(self, kind: str, name: str) -> None:
        self._tell(kind, name, "DELETED")
        del self.objects[kind, name]

    def _tell(self, kind: str, name: str, what: str) -> None:
        for a_kind, a_name, queue in self._watchers:
            if (a_kind, a_name) == (kind, name):
                queue.put_nowait({"type": what, "object": self.objects[kind, name]})

    def _check(self, request: web.Request, verb: str, name: str) -> web.Response | None:
        kind = request.match_info.get("kind", "leases")
        self.requests.append(f"{verb} {kind}/{name}")
        if request.headers.get("Authorization") != f"Bearer {self._token}":
            return _status(401, "Unauthorized")
        if request.match_info["namespace"] != self.namespace or f"{kind}/{name}" in self.denied:
            return _status(403, f"{kind} {name!r} is forbidden")
        return None

    async def _get(self, request: web.Request) -> web.Response:
        kind, name = request.match_info["kind"], request.match_info["name"]
        if (refusal := self._check(request, "get", name)) is not None:
            return refusal
        found = self.objects.get((kind, name))
        return web.json_response(found) if found is not None else _status(404, f"{kind} {name!r} not found")

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        kind = request.match_info["kind"]
        name = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        if not name or "watch" not in request.query:
            return _status(403, f"{kind} is forbidden: cannot list")
        if (refusal := self._check(request, "watch", name)) is not None:
            return refusal
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        if (kind, name) in self.objects:
            queue.put_nowait({"type": "ADDED", "object": self.objects[kind, name]})
        watcher = (kind, name, queue)
        self._watchers.add(watcher)
        try:
            while event := await queue.get():
                await response.write(json.dumps(event).encode() + b"\n")
        finally:
            self._watchers.discard(watcher)
        return response

    # ------------------------------------------------------------------ Leases

    def _refuse_lease(self, request: web.Request, verb: str) -> web.Response | None:
        if "leases/" in self.denied:
            self.denied.add(f"leases/{request.match_info.get('name', '')}")
        return self._check(request, verb, request.match_info.get("name", ""))

    async def _list_leases(self, request: web.Request) -> web.Response:
        if (refusal := self._refuse_lease(request, "list")) is not None:
            return refusal
        wanted = dict(one.split("=") for one in request.query.get("labelSelector", "").split(",") if one)
        found = [one for one in self.leases.values() if wanted.items() <= one["metadata"].get("labels", {}).items()]
        return web.json_response({"kind": "LeaseList", "items": found, "metadata": {"resourceVersion": "1"}})

    async def _create_lease(self, request: web.Request) -> web.Response:
        if (refusal := self._refuse_lease(request, "create")) is not None:
            return refusal
        lease = await request.json()
        if lease["metadata"]["name"] in self.leases:
            return _status(409, "already exists")
        self._version += 1
        lease["metadata"] |= {"uid": f"uid-{self._version}", "resourceVersion": str(self._version)}
        self.leases[lease["metadata"]["name"]] = lease
        return web.json_response(lease, status=201)

    async def _one_lease(self, request: web.Request) -> web.Response:
        if (refusal := self._refuse_lease(request, request.method.lower())) is not None:
            return refusal
        name = request.match_info["name"]
        found = self.leases.get(name)
        if found is None:
            return _status(404, f"leases {name!r} not found")
        if request.method == "GET":
            return web.json_response(found)
        given = await request.json() if request.can_read_body else {}
        stated = given.get("preconditions", {}) if request.method == "DELETE" else given.get("metadata", {})
        if stated.get("uid", found["metadata"]["uid"]) != found["metadata"]["uid"]:
            return _status(409, "Precondition failed: UID in precondition differs")
        if request.method == "DELETE":
            del self.leases[name]
            return web.json_response(found)
        if request.content_type != "application/merge-patch+json":
            return _status(415, request.content_type)
        self._version += 1
        self.leases[name] = _merged(found, given)
        self.leases[name]["metadata"]["resourceVersion"] = str(self._version)
        return web.json_response(self.leases[name])


def _merged(old: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """RFC 7386."""
    found = dict(old)
    for name, value in change.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, dict):
            found[name] = _merged(found.get(name) or {}, value)
        else:
            found[name] = value
    return found


def _status(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message, "metadata": {}}, status=code)


def _replace(path: Path, text: str) -> None:
    """Whole, by rename."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(path)


def _pair(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"api-{x509.random_serial_number():x}")])
    now = datetime.datetime.now(datetime.UTC)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(loopback, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "api.crt", folder / "api.key"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return chain, private
