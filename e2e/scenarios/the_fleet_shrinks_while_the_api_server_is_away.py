"""Pods are told to go and the API server goes first: what they free is taken, the living are not judged dead."""

import time

from kit import manifests
from kit.proof import Proof
from kit.stage import Stage

NODES = True
AWAY = 40.0  # seconds: twice what a Lease may stand still


def story(stage: Stage) -> None:
    traffic, sink = stage.world()
    stage.apply(manifests.on_many_nodes(replicas=4), stage.relayed("steady.test", retry={"intervals": ["2s"]}))
    stage.running(replicas=4)
    traffic.until_answer(stage.addresses(), "x@steady.test", "250")
    with Proof(stage, traffic, sink) as proof:
        traffic.start("edge", "x@steady.test", rate=20, sessions=8)
        traffic.grows()
        sink.answers("451 4.3.2 come later")
        traffic.grows(100)

        stage.step("from four pods to two, and the API server goes as soon as the first of them ends")
        stage.place.kubectl("scale", "-n", stage.namespace, "mta/edge", "--replicas=2")
        stage.until("pods are told to end", lambda: len(stage.pods(ready=False)) <= 2, wanted=20)
        stage.place.node("stop", "apiserver")
        time.sleep(AWAY)  # the length of the absence is the scenario, not a wait for anything
        stage.place.node("start", "apiserver")
        stage.until("the API server answers", lambda: stage.api.call("GET", "/readyz"), wanted=10)

        stage.step("two pods are left, and nobody who lives was judged dead")
        sink.answers()
        stage.running(replicas=2, wanted=60)
        stage.expect(not proof.told("spool_fenced"), f"pods were cut off: {proof.told('spool_fenced')}")
        traffic.grows()
        proof.arrived(wanted=60)
        counts = proof.judge(wanted=60)
        stage.expect(counts["dropped"] == 0 and counts["unknown"] == 0, f"sessions were cut off: {counts}")
