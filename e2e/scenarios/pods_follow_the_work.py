"""Autoscaling without any other component: a backlog adds pods, an empty queue takes them away one by one, and a
person can follow it; nothing is lost on the way. Then /scale is another's, a person's or an HPA's, and a scale of 0
is refused with the reason."""

from __future__ import annotations

import time
from concurrent.futures import Future
from itertools import pairwise

from kit import manifests
from kit.api import Object
from kit.stage import Stage

MAX = 3
SCALING: Object = {
    "autoscaling": {
        "min": 1,
        "max": MAX,
        "targets": {"backlog": "15s", "oldestReady": "15s"},
        "behavior": {
            "scaleUp": {"stabilization": "5s"},
            "scaleDown": {"stabilization": "20s", "period": "5s"},
        },
    },
    "limits": {"outboundSessions": 4},
}


def story(stage: Stage) -> None:
    traffic, sink = stage.world()
    stage.apply(manifests.on_many_nodes(replicas=1, spec=SCALING), stage.relayed("bulk.test"))
    stage.running(replicas=1)
    traffic.until_answer(stage.addresses(), "x@bulk.test", "250")
    watching = stage.meanwhile(lambda: watched(stage))

    stage.step("more mail than one pod can send: pods come")
    sink.answers(wait=0.4)  # four sessions of a pod send ten a second
    traffic.start("edge", "x@bulk.test", rate=40, sessions=8)
    with stage.measure("until pods are added", wanted=45):
        stage.until("there are more pods", lambda: len(stage.pods()) > 1, wanted=45)
    stage.until("it says why", lambda: "pods: " in said(stage, "ScalingUp"), wanted=10)
    traffic.grows()

    stage.step("the queue is empty: they go, one at a time")
    sink.answers()
    counts = traffic.stop()
    stage.nothing_lost(traffic, sink, wanted=60)
    with stage.measure("until one pod is left", wanted=120):
        stage.until("one pod is left", lambda: wanted(stage) == 1 and len(stage.pods()) == 1, wanted=120)
    stage.expect(
        "These go: edge-" in said(stage, "ScalingDown"), f"who goes is not said: {said(stage, 'ScalingDown')}"
    )
    stage.until("it is said that they left", lambda: "has left after" in said(stage, "PodLeft"))
    stage.until("the phase is calm again", lambda: stage.status("MTA", "edge").get("phase") == "Healthy")
    followed(stage, watching)
    stage.expect(counts["dropped"] == 0 and counts["unknown"] == 0, f"sessions were cut off: {counts}")
    stage.expect(not counts["refused"], f"mail was refused: {counts['refused']}")

    stage.step("/scale belongs to somebody else: it is obeyed, and 0 is refused")
    stage.apply(manifests.on_many_nodes(replicas=1, spec={"autoscaling": {"mode": "External"}}))
    stage.person("kubectl scale mta edge --replicas 2")
    stage.running(replicas=2)
    stage.expect(stage.condition("MTA", "edge", "ScalingActive").get("reason") == "Delegated", "it is not delegated")
    out = stage.person("kubectl scale mta edge --replicas 0 2>&1 || true")
    stage.expect("nobody would receive mail" in out, f"no reason is given: {out}")
    why = stage.refused(manifests.mta(spec={"replicas": 0}))
    stage.expect("nobody would receive mail" in why, f"no reason is given: {why}")

    stage.step("an HPA is made, scales the MTA, and goes with the mode")
    shared = manifests.on_many_nodes(spec={"autoscaling": {"mode": "HPA", "min": MAX, "max": MAX}})
    del shared["spec"]["replicas"]  # it is the HPA's
    stage.apply(shared)
    stage.until("the HPA has written spec.replicas", lambda: asked(stage) == MAX, wanted=40)
    stage.running(replicas=MAX)
    told = stage.condition("MTA", "edge", "ScalingActive").get("reason")
    stage.expect(told in ("Delegated", "ScalerFailed"), f"the HPA is not spoken of: {told}")  # it may lack metrics
    stage.apply(manifests.on_many_nodes(replicas=1))
    stage.until("the HPA is gone", lambda: stage.get("HorizontalPodAutoscaler", "edge", "autoscaling/v2") is None)


def wanted(stage: Stage) -> int:
    found = stage.get("Deployment", "edge", "apps/v1")
    return int(found["spec"]["replicas"]) if found else 0


def asked(stage: Stage) -> int:
    found = stage.get("MTA", "edge")
    return int(found["spec"]["replicas"]) if found else 0


def said(stage: Stage, reason: str) -> str:
    """What the MTA's events with this reason say, as `kubectl get events` has it."""
    words = ["get", "events", "-n", stage.namespace, "--field-selector", f"involvedObject.kind=MTA,reason={reason}"]
    return stage.place.kubectl(*words, "-o", "jsonpath={range .items[*]}{.message}{'\\n'}{end}")


def watched(stage: Stage) -> list[tuple[int, str]]:
    """Replicas asked for and phases, as `kubectl get mta -w` would show them, until one pod is left of several."""
    seen: list[tuple[int, str]] = []
    until = time.monotonic() + 1800
    while time.monotonic() < until:
        status = stage.status("MTA", "edge")
        ready, phase = str(status.get("ready", "0/0")), str(status.get("phase", ""))
        now = (int(ready.partition("/")[2]), phase)
        if not seen or seen[-1] != now:
            seen.append(now)
        if now == (1, "Healthy") and any(count > 1 for count, _ in seen):
            break
        time.sleep(0.1)
    return seen


def followed(stage: Stage, watching: Future[list[tuple[int, str]]]) -> None:
    seen = watching.result(timeout=120)
    phases = {phase for _, phase in seen}
    stage.expect("ScalingUp" in phases, f"the phase never was ScalingUp: {seen}")
    stage.expect("ScalingDown" in phases, f"the phase never was ScalingDown: {seen}")
    downs = [before - after for (before, _), (after, _) in pairwise(seen) if after < before]
    stage.expect(downs and set(downs) == {1}, f"pods did not go one at a time: {seen}")
    stage.expect(max(count for count, _ in seen) <= MAX, f"there were more than {MAX}: {seen}")
