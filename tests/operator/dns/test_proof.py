"""The proof of a domain is of one namespace in one cluster."""

from __future__ import annotations

from posthof_operator.dns import proof

SALT = b"s" * 32


def test_a_tenant_cannot_use_the_proof_of_another() -> None:
    mine = proof.value_of(SALT, "team-a", "acme.example")
    assert not proof.holds(proof.value_of(SALT, "team-b", "acme.example"), [mine])


def test_the_value_is_of_one_domain_and_one_cluster() -> None:
    values = {
        proof.value_of(SALT, "team-a", "acme.example"),
        proof.value_of(SALT, "team-a", "other.example"),
        proof.value_of(b"t" * 32, "team-a", "acme.example"),
        proof.value_of(SALT, "team-aa", "cme.example"),
    }
    assert len(values) == 4


def test_the_value_does_not_change_and_is_short_enough_for_any_provider() -> None:
    value = proof.value_of(SALT, "team-a", "Acme.example")
    assert value == proof.value_of(SALT, "team-a", "acme.example")
    assert value.startswith("posthof-proof=")
    assert len(value) < 64


def test_it_may_stand_beside_others() -> None:
    value = proof.value_of(SALT, "team-a", "acme.example")
    assert proof.holds(value, ["posthof-proof=another", f" {value} "])
    assert not proof.holds(value, [])
    assert not proof.holds(value, ["ünïcode"])
    assert proof.name_of("acme.example") == "_posthof-challenge.acme.example"
