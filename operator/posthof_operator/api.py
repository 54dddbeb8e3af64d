"""The API server, as far as the operator needs it: get, list, watch, server-side apply, delete, events.

Rules of this file
- The only file that sends requests to the API server by itself (kopf's watches are the other way in).
- Everything that owns fields is written by server-side apply. `write` counts as one request that writes.
- An answer that is no success is an `ApiError`; a server that does not answer is one with status 0. Nothing retries
  here: the work queue does, with the newest state.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import aiohttp
import msgspec

from posthof_operator.access import Access
from posthof_operator.metrics import Metrics
from posthof_operator.resources import MANAGER, RESOURCES, Key, Raw, Resource

PAGE = 500  # objects of one page of a list
TIMEOUT = 30.0
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class ApiError(Exception):
    """`status` is the HTTP status, 0: no answer. `reason` is the API server's word (NotFound, Conflict, ...)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status, self.reason, self.message = status, reason, message
        super().__init__(f"{reason}: {message}")

    @property
    def is_missing(self) -> bool:
        return self.status == 404

    @property
    def is_conflict(self) -> bool:
        """Somebody wrote in between, or it exists already."""
        return self.status == 409

    @property
    def is_gone(self) -> bool:
        """A watch or a list asked for a version the server has forgotten."""
        return self.status == 410 or self.reason in ("Expired", "Gone")

    @property
    def is_passing(self) -> bool:
        """The server is away, or too busy."""
        return self.status in (0, 429) or self.status >= 500

    @property
    def is_final(self) -> bool:
        """Asking the same again helps nobody: the object itself is refused."""
        return self.status in (400, 403, 405, 413, 415, 422)


class Page(NamedTuple):
    items: list[Raw]
    version: str  # resourceVersion of the list


class WatchEvent(NamedTuple):
    type: str  # ADDED, MODIFIED, DELETED, BOOKMARK
    object: Raw


