"""A fleet on one volume goes from 2 pods to 6, to 1, to 4 while mail flows and waits: nothing is lost."""

from kit import manifests
from kit.proof import Proof
from kit.stage import Stage


def story(stage: Stage) -> None:
    traffic, sink = stage.world()
    stage.apply(manifests.on_many_nodes(), stage.relayed("steady.test", retry={"intervals": ["2s"]}))
    stage.running(replicas=2)
    traffic.until_answer(stage.addresses(), "x@steady.test", "250")
    with Proof(stage, traffic, sink) as proof:
        traffic.start("edge", "x@steady.test", rate=20, sessions=8)
        traffic.grows()
        stage.step("the next hop is away: mail waits in the queue of each pod")
        sink.answers("451 4.3.2 come later")
        traffic.grows(100)
        for replicas in (6, 1, 4):
            stage.step(f"to {replicas} pods")
            with stage.measure(f"until {replicas} pods run", wanted=40):
                scale(stage, replicas)
                stage.running(replicas=replicas, wanted=40)
            traffic.grows()
            if replicas == 6:
                stage.step("the next hop is back while there are six")
                sink.answers()
        stage.step("what waited in pods that are gone is delivered by those that stay")
        proof.arrived()
        counts = proof.judge()
        stage.expect(counts["dropped"] == 0 and counts["unknown"] == 0, f"sessions were cut off: {counts}")
        stage.expect(not counts["refused"], f"mail was refused: {counts['refused']}")


def scale(stage: Stage, replicas: int) -> None:
    """As `kubectl scale mta/edge --replicas=N` does."""
    stage.place.kubectl("scale", "-n", stage.namespace, "mta/edge", f"--replicas={replicas}")
