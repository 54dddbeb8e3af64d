"""What a tenant tries, and what comes of it. The last part asks the engine's own policy about other people's mail."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kit.fleets import TENANTS, domain, fleet, mta, policy, told, verdict
from posthof_crds.engine import EngineConfig, SecretRef
from posthof_crds.fleet import Fleet, parts_in_force
from posthof_crds.reasons import Reason
from posthof_pod.admit.policy import CompiledPolicy, Facts, Verdict
from posthof_pod.model import Origin

ANY_HOP = TENANTS.replace("198.51.100.0/24", '"*"')


class TestADomain:
    def test_that_the_mta_covers_is_received_for(self) -> None:
        found = fleet(domain("shop/a", "a.tenants.example"))
        assert verdict(found, "shop/a").accepted

    def test_of_somebody_else_captures_nothing(self) -> None:
        found = fleet(domain("shop/a", "bank.example"))
        assert found.config is not None
        assert "bank.example" not in found.config.domains
        assert told(found, "shop/a") == (
            "ProofMissing: bank.example is not proven to be this namespace's. Publish the TXT record "
            "_posthof-challenge.bank.example that status.proof tells, "
            "or ask the MTA's owner for an entry in spec.allowedNamespaces[].domains."
        )

    def test_that_its_dns_proves_is_received_for(self) -> None:
        found = fleet(domain("shop/a", "bank.example"), proven={"bank.example": {"shop/a"}})
        assert verdict(found, "shop/a").accepted

    def test_proven_for_another_object_is_not_proven(self) -> None:
        found = fleet(domain("shop/a", "bank.example"), proven={"bank.example": {"blog/a"}})
        assert verdict(found, "shop/a").reason is Reason.PROOF_MISSING

    def test_proof_does_not_help_where_the_namespace_is_not_allowed(self) -> None:
        found = fleet(domain("other/a", "bank.example"), proven={"bank.example": {"other/a"}})
        assert found.verdicts == []
        assert found.domains == 0

    def test_proven_wins_over_older(self) -> None:
        found = fleet(
            domain("blog/old", "x.tenants.example", created="2025-01-01T00:00:00Z"),
            domain("shop/new", "x.tenants.example"),
            proven={"x.tenants.example": {"shop/new"}},
        )
        assert found.config is not None
        assert found.config.domains["x.tenants.example"].name == "shop/new"
        assert told(found, "blog/old") == (
            "DomainTaken: MailDomain shop/new, which is proven, receives for x.tenants.example. Publish the TXT "
            "record that status.proof tells, or remove one of the two."
        )

    def test_the_owners_own_counts_as_proven(self) -> None:
        found = fleet(
            domain("shop/old", "x.tenants.example", created="2025-01-01T00:00:00Z"),
            domain("mail/new", "x.tenants.example"),
        )
        assert found.config is not None
        assert found.config.domains["x.tenants.example"].name == "mail/new"

    def test_is_never_the_mtas_own_name(self) -> None:
        found = fleet(domain("shop/a", "mx.example.org"), proven={"mx.example.org": {"shop/a"}})
        assert verdict(found, "shop/a").reason is Reason.NOT_ALLOWED

    @pytest.mark.parametrize("hop", ["lmtp.shop.svc.cluster.local", "198.51.100.7"])
    def test_may_send_mail_to_next_hops_that_are_allowed(self, hop: str) -> None:
        inbound = f"{{mode: Relay, recipients: {{callout: {{}}}}, nextHops: [{{host: {hop}}}]}}"
        assert verdict(fleet(domain("shop/a", "a.tenants.example", inbound)), "shop/a").accepted

    @pytest.mark.parametrize(
        "hop",
        [
            "{host: lmtp.blog.svc.cluster.local}",
            "{host: 127.0.0.1}",
            "{host: localhost}",
            "{host: 203.0.113.1}",
            "{mx: example.org}",
            "{srv: _smtp._tcp.example.org}",
        ],
    )
    def test_may_not_send_mail_elsewhere(self, hop: str) -> None:
        inbound = f"{{mode: Relay, recipients: {{callout: {{}}}}, nextHops: [{hop}]}}"
        found = fleet(domain("shop/a", "a.tenants.example", inbound))
        assert verdict(found, "shop/a").reason is Reason.NEXT_HOP_NOT_ALLOWED

    @pytest.mark.parametrize("path", ["b.tenants.example/{local}", "{local}", "{domain}{local}/x"])
    def test_keeps_mailboxes_in_its_own_folder(self, path: str) -> None:
        inbound = f'{{mode: Maildir, recipients: {{list: [bob]}}, maildir: "{path}"}}'
        found = fleet(domain("shop/a", "a.tenants.example", inbound))
        assert verdict(found, "shop/a").reason is Reason.NOT_ALLOWED


class TestARule:
    def test_may_not_name_namespaces(self) -> None:
        found = fleet(policy("shop/p", "{match: {namespaces: {}}, action: {type: Reject}}"))
        assert verdict(found, "shop/p").reason is Reason.NOT_ALLOWED

    def test_direct_needs_leave_for_any_host(self) -> None:
        direct = policy("shop/p", "{match: {podSelector: {}}, action: {type: Direct}}")
        assert verdict(fleet(direct), "shop/p").reason is Reason.NEXT_HOP_NOT_ALLOWED
        assert verdict(fleet(direct, of=mta(ANY_HOP)), "shop/p").accepted

    def test_may_not_choose_the_name_at_ehlo(self) -> None:
        spec = "{match: {podSelector: {}}, egress: {helo: bank.example}, action: {type: Reject}}"
        assert verdict(fleet(policy("shop/p", spec)), "shop/p").reason is Reason.NOT_ALLOWED

    def test_is_always_about_its_own_pods(self) -> None:
        found = fleet(policy("shop/p", "{action: {type: Discard}}"))
        assert found.config is not None
        assert found.config.rules[0].is_foreign
        (selection,) = found.selections.values()
        assert selection.namespaces == ("shop",)
        assert found.config.rules[0].match.workloads == tuple(found.selections)

    def test_stands_between_what_nobody_may_change_and_what_everybody_may(self) -> None:
        reject = "action: {type: Reject}}"
        found = fleet(
            policy("shop/loud", f"{{priority: 1000000, {reject}"),
            policy("mail/law", f"{{priority: 0, match: {{senders: [a.example]}}, {reject}"),
            policy("mail/custom", f"{{priority: -1, match: {{senders: [b.example]}}, {reject}"),
            policy("blog/quiet", f"{{priority: -1000, {reject}"),
        )
        assert found.config is not None
        assert [rule.name for rule in found.config.rules] == ["mail/law", "shop/loud", "blog/quiet", "mail/custom"]

    def test_does_not_shadow_the_owners(self) -> None:
        found = fleet(
            policy("shop/p", "{action: {type: Discard}}"), policy("mail/q", "{priority: -1, action: {type: Reject}}")
        )
        assert verdict(found, "mail/q").shadowed_by == ""


class TestWhatATenantsRuleCannotTake:
    """Shop writes the greediest rules it can; pods are known by their addresses."""

    HOP = "nextHops: [{host: mx.shop.svc.cluster.local}]"
    GREEDY = (
        ("a", "{priority: 1000000, action: {type: Redirect, addresses: [thief@a.tenants.example]}}"),
        ("b", '{priority: 999999, match: {recipients: ["*"]}, action: {type: Discard}}'),
        ("c", f"{{priority: 999998, match: {{clients: [10.0.0.0/8]}}, action: {{type: Smarthost, {HOP}}}}}"),
        ("d", "{priority: 999997, match: {recipients: [blog.tenants.example]}, action: {type: Hold}}"),
    )
    BOUNDED = f"""
    priority: 9
    match: {{recipients: [far.example, blog.tenants.example]}}
    action: {{type: Smarthost, {HOP}}}
    """

    def policy_of(self, *more: str) -> CompiledPolicy:
        found = self.fleet(*more)
        assert found.config is not None
        compiled = CompiledPolicy(found.config)
        (shops,) = {each for rule in found.config.rules if rule.is_foreign for each in rule.match.workloads}
        (owners,) = {each for rule in found.config.rules if not rule.is_foreign for each in rule.match.workloads}
        compiled.know_pods({"10.0.1.1": (owners,), "10.0.2.2": (shops, owners)})
        return compiled

    def fleet(self, *more: str) -> Fleet:
        owner = "{priority: -1, match: {namespaces: {matchLabels: {mail: allowed}}}, action: {type: Direct}}"
        return fleet(
            domain("blog/blog", "blog.tenants.example"),
            domain("shop/a", "a.tenants.example", "{mode: Maildir, recipients: {any: true}}"),
            policy("mail/relay", owner),
            *(policy(f"shop/{name}", spec) for name, spec in self.GREEDY),
            *(policy(f"shop/more{n}", spec) for n, spec in enumerate(more)),
        )

    def test_mail_from_the_world_for_another_tenant(self) -> None:
        asked = Facts("MX", "203.0.113.9", "bob@a.tenants.example", "ann@blog.tenants.example")
        assert self.policy_of(self.BOUNDED).decide(asked).verdict is Verdict.OURS

    def test_mail_of_another_tenants_pods(self) -> None:
        asked = Facts("Internal", "10.0.1.1", "ann@blog.tenants.example", "x@far.example")
        decision = self.policy_of(self.BOUNDED).decide(asked)
        assert (decision.verdict, decision.rule and decision.rule.name) == (Verdict.RELAY, "mail/relay")

    @pytest.mark.parametrize("origin", [Origin.REPORT, Origin.CLIENT])
    def test_reports_and_what_aliases_lead_to(self, origin: Origin) -> None:
        facts = Facts("Internal", "10.0.2.2", "", "ann@far.example", origin=origin, is_forwarded=True)
        compiled = self.policy_of(self.BOUNDED)
        decision = compiled.decide(facts)
        assert decision.rule is None or not decision.rule.is_foreign
        way = compiled.way_out(facts, "")
        assert way is None or not way.is_foreign

    def test_queued_mail_of_a_pod_whose_address_it_has_now(self) -> None:
        facts = Facts("Internal", "10.0.2.2", "ann@blog.tenants.example", "x@far.example")
        way = self.policy_of(self.BOUNDED).way_out(facts, "mail/relay")
        assert way is not None
        assert way.name == "mail/relay"

    def test_a_stranger_may_not_relay_by_it(self) -> None:
        asked = Facts("MX", "203.0.113.9", "bob@a.tenants.example", "x@far.example")
        assert self.policy_of(self.BOUNDED).decide(asked).verdict is Verdict.REFUSE

    def test_its_own_pods_mail_it_may_have(self) -> None:
        asked = Facts("Internal", "10.0.2.2", "bob@a.tenants.example", "x@far.example")
        decision = self.policy_of().decide(asked)
        assert (decision.verdict, decision.rule and decision.rule.name) == (Verdict.REDIRECT, "shop/a")


def test_names_of_tenants_cannot_meet() -> None:
    config = fleet(
        policy("shop/p", "{action: {type: Discard}}"), policy("blog/p", "{action: {type: Discard}}")
    ).config
    assert isinstance(config, EngineConfig)
    assert {rule.name for rule in config.rules} == {"shop/p", "blog/p"}


LOGIN = """
    match: {podSelector: {}}
    tls: Verify
    action: {type: Smarthost, nextHops: [{host: 198.51.100.7}], auth: {secretName: login}}
