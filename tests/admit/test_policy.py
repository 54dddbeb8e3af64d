"""Which rule decides, and why the others did not."""

from __future__ import annotations

import time

import pytest

from kit.manifests import compiled, domain, mta, policy
from posthof_crds import engine
from posthof_crds.engine import Action, ActionKind, ListenerRole, Match, Rule
from posthof_pod.admit.policy import RELAYING_DENIED, CompiledPolicy, Facts, Part, Verdict, headers_of
from posthof_pod.model import Origin

OURS = domain("ours", "mode: Maildir\nrecipients: {list: [bob]}")
OFFICE = policy("office", "match: {clients: [10.0.0.0/8, '2001:db8::/32']}\naction: {type: Direct}")


def facts(recipient: str = "x@far.test", **given: object) -> Facts:
    values: dict[str, object] = {
        "role": "MX",
        "client": "203.0.113.9",
        "sender": "s@far.test",
        "recipient": recipient,
    }
    return Facts(**{**values, **given})  # type: ignore[arg-type]  # a table of facts by name


def decided(rules: list[str], given: Facts) -> tuple[str, str]:
    """`(verdict, rule)`."""
    decision = CompiledPolicy(compiled(OURS, *rules)).decide(given)
    return decision.verdict.name, decision.rule.name if decision.rule else ""


def test_without_rules_our_domains_are_taken_and_foreign_ones_refused() -> None:
    house = CompiledPolicy(compiled(OURS))
    ours = house.decide(facts("bob@ours.test"))
    assert (ours.verdict, ours.domain and ours.domain.name) == (Verdict.OURS, "ours")
    foreign = house.decide(facts())
    assert (foreign.verdict, foreign.reply) == (Verdict.REFUSE, RELAYING_DENIED)
    assert (RELAYING_DENIED.code, RELAYING_DENIED.status) == (550, "5.7.1")


@pytest.mark.parametrize(
    ("client", "verdict"),
    [
        ("10.1.2.3", "RELAY"),
        ("::ffff:10.1.2.3", "RELAY"),
        ("2001:db8::1", "RELAY"),
        ("11.0.0.1", "REFUSE"),
        ("2001:db9::1", "REFUSE"),
        ("", "REFUSE"),
        ("unknown", "REFUSE"),
    ],
)
def test_clients_are_networks(client: str, verdict: str) -> None:
    assert decided([OFFICE], facts(client=client))[0] == verdict


@pytest.mark.parametrize(
    ("match", "given", "verdict"),
    [
        ("listenerRoles: [Internal]", {"role": "Internal"}, "RELAY"),
        ("listenerRoles: [Internal]", {"role": "MX"}, "REFUSE"),
        ("recipients: [far.test]", {}, "RELAY"),
        ("recipients: ['*.far.test']", {}, "REFUSE"),
        ("recipients: ['*.far.test']", {"recipient": "x@sub.FAR.test"}, "RELAY"),
        ("recipients: [far.test], senders: ['*@far.test']", {}, "RELAY"),
        ("recipients: [far.test], senders: ['<>']", {}, "REFUSE"),
        ("recipients: [far.test], senders: ['<>']", {"sender": ""}, "RELAY"),
        ("recipients: [far.test], senders: ['*']", {"sender": ""}, "REFUSE"),
        ("recipients: [far.test], senders: ['S@FAR.test']", {}, "RELAY"),
        ("recipients: [far.test], clients: [10.0.0.0/8]", {}, "REFUSE"),
    ],
)
def test_all_parts_of_a_match_must_hold(match: str, given: dict[str, object], verdict: str) -> None:
    assert decided([policy("p", f"match: {{{match}}}\naction: {{type: Direct}}")], facts(**given))[0] == verdict


