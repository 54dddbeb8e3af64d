"""The API server, as far as a pod needs it: get and watch ConfigMaps and Secrets by their names; its Lease, and those
of the pods beside it.

Rules of this file
- ConfigMaps and Secrets are read and never written; the pod's Role allows `get` and `watch` of its own ones by name,
  and no `list`. The one object a pod writes is its Lease.
- Leases are listed without a version, so what comes is what the API server's store had when it was asked, or later.
- A watch begins without a version: the server first tells what is there now, then every change. So nothing has to be
  remembered over a broken watch.
- The token and the CA are read again when their files change (a kubelet replaces the token hourly); neither stands in
  a log or an error.
- A connection whose other end vanished without a word is noticed within half a minute (keep-alive of the kernel), and
  a watch ends by itself after WATCH seconds.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import random
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp
import msgspec

T = TypeVar("T")

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WATCH = 240  # seconds
ANSWER = 10.0  # seconds for the answer to a get, and for the first byte of a watch
LEASES = 3.0  # seconds for anything about Leases: a late answer is worth nothing there
DELETE = {"apiVersion": "v1", "kind": "DeleteOptions"}
LINE_MAX = 4 * 1024 * 1024  # one event: an object of 1 MiB in base64, and some


class Ref(NamedTuple):
    """One key of a named object. `kind`: "configmaps" or "secrets"."""

    kind: str
    name: str
    key: str


class Away(Exception):
    """The API server does not answer. The text says how."""


class Denied(Exception):
    """It answers, and refuses. The text names the object and what it said."""


class Object(NamedTuple):
    """What stands under the key. `content` None: no such object, or no such key in it."""

    content: bytes | None
    version: str


class Conflict(Exception):
    """It is there already (create), or is not what it was (patch)."""


class LeaseHead(msgspec.Struct):
    """As the API server spells it."""

    name: str
    uid: str = ""
    annotations: dict[str, str] | None = None


class LeaseSpec(msgspec.Struct):
    """As the API server spells it. `renewTime` is only ever compared with itself."""

    holderIdentity: str | None = None  # noqa: N815 -- the API server's spelling
    renewTime: str | None = None  # noqa: N815 -- the API server's spelling
    leaseTransitions: int | None = None  # noqa: N815 -- the API server's spelling


class Lease(msgspec.Struct):
    """coordination.k8s.io/v1, as far as pods read it."""

    metadata: LeaseHead
    spec: LeaseSpec = msgspec.field(default_factory=LeaseSpec)


class _Leases(msgspec.Struct):
    items: list[Lease] = []


class _Meta(msgspec.Struct):
    resourceVersion: str = ""  # noqa: N815 -- the API server's spelling


class _Raw(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    data: dict[str, str] | None = None
    binaryData: dict[str, str] | None = None  # noqa: N815 -- the API server's spelling
    message: str = ""  # of a Status
    code: int = 0


class _Event(msgspec.Struct):
    type: str
    object: _Raw


_OBJECT = msgspec.json.Decoder(_Raw)
_EVENT = msgspec.json.Decoder(_Event)
_LEASE = msgspec.json.Decoder(Lease)
_LEASES = msgspec.json.Decoder(_Leases)


class ApiServer:
    """`async with ApiServer(...) as api`. `url`: "https://[::1]:6443"; `account`: the folder of token and ca.crt."""

    def __init__(self, url: str, namespace: str, account: Path = ACCOUNT) -> None:
        self._url, self._namespace, self._account = url.rstrip("/"), namespace, account
        self._context: ssl.SSLContext | None = None
        self._context_of: tuple[int, int] = (0, 0)  # mtime and inode of the CA it was made from
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ApiServer:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, ref: Ref) -> Object:
        """The object as it is now. Raises Away, Denied."""
        timeout = aiohttp.ClientTimeout(total=ANSWER)
        async with self._request(ref, f"{self._path(ref)}/{ref.name}", {}, timeout) as response:
            if response.status == 404:
                return Object(None, "")
            raw = await response.read()
        return _object(_OBJECT.decode(raw), ref)

    async def watch(self, ref: Ref) -> AsyncGenerator[Object, None]:
        """The object as it is now, if there is one, then at each change; ends after WATCH seconds. A removed object
        is `Object(None, ...)`. Raises Away, Denied."""
        seconds = WATCH + random.randrange(30)  # so that not all watches end at once
        query = {"watch": "1", "fieldSelector": f"metadata.name={ref.name}", "timeoutSeconds": str(seconds)}
        timeout = aiohttp.ClientTimeout(sock_connect=ANSWER, sock_read=seconds + ANSWER)
        async with self._request(ref, self._path(ref), query, timeout) as response:
            _keep_alive(response)
            async for line in _lines(response):
                event = _EVENT.decode(line)
                if event.type == "ERROR":
                    if event.object.code == 410:  # "too old": the next watch begins with what is there
                        return
                    raise Denied(f"{ref.kind}/{ref.name}: {event.object.message}")
                if event.type == "DELETED":
                    yield Object(None, event.object.metadata.resourceVersion)
                elif event.type in ("ADDED", "MODIFIED"):
                    yield _object(event.object, ref)

    # ------------------------------------------------------------------ Leases

    async def leases(self, selector: str) -> list[Lease]:
        """All with these labels ("a=b,c=d"), as they are now. Raises Away, Denied."""
        return _read(_LEASES, await self._about_leases("GET", "", {"labelSelector": selector})).items

    async def get_lease(self, name: str) -> Lease | None:
        """Raises Away, Denied."""
        answer = await self._about_leases("GET", name)
        return _read(_LEASE, answer) if answer else None

    async def create_lease(self, lease: Mapping[str, Any]) -> Lease:
        """Raises Conflict: there is one of this name; Away, Denied."""
        return _read(_LEASE, await self._about_leases("POST", "", body=lease))

    async def patch_lease(self, name: str, change: Mapping[str, Any]) -> Lease | None:
        """A merge patch; with a `metadata.uid` in it only of that very object. None: there is none of this name.
        Raises Conflict: it is another object; Away, Denied."""
        answer = await self._about_leases("PATCH", name, body=change)
        return _read(_LEASE, answer) if answer else None

    async def delete_lease(self, name: str, uid: str) -> None:
        """That very object; it may be gone. Raises Conflict: it is another object; Away, Denied."""
        await self._about_leases("DELETE", name, body=DELETE | {"preconditions": {"uid": uid}})

    async def _about_leases(
        self, method: str, name: str, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> bytes:
        """The answer's body; b"" where there is no such Lease."""
        url = f"{self._url}/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases"
        ref = Ref("leases", name, "")
        patience = aiohttp.ClientTimeout(total=LEASES)
        url = f"{url}/{name}" if name else url
        asked = self._request(ref, url, query or {}, patience, method=method, body=body)
        async with asked as response:
            return b"" if response.status == 404 else await response.read()

    # ------------------------------------------------------------------ how

    def _path(self, ref: Ref) -> str:
        return f"{self._url}/api/v1/namespaces/{self._namespace}/{ref.kind}"

    @contextlib.asynccontextmanager
    async def _request(
        self,
        ref: Ref,
        url: str,
        query: Mapping[str, str],
        patience: aiohttp.ClientTimeout,
        *,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None, "used outside `async with`"
        try:
            context = self._tls() if url.startswith("https:") else True
            headers = {"Authorization": f"Bearer {self._token()}", "Accept": "application/json"}
            data = None
            if body is not None:
                data = msgspec.json.encode(body)
                kind = "merge-patch+json" if method == "PATCH" else "json"
                headers["Content-Type"] = f"application/{kind}"
            async with self._session.request(
                method,
                url,
                params=query,
                headers=headers,
                data=data,
                ssl=context,
                timeout=patience,
                allow_redirects=False,
            ) as response:
                if response.status >= 400 and response.status != 404:
                    raise _refusal(response.status, await response.read(), ref)
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as error:
            why = getattr(error, "os_error", error)  # the client library's own text prints its objects
            raise Away(f"the API server does not answer: {why or type(error).__name__}") from None
        except msgspec.DecodeError as error:
            raise Away(f"the API server's answer cannot be read: {error}") from None

    def _token(self) -> str:
        return (self._account / "token").read_text("ascii").strip()

    def _tls(self) -> ssl.SSLContext:
        path = self._account / "ca.crt"
        status = path.stat()
        seen = (status.st_mtime_ns, status.st_ino)
        if self._context is None or seen != self._context_of:
            self._context = ssl.create_default_context(cafile=str(path))
            self._context_of = seen
        return self._context


def in_cluster(namespace: str, environment: Mapping[str, str] = os.environ) -> ApiServer | None:
    """The API server of the cluster this pod runs in; None: there is none, or the pod has no service account."""
    account = Path(environment.get("POSTHOF_ACCOUNT", "") or ACCOUNT)
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (account / "token").exists():
        return None
    return ApiServer(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}", namespace, account)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Events, one a line. An event may be larger than any buffer of the client library."""
    rest = bytearray()
    async for chunk in response.content.iter_any():
        rest += chunk
        while (end := rest.find(b"\n")) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            if line.strip():
                yield line
        if len(rest) > LINE_MAX:
            raise OSError(f"an event of more than {LINE_MAX} bytes")


def _object(raw: _Raw, ref: Ref) -> Object:
    """Secrets have base64 in `data`; ConfigMaps in `binaryData`, and text in `data`."""
    encoded = (raw.data if ref.kind == "secrets" else raw.binaryData) or {}
    text = (raw.data or {}) if ref.kind == "configmaps" else {}
    content: bytes | None = None
    if ref.key in encoded:
        try:
            content = base64.b64decode(encoded[ref.key], validate=True)
        except binascii.Error:
            raise Denied(f"{ref.kind}/{ref.name}: {ref.key} is not base64") from None
    elif ref.key in text:
        content = text[ref.key].encode()
    return Object(content, raw.metadata.resourceVersion)


def _read(decoder: msgspec.json.Decoder[T], answer: bytes) -> T:
    try:
        return decoder.decode(answer)
    except msgspec.DecodeError as error:
        raise Away(f"the API server's answer cannot be read: {error}") from None


def _refusal(status: int, body: bytes, ref: Ref) -> Exception:
    """Away, Denied, Conflict."""
    try:
        message = _OBJECT.decode(body).message
    except msgspec.DecodeError:
        message = ""
    text = f"{ref.kind}/{ref.name}: the API server answered {status}{': ' if message else ''}{message}"
    if status in (409, 422):  # 422: a patch whose `metadata.uid` is not the object's
        return Conflict(text)
    return Away(text) if status >= 500 or status == 429 else Denied(text)


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    """Let the kernel ask the other end whether it is still there."""
    connection = response.connection
    end = connection.transport.get_extra_info("socket") if connection and connection.transport else None
    if end is None or end.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in options:
        end.setsockopt(socket.IPPROTO_TCP, option, value)
