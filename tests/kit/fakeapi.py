"""A small API server on loopback: enough of Kubernetes for an operator's tests, and a count of what was written.

It has: discovery, get, list (pages, labels, metadata.name), watch (bookmarks, 410 after `forget`), metadata-only
answers, create, replace with conflicts, JSON merge patch, server-side apply with field managers (leaf by leaf; lists
with a known key are merged by it, others are one value), /status apart from the rest, generations, finalizers, delete
with a uid, garbage collection by controller, and writes that change nothing and so are no new version.

It has not: schemas, defaults, admission, controllers (a test plays them, see `deployed`), authorization.

    async with FakeApi() as api:
        api.put({"apiVersion": "posthof.dev/v1alpha1", "kind": "MTA", ...})
        ... api.url ...
        assert api.writes == []
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from posthof_operator.resources import RESOURCES, Resource

Raw = dict[str, Any]
Path = tuple[str, ...]

# Lists that are maps: the key of their items, by the list's name.
KEYS = {
    "containers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ownerReferences": "uid",
    "conditions": "type",
    "webhooks": "name",
}
SETS = {"finalizers"}
WITHOUT_GENERATION = ("ConfigMap", "Secret", "Event", "Lease", "Role", "RoleBinding", "ServiceAccount", "Namespace")


class Request(NamedTuple):
    verb: str  # get, list, watch, create, replace, patch, apply, apply_status, delete
    kind: str
    namespace: str
    name: str
    manager: str = ""


class Failure(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status, self.reason, self.message = status, reason, message


class Happened(NamedTuple):
    version: int
    type: str
    resource: Resource
    object: Raw


async def until(condition: Callable[[], object], within: float = 60.0) -> None:
    """Wait for a condition, never for the machine's speed. TimeoutError: it did not become true."""
    async with asyncio.timeout(within):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


