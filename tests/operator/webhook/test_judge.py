"""What the webhook says of an object before it is: the verdicts of conditions, and when they are only a warning."""

from __future__ import annotations

from typing import Any

import pytest

from posthof_operator.store import Store
from posthof_operator.webhook.judge import Answer, judge
from posthof_operator.webhook.view import View

Raw = dict[str, Any]


class Cluster:
    """What the webhook sees, and reviews of it."""

    def __init__(self, *objects: Raw) -> None:
        self.store = Store()
        self.view = View(self.store)
        for number, raw in enumerate(objects):
            raw["metadata"].setdefault("uid", f"uid-{number}")
            raw["metadata"].setdefault("resourceVersion", str(number + 1))
            raw["metadata"].setdefault("creationTimestamp", f"2026-01-01T00:00:{number:02}Z")
            self.store.put(raw["kind"], raw)

    def review(self, raw: Raw, old: Raw | None = None, operation: str = "") -> Answer:
        raw["metadata"].setdefault("creationTimestamp", "2026-02-01T00:00:00Z")
        request = {
            "kind": {"group": "posthof.dev", "version": "v1alpha1", "kind": raw["kind"]},
            "namespace": raw["metadata"]["namespace"],
            "name": raw["metadata"]["name"],
            "operation": operation or ("UPDATE" if old else "CREATE"),
            "object": None if operation == "DELETE" else raw,
            "oldObject": raw if operation == "DELETE" else old,
        }
        return judge(request, self.view)


def thing(kind: str, namespace: str, name: str, **spec: Any) -> Raw:
    return {
        "apiVersion": "posthof.dev/v1alpha1",
        "kind": kind,
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec,
    }


def mta(name: str = "edge", namespace: str = "mail", **spec: Any) -> Raw:
    listeners = [{"name": "smtp", "role": "MX", "port": 25}]
    return thing("MTA", namespace, name, **({"hostname": "mx.example.org", "listeners": listeners} | spec))


def domain(namespace: str, name: str, text: str = "acme.example", **inbound: Any) -> Raw:
    given = {"mode": "Maildir", "recipients": {"list": ["bob"]}} | inbound
    return thing("MailDomain", namespace, name, domain=text, inbound=given)


TENANTS = [{"selector": {"matchLabels": {"mail": "yes"}}, "domains": ["*.tenant.example"], "nextHops": ["*.svc"]}]


def namespace(name: str) -> Raw:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"mail": "yes"}}}


def proven(raw: Raw) -> Raw:
    return raw | {"status": {"dnsRecords": [{"purpose": "proof", "state": "ok"}]}}


def test_a_domain_that_is_free_may_be() -> None:
    assert Cluster(mta()).review(domain("mail", "acme")) == Answer()


def test_the_second_of_one_domain_in_a_namespace_is_refused_with_the_others_name() -> None:
    found = Cluster(mta(), domain("mail", "first")).review(domain("mail", "second"))
    assert not found.is_allowed
    assert found.message == (
        "DomainTaken: MailDomain mail/first, which is older, receives for acme.example. Remove one of the two."
    )


def test_other_spellings_are_the_same_domain() -> None:
    cluster = Cluster(mta(), domain("mail", "first", "bücher.example"))
    assert not cluster.review(domain("mail", "second", "xn--bcher-kva.example")).is_allowed


def test_the_older_one_may_be_changed() -> None:
    first, second = domain("mail", "first"), domain("mail", "second")
    cluster = Cluster(mta(), first, second)
    changed = domain("mail", "first", recipients={"list": ["bob", "alice"]})
    changed["metadata"]["creationTimestamp"] = first["metadata"]["creationTimestamp"]
    assert cluster.review(changed, old=first).is_allowed


def test_a_tenant_without_a_proof_may_exist_because_its_status_says_what_to_publish() -> None:
    cluster = Cluster(mta(allowedNamespaces=TENANTS), namespace("team-a"))
    found = cluster.review(domain("team-a", "acme", maildir="{domain}/{local}"))
    assert found.is_allowed
    assert found.warnings[0].startswith("ProofMissing: acme.example is not proven")


def test_a_tenant_may_contest_a_domain_that_another_tenant_has_not_proven() -> None:
    first = domain("team-a", "acme", "x.tenant.example")
    cluster = Cluster(mta(allowedNamespaces=TENANTS), namespace("team-a"), namespace("team-b"), first)
    found = cluster.review(domain("team-b", "acme", "x.tenant.example"))
    assert found.is_allowed
    assert "DomainTaken" in found.warnings[0]


def test_a_tenant_cannot_contest_what_is_proven_or_the_owners_own() -> None:
    first = proven(domain("team-a", "acme", "x.tenant.example"))
    spaces = (namespace("team-a"), namespace("team-b"))
    cluster = Cluster(mta(allowedNamespaces=TENANTS), *spaces, first)
    assert "which is proven" in cluster.review(domain("team-b", "acme", "x.tenant.example")).message
    own = Cluster(mta(allowedNamespaces=TENANTS), *spaces, domain("mail", "acme", "x.tenant.example"))
    assert not own.review(domain("team-b", "acme", "x.tenant.example")).is_allowed


def test_the_mtas_own_name_is_nobodys() -> None:
    cluster = Cluster(mta(allowedNamespaces=TENANTS), namespace("team-a"))
    found = cluster.review(domain("team-a", "mx", "mx.example.org"))
    assert not found.is_allowed
    assert "the MTA's own name" in found.message


