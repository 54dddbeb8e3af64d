"""All objects that may be for an MTA -> what its pods do, and what each object is told."""

from __future__ import annotations

import time

from kit.fleets import MTA, cert, domain, fleet, mta, policy, raw, told, verdict
from posthof_crds.engine import ListenerRole, Retry, SecretRef
from posthof_crds.fleet import PodSelection, assemble, parts_in_force
from posthof_crds.parts import part_of
from posthof_crds.reasons import Reason
from posthof_crds.selectors import Selector

RELAY = "{match: {namespaces: {matchLabels: {mail: allowed}}}, action: {type: Direct}}"


def test_an_mta_in_a_cluster_has_its_own_paths_ports_and_addresses() -> None:
    config = fleet(of=mta("egress: {addresses: [192.0.2.1], helo: out.example.org}\nuser: posthof")).config
    assert config is not None
    assert config.name == "edge"
    assert [(each.name, each.host, each.port) for each in config.listeners] == [
        ("smtp", "", 2525),
        ("inside", "", 2526),
    ]
    assert (config.spool.path, config.mail_root, config.state_dir) == (
        "/var/lib/posthof/spool",
        "/var/lib/posthof/mail",
        "/run/posthof",
    )
    assert (config.http.host, config.http.port) == ("127.0.0.1", 8025)
    assert config.public_http is not None
    assert config.public_http.port == 8080
    assert (config.egress.ipv4, config.egress.helo, config.user) == ("", "out.example.org", "")
    assert config.drain_settle == 5.0


def test_an_mta_that_is_wrong_gives_no_config_and_says_why() -> None:
    found = fleet(of=mta("replicas: 0"))
    assert found.config is None
    told = "nobody would receive mail, try deferred mail again or send reports. Write 1, or more."
    assert [str(flaw) for flaw in found.problems] == [f"spec.replicas: 0 pods are no scale for a mail server: {told}"]


def test_objects_are_called_by_namespace_and_name() -> None:
    found = fleet(domain("mail/corp", "corp.example"), policy("mail/out", RELAY))
    assert found.config is not None
    assert found.config.domains["corp.example"].name == "mail/corp"
    assert [rule.name for rule in found.config.rules] == ["mail/out"]
    assert (found.domains, found.policies) == (1, 1)


def test_equal_objects_give_equal_configs_in_any_order() -> None:
    parts = [domain(f"mail/d{n}", f"d{n}.example") for n in range(5)] + [policy("mail/out", RELAY)]
    assert fleet(*parts).config == fleet(*reversed(parts)).config


class TestClientAddresses:
    """Rule 6: a rule about clients counts on role Internal, or where addresses are the clients' own."""

    def preserved(self, more: str, listeners: str = MTA) -> list[bool]:
        config = fleet(of=mta(more, listeners)).config
        assert config is not None
        return [each.client_ip_preserved for each in config.listeners]

    def test_local_keeps_them(self) -> None:
        assert self.preserved("service: {type: NodePort}") == [True, True]
        assert self.preserved("service: {type: LoadBalancer, externalTrafficPolicy: Local}") == [True, True]

    def test_cluster_does_not_and_internal_is_never_in_doubt(self) -> None:
        assert self.preserved("service: {type: NodePort, externalTrafficPolicy: Cluster}") == [False, True]
        assert self.preserved("service: {type: LoadBalancer, externalTrafficPolicy: Cluster}") == [False, True]

    def test_behind_a_cluster_ip_only_proxy_tells_them(self) -> None:
        proxied = MTA.replace("port: 25}", "port: 25, proxyProtocol: {trustedCIDRs: [10.0.0.0/24]}}")
        assert self.preserved("") == [False, True]
        assert self.preserved("", proxied) == [True, True]

    def test_with_cluster_anybody_may_speak_proxy_through_a_node(self) -> None:
        proxied = MTA.replace("port: 25}", "port: 25, proxyProtocol: {trustedCIDRs: [10.0.0.0/24]}}")
        assert self.preserved("service: {type: NodePort, externalTrafficPolicy: Cluster}", proxied) == [False, True]


