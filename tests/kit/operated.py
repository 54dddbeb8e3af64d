"""An operator at work on one MTA, `edge` in namespace `mail`, with pods that answer; and the manifests for it."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from kit.fakeapi import FakeApi, until
from kit.fakepods import FakePods
from kit.rooms import at_work
from posthof_crds.shards import read_config
from posthof_operator.credentials import Credentials
from posthof_operator.domains import Domains
from posthof_operator.flow import MTARoom, Pace
from posthof_operator.policies import Policies
from posthof_operator.reports import Reporters
from posthof_operator.store import Store
from posthof_operator.trust import Trust
from posthof_operator.workloads import Workloads
from posthof_operator.world import World

NS = "mail"
PACE = Pace(soon=0.02, later=0.05, calm=0.1)


def mta(**spec: Any) -> dict[str, Any]:
    body = {
        "hostname": "mx.example.org",
        "listeners": [
            {"name": "smtp", "role": "MX", "port": 25},
            {"name": "inside", "role": "Internal", "port": 587},
        ],
        "service": {"type": "NodePort"},
    }
    return {"kind": "MTA", "metadata": {"name": "edge", "namespace": NS}, "spec": {**body, **spec}}


def domain(name: str, domain_: str = "", namespace: str = NS, **more: Any) -> dict[str, Any]:
    inbound = {"mode": "LMTP", "nextHops": [{"host": "dovecot.mail.svc"}], "recipients": {"any": True}}
    spec = {"domain": domain_ or f"{name}.example", "inbound": inbound, **more}
    return {"kind": "MailDomain", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": "RelayPolicy", "metadata": {"name": name, "namespace": NS}, "spec": spec}


def credential(name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": "SMTPCredential", "metadata": {"name": name, "namespace": NS}, "spec": spec}


def access(name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": "AccessPolicy", "metadata": {"name": name, "namespace": NS}, "spec": spec}


@contextlib.asynccontextmanager
async def operated(server: FakeApi) -> AsyncIterator[tuple[FakePods, World]]:
    async with FakePods(server) as pods:
        reporters = Reporters(pods.port)

        def rooms(store: Store) -> list[Any]:
            return [MTARoom(store, reporters, PACE), Workloads(), Domains(), Policies(), Trust(), Credentials()]

        try:
            async with at_work(rooms, server=server) as world:
                yield pods, world
        finally:
            await reporters.close()


def condition(server: FakeApi, kind: str, name: str, type_: str, namespace: str = NS) -> dict[str, Any]:
    raw = server.get(kind, name, namespace) or {}
    return next((one for one in raw.get("status", {}).get("conditions", ()) if one["type"] == type_), {})


def is_(server: FakeApi, kind: str, name: str, type_: str, status: str = "True", reason: str = "") -> bool:
    found = condition(server, kind, name, type_)
    return found.get("status") == status and reason in ("", found.get("reason"))


def events(server: FakeApi) -> list[str]:
    return [server.get("Event", name, NS)["reason"] for name in server.names("Event")]


def config_of(server: FakeApi) -> Any:
    found = {n: server.get("ConfigMap", f"edge-config-{n}", NS) for n in range(8)}
    return read_config({n: base64.b64decode(raw["binaryData"]["config"]) for n, raw in found.items() if raw})


def bind_claim(server: FakeApi) -> None:
    server.set_status("PersistentVolumeClaim", "edge-spool", NS, {"phase": "Bound"})


async def running(server: FakeApi, pods: FakePods) -> None:
    await until(lambda: server.get("Deployment", "edge", NS))
    bind_claim(server)
    await pods.deploy("edge", NS)
    await until(lambda: is_(server, "MTA", "edge", "Ready"))