def test_a_next_hop_that_is_not_allowed_is_refused() -> None:
    cluster = Cluster(mta(allowedNamespaces=TENANTS), namespace("team-a"))
    found = cluster.review(
        domain("team-a", "x", "x.tenant.example", mode="Relay", nextHops=[{"host": "evil.example.net"}])
    )
    assert not found.is_allowed
    assert found.message.startswith("NextHopNotAllowed: Mail may not be sent to evil.example.net")


def test_what_no_mta_selects_is_a_warning() -> None:
    found = Cluster().review(domain("mail", "acme"))
    assert found.is_allowed
    assert found.warnings == ("no MTA selects MailDomain acme yet: nothing happens until one does",)
    stranger = Cluster(mta()).review(domain("elsewhere", "acme"))
    assert stranger.is_allowed
    assert stranger.warnings


def test_a_second_mta_that_accepts_is_enough() -> None:
    cluster = Cluster(mta(), mta("bulk", "bulk"), domain("mail", "acme"))
    assert cluster.review(domain("bulk", "acme")) == Answer()


def test_an_invalid_object_is_refused_in_the_words_of_check() -> None:
    found = Cluster(mta()).review(domain("mail", "acme", mode="LMTP", nextHops=[{"socket": "/run/lmtp"}]))
    assert not found.is_allowed
    assert "spec.inbound.nextHops" in found.message


def test_what_leaves_the_spec_alone_passes_even_when_it_is_wrong() -> None:
    first, second = domain("mail", "first"), domain("mail", "second")
    cluster = Cluster(mta(), first, second)
    touched = domain("mail", "second")
    touched["metadata"]["annotations"] = {"a": "b"}
    assert cluster.review(touched, old=second) == Answer()
    going = domain("mail", "second", recipients={"list": ["eve"]})
    going["metadata"]["deletionTimestamp"] = "2026-02-01T00:00:00Z"
    assert cluster.review(going, old=second) == Answer()


# -- rules


def test_an_open_relay_is_refused() -> None:
    rule = thing("RelayPolicy", "mail", "all", match={}, action={"type": "Direct"})
    assert not Cluster(mta()).review(rule).is_allowed


def test_a_rule_that_another_takes_everything_from_is_warned_of() -> None:
    match = {"clients": ["10.0.0.0/8"]}
    first = thing("RelayPolicy", "mail", "first", priority=10, match=match, action={"type": "Direct"})
    second = thing("RelayPolicy", "mail", "second", match=match, action={"type": "Direct"})
    found = Cluster(mta(), first).review(second)
    assert found.is_allowed


# -- MTAs


@pytest.mark.parametrize(("there", "fresh"), [("edge", "edge-internal"), ("edge-internal", "edge")])
def test_two_mtas_whose_services_would_have_one_name_are_refused(there: str, fresh: str) -> None:
    found = Cluster(mta(there)).review(mta(fresh))
    assert not found.is_allowed
    assert "MTA edge has a Service edge-internal" in found.message


def test_two_mtas_on_one_claim_are_refused() -> None:
    found = Cluster(mta()).review(mta("bulk", spool={"existingClaim": "edge-spool"}))
    assert found.message == "MTA edge keeps its mail on the claim edge-spool: two MTAs cannot share one spool"


def test_two_listeners_on_one_port_are_refused() -> None:
    listeners = [{"name": "a", "role": "MX", "port": 25}, {"name": "b", "role": "MX", "port": 25}]
    assert not Cluster().review(mta(listeners=listeners)).is_allowed


def test_a_certificate_that_is_not_there_is_a_warning() -> None:
    listeners = [{"name": "smtp", "role": "MX", "port": 25, "tls": {"certRefs": [{"name": "mx"}]}}]
    found = Cluster().review(mta(listeners=listeners))
    assert found == Answer(warnings=("TLSCert mx is not there yet: TLS begins when it is",))


# -- deletions


def test_deleting_is_never_refused_and_says_what_follows() -> None:
    listeners = [{"name": "smtp", "role": "MX", "port": 25, "tls": {"certRefs": [{"name": "mx"}]}}]
    cert = thing("TLSCert", "mail", "mx", dnsNames=["mx.example.org"], issuer={"ca": {"secretName": "root"}})
    auth = {"secretName": "login"}
    hops = [{"host": "smtp.example.net"}]
    rule = thing("RelayPolicy", "mail", "out", match={}, action={"type": "Smarthost", "nextHops": hops, "auth": auth})
    cluster = Cluster(mta(listeners=listeners), cert, rule)
    assert cluster.review(cert, operation="DELETE").warnings == (
        "listeners of MTA edge name TLSCert mx, and lose TLS",
    )
    for name, user in (("login", "RelayPolicy out"), ("root", "TLSCert mx"), ("mx-tls", "TLSCert mx")):
        secret = {"kind": "Secret", "metadata": {"namespace": "mail", "name": name}}
        found = cluster.review(secret, operation="DELETE")
        assert found.is_allowed
        assert found.warnings == (f"{user} refers to Secret {name}: what needs it waits or fails",)
    kept = cluster.review(mta(), operation="DELETE").warnings[0]
    assert kept == "the mail of MTA edge stays on the claim edge-spool; an MTA of the same name goes on with it"
    gone = cluster.review(mta(spool={"deletionPolicy": "Delete"}), operation="DELETE").warnings[0]
    assert gone == "spool.deletionPolicy is Delete: the claim edge-spool and all mail in it go too"


def test_a_dkim_key_is_judged_by_itself() -> None:
    cluster = Cluster(mta())
    assert cluster.review(thing("DKIMKey", "mail", "k", domainRef={"name": "acme"}, selector="s1")) == Answer()
    refused = cluster.review(thing("DKIMKey", "mail", "k", domainRef={"name": "acme"}, selector="S 1"))
    assert not refused.is_allowed
    assert "spec.selector" in refused.message
