"""The operator is away for a minute: pods receive and deliver, and one that dies is replaced and knows what to do."""

import time

from kit import manifests
from kit.stage import SYSTEM, Stage

AWAY = 60.0


def story(stage: Stage) -> None:
    traffic, sink = stage.world()
    stage.apply(manifests.on_many_nodes(), stage.relayed("steady.test"))
    stage.running(replicas=2)
    traffic.until_answer(stage.addresses(), "x@steady.test", "250")
    traffic.start("edge", "x@steady.test", rate=20, sessions=6)
    traffic.grows()

    stage.step("the operator goes")
    operators = [
        each["metadata"]["name"]
        for each in stage.api.list("apps/v1", "Deployment", SYSTEM)
        if each["metadata"]["labels"].get("app.kubernetes.io/component") == "operator"
    ]
    for name in operators:
        scale(stage, name, 0)
    stage.until("no operator runs", lambda: not operator_pods(stage))
    began = time.monotonic()

    stage.step("what is applied now waits; a pod that dies is replaced, and serves what was known")
    stage.apply(stage.relayed("later.test"))
    [gone, *_] = [pod["metadata"]["name"] for pod in stage.pods()]
    stage.api.delete("v1", "Pod", gone, stage.namespace)
    stage.until("two pods are ready again", lambda: gone not in names(stage) and len(names(stage)) == 2, wanted=30)
    traffic.until_answer(stage.addresses(), "x@steady.test", "250")
    traffic.until_answer(stage.addresses(), "x@later.test", "550")

    stage.step("the rest of a minute goes by")
    while time.monotonic() - began < AWAY:  # the length of the absence is the scenario, not a wait for anything
        traffic.grows(5)

    stage.step("it comes back: what waited is done")
    for name in operators:
        scale(stage, name, 1)
    stage.until("the operator is ready", stage.operator_is_ready, wanted=30)
    traffic.until_answer(stage.addresses(), "x@later.test", "250", seconds=100)
    stage.running(replicas=2)
    stage.until_condition("MailDomain", "later-test", Accepted="True")

    counts = traffic.stop()
    stage.expect(counts["dropped"] == 0 and counts["unknown"] == 0, f"sessions were cut off: {counts}")
    stage.expect(not counts["refused"], f"mail was refused: {counts['refused']}")
    stage.nothing_lost(traffic, sink)


def scale(stage: Stage, name: str, replicas: int) -> None:
    stage.api.patch("apps/v1", "Deployment", name, SYSTEM, merge={"spec": {"replicas": replicas}}, part="scale")


def operator_pods(stage: Stage) -> list[str]:
    found = stage.api.list("v1", "Pod", SYSTEM, labelSelector="app.kubernetes.io/component=operator")
    return [pod["metadata"]["name"] for pod in found]


def names(stage: Stage) -> list[str]:
    return [pod["metadata"]["name"] for pod in stage.pods()]
