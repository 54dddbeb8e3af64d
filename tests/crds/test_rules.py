"""Rules between objects: references, duplicates, loops, and that no open relay can be written."""

from __future__ import annotations

import pytest

from kit.manifests import MTA, compiled, domain, manifest, mistake, mistakes, mta, policy, secret, warnings
from posthof_crds.bounds import widest

MAILDIR = "mode: Maildir\nrecipients: {list: [bob, alice]}"


# -- the open relay --------------------------------------------------------------------------------------------------

DIRECT = "action: {type: Direct}"
SMARTHOST = "action: {type: Smarthost, nextHops: [{host: smtp.example.org}]}"
LMTP = "action: {type: LMTP, nextHops: [{socket: /run/lmtp}]}"

UNBOUNDED = [
    ("", "it matches all mail"),
    ("match: {senders: ['*@example.org']}", "senders can be forged"),
    ("match: {headers: [{name: subject}]}", "headers can be forged"),
    ("match: {senders: [example.org], headers: [{name: x-pass}]}", "senders can be forged; headers can be forged"),
    ("match: {clients: [0.0.0.0/0]}", "clients hold 0.0.0.0/0, which is everybody"),
    ("match: {clients: ['::/0']}", "clients hold ::/0, which is everybody"),
    ("match: {clients: [10.0.0.0/8, 0.0.0.0/0]}", "clients hold 0.0.0.0/0, which is everybody"),
    ("match: {clients: [0.0.0.0/1, 128.0.0.0/1]}", "clients hold 0.0.0.0/0, which is everybody"),
    ("match: {clients: [64.0.0.0/4]}", "clients hold 64.0.0.0/4, which is everybody"),
    ("match: {clients: ['2000::/3']}", "clients hold 2000::/3, which is everybody"),
    ("match: {recipients: ['*']}", "recipients hold *, which names no domain"),
    ("match: {recipients: ['*@*']}", "recipients hold *@*, which names no domain"),
    ("match: {recipients: ['*.com']}", "recipients hold *.com, which names no domain"),
    ("match: {recipients: [a.test, '*']}", "recipients hold *, which names no domain"),
    ("match: {recipients: ['*example.org']}", "recipients hold *example.org, which names no domain"),
    ("match: {listenerRoles: [MX]}", "listenerRoles hold more than Internal"),
    ("match: {listenerRoles: [Internal, MX]}", "listenerRoles hold more than Internal"),
    ("match: {listenerRoles: [MX], senders: [example.org]}", "listenerRoles hold more than Internal; senders can be"),
]

BOUNDED = [
    "match: {clients: [192.0.2.0/24]}",
    "match: {clients: [10.0.0.0/8, 'fc00::/7', '::1']}",
    "match: {clients: [192.0.2.1], senders: ['*']}",
    "match: {recipients: [example.org]}",
    "match: {recipients: ['*.example.org', 'bob@example.net']}",
    "match: {listenerRoles: [Internal]}",
    "match: {listenerRoles: [Internal], senders: [example.org]}",
    "match: {clients: [0.0.0.0/0], recipients: [example.org]}",
    "match: {listenerRoles: [MX], clients: [192.0.2.0/24]}",
]


@pytest.mark.parametrize("action", [DIRECT, SMARTHOST, LMTP])
@pytest.mark.parametrize(("match", "why"), UNBOUNDED)
def test_a_rule_that_lets_mail_out_must_be_bounded(match: str, why: str, action: str) -> None:
    found = mistake(policy("p", f"{match}\n{action}"))
    assert found.startswith(f"spec.match: this would be an open relay: {why}"), found


@pytest.mark.parametrize("action", [DIRECT, SMARTHOST, LMTP])
@pytest.mark.parametrize("match", BOUNDED)
def test_a_bounded_rule_is_fine(match: str, action: str) -> None:
    assert mistakes(policy("p", f"{match}\n{action}")) == []


