"""A rollout and the drain of a node while mail flows: sessions are told, nothing is lost, a pod is always there."""

from kit import manifests
from kit.actors import Traffic
from kit.proof import Proof
from kit.stage import Stage

NODES = True  # it drains one


def story(stage: Stage) -> None:
    traffic, sink = stage.world()
    stage.apply(manifests.on_many_nodes(), stage.relayed("steady.test"))
    stage.running(replicas=2)
    traffic.until_answer(stage.addresses(), "x@steady.test", "250")
    with Proof(stage, traffic, sink) as proof:
        tell(stage, traffic, proof)


def tell(stage: Stage, traffic: Traffic, proof: Proof) -> None:
    traffic.start("edge", "x@steady.test", rate=30, sessions=8)
    traffic.grows()

    stage.step("a new pod template: one by one, all pods are new")
    before = names(stage)
    with stage.measure("rollout of two pods", wanted=30):
        more = {"podTemplate": {"annotations": {"example.org/rolled": "yes"}}}
        stage.apply(manifests.on_many_nodes(spec=more))
        stage.until("all pods are new", lambda: len(names(stage)) == 2 and not before & names(stage), wanted=30)
    stage.running(replicas=2)
    traffic.grows()

    stage.step("node-b is drained: its pods move")
    try:
        with stage.measure("drain of a node", wanted=30):
            stage.place.kubectl(
                "drain", "node-b", "--pod-selector=posthof.dev/mta=edge", "--delete-emptydir-data", "--timeout=300s"
            )
        stage.until("two pods are ready on the other node", lambda: placed(stage) == ["node-a", "node-a"], wanted=30)
        traffic.grows()
    finally:
        stage.place.kubectl("uncordon", "node-b")

    stage.step("nothing is lost, and nobody was cut off without a word")
    counts = proof.judge()
    stage.expect(counts["dropped"] == 0 and counts["unknown"] == 0, f"sessions were cut off: {counts}")
    stage.expect(not counts["refused"], f"mail was refused: {counts['refused']}")
    stage.keep("sessions told 421", counts["told"], unit="sessions")


def names(stage: Stage) -> set[str]:
    return {pod["metadata"]["name"] for pod in stage.pods()}


def placed(stage: Stage) -> list[str]:
    return sorted(pod["spec"]["nodeName"] for pod in stage.pods())
