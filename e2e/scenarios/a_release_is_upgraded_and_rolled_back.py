"""`helm upgrade` from the release before this one, and back, while mail flows: nothing is lost, nobody is cut off."""

from __future__ import annotations

from kit import manifests
from kit.stage import RELEASE, SYSTEM, Stage, settings, uninstall

INSTALLS = True


def story(stage: Stage) -> None:
    stage.step("the release before this one")
    uninstall(stage.place)
    chart, tag = stage.place.previous()
    words = [word for value in settings(stage.place) for word in ("--set", value)]
    for image in ("operator.image.tag", "podImage.tag"):
        words += ["--set", f"{image}={tag}"]
    stage.place.helm("install", RELEASE, str(chart), "-n", SYSTEM, "--create-namespace", *words)
    stage.until("the operator is ready", stage.operator_is_ready, wanted=30)

    traffic, sink = stage.world()
    stage.apply(manifests.on_many_nodes(), stage.relayed("steady.test"))
    stage.running(replicas=2)
    stage.expect(all(image.endswith(f":{tag}") for image in images(stage)), f"these pods run: {images(stage)}")
    traffic.until_answer(stage.addresses(), "x@steady.test", "250")
    traffic.start("edge", "x@steady.test", rate=20, sessions=6)
    traffic.grows()

    stage.step("upgrade")
    with stage.measure("upgrade, to the last pod", wanted=60):
        stage.install()
        replaced(stage, stage.pod_image)
    traffic.grows()

    stage.step("roll back")
    with stage.measure("roll-back, to the last pod", wanted=60):
        stage.place.helm("rollback", RELEASE, "1", "-n", SYSTEM)
        stage.until("the operator is ready", stage.operator_is_ready, wanted=30)
        replaced(stage, f"{stage.place.registry}/posthof-pod:{tag}")
    traffic.grows()

    stage.step("nothing is lost, and nobody was cut off without a word")
    stage.until_condition("MailDomain", "steady-test", Accepted="True")
    counts = traffic.stop()
    stage.expect(counts["dropped"] == 0 and counts["unknown"] == 0, f"sessions were cut off: {counts}")
    stage.expect(not counts["refused"], f"mail was refused: {counts['refused']}")
    stage.nothing_lost(traffic, sink)


def replaced(stage: Stage, image: str) -> None:
    stage.until(f"two pods run {image}", lambda: images(stage) == [image, image], wanted=60)
    stage.running(replicas=2)


def images(stage: Stage) -> list[str]:
    return [pod["spec"]["containers"][0]["image"] for pod in stage.pods(ready=False)]