class TestWhoIsMeant:
    def test_labels_select_and_what_they_do_not_select_is_not_judged(self) -> None:
        of = mta("domainSelector: {matchLabels: {tier: gold}}\npolicySelector: {matchLabels: {tier: gold}}")
        found = fleet(
            domain("mail/a", "a.example", labels={"tier": "gold"}),
            domain("mail/b", "b.example"),
            policy("mail/p", RELAY),
            of=of,
        )
        assert [each.name for each in found.verdicts] == ["a"]

    def test_mta_ref_names_the_mta_whatever_the_labels(self) -> None:
        of = mta("domainSelector: {matchLabels: {tier: gold}}")
        found = fleet(
            domain("mail/a", "a.example", spec="mtaRef: {name: edge}"),
            domain("mail/b", "b.example", spec="mtaRef: {name: bulk}", labels={"tier": "gold"}),
            of=of,
        )
        assert [(each.name, each.accepted) for each in found.verdicts] == [("a", True)]

    def test_only_who_names_the_mta_hears_that_the_namespace_is_not_allowed(self) -> None:
        found = fleet(
            domain("other/quiet", "a.tenants.example"),
            domain("other/asks", "b.tenants.example", spec="mtaRef: {name: edge, namespace: mail}"),
        )
        assert [each.name for each in found.verdicts] == ["asks"]
        assert told(found, "other/asks") == (
            "NotAllowed: MTA mail/edge takes nothing from namespace other. Its owner can add an entry to "
            "spec.allowedNamespaces."
        )


class TestOneInvalidObject:
    def test_never_blocks_the_others(self) -> None:
        found = fleet(domain("mail/bad", "a.example", "{mode: LMTP}"), domain("mail/good", "b.example"))
        assert found.config is not None
        assert "b.example" in found.config.domains
        assert verdict(found, "mail/bad").reason is Reason.INVALID
        assert "needs nextHops" in verdict(found, "mail/bad").message

    def test_stays_in_force_as_it_was(self) -> None:
        first = fleet(domain("mail/corp", "corp.example"))
        second = fleet(domain("mail/corp", "corp.example", "{mode: LMTP}"), good=first.good)
        assert second.config == first.config
        assert not verdict(second, "mail/corp").accepted
        assert verdict(second, "mail/corp").message.endswith("The last good version stays in force.")
        third = fleet(domain("mail/corp", "corp.example", "{mode: LMTP}"), good=second.good)
        assert third.config == first.config

    def test_a_new_leader_finds_the_last_good_version_in_the_config_that_pods_run(self) -> None:
        rule = """
        match: {podSelector: {matchLabels: {app: shop}}}
        tls: Verify
        retry: {lifetime: 1d}
        action: {type: Direct}
        """
        first = fleet(
            domain("mail/corp", "corp.example", spec="retry: {lifetime: 1d}"),
            policy("mail/out", rule),
            of=mta("egress: {helo: out.example.org}"),
        )
        assert first.config is not None
        second = fleet(
            domain("mail/corp", "corp.example", "{mode: LMTP}"),
            policy("mail/out", "{action: {type: Direct}}"),
            of=mta("egress: {helo: out.example.org}"),
            good=parts_in_force(first.config),
        )
        assert second.config == first.config
        assert second.selections == first.selections
        assert verdict(second, "mail/out").reason is Reason.OPEN_RELAY

    def test_that_is_removed_is_gone(self) -> None:
        first = fleet(domain("mail/corp", "corp.example"))
        second = fleet(good=first.good)
        assert second.config is not None
        assert "corp.example" not in second.config.domains

    def test_whatever_its_shape(self) -> None:
        for spec in (None, [], "text", {"domain": 7}, {"mtaRef": []}, {"inbound": {"mode": ["LMTP"]}}):
            part = part_of("MailDomain", {"metadata": {"name": "x", "namespace": "mail"}, "spec": spec})
            assert part.flaws, spec


class TestOneDomainTwice:
    def test_the_older_wins_and_the_other_is_told_which(self) -> None:
        found = fleet(
            domain("mail/new", "corp.example", created="2026-02-01T00:00:00Z"),
            domain("mail/old", "corp.example", created="2026-01-01T00:00:00Z"),
        )
        assert found.config is not None
        assert found.config.domains["corp.example"].name == "mail/old"
        assert told(found, "mail/new") == (
            "DomainTaken: MailDomain mail/old, which is older, receives for corp.example. Remove one of the two."
        )

    def test_of_the_same_age_the_first_by_name_wins(self) -> None:
        found = fleet(domain("mail/b", "corp.example"), domain("mail/a", "corp.example"))
        assert found.config is not None
        assert found.config.domains["corp.example"].name == "mail/a"

    def test_the_loser_takes_over_when_the_winner_goes(self) -> None:
        loser = domain("mail/b", "corp.example")
        config = fleet(loser).config
        assert config is not None
        assert config.domains["corp.example"].name == "mail/b"


