"""Rules that ask which pods a client is, and addresses that no rule may believe."""

from __future__ import annotations

import asyncio
import time

import msgspec

from kit.manifests import compiled, domain
from posthof_crds.engine import Action, ActionKind, EngineConfig, Listener, ListenerRole, Match, NextHop, Rule
from posthof_pod.admit.judge import Admission
from posthof_pod.admit.newcomers import Newcomers
from posthof_pod.admit.policy import CompiledPolicy, Facts, Part, Verdict
from posthof_pod.model import Envelope, Origin, Recipient
from posthof_pod.smtp.gate import Session
from posthof_pod.smtp.grammar import NO_RECIPIENT_PARAMETERS

OURS = domain("ours", "mode: Maildir\nrecipients: {list: [bob]}")
RELAY = Action(kind=ActionKind.SMARTHOST, hops=(NextHop(kind="host", name="smart.test", port=25),))
SHOP = Rule(name="shop/out", priority=0, match=Match(workloads=("shop",)), action=RELAY)
NODE = "10.244.0.1"
POD = "10.244.1.7"


def config(*rules: Rule, preserved: bool = True, role: ListenerRole = ListenerRole.INTERNAL) -> EngineConfig:
    listener = Listener(name="in", role=role, host="", port=2525, client_ip_preserved=preserved)
    return msgspec.structs.replace(compiled(OURS), rules=rules, listeners=(listener,))


def asked(policy: CompiledPolicy, client: str = POD, role: str = "Internal", **given: object) -> Verdict:
    return policy.decide(Facts(role, client, "s@far.test", "x@far.test", **given)).verdict  # type: ignore[arg-type]


def test_a_pod_of_a_selection_may_relay_and_others_may_not() -> None:
    policy = CompiledPolicy(config(SHOP))
    assert asked(policy) is Verdict.REFUSE
    policy.know_pods({POD: ("other", "shop"), "10.244.1.8": ("other",)})
    assert asked(policy) is Verdict.RELAY
    assert asked(policy, f"::ffff:{POD}") is Verdict.RELAY
    assert asked(policy, "10.244.1.8") is Verdict.REFUSE
    assert asked(policy, "") is Verdict.REFUSE
    policy.know_pods({})
    assert asked(policy) is Verdict.REFUSE


def test_a_rule_with_clients_and_pods_wants_both() -> None:
    both = msgspec.structs.replace(SHOP, match=Match(workloads=("shop",), clients=("10.244.1.0/24",)))
    policy = CompiledPolicy(config(both))
    policy.know_pods({POD: ("shop",), "10.244.2.1": ("shop",)})
    assert asked(policy) is Verdict.RELAY
    assert asked(policy, "10.244.2.1") is Verdict.REFUSE
    assert asked(policy, "10.244.1.9") is Verdict.REFUSE


def test_a_rule_of_another_namespace_is_not_for_mail_of_our_own() -> None:
    report = {"origin": Origin.REPORT, "client": ""}
    assert CompiledPolicy(config(SHOP)).decide(Facts("", "", "", "x@far.test", origin=Origin.REPORT)).rule is not None
    foreign = msgspec.structs.replace(SHOP, is_foreign=True)
    decision = CompiledPolicy(config(foreign)).decide(Facts("", recipient="x@far.test", sender="", **report))  # type: ignore[arg-type]
    assert (decision.verdict, decision.rule) == (Verdict.RELAY, None)


def test_queued_mail_keeps_the_rule_that_took_it_when_its_pod_is_gone() -> None:
    admission = Admission(config(SHOP))
    admission.know_pods({POD: ("shop",)})
    mail = Envelope("q-1", "s@far.test", (), 0.0, 1, POD, "pod", "Internal")
    taken = Recipient("x@far.test", "shop/out")
    assert admission.destination(mail, taken).rule == "shop/out"
    admission.know_pods({})
    assert admission.destination(mail, taken).rule == "shop/out"
    assert admission.destination(mail, Recipient("x@far.test", "gone")).key == "no-route"


def test_what_was_remembered_of_a_client_is_forgotten_when_pods_change() -> None:
    admission = Admission(config(SHOP))
    session = Session(POD, listener="in", role=ListenerRole.INTERNAL)

    def answer() -> object:
        return admission.recipient(session, "s@far.test", "x@far.test", NO_RECIPIENT_PARAMETERS)

    admission.know_pods({POD: ("shop",)})
    assert isinstance(answer(), tuple)
    admission.know_pods({})
    assert getattr(answer(), "code", 0) == 550


