"""The Kubernetes API as the scenarios use it: over the unix socket of `kubectl proxy`.

One process of kubectl does what a kubeconfig may ask for (certificates, tokens, log-in programs), and hundreds of
looks at an object cost no process each. Blocking; one connection per thread.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

Object = dict[str, Any]
MANAGER = "e2e"


class ApiError(Exception):
    """What the API server refused, or (status 0 and 5xx) that it did not answer."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message

    @property
    def is_away(self) -> bool:
        """Nobody answered: the server (or the proxy to it) is down, which is no answer to the question."""
        return self.status == 0 or self.status >= 500


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """Requests by kind and name. Objects are the plain dicts of JSON."""

    def __init__(self, unix_socket: Path) -> None:
        self._socket = str(unix_socket)
        self._local = threading.local()
        self._kinds: dict[tuple[str, str], tuple[str, bool]] = {}

    # ------------------------------------------------------------ requests
    def call(self, method: str, path: str, body: object = None, media: str = "application/json") -> bytes:
        """The body of the answer. ApiError for everything that is not 2xx."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            answer, data = self._exchange(method, path, content, media)
        except (OSError, http.client.HTTPException) as fault:
            raise ApiError(0, type(fault).__name__, str(fault)) from fault
        if 200 <= answer.status < 300:
            return data
        try:
            told = json.loads(data)
            raise ApiError(answer.status, told.get("reason") or answer.reason, told.get("message") or "")
        except (ValueError, AttributeError):
            raise ApiError(answer.status, answer.reason, data.decode(errors="replace")[:500]) from None

    def _exchange(
        self, method: str, path: str, content: bytes | None, media: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        for attempt in (1, 2):  # a kept connection may have gone
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = _Connection(self._socket, 120.0)
            try:
                connection.request(method, path, content, {"Content-Type": media})
                answer = connection.getresponse()
                return answer, answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                self._local.connection = None
                if attempt == 2 or method not in ("GET", "PATCH", "DELETE"):
                    raise
        raise AssertionError("unreachable")

    def stream(self, path: str) -> http.client.HTTPConnection:
        """A connection of its own on which the answer to GET comes, for as long as it lasts."""
        connection = _Connection(self._socket, 600.0)
        connection.request("GET", path)
        return connection

    def json(self, method: str, path: str, body: object = None, media: str = "application/json") -> Any:
        return json.loads(self.call(method, path, body, media))

    # ------------------------------------------------------------ objects
    def path(self, version: str, kind: str, namespace: str | None, name: str = "", **query: str) -> str:
        """The path of an object, or of all of its kind in a namespace (None: everywhere, or cluster-wide)."""
        plural, is_namespaced = self._resource(version, kind)
        root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        inside = f"/namespaces/{namespace}" if is_namespaced and namespace else ""
        asked = f"?{urlencode(query)}" if query else ""
        return f"{root}{inside}/{plural}" + (f"/{quote(name)}" if name else "") + asked

    def _resource(self, version: str, kind: str) -> tuple[str, bool]:
        if (version, kind) not in self._kinds:
            root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
            for each in self.json("GET", root)["resources"]:
                if "/" not in each["name"]:
                    self._kinds[version, each["kind"]] = (each["name"], each["namespaced"])
        try:
            return self._kinds[version, kind]
        except KeyError:
            raise ApiError(404, "NoKind", f"the cluster knows no {kind} in {version}") from None

    def get(self, version: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """The object, or None where there is none."""
        try:
            found: Object = self.json("GET", self.path(version, kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def list(self, version: str, kind: str, namespace: str | None = None, **query: str) -> list[Object]:
        items: list[Object] = self.json("GET", self.path(version, kind, namespace, **query))["items"]
        return items

    def apply(self, thing: Object, namespace: str | None = None, manager: str = MANAGER) -> Object:
        """Server-side apply, by force."""
        meta = thing["metadata"]
        path = self.path(
            thing["apiVersion"],
            thing["kind"],
            meta.get("namespace") or namespace,
            meta["name"],
            fieldManager=manager,
            force="true",
        )
        done: Object = self.json("PATCH", path, thing, "application/apply-patch+yaml")
        return done

    def patch(
        self, version: str, kind: str, name: str, namespace: str | None, *, merge: Object, part: str = ""
    ) -> Object:
        """A merge patch, of a subresource (`scale`, `status`) where one is named."""
        path = self.path(version, kind, namespace, name) + (f"/{part}" if part else "")
        done: Object = self.json("PATCH", path, merge, "application/merge-patch+json")
        return done

    def delete(
        self, version: str, kind: str, name: str, namespace: str | None = None, grace: int | None = None
    ) -> bool:
        """Whether there was one."""
        query = {} if grace is None else {"gracePeriodSeconds": str(grace)}
        try:
            self.call("DELETE", self.path(version, kind, namespace, name, **query))
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    # ------------------------------------------------------------ pods
    def ask_pod(self, namespace: str, pod: str, port: int, path: str) -> bytes:
        """GET from a pod, through the API server."""
        return self.call("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{path.lstrip('/')}")

    def logs(self, namespace: str, pod: str, container: str, previous: bool = False) -> str:
        query = urlencode({"container": container, "previous": str(previous).lower(), "tailLines": "20000"})
        return self.call("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}/log?{query}").decode(errors="replace")