class TestMailboxesFromAConfigMap:
    LISTED = "{mode: Maildir, recipients: {listFrom: {name: people, key: list}}}"

    def test_are_read(self) -> None:
        part = domain("mail/corp", "corp.example", self.LISTED)
        assert part.config_map == "mail/people"
        found = fleet(part, config_maps={"mail/people": {"list": "Bob\nalice # the boss\n\n"}})
        assert found.config is not None
        assert found.config.domains["corp.example"].recipients == {"bob", "alice"}

    def test_that_is_missing_or_wrong_refuses_a_new_domain(self) -> None:
        part = domain("mail/corp", "corp.example", self.LISTED)
        assert told(fleet(part), "mail/corp") == (
            'ConfigMapMissing: spec.inbound.recipients.listFrom: there is no ConfigMap "people". Make it.'
        )
        found = fleet(part, config_maps={"mail/people": {"list": "bob\nbob@corp.example"}})
        assert told(found, "mail/corp").startswith("ConfigMapInvalid: spec.inbound.recipients.listFrom: line 2 of")

    def test_that_goes_wrong_leaves_the_last_good_ones_in_force(self) -> None:
        part = domain("mail/corp", "corp.example", self.LISTED)
        first = fleet(part, config_maps={"mail/people": {"list": "bob"}})
        second = fleet(part, config_maps={}, good=first.good)
        assert second.config == first.config
        assert verdict(second, "mail/corp").reason is Reason.CONFIG_MAP_MISSING


class TestRules:
    def test_are_asked_by_priority_then_the_older_first(self) -> None:
        found = fleet(
            policy("mail/a", f"{{priority: 1, {RELAY[1:]}", created="2026-03-01T00:00:00Z"),
            policy("mail/b", f"{{priority: 1, {RELAY[1:]}", created="2026-02-01T00:00:00Z"),
            policy("mail/c", f"{{priority: 9, {RELAY[1:]}", created="2026-04-01T00:00:00Z"),
        )
        assert found.config is not None
        assert [rule.name for rule in found.config.rules] == ["mail/c", "mail/b", "mail/a"]

    def test_about_pods_tell_which_pods(self) -> None:
        found = fleet(policy("mail/out", RELAY))
        assert found.config is not None
        (selection,) = found.config.rules[0].match.workloads
        assert found.selections == {selection: PodSelection(("blog", "shop"), Selector())}

    def test_with_a_pod_selector_alone_are_about_their_own_namespace(self) -> None:
        found = fleet(policy("mail/out", "{match: {podSelector: {matchLabels: {app: x}}}, action: {type: Direct}}"))
        (selection,) = found.selections.values()
        assert selection.namespaces == ("mail",)
        assert selection.pods.matches({"app": "x", "more": "y"})
        assert not selection.pods.matches({"app": "y"})

    def test_take_what_they_do_not_say_from_the_mta(self) -> None:
        spec = f"{{retry: {{lifetime: 1d}}, limits: {{connections: 3}}, {RELAY[1:]}"
        found = fleet(policy("mail/out", spec), of=mta("retry: {jitter: 0}\nlimits: {destination: {idle: 1s}}"))
        assert found.config is not None
        rule = found.config.rules[0]
        assert rule.retry == Retry(jitter=0.0, lifetime=86400.0)
        assert rule.limits is not None
        assert (rule.limits.connections, rule.limits.connections_start, rule.limits.idle) == (3, 3, 1.0)

    def test_that_would_relay_for_anybody_are_refused(self) -> None:
        found = fleet(policy("mail/out", "{match: {listenerRoles: [Internal]}, action: {type: Direct}}"))
        assert verdict(found, "mail/out").reason is Reason.OPEN_RELAY
        assert "open relay" in verdict(found, "mail/out").message

    def test_without_their_secret_stay_in_force_and_say_so(self) -> None:
        spec = """
        match: {namespaces: {}}
        tls: Verify
        action: {type: Smarthost, nextHops: [{host: smtp.example.net}], auth: {secretName: login}}
        """
        found = fleet(policy("mail/out", spec), secrets={})
        assert found.config is not None
        assert found.policies == 1
        assert found.secrets == {
            SecretRef(name="mail/login", key="username"),
            SecretRef(name="mail/login", key="password"),
        }
        assert (verdict(found, "mail/out").accepted, verdict(found, "mail/out").resolved) == (
            True,
            Reason.SECRET_MISSING,
        )
        found = fleet(policy("mail/out", spec), secrets={"mail/login": {"username"}})
        assert verdict(found, "mail/out").resolved_message == (
            'Secret "login" has no key "password". Add it; mail waits until then.'
        )
        found = fleet(policy("mail/out", spec), secrets={"mail/login": {"username", "password"}})
        assert verdict(found, "mail/out").resolved is Reason.RESOLVED

    def test_behind_one_that_takes_everything_are_told(self) -> None:
        found = fleet(
            policy("mail/sink", "{priority: 5, action: {type: Discard}}"),
            policy("mail/out", RELAY),
            policy("mail/first", f"{{priority: 9, {RELAY[1:]}"),
        )
        shadows = {each.name: each.shadowed_by for each in found.verdicts}
        assert shadows == {"first": "", "sink": "", "out": "mail/first"}