@pytest.mark.parametrize(
    ("listener", "why"),
    [
        ("{name: i, role: Internal, port: 26}", "bound to all addresses and not to loopback"),
        ("{name: i, role: Internal, port: 26, address: 0.0.0.0}", "bound to 0.0.0.0 and not to loopback"),
        ("{name: i, role: Internal, port: 26, address: 10.0.0.1}", "bound to 10.0.0.1 and not to loopback"),
        (
            "{name: i, role: Internal, port: 26, address: 127.0.0.1, proxyProtocol: {trustedCIDRs: [127.0.0.1]}}",
            "takes connections for others",
        ),
        (
            "{name: i, role: Internal, port: 26, address: '::1', xclient: {trustedCIDRs: ['::1']}}",
            "takes connections for others",
        ),
    ],
)
def test_the_role_internal_bounds_only_where_the_listener_is_this_host_s_alone(listener: str, why: str) -> None:
    house = mta(f"hostname: mx.example.org\nlisteners: [{{name: m, role: MX, port: 25}}, {listener}]")
    found = mistake(house, policy("p", f"match: {{listenerRoles: [Internal]}}\n{DIRECT}"))
    assert found.startswith("spec.match: this would be an open relay: the Internal listener i ")
    assert why in found


def test_an_unbounded_hold_redirect_or_discard_is_allowed_and_warned_of() -> None:
    assert warnings(policy("p", "action: {type: Hold}")) == [
        "spec.match: this holds only mail that something else permits: it matches all mail"
    ]
    assert warnings(policy("p", "action: {type: Discard}")) == [
        "spec.match: this takes mail for every domain from strangers: it matches all mail"
    ]
    assert warnings(policy("p", "action: {type: Redirect, addresses: [sink@x.test]}")) == [
        "spec.match: this takes mail for every domain from strangers: it matches all mail"
    ]
    assert warnings(policy("p", "action: {type: Reject}")) == []


def test_networks_are_joined_before_they_are_judged() -> None:
    assert widest(["10.0.0.0/8", "192.168.0.0/16"]) is None
    assert widest([f"{n}.0.0.0/8" for n in range(256)]) == "0.0.0.0/0"
    assert widest(["2001:db8::/32", "fc00::/7"]) is None
    assert widest(["2000::/15"]) == "2000::/15"


# -- references ------------------------------------------------------------------------------------------------------


def test_a_reference_to_nothing_names_what_is_there() -> None:
    smarthost = """
    match: {clients: [10.0.0.0/8]}
    action: {type: Smarthost, nextHops: [{host: a}], auth: {secretName: logn}}
    tls: Verify
    """
    found = mistake(policy("p", smarthost), secret("login", username="a", password="b"))
    assert (
        found == 'spec.action.auth.secretName: there is no Secret "logn" | Did you mean "login"? known here: login.'
    )
    found = mistake(policy("p", smarthost.replace("logn", "login")), secret("login", user="a", password="b"))
    assert found.startswith('spec.action.auth.secretName: Secret "login" has no key "username"')


def test_a_reference_to_an_object_with_a_mistake_is_not_a_second_mistake() -> None:
    house = mta(MTA.replace("port: 2525}", "port: 2525, tls: {certRefs: [{name: c}]}}"))
    assert mistake(house, manifest("TLSCert", "c", "dnsNames: [mx.example.org]")).startswith(
        "spec.issuer: is missing"
    )


def test_names_are_unique_for_their_kind() -> None:
    found = mistake(domain("a", MAILDIR), domain("a", MAILDIR, place="b.test"))
    assert found.startswith('metadata.name: the name "a" is taken by another MailDomain, in all.yaml:3')
    assert mistakes(domain("a", MAILDIR), policy("a", "action: {type: Reject}")) == []


@pytest.mark.parametrize(
    ("one", "other"), [("a.test", "A.Test"), ("münchen.example", "xn--mnchen-3ya.example"), ("a.test", "a.test")]
)
def test_a_domain_has_one_mail_domain(one: str, other: str) -> None:
    found = mistake(domain("x", MAILDIR, place=one), domain("y", MAILDIR, place=other))
    assert found.startswith("spec.domain: the domain ")
    assert found.endswith("has a MailDomain already: x | Keep one MailDomain for each domain.")


def test_a_folder_holds_one_mta_and_one_namespace() -> None:
    assert mistake(mta(), mta().replace("name: edge", "name: other")).startswith(": a second MTA, after MTA/edge")
    found = mistake(
        mta().replace("{name: edge}", "{name: edge, namespace: mail}"),
        domain("a", MAILDIR).replace("{name: a}", "{name: a, namespace: web}"),
    )
    assert found.startswith('metadata.namespace: namespace "web", where another object has "mail"')