class Api:
    """One connection pool. `async with Api(access, metrics) as api`. Namespaces and names are plain texts."""

    def __init__(self, access: Access, metrics: Metrics, *, connections: int = 32) -> None:
        self.access = access
        self._metrics = metrics
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Api:
        context: ssl.SSLContext | bool = self.access.ssl_context() or True
        connector = aiohttp.TCPConnector(ssl=context, limit=0, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=True)
        self._slots = asyncio.Semaphore(self._connections)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    # ------------------------------------------------------------------ reading

    async def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        """The object, or None: there is none."""
        try:
            return await self._json("GET", RESOURCES[kind].path(namespace, name), verb="get", kind=kind)
        except ApiError as error:
            if error.is_missing:
                return None
            raise

    async def list_(self, kind: str, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Raw]:
        """All objects of a namespace, or ("") of the cluster."""
        return [
            item async for page in self.pages(kind, namespace, labels=labels, fields=fields) for item in page.items
        ]

    async def pages(
        self, kind: str, namespace: str = "", *, labels: str = "", fields: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Page]:
        """A list, page by page. Items have no `kind`. ApiError.is_gone: it took too long, begin again."""
        query = {"limit": str(PAGE)} | _selectors(labels, fields)
        headers = {"Accept": METADATA_LIST} if metadata_only else {}
        path = RESOURCES[kind].path(namespace)
        while True:
            raw = await self._json("GET", path, query=query, headers=headers, verb="list", kind=kind)
            yield Page(
                raw["items"] or [], raw["metadata"].get("resourceVersion", "")
            )  # an empty list of metadata is null
            more = raw["metadata"].get("continue", "")
            if not more:
                return
            query["continue"] = more

    async def watch(
        self,
        kind: str,
        namespace: str,
        version: str,
        *,
        labels: str = "",
        fields: str = "",
        metadata_only: bool = False,
        lasting: float = 300.0,
        silence: float = 90.0,
    ) -> AsyncIterator[WatchEvent]:
        """Events after `version`, bookmarks too, until the server ends it after `lasting` seconds, or nothing (not
        even a bookmark; quiet kinds get none) came for `silence` seconds: then the connection may be dead. Go on from
        the last version in both cases. ApiError: it could not begin, or broke."""
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        query |= {"timeoutSeconds": str(int(lasting))} | _selectors(labels, fields)
        headers = {"Accept": METADATA} if metadata_only else {}
        limits = aiohttp.ClientTimeout(total=lasting + 10, sock_connect=TIMEOUT, sock_read=silence)
        path = RESOURCES[kind].path(namespace)
        try:
            async with self._request("GET", path, query=query, headers=headers, body=None, limits=limits) as response:
                self._metrics.request("watch", kind, response.status)
                if response.status != 200:
                    raise _error(response.status, await response.read())
                async for line in _lines(response):
                    event = msgspec.json.decode(line)
                    if event["type"] == "ERROR":
                        raise _error(int(event["object"].get("code", 500)), msgspec.json.encode(event["object"]))
                    yield WatchEvent(event["type"], event["object"])
        except aiohttp.SocketTimeoutError:
            return
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{type(error).__name__}: {error}") from None

    async def has(self, resource: Resource) -> bool:
        """Is this kind served here?"""
        try:
            found = await self._json(
                "GET", f"/apis/{resource.group}/{resource.version}", verb="get", kind="APIResourceList"
            )
        except ApiError as error:
            if error.is_missing:
                return False
            raise
        return any(entry["name"] == resource.plural for entry in found["resources"])

    # ------------------------------------------------------------------ writing

    async def apply(self, body: Raw, *, manager: str = MANAGER, sub: str = "") -> Raw:
        """Server-side apply, by force: what `body` says is ours from now on. Returns the object as it is then."""
        metadata = body["metadata"]
        path = RESOURCES[body["kind"]].path(metadata.get("namespace", ""), metadata["name"], sub)
        return await self._json(
            "PATCH",
            path,
            query={"fieldManager": manager, "force": "true"},
            body=body,
            headers={"Content-Type": "application/apply-patch+yaml"},
            verb="apply_status" if sub else "apply",
            kind=body["kind"],
        )

    async def apply_status(self, key: Key, status: Raw, *, manager: str = MANAGER) -> Raw:
        """What this manager says in /status; fields it does not repeat go away."""
        return await self.apply(
            {
                "apiVersion": RESOURCES[key.kind].api_version,
                "kind": key.kind,
                "metadata": {"name": key.name, "namespace": key.namespace},
                "status": status,
            },
            manager=manager,
            sub="status",
        )

    async def patch(self, key: Key, body: Raw, *, sub: str = "") -> Raw:
        """JSON merge patch; for finalizers and annotations, with metadata.resourceVersion to be sure of the state."""
        headers = {"Content-Type": "application/merge-patch+json"}
        path = RESOURCES[key.kind].path(key.namespace, key.name, sub)
        query = {"fieldManager": MANAGER}
        return await self._json("PATCH", path, query=query, body=body, headers=headers, verb="patch", kind=key.kind)

    async def create(self, body: Raw) -> Raw:
        """ApiError.is_conflict: it exists."""
        path = RESOURCES[body["kind"]].path(body["metadata"].get("namespace", ""))
        return await self._json("POST", path, body=body, verb="create", kind=body["kind"])

    async def replace(self, body: Raw) -> Raw:
        """PUT with the resourceVersion in `body`. ApiError.is_conflict: somebody else wrote first."""
        metadata = body["metadata"]
        path = RESOURCES[body["kind"]].path(metadata.get("namespace", ""), metadata["name"])
        return await self._json("PUT", path, body=body, verb="replace", kind=body["kind"])

    async def delete(self, key: Key, *, uid: str = "") -> bool:
        """False: it was gone already, or (with `uid`) another object has the name now."""
        options: Raw = {"propagationPolicy": "Background"} | ({"preconditions": {"uid": uid}} if uid else {})
        path = RESOURCES[key.kind].path(key.namespace, key.name)
        try:
            await self._json("DELETE", path, body=options, verb="delete", kind=key.kind)
        except ApiError as error:
            if error.is_missing or (uid and error.is_conflict):
                return False
            raise
        return True

    async def create_event(self, event: Raw) -> None:
        await self.create(event)

    # ------------------------------------------------------------------ the wire

    async def _json(
        self,
        method: str,
        path: str,
        *,
        verb: str,
        kind: str,
        query: Mapping[str, str] | None = None,
        body: Raw | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Raw:
        limits = aiohttp.ClientTimeout(total=TIMEOUT)
        async with self._slots:
            sent = self._request(method, path, query=query or {}, headers=headers or {}, body=body, limits=limits)
            try:
                async with sent as response:
                    content = await response.read()
                    self._metrics.request(verb, kind, response.status)
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                self._metrics.request(verb, kind, 0)
                raise ApiError(0, "Unreachable", f"{type(error).__name__}: {error}") from None
        if response.status >= 300:
            raise _error(response.status, content)
        found: Raw = msgspec.json.decode(content)
        return found

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: Raw | None,
        limits: aiohttp.ClientTimeout,
    ) -> Any:  # aiohttp's context manager of a response
        if self._session is None:
            raise RuntimeError("use `async with Api(...)`")
        sent = {"Accept": "application/json", "User-Agent": MANAGER} | dict(headers)
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        token = self.access.bearer()
        if token:
            sent["Authorization"] = f"Bearer {token}"
        data = None if body is None else msgspec.json.encode(body)
        url = self.access.server + path
        return self._session.request(method, url, params=query, data=data, headers=sent, timeout=limits)


def _selectors(labels: str, fields: str) -> dict[str, str]:
    given = {"labelSelector": labels, "fieldSelector": fields}
    return {name: text for name, text in given.items() if text}


def _error(status: int, content: bytes) -> ApiError:
    """The API server answers with a Status object; a proxy in front of it may not."""
    try:
        raw = msgspec.json.decode(content)
        return ApiError(status, str(raw.get("reason") or status), str(raw.get("message", "")))
    except (msgspec.DecodeError, AttributeError):
        return ApiError(status, str(status), content[:200].decode(errors="replace"))


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Lines of any length: an object may have megabytes."""
    rest: list[bytes] = []
    async for chunk in response.content.iter_any():
        *whole, last = chunk.split(b"\n")
        for line in whole:
            rest.append(line)
            joined = b"".join(rest)
            rest = []
            if joined:
                yield joined
        rest.append(last)