def test_the_first_rule_that_matches_decides() -> None:
    rules = [
        policy("b", "match: {recipients: [far.test]}\naction: {type: Direct}"),
        policy("a", "match: {recipients: [far.test], senders: [near.test]}\naction: {type: Discard}"),
        policy("top", "priority: 9\nmatch: {senders: [bad.test]}\naction: {type: Reject}"),
    ]
    assert decided(rules, facts()) == ("RELAY", "b")
    assert decided(rules, facts(sender="x@near.test")) == ("DISCARD", "a")
    assert decided(rules, facts(sender="x@bad.test")) == ("REFUSE", "top")


def test_a_reject_speaks_with_its_own_words() -> None:
    rule = policy("p", "match: {recipients: [far.test]}\naction: {type: Reject, code: 450, text: Not today}")
    reply = CompiledPolicy(compiled(rule)).decide(facts()).reply
    assert str(reply) == "450 4.7.1 Not today"


def test_rules_that_say_where_mail_goes_do_not_carry_away_our_own() -> None:
    everything = policy("out", "match: {clients: [10.0.0.0/8]}\naction: {type: Smarthost, nextHops: [{host: a}]}")
    named = policy("named", "match: {recipients: [ours.test]}\naction: {type: Smarthost, nextHops: [{host: a}]}")
    wild = policy(
        "wild", "match: {recipients: ['*.test', ours.test.x.test], clients: [10.0.0.0/8]}\naction: {type: Direct}"
    )
    inside = facts("bob@ours.test", client="10.0.0.1")
    assert decided([everything], inside) == ("OURS", "")
    assert decided([everything, wild], inside) == ("OURS", "")
    assert decided([everything, named], inside) == ("RELAY", "named")
    assert CompiledPolicy(compiled(OURS, named)).decide(inside).domain is not None


def test_a_named_pattern_of_a_mixed_rule_counts_only_for_what_it_names() -> None:
    mixed = policy("p", "match: {recipients: [alice@ours.test, '*'], clients: [10.0.0.0/8]}\naction: {type: Direct}")
    assert decided([mixed], facts("alice@ours.test", client="10.0.0.1")) == ("RELAY", "p")
    assert decided([mixed], facts("bob@ours.test", client="10.0.0.1")) == ("OURS", "")


@pytest.mark.parametrize(
    ("action", "verdict"),
    [("Hold", "HOLD"), ("Reject", "REFUSE"), ("Discard", "DISCARD"), ("Redirect, addresses: [a@b.test]", "REDIRECT")],
)
def test_other_rules_apply_to_our_domains(action: str, verdict: str) -> None:
    rule = policy("p", f"match: {{senders: [far.test]}}\naction: {{type: {action}}}")
    assert decided([rule], facts("bob@ours.test"))[0] == verdict
    assert decided([rule], facts("bob@ours.test", sender="a@b.test"))[0] == "OURS"


def test_an_unbounded_hold_holds_what_another_rule_permits_and_permits_nothing() -> None:
    hold = policy("hold", "priority: 9\nmatch: {senders: [far.test]}\naction: {type: Hold}")
    assert decided([hold], facts()) == ("REFUSE", "")
    assert decided([hold, OFFICE], facts(client="10.0.0.1")) == ("HOLD", "hold")
    assert decided([hold, OFFICE], facts(client="10.0.0.1", sender="a@b.test")) == ("RELAY", "office")
    assert decided([hold], facts("bob@ours.test")) == ("HOLD", "hold")
    bounded = policy("hold", "match: {recipients: [far.test]}\naction: {type: Hold}")
    assert decided([bounded], facts()) == ("HOLD", "hold")


def test_a_rule_that_would_be_an_open_relay_is_not_obeyed_even_if_the_check_was_left_out() -> None:
    rules = tuple(
        Rule(name=name, priority=0, match=match, action=Action(kind=ActionKind.DIRECT))
        for name, match in {
            "all": Match(),
            "senders": Match(senders=("far.test",)),
            "world": Match(clients=("0.0.0.0/0",)),
            "role": Match(listener_roles=(ListenerRole.MX,)),
        }.items()
    )
    config = engine.EngineConfig(
        name="x",
        hostname="x.test",
        listeners=(),
        spool=engine.SpoolSettings(path="/x"),
        mail_root="/x",
        state_dir="/x",
        rules=rules,
    )
    house = CompiledPolicy(config)
    assert house.decide(facts()).verdict is Verdict.REFUSE
    assert {asked.part for asked in house.explain(facts()).asked} == {Part.BOUNDS}


