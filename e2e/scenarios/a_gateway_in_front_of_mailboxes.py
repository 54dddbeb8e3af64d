"""examples/inbound-gateway: domains in, LMTP or SMTP out, aliases, a parked domain, a domain kept for another MX."""

from __future__ import annotations

from kit import examples
from kit.actors import Actor, Sink, Traffic, service
from kit.api import Object
from kit.stage import Stage

MTA = "gateway"


class Mailboxes(Actor):
    """An LMTP server with some mailboxes, on 2424; it answers callouts, too."""

    def __init__(self, stage: Stage) -> None:
        stage.apply(service("dovecot", 2424))
        super().__init__(stage, "dovecot", "lmtp.py")

    def has(self, key: str) -> bool:
        return key in self.ask("seen")["ids"]


def story(stage: Stage) -> None:
    traffic, sink = stage.world()
    dovecot = Mailboxes(stage)
    dovecot.ready()
    stage.step("the example's manifests, with our servers in place of the world's")
    for one in examples.objects("inbound-gateway/cluster", "inbound-gateway/domains.yaml"):
        stage.apply(adapted(one, stage))
    [pod] = stage.running(MTA, 1)
    host = pod["status"]["podIP"]
    for domain in ("example-org", "customer", "club", "parked"):
        stage.until_condition("MailDomain", domain, Accepted="True")

    stage.step("who exists is known at RCPT")
    expected = {
        "bob@example.org": "250",  # asked of the LMTP server
        "nobody@example.org": "550",
        "erika@kunde.example": "250",  # on the list
        "max@kunde.example": "250",
        "other@kunde.example": "550",
        "chair@club.example": "250",  # an alias
        "anybody@club.example": "550",
        "anybody@parked.example": "550",
        "a@friends.example": "250",  # kept for its first MX
        "a@elsewhere.example": "550",
    }
    for recipient, code in expected.items():
        until_rcpt(stage, traffic, host, recipient, code)

    stage.step("mail for mailboxes leaves by LMTP, for a customer by SMTP, for an alias where it leads")
    key = taken(stage, traffic, host, "bob@example.org")
    stage.until("it is in the mailbox", lambda: dovecot.has(key))
    for recipient in ("erika@kunde.example", "chair@club.example"):
        key = taken(stage, traffic, host, recipient)
        reached(stage, sink, key)

    stage.step("the customer's server is away: mail waits, and nobody else's does")
    sink.answers("451 4.3.2 away")
    waits = taken(stage, traffic, host, "max@kunde.example")
    key = taken(stage, traffic, host, "bob@example.org")
    stage.until("other mail flows", lambda: dovecot.has(key))
    stage.until("the status tells what waits", lambda: stage.status("MTA", MTA)["queue"]["total"] == 1)
    sink.answers()
    stage.until("it is delivered", lambda: sink.has(waits), wanted=30)

    stage.step("what a person sees")
    columns = stage.columns("mta", MTA)
    stage.expect(columns["DOMAINS"] == "4", f"four domains are served: {columns}")
    seen = stage.columns("maildomain", "example-org")
    stage.expect(seen["DOMAIN"] == "example.org", f"the domain is in its column: {seen}")


def until_rcpt(stage: Stage, traffic: Traffic, host: str, recipient: str, code: str) -> None:
    stage.until(
        f"RCPT TO:<{recipient}> gets {code}", lambda: traffic.rcpt(host, recipient, port=2525).startswith(code)
    )


def reached(stage: Stage, sink: Sink, key: str) -> None:
    stage.until("it reaches the customer's server", lambda: sink.has(key))


def taken(stage: Stage, traffic: Traffic, host: str, recipient: str) -> str:
    """The id of a mail that got its 250."""
    key, reply = traffic.send(host, recipient, port=2525)
    stage.expect(reply.startswith("250"), f"mail to {recipient} should be taken: {reply}")
    return key


def adapted(one: Object, stage: Stage) -> Object:
    """As it stands in the example, but small, and with our servers."""
    if one["kind"] == "MTA":
        one["spec"]["service"]["type"] = "NodePort"  # a balancer is not to be had everywhere
        return examples.small(one)
    hops = one.get("spec", {}).get("inbound", {}).get("nextHops")
    if hops:
        is_lmtp = one["spec"]["inbound"]["mode"] == "LMTP"
        name, port = ("dovecot", 2424) if is_lmtp else ("sink", 2525)
        hops[0] = {"host": f"{name}.{stage.namespace}.svc.cluster.local", "port": port}
        one["spec"]["inbound"]["tls"] = "None"
        one["spec"]["retry"] = {"intervals": ["2s"]}
    return one