def test_a_list_from_a_config_map_is_checked_line_by_line() -> None:
    names = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: names}\n"
        "data:\n  list: |\n    # staff\n    Bob  # b\n\n    alice\n"
    )
    from_map = "mode: Maildir\nrecipients: {listFrom: {name: names, key: list}}"
    assert compiled(domain("a", from_map), names).domains["a.test"].recipients == {"bob", "alice"}
    found = mistake(domain("a", from_map), names + "    eve@x.test\n")
    assert found.startswith("data.list: line 5 of the value: 'eve@x.test' has a domain")
    found = mistake(domain("a", from_map.replace("key: list", "key: lists")), names)
    assert found.startswith('spec.inbound.recipients.listFrom: ConfigMap "names" has no key "lists"')
    found = mistake(domain("a", from_map.replace("name: names", "name: name")), names)
    assert found.startswith('spec.inbound.recipients.listFrom: there is no ConfigMap "name" | Did you mean "names"?')


# -- aliases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "aliases",
    [
        "info: [alice]",
        "info: [alice+shop, ALICE, elsewhere@x.test]",
        "alice: [alice, archive@x.test]",
        "alice+vip: [alice]",
        "one: [two]\n  two: [bob]",
        "postmaster: [bob]",
        "info: [postmaster]",
    ],
)
def test_aliases_that_end_somewhere(aliases: str) -> None:
    assert mistakes(domain("a", f"{MAILDIR}\naliases:\n  {aliases}")) == []


@pytest.mark.parametrize(
    ("aliases", "way"),
    [
        ("one: [two]\n  two: [one]", "one@a.test -> two@a.test -> one@a.test"),
        ("one: [two]\n  two: [three, bob]\n  three: [one]", "one@a.test -> two@a.test -> three@a.test -> one@a.test"),
        ("one: [two+x]\n  two: [one+y]", "one@a.test -> two@a.test -> one@a.test"),
    ],
)
def test_aliases_that_lead_back_are_told_with_the_way(aliases: str, way: str) -> None:
    found = mistakes(domain("a", f"{MAILDIR}\naliases:\n  {aliases}"))
    assert found[0].path == "spec.inbound.aliases.one[0]"
    assert found[0].what == f"these aliases lead back to where they began: {way}"


def test_a_loop_through_two_domains_is_found_and_a_chain_into_a_loop_is_told_once_at_the_loop() -> None:
    found = mistakes(
        domain("a", f"{MAILDIR}\naliases:\n  x: [y@b.test]\n  in: [x]"),
        domain("b", f"{MAILDIR}\naliases: {{y: [x@a.test]}}"),
    )
    assert [each.path for each in found] == ["spec.inbound.aliases.x[0]", "spec.inbound.aliases.y[0]"]


def test_an_alias_that_names_itself_needs_a_mailbox() -> None:
    assert mistake(domain("a", "mode: Alias\naliases: {alice: [alice]}")).startswith(
        "spec.inbound.aliases.alice[0]: nobody is alice@a.test"
    )


def test_places_must_exist() -> None:
    house = mta(more="doubleBounceTo: nobody@a.test")
    assert mistake(house, domain("a", MAILDIR)).startswith("spec.doubleBounceTo: nobody is nobody@a.test")
    house = mta(more="doubleBounceTo: postmaster@a.test")
    assert mistake(house, domain("a", "mode: Reject")).startswith(
        "spec.doubleBounceTo: postmaster@a.test has no mailbox"
    )
    found = mistake(domain("a", MAILDIR), policy("p", "action: {type: Redirect, addresses: [alcie@a.test]}"))
    assert found.startswith('spec.action.addresses[0]: nobody is alcie@a.test | Did you mean "alice"?')


# -- warnings --------------------------------------------------------------------------------------------------------


def test_any_recipients_warns_of_backscatter() -> None:
    found = warnings(domain("a", "mode: Relay\nnextHops: [{host: b}]\nrecipients: {any: true}"))
    assert len(found) == 1
    assert found[0].startswith("spec.inbound.recipients.any: everybody exists")
    assert "backscatter" in found[0]


def test_rules_that_are_never_asked_or_never_match_are_warned_of() -> None:
    found = warnings(
        policy("a", "priority: 5\naction: {type: Reject}"),
        policy("b", "match: {clients: [10.0.0.0/8]}\naction: {type: Direct}"),
    )
    assert found == ['spec.priority: never asked: RelayPolicy "a" before it matches all mail']
    house = mta("hostname: mx.example.org\nlisteners: [{name: a, role: MX, port: 25}]")
    found = warnings(
        house, policy("b", "match: {listenerRoles: [Internal], clients: [10.0.0.0/8]}\naction: {type: Direct}")
    )
    assert found == ["spec.match.listenerRoles[0]: the MTA has no listener of role Internal, so this never matches"]