# -- our own mail ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"origin": Origin.REPORT}, {"is_forwarded": True}])
def test_our_own_mail_comes_from_a_trusted_place(given: dict[str, object]) -> None:
    smarthost = policy(
        "out",
        "match: {clients: [10.0.0.0/8], listenerRoles: [Internal]}\naction: {type: Smarthost, nextHops: [{host: a}]}",
    )
    bad_network = policy("bad", "priority: 9\nmatch: {clients: [203.0.113.0/24]}\naction: {type: Reject}")
    assert decided([], facts(client="", **given)) == ("RELAY", "")
    assert decided([smarthost], facts(client="", **given)) == ("RELAY", "out")
    assert decided([bad_network, smarthost], facts(**given)) == ("RELAY", "out"), (
        "a report to a refused client leaves"
    )
    no_squatters = policy("no", "priority: 9\nmatch: {recipients: [far.test]}\naction: {type: Reject}")
    assert decided([no_squatters, smarthost], facts(**given)) == ("REFUSE", "no")


# -- headers ---------------------------------------------------------------------------------------------------------

BULK = "match: {clients: [10.0.0.0/8], headers: [{name: X-Kind, pattern: 'bulk*'}]}"


def outcome(rules: list[str], **given: object) -> tuple[str, str, bool]:
    decision = CompiledPolicy(compiled(OURS, *rules)).decide(facts(**{"client": "10.0.0.1", **given}))
    return decision.verdict.name, decision.rule.name if decision.rule else "", decision.is_final


def test_a_rule_with_headers_is_undecided_until_they_are_there() -> None:
    bulk = policy("bulk", f"priority: 9\n{BULK}\naction: {{type: Smarthost, nextHops: [{{host: a}}]}}")
    assert outcome([bulk]) == ("PENDING", "bulk", False)
    assert outcome([bulk, OFFICE]) == ("RELAY", "office", False)
    assert outcome([bulk, OFFICE], headers={"x-kind": ["Bulk mail"]}) == ("RELAY", "bulk", True)
    assert outcome([bulk, OFFICE], headers={"x-kind": ["personal"]}) == ("RELAY", "office", True)
    assert outcome([bulk, OFFICE], headers={}) == ("RELAY", "office", True)
    assert outcome([bulk], headers={}) == ("REFUSE", "", True)


def test_an_undecided_reject_does_not_refuse_yet_and_permits_nothing() -> None:
    reject = policy(
        "no", "priority: 9\nmatch: {headers: [{name: subject, pattern: '*casino*'}]}\naction: {type: Reject}"
    )
    assert outcome([reject]) == ("REFUSE", "", True)
    assert outcome([reject, OFFICE]) == ("RELAY", "office", False)
    assert outcome([reject, OFFICE], headers={"subject": ["CASINO!"]}) == ("REFUSE", "no", True)
    assert outcome([reject], recipient="bob@ours.test") == ("OURS", "", False)


def test_a_later_reject_waits_for_an_undecided_rule_that_would_take_the_mail() -> None:
    bulk = policy("bulk", f"priority: 9\n{BULK}\naction: {{type: Direct}}")
    reject = policy("no", "match: {recipients: [far.test]}\naction: {type: Reject}")
    assert outcome([bulk, reject]) == ("PENDING", "bulk", False)
    assert outcome([bulk, reject], headers={"x-kind": ["bulk"]}) == ("RELAY", "bulk", True)
    assert outcome([bulk, reject], headers={}) == ("REFUSE", "no", True)


def test_a_rule_whose_other_parts_fail_is_not_undecided() -> None:
    bulk = policy("bulk", f"{BULK}\naction: {{type: Direct}}")
    assert outcome([bulk], client="11.0.0.1") == ("REFUSE", "", True)


