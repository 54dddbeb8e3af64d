"""The operator is killed in the middle of each of its writes, done or not done: each time it ends where it should."""

from __future__ import annotations

import base64
from collections.abc import Callable

from kit import manifests
from kit.actors import Actor, service
from kit.api import Object
from kit.record import Failure
from kit.stage import SYSTEM, Stage

ENOUGH = 120  # kills; a reconcile has about thirty writes


class Reaper(Actor):
    """The webhook that holds a write of the operator in this namespace."""

    def __init__(self, stage: Stage) -> None:
        stage.apply(service("reaper", 8443))
        self.host = f"reaper.{stage.namespace}.svc"
        super().__init__(stage, "reaper", "reaper.py", self.host)

    def register(self) -> None:
        pem = self.ask("certificate")["pem"]
        self.stage.api.apply(registration(self.stage.namespace, pem))

    def forget(self) -> None:
        self.stage.api.delete(REGISTRY, "ValidatingWebhookConfiguration", f"reaper-{self.stage.namespace}")

    def holding(self) -> str:
        return str(self.ask("state")["holding"])


REGISTRY = "admissionregistration.k8s.io/v1"


def story(stage: Stage) -> None:
    traffic, sink = stage.world()
    reaper = Reaper(stage)
    reaper.ready()
    stage.apply(manifests.mta("steady"), stage.relayed("steady.test", mtaRef={"name": "steady"}))
    stage.running("steady")
    traffic.until_answer(stage.addresses("steady"), "x@steady.test", "250")
    traffic.start("steady", "x@steady.test", rate=10, sessions=3)
    try:
        reaper.register()
        listener = {"name": "mx", "role": "MX", "port": 25, "tls": {"certRefs": [{"name": "edge"}]}}
        edge = manifests.mta(spec={"listeners": [listener]})

        stage.step("an MTA, its certificate and its domain are made")
        edge_domain = stage.relayed("edge.test", mtaRef={"name": "edge"})
        stage.apply(manifests.certificate("edge", "edge.mx.test"), edge, edge_domain)
        kills = reap(stage, reaper, lambda: is_ready(stage))
        stage.keep("kills until it was ready", kills, unit="kills")
        stage.expect(kills > 10, f"only {kills} writes were seen: the reaper does not see the operator")
        stage.until_condition("MailDomain", "edge-test", Accepted="True")
        traffic.until_answer(stage.addresses(), "x@edge.test", "250")

        stage.step("it is changed")
        stage.apply(manifests.mta(spec={"listeners": [{**listener, "port": 26}], "drain": {"settle": "3s"}}))
        kills = reap(stage, reaper, lambda: is_ready(stage) and service_port(stage) == 26)
        stage.keep("kills until the change was done", kills, unit="kills")

        stage.step("it is deleted")
        stage.delete("MTA", "edge")
        kills = reap(stage, reaper, lambda: not leftovers(stage))
        stage.keep("kills until it was gone", kills, unit="kills")
    finally:
        reaper.forget()

    stage.step("the operator is well, and nobody else noticed")
    stage.until("the operator is ready", stage.operator_is_ready, wanted=30)
    stage.nobody_disconnected(traffic.stop())
    stage.nothing_lost(traffic, sink)


def reap(stage: Stage, reaper: Reaper, is_done: Callable[[], bool]) -> int:
    """Hold each write, kill the operator, let the write through or refuse it; until it is done without a kill."""
    kills = 0
    refused: set[str] = set()
    reaper.ask("arm")

    def held_or_done() -> str:
        return reaper.holding() or ("done" if is_done() else "")

    while kills < ENOUGH:
        held = stage.until("a write is held, or all is done", held_or_done)
        if held == "done":
            return kills
        kills += 1
        kill_operator(stage)
        allow = (
            held in refused
        )  # at first as if it had never been sent, the next time it is done and nobody hears of it
        refused.add(held)
        reaper.ask("release", allow=int(allow))
        reaper.ask("arm")
    raise Failure(f"after {kills} kills it is not done; the last write was {held}")


def kill_operator(stage: Stage) -> None:
    """At once, and its Lease with it, as if its time had passed."""
    for pod in stage.api.list("v1", "Pod", SYSTEM, labelSelector="app.kubernetes.io/component=operator"):
        stage.api.delete("v1", "Pod", pod["metadata"]["name"], SYSTEM, grace=0)
    for lease in stage.api.list("coordination.k8s.io/v1", "Lease", SYSTEM):
        stage.api.delete("coordination.k8s.io/v1", "Lease", lease["metadata"]["name"], SYSTEM)


def is_ready(stage: Stage) -> bool:
    return all(stage.condition("MTA", "edge", each).get("status") == "True" for each in ("Ready", "ConfigConverged"))


def service_port(stage: Stage) -> int:
    found = stage.get("Service", "edge", "v1") or {}
    return int(found["spec"]["ports"][0]["port"])


def leftovers(stage: Stage) -> list[str]:
    """What there still is of the MTA, but its claim, which is kept or not by its policy."""
    found = [f"MTA {each['metadata']['name']}" for each in [stage.get("MTA", "edge")] if each]
    for version, kind in (("apps/v1", "Deployment"), ("v1", "Service"), ("v1", "ConfigMap"), ("v1", "Secret")):
        listed = stage.api.list(version, kind, stage.namespace, labelSelector="posthof.dev/mta=edge")
        found += [f"{kind} {each['metadata']['name']}" for each in listed]
    return found


def registration(namespace: str, pem: str) -> Object:
    """All writes of the operator in the namespace are asked about."""
    user = f"system:serviceaccount:{SYSTEM}:posthof-operator"
    hook = {
        "name": "reaper.posthof.dev",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Ignore",
        "timeoutSeconds": 30,
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "matchConditions": [{"name": "operator", "expression": f"request.userInfo.username == '{user}'"}],
        "rules": [
            {
                "apiGroups": ["*"],
                "apiVersions": ["*"],
                "resources": ["*/*"],
                "operations": ["CREATE", "UPDATE", "DELETE"],
                "scope": "Namespaced",
            }
        ],
        "clientConfig": {
            "service": {"namespace": namespace, "name": "reaper", "path": "/", "port": 8443},
            "caBundle": base64.b64encode(pem.encode()).decode(),
        },
    }
    return {
        "apiVersion": REGISTRY,
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": f"reaper-{namespace}"},
        "webhooks": [hook],
    }
