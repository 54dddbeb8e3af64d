"""A domain is added, changed and removed while mail flows: every pod follows at once, nobody is disconnected."""

from kit import manifests
from kit.actors import Sink, Traffic
from kit.stage import Stage


def story(stage: Stage) -> None:
    traffic, sink = stage.world()
    stage.apply(manifests.on_many_nodes(), stage.relayed("steady.test"))
    stage.running(replicas=2)
    stage.until_condition("MailDomain", "steady-test", Accepted="True")
    hosts = stage.addresses()
    traffic.until_answer(hosts, "x@steady.test", "250")

    stage.step("mail flows for a domain that nobody touches")
    traffic.start("edge", "x@steady.test", rate=20, sessions=6)
    traffic.grows()

    stage.step("a domain is added")
    waiting = stage.meanwhile(lambda: traffic.until_answer(hosts, "x@new.test", "250"))
    stage.apply(stage.relayed("new.test"))
    stage.keep("until every pod serves an added domain", waiting.result(), wanted=2)

    stage.step("it is changed: its mail goes elsewhere")
    other = Sink(stage, "other")
    other.ready()
    stage.apply(stage.relayed("new.test", to="other"))
    stage.until("a mail for it arrives at the new place", lambda: arrives(traffic, other))

    stage.step("it is removed")
    waiting = stage.meanwhile(lambda: traffic.until_answer(hosts, "x@new.test", "550"))
    stage.delete("MailDomain", "new-test")
    stage.keep("until every pod refuses a removed domain", waiting.result(), wanted=2)

    stage.step("meanwhile nothing happened to the others")
    traffic.grows()
    stage.nobody_disconnected(traffic.stop())
    stage.nothing_lost(traffic, sink)


def arrives(traffic: Traffic, sink: Sink) -> bool:
    key, _ = traffic.send("edge", "x@new.test")
    return sink.has(key) or sink.has(key)
