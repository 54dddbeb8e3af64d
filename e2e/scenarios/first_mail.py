"""From nothing to a delivered mail: Helm, the README's manifests, one mail in, one mail out.

The way of somebody who has a cluster and ten minutes.
"""

from kit import manifests
from kit.stage import Stage, uninstall

INSTALLS = True


def story(stage: Stage) -> None:
    uninstall(stage.place)
    traffic, sink = stage.world()

    with stage.measure("from helm install to the delivered mail", wanted=60):
        stage.step("install the chart, apply an MTA and a MailDomain")
        stage.install()
        stage.apply(manifests.mta(), stage.relayed("first.test"))
        pod = stage.running()[0]

        stage.step("a mail goes in through the Service and comes out at the next hop")
        key, reply = traffic.send("edge", "alice@first.test")
        stage.expect(reply.startswith("250"), f"the mail was not accepted: {reply}")
        stage.until("the mail is delivered", lambda: sink.has(key))

    arrived = sink.mails(key)
    stage.expect(len(arrived) == 1, f"it should have come once, and came {len(arrived)} times")
    stage.expect(arrived[0]["to"] == ["alice@first.test"], f"for the wrong recipient: {arrived[0]['to']}")
    stage.expect("by edge.mx.test" in arrived[0]["header"], "no Received field of ours: " + arrived[0]["header"])

    stage.step("who is not ours is refused")
    stage.expect(traffic.rcpt("edge", "bob@elsewhere.test").startswith("550"), "it relays for strangers")

    stage.step("`kubectl get` says what a person wants to know")
    stage.until("the MTA's columns are right", lambda: stage.columns("mta", "edge").get("READY") == "1/1")
    stage.until_condition("MailDomain", "first-test", Accepted="True")
    shown = stage.place.kubectl("get", "mail", "-n", stage.namespace)
    stage.expect("first.test" in shown and "edge" in shown, f"`kubectl get mail` shows too little:\n{shown}")
    trace = stage.exec(pod["metadata"]["name"], "posthof", "trace", key)
    stage.expect("delivered" in trace, f"`posthof trace` does not tell of it: {trace}")
