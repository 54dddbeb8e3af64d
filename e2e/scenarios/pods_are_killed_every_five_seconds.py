"""For a minute a pod is killed every five seconds, without a word: what it had promised, others deliver."""

import random
import time

from kit import manifests
from kit.api import Object
from kit.proof import Proof
from kit.stage import Stage

NODES = True  # it kills tasks
KILLS, EVERY = 12, 5.0


def story(stage: Stage) -> None:
    traffic, sink = stage.world()
    stage.apply(manifests.on_many_nodes(replicas=3), stage.relayed("steady.test", retry={"intervals": ["2s"]}))
    stage.running(replicas=3)
    traffic.until_answer(stage.addresses(), "x@steady.test", "250")
    chance = random.Random(1)
    with Proof(stage, traffic, sink) as proof:
        traffic.start("edge", "x@steady.test", rate=20, sessions=8)
        traffic.grows()
        stage.step("some mail waits, some is on its way")
        sink.answers("451 4.3.2 come later")
        traffic.grows(60)
        sink.answers(wait=0.2)

        stage.step(f"{KILLS} pods are killed")
        for _ in range(KILLS):
            began = time.monotonic()
            stage.until("a pod is ready", stage.pods)
            kill(stage, chance.choice(stage.pods()))
            rest = EVERY - (time.monotonic() - began)
            time.sleep(max(0.0, rest))  # the pace of the kills is the scenario, not a wait for anything

        stage.step("it goes on, and all of it arrives")
        sink.answers()
        stage.running(replicas=3)
        traffic.grows()
        with stage.measure("until all that was accepted has arrived", wanted=60):
            proof.arrived(wanted=60)
        proof.judge(wanted=60)


def kill(stage: Stage, pod: Object) -> None:
    """SIGKILL to all its processes; then it is deleted, else the kubelet backs off before it starts it again."""
    name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
    for state in pod["status"]["containerStatuses"]:
        stage.place.node("kill", node, state["containerID"])
    stage.api.delete("v1", "Pod", name, stage.namespace, grace=0)
