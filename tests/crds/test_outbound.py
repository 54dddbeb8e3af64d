"""MailDomain.outbound and DKIMKey: what they become on one machine, and which keys pods of an MTA may have."""

from __future__ import annotations

from typing import Any

import msgspec

from kit import fleets
from kit.manifests import compiled, domain, manifest, mistakes, secret
from posthof_crds import engine
from posthof_crds.engine import SecretRef, SigningKey
from posthof_crds.parts import MADE_FOR, Part, part_of, parts_in_force

ALIAS = "mode: Alias\naliases: {away: [x@far.test]}"
SPEC = "domain: a.test\ninbound: {mode: Reject}\noutbound: "


def key(where: str, *, phase: str = "Active", made_for: str = "", spec: str = "") -> Part:
    raw = fleets.raw("DKIMKey", where, f"{{domainRef: {{name: a}}, selector: {where.rpartition('/')[2]}{spec}}}")
    raw["status"] = {"phase": phase}
    if made_for:
        raw["metadata"]["labels"] = {MADE_FOR: made_for}
    return part_of("DKIMKey", raw)


def ours(outbound: str, *, namespace: str = "mail", more: str = "") -> Part:
    return part_of(
        "MailDomain", fleets.raw("MailDomain", f"{namespace}/a", f"{{{SPEC.replace(chr(10), ', ')}{outbound}{more}}}")
    )


def signs_with(*parts: Part, **more: Any) -> list[str]:
    config = fleets.fleet(*parts, **more).config
    assert config is not None
    outbound = config.domains["a.test"].outbound
    return [each.name for each in outbound.dkim] if outbound else []


def test_without_outbound_nothing_is_added() -> None:
    assert compiled(domain("a", ALIAS)).domains["a.test"].outbound is None


def test_named_keys_sign_unless_they_are_retired() -> None:
    names = manifest("MailDomain", "a", SPEC + "{dkim: {keyRefs: [{name: k1}, {name: k2}, {name: k3}]}}")
    k1 = manifest("DKIMKey", "k1", "{domainRef: {name: a}, selector: s1, secretRef: {name: s, key: pem}}")
    k2 = manifest("DKIMKey", "k2", "{domainRef: {name: a}, selector: s2, algorithm: Ed25519}")
    k3 = manifest("DKIMKey", "k3", "{domainRef: {name: a}, selector: s3, state: Retired}")
    found = compiled(names, k1, k2, k3, secret("s", pem="x")).domains["a.test"].outbound
    assert found == engine.Outbound(
        dkim=(
            SigningKey(name="k1", selector="s1", secret=SecretRef(name="s", key="pem")),
            SigningKey(name="k2", selector="s2", algorithm="Ed25519"),
        )
    )


def test_auto_reaches_the_engine() -> None:
    auto = "{dkim: {auto: {algorithms: [Ed25519], rotation: {interval: 30d, overlap: 7d}}}}"
    found = compiled(manifest("MailDomain", "a", SPEC + auto)).domains["a.test"].outbound
    assert found is not None
    assert found.auto == engine.AutoDKIM(algorithms=("Ed25519",), interval=30 * 86400.0, overlap=7 * 86400.0)


def test_what_is_named_has_to_be_there() -> None:
    names = manifest("MailDomain", "a", SPEC + "{dkim: {keyRefs: [{name: k1}]}, srs: {secretRef: {name: s, key: k}}}")
    other = manifest("DKIMKey", "k2", "{domainRef: {name: b}, selector: s1}")
    assert [problem.path for problem in mistakes(names, other)] == [
        "spec.outbound.dkim.keyRefs[0].name",
        "spec.outbound.srs.secretRef",
        "spec.domainRef.name",
    ]


def test_two_keys_of_a_domain_have_two_selectors() -> None:
    names = manifest("MailDomain", "a", SPEC + "{dkim: {keyRefs: [{name: k1}, {name: k2}]}}")
    keys = [manifest("DKIMKey", each, "{domainRef: {name: a}, selector: s}") for each in ("k1", "k2")]
    assert ["DKIMKey k1 has this selector already" in one.what for one in mistakes(names, *keys)] == [True]


def test_pods_get_keys_that_are_active_and_meant() -> None:
    named = ours("{dkim: {keyRefs: [{name: k1}, {name: k2}]}}")
    keys = [key("mail/k1"), key("mail/k2", phase="Publishing"), key("mail/k3"), key("other/k1")]
    assert signs_with(named, *keys) == ["mail/k1"]
    auto = ours("{dkim: {auto: {}}}")
    assert signs_with(auto, key("mail/k1"), key("mail/k2", made_for="a"), key("mail/k3", made_for="b")) == ["mail/k2"]
    assert signs_with(auto, key("mail/k2", made_for="a", spec=", state: Retired")) == []


def test_the_secrets_of_keys_go_to_the_pods() -> None:
    fleet = fleets.fleet(ours("{dkim: {keyRefs: [{name: k1}]}, srs: {secretRef: {name: s, key: k}}}"), key("mail/k1"))
    assert fleet.secrets == {SecretRef(name="mail/k1-dkim", key="private.pem"), SecretRef(name="mail/s", key="k")}


def test_a_key_of_another_namespace_comes_only_where_its_domain_names_the_mta() -> None:
    allowed = "allowedNamespaces: [{selector: {}, domains: ['*']}]"
    outbound = "{dkim: {keyRefs: [{name: k1}]}}"
    for more, wanted in (("", []), (", mtaRef: {name: edge, namespace: mail}", ["shop/k1"])):
        part = ours(outbound, namespace="shop", more=more)
        assert signs_with(part, key("shop/k1"), of=fleets.mta(allowed)) == wanted


def test_secrets_of_others_in_old_shards_are_not_believed() -> None:
    config = fleets.fleet(ours("{dkim: {keyRefs: [{name: k1}]}}"), key("mail/k1")).config
    assert config is not None
    (kept,) = [part for part in parts_in_force(config).values() if part.kind == "MailDomain" and part.name == "a"]
    assert kept.domain is not None
    assert kept.domain.outbound is not None
    forged = SigningKey(name="mail/k1", selector="k1", secret=SecretRef(name="other/secret", key="x"))
    domain_ = msgspec.structs.replace(config.domains["a.test"], outbound=engine.Outbound(dkim=(forged,)))
    bad = msgspec.structs.replace(config, domains={"a.test": domain_})
    (kept,) = [part for part in parts_in_force(bad).values() if part.name == "a"]
    assert kept.domain is not None
    assert kept.domain.outbound is None
