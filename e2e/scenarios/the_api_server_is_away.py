"""The API server is away for a minute: pods receive and deliver; what changed afterwards reaches them."""

import time

from kit import manifests
from kit.stage import Stage

NODES = True
AWAY = 60.0


def story(stage: Stage) -> None:
    traffic, sink = stage.world()
    stage.apply(manifests.on_many_nodes(), stage.relayed("steady.test"))
    stage.running(replicas=2)
    traffic.until_answer(stage.addresses(), "x@steady.test", "250")
    traffic.start("edge", "x@steady.test", rate=20, sessions=6)
    traffic.grows()
    before = traffic.counts()["accepted"]

    stage.step("the API server goes, and stays away for a minute")
    stage.place.node("stop", "apiserver")
    time.sleep(AWAY)  # the length of the absence is the scenario, not a wait for anything
    stage.place.node("start", "apiserver")
    stage.until("the API server answers", lambda: stage.api.call("GET", "/readyz"), wanted=10)

    stage.step("mail flowed all the time")
    counts = traffic.counts()
    stage.keep("mails accepted meanwhile", counts["accepted"] - before, unit="mails")
    stage.expect(counts["accepted"] - before > AWAY * 10, f"the flow stood still: {counts}")

    stage.step("what changes now reaches every pod, and the status is right")
    stage.until("the operator is ready", stage.operator_is_ready, wanted=30)
    waiting = stage.meanwhile(lambda: traffic.until_answer(stage.addresses(), "x@later.test", "250", seconds=200))
    stage.apply(stage.relayed("later.test"))
    stage.keep("until every pod serves a domain added then", waiting.result(), wanted=20)
    stage.running(replicas=2)
    stage.until_condition("MailDomain", "later-test", Accepted="True")

    stage.nobody_disconnected(traffic.stop())
    stage.nothing_lost(traffic, sink)