"""
NAMED = LOGIN + "    mtaRef: {namespace: mail, name: edge}\n"


class TestASecretOfATenant:
    def test_goes_to_no_mta_that_the_rule_does_not_name(self) -> None:
        """Whoever makes an MTA says which namespaces it allows; that must not give it their passwords."""
        found = fleet(policy("shop/out", LOGIN))
        assert (found.secrets, found.policies, found.verdicts) == (frozenset(), 0, [])

    def test_goes_to_the_mta_that_the_rule_names(self) -> None:
        found = fleet(policy("shop/out", NAMED))
        assert {ref.name for ref in found.secrets} == {"shop/login"}

    def test_is_never_read_by_a_forged_configuration_of_another_namespace(self) -> None:
        config = fleet(policy("mail/out", NAMED)).config
        assert config is not None
        good = parts_in_force(_naming(config, "kube-system/root"))
        found = fleet(policy("mail/out", NAMED + "    priority: high\n"), good=good)
        assert found.secrets == frozenset()

    def test_is_not_read_by_a_forged_configuration_when_the_rule_does_not_name_it(self) -> None:
        config = fleet(policy("shop/out", NAMED)).config
        assert config is not None
        good, wrong = (
            parts_in_force(_naming(config, "shop/other")),
            policy("shop/out", NAMED + "    priority: high\n"),
        )
        found = fleet(wrong, good=good, secrets={})
        assert found.secrets == frozenset()
        assert "does not name any more" in verdict(found, "shop/out").resolved_message
        honest = fleet(wrong, good=parts_in_force(config), secrets={})
        assert {ref.name for ref in honest.secrets} == {"shop/login"}


def _naming(config: EngineConfig, secret: str) -> EngineConfig:
    (rule,) = config.rules
    ref = SecretRef(name=secret, key="password")
    action = replace(rule.action, username=ref, password=ref)
    return replace(config, rules=(replace(rule, action=action),))