def test_an_address_that_may_be_a_nodes_is_believed_by_no_rule() -> None:
    office = Rule(name="office", priority=0, match=Match(clients=("10.0.0.0/8",)), action=RELAY)
    admission = Admission(config(office, role=ListenerRole.MX, preserved=False))
    session = Session(NODE, listener="in", role=ListenerRole.MX)
    session.vouched = ""
    answer = admission.recipient(session, "s@far.test", "x@far.test", NO_RECIPIENT_PARAMETERS)
    assert getattr(answer, "code", 0) == 550


def test_queued_mail_that_came_from_an_unbelieved_address_takes_no_other_clients_way() -> None:
    office = Rule(name="office", priority=1, match=Match(clients=("10.0.0.0/8",)), action=RELAY)
    partner = Rule(
        name="partner",
        priority=0,
        match=Match(recipients=("*@far.test",)),
        action=Action(kind=ActionKind.DIRECT),
    )
    mail = Envelope("q-1", "s@far.test", (), 0.0, 1, NODE, "node", "MX")
    taken = Recipient("x@far.test", "partner")
    doubtful = Admission(config(office, partner, role=ListenerRole.MX, preserved=False))
    assert doubtful.destination(mail, taken).rule == "partner"
    believed = Admission(config(office, partner, role=ListenerRole.MX))
    assert believed.destination(mail, taken).rule == "office"


def test_the_explanation_names_pods_and_addresses_that_are_not_believed() -> None:
    policy = CompiledPolicy(config(SHOP, role=ListenerRole.MX, preserved=False))
    assert policy.is_doubtful("MX")
    assert not policy.is_doubtful("Internal")
    (one,) = policy.explain(Facts("MX", "", "s@far.test", "x@far.test"), doubted=NODE).asked
    assert one.part is Part.WORKLOADS
    assert f"{NODE} is not believed" in one.why
    (one,) = policy.explain(Facts("Internal", POD, "s@far.test", "x@far.test")).asked
    assert f"{POD} is none of the pods that its namespaces and podSelector choose" in one.why


def newcomer(admission: Admission, client: str, role: ListenerRole = ListenerRole.INTERNAL) -> object:
    session = Session(client, listener="in", role=role)
    return admission.recipient(session, "s@far.test", "x@far.test", NO_RECIPIENT_PARAMETERS)


def test_a_pod_that_speaks_before_it_is_known_waits_for_the_news() -> None:
    async def act() -> None:
        admission = Admission(config(SHOP), newcomers=Newcomers(time.monotonic, patience=30.0))
        coming = asyncio.ensure_future(newcomer(admission, POD))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        admission.know_pods({"10.244.9.9": ("shop",)})
        await asyncio.sleep(0)
        assert not coming.done()
        admission.know_pods({POD: ("shop",)})
        assert isinstance(await coming, tuple)
        assert isinstance(newcomer(admission, POD), tuple)

    asyncio.run(act())


def test_nobody_waits_longer_than_the_patience_nor_twice_a_minute() -> None:
    async def act() -> None:
        now = [100.0]
        admission = Admission(config(SHOP), newcomers=Newcomers(lambda: now[0], patience=0.01))
        assert getattr(await newcomer(admission, POD), "code", 0) == 550  # type: ignore[misc]
        now[0] += 1.0
        assert getattr(newcomer(admission, POD), "code", 0) == 550
        now[0] += 61.0
        again = newcomer(admission, POD)
        assert asyncio.iscoroutine(again)
        again.close()

    asyncio.run(act())


def test_only_who_might_be_a_pod_waits() -> None:
    def refused(admission: Admission, client: str, role: ListenerRole = ListenerRole.INTERNAL) -> bool:
        return getattr(newcomer(admission, client, role), "code", 0) == 550

    def waiting(rule: Rule, **given: object) -> Admission:
        return Admission(config(rule, **given), newcomers=Newcomers(lambda: 0.0))  # type: ignore[arg-type]

    known = waiting(SHOP)
    known.know_pods({POD: ("other",)})
    assert refused(known, POD)  # it is known, and in no selection that matters
    assert refused(waiting(SHOP, role=ListenerRole.MX), "203.0.114.1", ListenerRole.MX)  # the world's
    office = Rule(name="office", priority=0, match=Match(clients=("192.0.2.0/24",)), action=RELAY)
    assert refused(waiting(office), POD)  # no rule asks for pods
    narrow = msgspec.structs.replace(SHOP, match=Match(workloads=("shop",), senders=("*@else.test",)))
    assert refused(waiting(narrow), POD)  # it would be refused anyway
