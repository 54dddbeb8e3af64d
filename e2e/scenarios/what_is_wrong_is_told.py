"""A bad MailDomain, a bad RelayPolicy, two of a domain, a stolen one, a missing Secret: told, and the rest flows."""

from kit import manifests
from kit.api import Object
from kit.record import Told
from kit.stage import Stage


def story(stage: Stage) -> None:
    tenant = Stage(stage.place, Told(f"{stage.told.name}_tenant"))
    try:
        tenant.open()
        tell(stage, tenant)
    finally:
        tenant.clear()


def tell(stage: Stage, tenant: Stage) -> None:
    traffic, sink = stage.world()
    stage.apply(manifests.mta(spec={"allowedNamespaces": allowed(tenant)}), stage.relayed("steady.test"))
    stage.running()
    traffic.until_answer(stage.addresses(), "x@steady.test", "250")
    traffic.start("edge", "x@steady.test", rate=20, sessions=3)

    stage.step("what no MTA could obey is refused when it is applied")
    said = stage.refused(manifests.ours("MailDomain", "bad", {"domain": "bad.test", "inbound": {"mode": "Relay"}}))
    stage.expect("nextHops" in said, f"the refusal should speak of nextHops: {said}")
    said = stage.refused(manifests.ours("RelayPolicy", "open", {"action": {"type": "Direct"}}))
    stage.expect(said, "an open relay should be refused")

    stage.step("a MailDomain whose list is not there")
    missing = {"mode": "Maildir", "recipients": {"listFrom": {"name": "nobody-made-this", "key": "mailboxes"}}}
    stage.apply(manifests.ours("MailDomain", "listless", {"domain": "listless.test", "inbound": missing}))
    told(stage, "MailDomain", "listless", is_not="Accepted", because="ConfigMapMissing", word="nobody-made-this")
    stage.expect(traffic.rcpt("edge", "x@listless.test")[0] in "45", "mail for it should not be taken")

    stage.step("the ConfigMap appears: it is served without another touch")
    stage.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "nobody-made-this"},
            "data": {"mailboxes": "alice\n"},
        }
    )
    stage.until("its mailbox exists", lambda: traffic.rcpt("edge", "alice@listless.test").startswith("250"), wanted=5)

    stage.step("a RelayPolicy whose Secret is not there")
    stage.apply(secretless(stage))
    told(stage, "RelayPolicy", "provider", is_not="ResolvedRefs", because="SecretMissing", word="no-such-login")

    stage.step("two MailDomains of one domain: the older is served, the other says which")
    stage.apply(stage.relayed("twice.test", name="first"))
    stage.until_condition("MailDomain", "first", Accepted="True")
    stage.place.kubectl(
        "wait", "-n", stage.namespace, "maildomain/first", "--for=condition=Accepted", "--timeout=60s"
    )
    second = stage.relayed("twice.test", name="second")
    try:
        stage.apply(second)
    except Exception as refusal:  # the webhook is there to say so at once
        stage.expect("first" in str(refusal), f"the refusal should name the other one: {refusal}")
    else:
        told(stage, "MailDomain", "second", is_not="Accepted", because="DomainTaken", word="first")

    stage.step("a tenant takes a domain that is another's, and one that nobody gave it: it captures nothing")
    for name, domain in (("stolen", "steady.test"), ("unproven", "bank.test")):
        tenant.apply(manifests.relayed(domain, "sink", stage.namespace, name=name))
    told(tenant, "MailDomain", "stolen", is_not="Accepted", because="DomainTaken ProofMissing")
    told(tenant, "MailDomain", "unproven", is_not="Accepted", because="ProofMissing", word="posthof")
    stage.expect(traffic.rcpt("edge", "x@bank.test").startswith("550"), "mail for a domain nobody proved is taken")
    key, _ = traffic.send("edge", "x@steady.test")
    stage.until("mail for the stolen domain goes where its owner says", lambda: sink.has(key))

    stage.step("what it was given works")
    tenant.apply(manifests.relayed("tenant.test", "sink", stage.namespace))
    stage.until("its domain is served", lambda: traffic.rcpt("edge", "x@tenant.test").startswith("250"), wanted=5)

    stage.step("a good one goes bad: its last good version stays in force")
    stage.place.kubectl("delete", "configmap", "nobody-made-this", "-n", stage.namespace)
    stage.until(
        "it is told", lambda: stage.condition("MailDomain", "listless", "Ready")["status"] == "False", wanted=5
    )
    stage.expect(traffic.rcpt("edge", "alice@listless.test").startswith("250"), "a mailbox disappeared")

    stage.step("all this time mail for the rest flowed")
    stage.nobody_disconnected(traffic.stop())
    stage.nothing_lost(traffic, sink)


def allowed(tenant: Stage) -> list[Object]:
    """The tenant may receive for one domain, and send to Services."""
    selector = {"matchLabels": {"kubernetes.io/metadata.name": tenant.namespace}}
    return [{"selector": selector, "domains": ["tenant.test"], "nextHops": ["*.svc.cluster.local"]}]


def secretless(stage: Stage) -> Object:
    hop = {"host": f"sink.{stage.namespace}.svc.cluster.local", "port": 2525}
    action = {"type": "Smarthost", "nextHops": [hop], "auth": {"secretName": "no-such-login"}}
    match = {
        "recipients": ["*.provider.test"],
        "listenerRoles": ["Internal"],
        "podSelector": {"matchLabels": {"actor": "traffic"}},
    }
    return manifests.ours("RelayPolicy", "provider", {"match": match, "action": action, "tls": "Encrypt"})


def told(stage: Stage, kind: str, name: str, *, is_not: str, because: str, word: str = "") -> None:
    """The condition is false for that reason; `kubectl describe` shows its message, which names what is missing."""

    def so() -> Object:
        found = stage.condition(kind, name, is_not)
        return found if found.get("reason") in because.split() and found["status"] == "False" else {}

    found = stage.until(f"{kind} {name} is not {is_not} because {because}", so, wanted=5)
    described = stage.place.kubectl("describe", kind, name, "-n", stage.namespace)
    stage.expect(found["message"] in described, "`kubectl describe` does not show the message")
    stage.expect(word in found["message"], f"the message should name {word!r}: {found['message']}")
    stage.expect(len(found["message"]) > 20, f"the message says too little: {found['message']!r}")
