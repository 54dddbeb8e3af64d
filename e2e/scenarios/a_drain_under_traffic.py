"""A pod ends while mail flows, as in every rollout: sessions are told, mail in progress is finished, none is lost."""

from kit import manifests
from kit.stage import Stage


def story(stage: Stage) -> None:
    traffic, sink = stage.world()
    stage.apply(manifests.on_many_nodes(), stage.relayed("steady.test"))
    before = {pod["metadata"]["name"] for pod in stage.running(replicas=2)}
    traffic.until_answer(stage.addresses(), "x@steady.test", "250")

    stage.step("mail flows through both pods")
    traffic.start("edge", "x@steady.test", rate=20, sessions=8)
    traffic.grows()

    stage.step("one pod is deleted")
    leaving = sorted(before)[0]
    with stage.measure("until the pod has ended", wanted=15):
        stage.api.delete("v1", "Pod", leaving, stage.namespace)
        stage.until("it is gone", lambda: stage.get("Pod", leaving, "v1") is None, wanted=15)
    traffic.grows()

    stage.step("another takes its place")
    after = {pod["metadata"]["name"] for pod in stage.running(replicas=2)}
    stage.expect(leaving not in after, f"{leaving} is still there")

    stage.step("nothing is lost, and nobody was cut off without a word")
    counts = traffic.stop()
    stage.expect(counts["dropped"] == 0 and counts["unknown"] == 0, f"sessions were cut off: {counts}")
    stage.expect(not counts["refused"], f"mail was refused: {counts['refused']}")
    stage.nothing_lost(traffic, sink)