class FakeApi:
    """`before(request)` may raise Failure (or anything) instead of an answer; `after(request)` sees what was done."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Raw] = {}  # kind, namespace, name
        self.requests: list[Request] = []
        self.before: Callable[[Request], None] = lambda request: None
        self.after: Callable[[Request], None] = lambda request: None
        self.missing: set[str] = {"monitoring.coreos.com", "cert-manager.io", "externaldns.k8s.io", "keda.sh"}
        self.queries: list[tuple[str, dict[str, str]]] = []  # of lists and watches
        self._version = itertools.count(1001)
        self._now = 1000
        self._history: list[Happened] = []
        self._oldest = 0
        self._changed = asyncio.Condition()
        self._owned: dict[tuple[str, str, str], dict[tuple[str, str], set[Path]]] = {}
        self._by_path = {
            (resource.group, resource.version, resource.plural): resource for resource in RESOURCES.values()
        }
        self._closing = asyncio.Event()

    # ------------------------------------------------------------------ for tests

    async def __aenter__(self) -> FakeApi:
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        await self._tell()
        await self._runner.cleanup()

    @property
    def writes(self) -> list[Request]:
        """Requests that write, but for those every replica makes all the time: its Lease and its canary."""
        return [
            one
            for one in self.requests
            if one.verb not in ("get", "list", "watch") and one.kind != "Lease" and "canary" not in one.name
        ]

    def counts(self) -> Counter[str]:
        return Counter(one.verb for one in self.requests)

    def put(self, raw: Raw) -> Raw:
        """Create or replace, as a person would, at once. The status is kept where none is given."""
        raw = copy.deepcopy(raw)
        key = _key(raw)
        old = self.objects.get(key)
        if old is None:
            return self._create(raw, manager="person")
        raw.setdefault("status", old.get("status", {}))
        raw["metadata"] = {**old["metadata"], **raw["metadata"]}
        self._steal(key, raw, old)
        return self._keep(key, raw, old)

    def get(self, kind: str, name: str, namespace: str = "") -> Raw | None:
        found = self.objects.get((kind, namespace, name))
        return copy.deepcopy(found)

    def names(self, kind: str) -> list[str]:
        return sorted(name for known, _, name in self.objects if known == kind)

    def remove(self, kind: str, name: str, namespace: str = "") -> None:
        """Delete as a person would."""
        self._delete((kind, namespace, name), "")

    def vanish(self, kind: str, name: str, namespace: str = "") -> None:
        """Gone, and no watch tells of it."""
        del self.objects[kind, namespace, name]

    def set_status(self, kind: str, name: str, namespace: str, status: Raw) -> None:
        """As a controller writes it."""
        key = (kind, namespace, name)
        old = self.objects[key]
        self._keep(key, {**copy.deepcopy(old), "status": {**old.get("status", {}), **status}}, old)

    def forget(self) -> None:
        """All watches so far get 410."""
        self._oldest = self._now + 1

    def wanted_pods(self, name: str, namespace: str) -> list[str]:
        """Names that the Deployment controller would give."""
        return [
            f"{name}-{number}" for number in range(self.objects["Deployment", namespace, name]["spec"]["replicas"])
        ]

    def deployed(
        self, name: str, namespace: str, *, ips: Mapping[str, str] | None = None, node: str = "node-a"
    ) -> list[str]:
        """Play the Deployment controller and the kubelet: as many ready pods as are wanted. Returns their names.
        Doing so twice changes nothing."""
        deployment = self.objects["Deployment", namespace, name]
        pods = self.wanted_pods(name, namespace)
        template = deployment["spec"]["template"]
        for pod in pods:
            self.put(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": pod, "namespace": namespace, "labels": template["metadata"]["labels"]},
                    "spec": {"nodeName": node},
                    "status": {
                        "phase": "Running",
                        "podIP": (ips or {}).get(pod, "127.0.0.1"),
                        "hostIP": "198.18.0.10",
                        "conditions": [{"type": "Ready", "status": "True"}],
                    },
                }
            )
        for kind, where, other in list(self.objects):
            if kind == "Pod" and where == namespace and other.startswith(f"{name}-") and other not in pods:
                self.remove("Pod", other, namespace)
        generation = deployment["metadata"]["generation"]
        counts = dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas", "availableReplicas"), len(pods))
        self.set_status("Deployment", name, namespace, {"observedGeneration": generation, **counts})
        return pods

    # ------------------------------------------------------------------ the wire

    async def _serve(self, http: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(http)
        except Failure as failure:
            body = {"kind": "Status", "code": failure.status, "reason": failure.reason, "message": failure.message}
            return _json(body, failure.status)

    async def _answer(self, http: web.Request) -> web.StreamResponse:
        parts = http.path.strip("/").split("/")
        if (len(parts) <= 3 and parts[:2] != ["api", "v1"]) or parts == ["api", "v1"]:
            return _json(self._discovery(parts))
        group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource = self._by_path.get((group, version, rest[0]))
        if resource is None or group in self.missing:
            raise Failure(404, "NotFound", f"there is no {http.path}")
        name = rest[1] if len(rest) > 1 else ""
        sub = rest[2] if len(rest) > 2 else ""
        return await self._method(http, resource, (resource.kind, namespace, name), sub)

    async def _method(
        self, http: web.Request, resource: Resource, key: tuple[str, str, str], sub: str
    ) -> web.StreamResponse:
        kind, namespace, name = key
        verb = _verb(http, name, sub)
        request = Request(verb, kind, namespace, name, http.query.get("fieldManager", ""))
        raw = msgspec.json.decode(await http.read() or b"{}")
        if verb == "create":
            request = request._replace(name=raw["metadata"]["name"])
        self.requests.append(request)
        self.before(request)
        if verb in ("list", "watch"):
            self.queries.append((resource.plural, dict(http.query)))
        if verb == "list":
            return _json(self._list(resource, namespace, http))
        if verb == "watch":
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            with contextlib.suppress(ConnectionError):  # whoever watched has gone
                await response.prepare(http)
                await self._watch(response, resource, namespace, http)
            return response
        answer = self._do(verb, key, raw, http, sub)
        await self._tell()
        self.after(request)
        return _json(answer, 201 if verb == "create" else 200)

    def _do(self, verb: str, key: tuple[str, str, str], raw: Raw, http: web.Request, sub: str) -> Raw:
        if verb == "create":
            return self._create(raw, manager=http.query.get("fieldManager", "unknown"))
        if verb in ("apply", "apply_status"):
            return self._apply(key, raw, http.query["fieldManager"], sub)
        if key not in self.objects:
            raise Failure(404, "NotFound", f"{key[0]} {key[2]} not found")
        old = self.objects[key]
        if verb == "get":
            return _metadata_only(old) if "PartialObjectMetadata" in http.headers.get("Accept", "") else old
        if verb == "delete":
            self._delete(key, (raw.get("preconditions") or {}).get("uid", ""))
            return {"kind": "Status", "status": "Success"}
        fresh = raw if verb == "replace" else _merge_patched(old, raw)
        version = raw["metadata"].get("resourceVersion") if "metadata" in raw else None
        if version is not None and version != old["metadata"]["resourceVersion"]:
            raise Failure(409, "Conflict", "the object has been modified")
        fresh["metadata"] = {**old["metadata"], **fresh.get("metadata", {})}
        self._steal(key, fresh, old)
        return self._keep(key, fresh, old)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # ------------------------------------------------------------------ reading

    def _selected(self, resource: Resource, namespace: str, query: Any) -> Iterator[Raw]:
        labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
        for (kind, where, _), raw in sorted(self.objects.items(), key=lambda item: item[0]):
            if kind == resource.kind and namespace in ("", where) and _is_selected(raw, labels, fields):
                yield raw

    def _list(self, resource: Resource, namespace: str, http: web.Request) -> Raw:
        found = list(self._selected(resource, namespace, http.query))
        begin = int(http.query.get("continue", 0))
        end = begin + int(http.query.get("limit", 0) or len(found))
        metadata: Raw = {"resourceVersion": str(self._now)}
        if end < len(found):
            metadata["continue"] = str(end)
        items = found[begin:end]
        if "PartialObjectMetadata" in http.headers.get("Accept", ""):
            items = [_metadata_only(one) for one in items] or None  # as the real one does
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
            "items": items,
        }

    async def _watch(
        self, response: web.StreamResponse, resource: Resource, namespace: str, http: web.Request
    ) -> None:
        labels, fields = http.query.get("labelSelector", ""), http.query.get("fieldSelector", "")
        is_metadata = "PartialObjectMetadata" in http.headers.get("Accept", "")
        at = int(http.query.get("resourceVersion") or self._now)
        place = 0
        while not self._closing.is_set():
            if at < self._oldest:
                gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
                await response.write(msgspec.json.encode({"type": "ERROR", "object": gone}) + b"\n")
                break
            while place < len(self._history):
                one = self._history[place]
                place += 1
                if one.version <= at or one.resource != resource:
                    continue
                if namespace in ("", one.object["metadata"].get("namespace", "")) and _is_selected(
                    one.object, labels, fields
                ):
                    shown = _metadata_only(one.object) if is_metadata else one.object
                    await response.write(msgspec.json.encode({"type": one.type, "object": shown}) + b"\n")
                at = one.version
            async with self._changed:
                if place == len(self._history) and not self._closing.is_set() and at >= self._oldest:
                    await self._changed.wait()

    def _discovery(self, parts: list[str]) -> Raw:
        served = [one for one in RESOURCES.values() if one.group not in self.missing]
        if parts == ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        if parts == ["apis"]:
            groups = []
            for group in sorted({one.group for one in served if one.group}):
                version = next(one.version for one in served if one.group == group)
                stands = {"groupVersion": f"{group}/{version}", "version": version}
                groups.append({"name": group, "versions": [stands], "preferredVersion": stands})
            return {"kind": "APIGroupList", "groups": groups}
        group, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2] if len(parts) > 2 else "")
        found = [one for one in served if (one.group, one.version) == (group, version)]
        if not found:
            raise Failure(404, "NotFound", "no such group")
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        return {
            "kind": "APIResourceList",
            "groupVersion": found[0].api_version,
            "resources": [
                {
                    "name": one.plural,
                    "singularName": one.kind.lower(),
                    "namespaced": one.is_namespaced,
                    "kind": one.kind,
                    "verbs": verbs,
                }
                for one in found
            ],
        }

    # ------------------------------------------------------------------ writing

    def _create(self, raw: Raw, *, manager: str) -> Raw:
        key = _key(raw)
        if key in self.objects:
            raise Failure(409, "AlreadyExists", f"{key[0]} {key[2]} already exists")
        empty = _empty(key)
        fresh = {**empty, **raw, "metadata": {**empty["metadata"], **raw["metadata"]}}
        self._owned[key] = {(manager, ""): {path for path, _ in _leaves(fresh)}}
        return self._keep(key, fresh, None)

    def _apply(self, key: tuple[str, str, str], raw: Raw, manager: str, sub: str) -> Raw:
        old = self.objects.get(key)
        if old is None and sub:
            raise Failure(404, "NotFound", f"{key[0]} {key[2]} not found")
        given = raw["metadata"].get("uid")
        if given and (old is None or given != old["metadata"]["uid"]):
            raise Failure(409, "Conflict", "uid mismatch")
        wanted = dict(_leaves(_applied_part(raw, sub)))
        fresh = _empty(key) if old is None else copy.deepcopy(old)
        before = copy.deepcopy(fresh)
        owners = self._owned.setdefault(key, {})
        mine = owners.get((manager, sub), set())
        others: set[Path] = set().union(*(paths for who, paths in owners.items() if who != (manager, sub)))
        for path in sorted(mine - wanted.keys() - others, key=_is_key):  # keys last: the others are found by them
            _unset(fresh, path)
        for path, value in wanted.items():
            _set(fresh, path, value)
        for who, paths in owners.items():
            if who != (manager, sub):
                paths -= {path for path in wanted if _get(before, path) != wanted[path]}
        owners[manager, sub] = set(wanted)
        return self._keep(key, fresh, old)

    def _steal(self, key: tuple[str, str, str], fresh: Raw, old: Raw) -> None:
        """What a plain update changes is no applier's any more."""
        for paths in self._owned.get(key, {}).values():
            paths -= {path for path in paths if _get(fresh, path) != _get(old, path)}

    def _keep(self, key: tuple[str, str, str], fresh: Raw, old: Raw | None) -> Raw:
        fresh["metadata"]["managedFields"] = [
            {
                "manager": who,
                "operation": "Apply",
                "subresource": sub,
                "fieldsV1": {"/".join(path): {} for path in sorted(paths)},
            }
            for (who, sub), paths in sorted(self._owned.get(key, {}).items())
        ]
        if old is not None:
            if fresh == old:
                return old
            if _spec(fresh) != _spec(old) and key[0] not in WITHOUT_GENERATION:
                fresh["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if "deletionTimestamp" in fresh["metadata"] and not fresh["metadata"].get("finalizers"):
            self.objects[key] = fresh
            self._really_delete(key)
            return fresh
        self._now = next(self._version)
        fresh["metadata"] = {**fresh["metadata"], "resourceVersion": str(self._now)}
        self.objects[key] = fresh
        self._note("ADDED" if old is None else "MODIFIED", key, fresh)
        return fresh

    def _delete(self, key: tuple[str, str, str], uid: str) -> None:
        if key not in self.objects:
            raise Failure(404, "NotFound", f"{key[0]} {key[2]} not found")
        old = self.objects[key]
        if uid and old["metadata"]["uid"] != uid:
            raise Failure(409, "Conflict", "uid mismatch")
        if old["metadata"].get("finalizers"):
            fresh = copy.deepcopy(old)
            fresh["metadata"]["deletionTimestamp"] = "2026-01-01T01:00:00Z"
            self._keep(key, fresh, old)
            return
        self._really_delete(key)

    def _really_delete(self, key: tuple[str, str, str]) -> None:
        gone = self.objects.pop(key)
        self._owned.pop(key, None)
        self._now = next(self._version)
        gone = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self._now)}}
        self._note("DELETED", key, gone)
        uid = gone["metadata"]["uid"]
        for other, raw in list(self.objects.items()):
            if any(ref["uid"] == uid for ref in raw["metadata"].get("ownerReferences", ())) and other in self.objects:
                self._really_delete(other)

    def _note(self, type_: str, key: tuple[str, str, str], raw: Raw) -> None:
        self._history.append(Happened(self._now, type_, RESOURCES[key[0]], raw))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        loop.call_soon(lambda: asyncio.ensure_future(self._tell()))


