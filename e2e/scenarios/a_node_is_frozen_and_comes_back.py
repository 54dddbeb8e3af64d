"""A node stands still for longer than a Lease: others deliver what it promised; it wakes up and does no harm."""

import time

from kit import manifests
from kit.actors import Sink, Traffic
from kit.proof import Proof
from kit.stage import Stage

NODES = True
LEASE = 20.0  # seconds after which a silent pod is dead


def story(stage: Stage) -> None:
    away(stage, "freeze", "thaw")


def away(stage: Stage, leave: str, come: str) -> None:
    """node-b goes by one word of the cluster and comes back by the other, while mail flows and waits on both."""
    traffic, sink = stage.world("node-a")
    stage.apply(manifests.on_many_nodes(replicas=4), stage.relayed("steady.test", retry={"intervals": ["2s"]}))
    stage.running(replicas=4)
    stage.expect(len({pod["spec"]["nodeName"] for pod in stage.pods()}) == 2, "both nodes should have pods")
    traffic.until_answer(stage.addresses(), "x@steady.test", "250")
    with Proof(stage, traffic, sink) as proof:
        traffic.start("edge", "x@steady.test", rate=20, sessions=12)
        traffic.grows()
        stage.step("mail waits on both nodes, and some is on its way")
        sink.answers("451 4.3.2 come later")
        traffic.grows(100)
        sink.answers(wait=0.2)
        traffic.grows(20)
        try:
            taken_over(stage, leave, proof, traffic, sink)
        finally:
            stage.place.node(come, "node-b")

        stage.step("the node is back: its pods find out, and begin anew")
        back = time.monotonic()
        stage.until("both nodes are ready", lambda: nodes_ready(stage), wanted=30)
        stage.until("its pods say that they were cut off", lambda: proof.told("spool_fenced"), wanted=30)
        stage.running(replicas=4, wanted=60)
        stage.keep("until all pods are ready again", time.monotonic() - back, wanted=60)
        traffic.grows()
        proof.judge(wanted=60)


def taken_over(stage: Stage, leave: str, proof: Proof, traffic: Traffic, sink: Sink) -> None:
    lost = {pod["metadata"]["name"] for pod in stage.pods() if pod["spec"]["nodeName"] == "node-b"}
    stage.step(f"node-b: {leave}")
    stage.place.node(leave, "node-b")
    began = time.monotonic()
    sink.answers()
    stage.until("lanes of pods of node-b are taken over", lambda: lost & taken(proof), wanted=LEASE + 5)
    stage.keep("until others had the lanes of node-b", time.monotonic() - began, wanted=LEASE + 5)
    stage.step("all it had promised is delivered, while it is away")
    proof.arrived()
    traffic.grows()


def taken(proof: Proof) -> set[str]:
    """Pods whose lanes others say they have taken over."""
    return {str(line.get("name")) for _, line in proof.told("taken_over")}


def nodes_ready(stage: Stage) -> bool:
    found = stage.api.list("v1", "Node")
    return all(
        any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])
        for node in found
    )