def test_header_names_tell_whether_to_ask_again() -> None:
    assert CompiledPolicy(compiled(OFFICE)).header_names == frozenset()
    assert CompiledPolicy(compiled(policy("p", f"{BULK}\naction: {{type: Direct}}"))).header_names == {"x-kind"}


def test_headers_are_unfolded_and_decoded() -> None:
    block = b"Subject: =?utf-8?q?Caf=C3=A9?=\r\n open\r\nX-Kind: one\r\nx-kind: two\r\nX-Bad: =?nope?q?a?= \xff\r\n"
    found = headers_of(block, ["subject", "x-kind", "x-bad", "missing"])
    assert "café" in found["subject"][0].lower()
    assert found["x-kind"] == ("one", "two")
    assert found["missing"] == ()
    assert found["x-bad"]


# -- explanations ----------------------------------------------------------------------------------------------------


def test_every_rule_says_why_it_did_or_did_not_decide() -> None:
    rules = [
        policy("a", "priority: 9\nmatch: {recipients: [other.test, '*.other.test']}\naction: {type: Reject}"),
        policy("b", "priority: 8\nmatch: {listenerRoles: [Internal]}\naction: {type: Reject}"),
        policy("c", "priority: 7\nmatch: {clients: [10.0.0.0/8]}\naction: {type: Direct}"),
        policy("d", "priority: 6\nmatch: {senders: ['<>']}\naction: {type: Reject}"),
        policy("e", "priority: 5\nmatch: {headers: [{name: subject, pattern: 'x*'}]}\naction: {type: Reject}"),
        policy("f", "priority: 4\nmatch: {recipients: [far.test]}\naction: {type: Direct}"),
        policy("g", "priority: 3\naction: {type: Reject}"),
    ]
    house = CompiledPolicy(compiled(OURS, *rules))
    told = {asked.rule.name: asked.why for asked in house.explain(facts()).asked}
    assert told == {
        "a": "the recipient is none of other.test, *.other.test",
        "b": "the listener's role is MX, not Internal",
        "c": "the client 203.0.113.9 is not in 10.0.0.0/8",
        "d": "the sender s@far.test is none of <>",
        "e": "undecided until the headers are there: it wants subject: x*",
        "f": "it matches",
        "g": "not asked: an earlier rule had decided",
    }
    assert [asked.part for asked in house.explain(facts()).asked][-1] is None
    told = {
        asked.rule.name: asked.why for asked in house.explain(facts("bob@ours.test", client="", headers={})).asked
    }
    assert told["c"] == "ours.test is ours: only a rule whose recipients name it says where its mail goes"
    assert told["e"] == "no field is like subject: x*"
    assert told["g"] == "it matches all mail"
    told = {asked.rule.name: asked.why for asked in house.explain(facts(origin=Origin.REPORT)).asked}
    assert told["b"] == "this is mail of our own, and the rule is about clients"


def test_the_explanation_s_decision_is_the_decision() -> None:
    house = CompiledPolicy(compiled(OURS, OFFICE))
    for given in (facts(), facts(client="10.0.0.1"), facts("bob@ours.test"), facts("postmaster")):
        assert house.explain(given).decision == house.decide(given)


# -- cost ------------------------------------------------------------------------------------------------------------


def test_a_thousand_rules_for_other_domains_cost_nothing() -> None:
    rules = [policy(f"r{n}", f"match: {{recipients: [d{n}.test]}}\naction: {{type: Direct}}") for n in range(1000)]
    house = CompiledPolicy(compiled(mta(), OURS, OFFICE, *rules))
    assert len(house._asked("d7.test")) == 2
    assert len(house._asked("far.test")) == 1
    given = facts("x@d7.test")
    house.decide(given)
    begun = time.process_time()
    for _ in range(2000):
        house.decide(given)
    assert (time.process_time() - begun) / 2000 < 100e-6  # about 3e-6; the bound is for a busy machine