def _key(raw: Raw) -> tuple[str, str, str]:
    return raw["kind"], raw["metadata"].get("namespace", ""), raw["metadata"]["name"]


def _empty(key: tuple[str, str, str]) -> Raw:
    kind, namespace, name = key
    metadata: Raw = {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": "2026-01-01T00:00:00Z"}
    if namespace:
        metadata["namespace"] = namespace
    if kind not in WITHOUT_GENERATION:
        metadata["generation"] = 1
    return {"apiVersion": RESOURCES[kind].api_version, "kind": kind, "metadata": metadata}


def _verb(http: web.Request, name: str, sub: str) -> str:
    if http.method == "GET":
        return "get" if name else "watch" if http.query.get("watch") in ("1", "true") else "list"
    if http.method == "PATCH":
        is_apply = "apply-patch" in http.headers.get("Content-Type", "")
        return ("apply_status" if sub else "apply") if is_apply else "patch"
    return {"POST": "create", "PUT": "replace", "DELETE": "delete"}[http.method]


def _json(body: Raw, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


def _metadata_only(raw: Raw) -> Raw:
    return {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": raw["metadata"]}


def _spec(raw: Raw) -> Raw:
    return {name: value for name, value in raw.items() if name not in ("metadata", "status", "apiVersion", "kind")}


def _applied_part(raw: Raw, sub: str) -> Raw:
    """What an apply is about: of metadata only what may be owned."""
    if sub:
        return {sub: raw.get(sub, {})}
    owned = ("labels", "annotations", "ownerReferences", "finalizers")
    metadata = {name: raw["metadata"][name] for name in owned if name in raw["metadata"]}
    return {**_spec(raw), **({"metadata": metadata} if metadata else {})}


def _is_selected(raw: Raw, labels: str, fields: str) -> bool:
    has = raw["metadata"].get("labels") or {}
    for part in filter(None, labels.split(",")):
        name, equals, value = part.partition("=")
        if name not in has or (equals and has[name] != value):
            return False
    for part in filter(None, fields.split(",")):
        name, _, value = part.partition("=")
        if name == "metadata.name" and raw["metadata"]["name"] != value:
            return False
    return True


def _leaves(value: Any, at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """`(path, value)` of everything that can be owned by itself."""
    name = at[-1] if at else ""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*at, key))
    elif isinstance(value, list) and name in KEYS and all(isinstance(one, dict) for one in value):
        for one in value:
            yield from _leaves(one, (*at, f"k:{KEYS[name]}={json.dumps(one[KEYS[name]])}"))
    elif isinstance(value, list) and name in SETS:
        for one in value:
            yield (*at, "v:" + one), one
    else:
        yield at, value


def _is_key(path: Path) -> bool:
    """Whether it is the field that a list's item is known by."""
    return len(path) > 2 and path[-2].startswith("k:") and KEYS.get(path[-3]) == path[-1]


def _step(value: Any, name: str) -> Any:
    """What is below, or None."""
    if isinstance(value, list):
        field, _, wanted = name[2:].partition("=")
        for one in value:
            if name.startswith("k:") and isinstance(one, dict) and json.dumps(one.get(field)) == wanted:
                return one
            if name.startswith("v:") and one == name[2:]:
                return one
        return None
    return value.get(name) if isinstance(value, dict) else None


def _get(raw: Any, path: Path) -> Any:
    for name in path:
        raw = _step(raw, name)
    return raw


def _set(raw: Raw, path: Path, value: Any) -> None:
    """Make the way and put it there."""
    here: Any = raw
    for place, name in enumerate(path):
        is_last = place == len(path) - 1
        below = _step(here, name)
        if is_last and not isinstance(here, list):
            here[name] = copy.deepcopy(value)
        elif isinstance(here, list):
            if below is None:
                field, _, wanted = name[2:].partition("=")
                below = value if name.startswith("v:") else {field: json.loads(wanted)}
                here.append(below)
        elif below is None or (not isinstance(below, dict | list)):
            below = [] if path[place + 1][:2] in ("k:", "v:") else {}
            here[name] = below
        here = below


def _unset(raw: Raw, path: Path) -> None:
    """Take the leaf away, and what is empty above it."""
    for length in range(len(path), 0, -1):
        above, name = _get(raw, path[: length - 1]), path[length - 1]
        if isinstance(above, list):
            above[:] = [one for one in above if one != {} and "v:" + str(one) != name]
        elif isinstance(above, dict) and (length == len(path) or above.get(name) in ({}, [])):
            above.pop(name, None)
        if above:
            return


def _merge_patched(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    fresh = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            fresh.pop(name, None)
        else:
            fresh[name] = _merge_patched(fresh.get(name), value)
    return fresh