class TestCertificates:
    TLS = MTA.replace("port: 25}", "port: 25, tls: {certRefs: [{name: mx}, {name: gone}]}}")

    def test_are_those_the_listeners_name_and_what_is_made_is_in_a_secret_beside_them(self) -> None:
        found = fleet(cert("mail/mx"), cert("mail/unused"), cert("shop/gone"), of=mta(base=self.TLS))
        assert found.config is not None
        assert found.certificates == ("gone", "mx")
        assert found.missing_certificates == ("gone",)
        assert {ref.name for ref in found.secrets} == {"mail/mx-tls", "mail/gone-tls"}
        assert found.config.listeners[0].certificates == ("mx", "gone")
        assert set(found.config.certificates) == {"mx", "gone"}

    def test_of_a_secret_are_read_from_the_operators_copy_which_it_has_checked(self) -> None:
        spec = "{dnsNames: [mx.example.org], issuer: {secretRef: {name: pair, certKey: a.pem}}}"
        found = fleet(cert("mail/mx", spec), of=mta(base=self.TLS))
        assert SecretRef(name="mail/mx-tls", key="tls.crt") in found.secrets


class TestReportsNobodyTakes:
    def test_go_to_a_domain_of_the_owner_never_to_a_tenants(self) -> None:
        found = fleet(domain("shop/a", "a.tenants.example", "{mode: Maildir, recipients: {any: true}}"))
        assert found.config is not None
        assert found.config.double_bounce_to == "postmaster@mx.example.org"
        assert found.config.domains["mx.example.org"].name == "mail/built-in"
        found = fleet(domain("shop/a", "a.tenants.example"), domain("mail/z", "z.example"))
        assert found.config is not None
        assert found.config.double_bounce_to == "postmaster@z.example"


def test_internal_listeners_are_those_of_role_internal() -> None:
    config = fleet().config
    assert config is not None
    assert [each.role for each in config.listeners] == [ListenerRole.MX, ListenerRole.INTERNAL]


def test_ten_thousand_domains_are_read_and_assembled_quickly() -> None:
    """The bounds are ten times what is wanted (3 s, 0.5 s): a shared machine fails no test by being slow."""
    inbound = "{mode: LMTP, nextHops: [{host: lmtp.shop.svc.cluster.local}], recipients: {list: [alice, bob]}}"
    one = raw("MailDomain", "shop/d", f"{{domain: d.tenants.example, inbound: {inbound}}}")
    raws = [
        {
            **one,
            "metadata": {**one["metadata"], "name": f"d{n}"},
            "spec": {**one["spec"], "domain": f"d{n}.tenants.example"},
        }
        for n in range(10_000)
    ]
    began = time.perf_counter()
    parts = [part_of("MailDomain", each) for each in raws]
    read = time.perf_counter() - began
    found = fleet(*parts)
    took = time.perf_counter() - began - read
    assert found.domains == 10_000
    assert read < 30
    assert took < 5


def test_an_assembly_asks_nothing_of_parts_it_was_not_given() -> None:
    assert assemble(mta(), [], namespaces={}).config is not None
