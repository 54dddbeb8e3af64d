"""AccessPolicy: what it becomes in the configuration, and which of several an MTA obeys."""

from __future__ import annotations

from kit import fleets
from kit.manifests import compiled, manifest, mistake
from posthof_crds import engine
from posthof_crds.engine import Access, Forgery, OnTrouble, Suspicion
from posthof_crds.fleet import Fleet
from posthof_crds.parts import Part, part_of, parts_in_force

STRICT = """
spf: {fail: Reject, tempError: Defer, trustedClients: [192.0.2.0/24]}
dmarc: {reject: Reject, quarantine: Hold, knownLists: [lists.example.org], aggregateReports: false}
arc: {trustedSealers: [google.com]}
"""


def access(where: str, spec: str = "{}", **more: str) -> Part:
    return part_of("AccessPolicy", fleets.raw("AccessPolicy", where, spec, **more))


def obeyed(fleet: Fleet) -> str:
    assert fleet.config is not None
    return fleet.config.access.name


def test_without_one_results_are_written_and_failed_dmarc_is_marked() -> None:
    found = compiled().access
    assert found == Access()
    assert found.dmarc.reject is Forgery.QUARANTINE
    assert not found.dmarc.aggregate_reports


def test_one_that_says_nothing_looks_at_evidence_and_reports() -> None:
    found = compiled(manifest("AccessPolicy", "trust", "{}")).access
    assert found.name == "trust"
    assert found.dmarc.reject is Forgery.EVIDENCE
    assert found.dmarc.aggregate_reports
    assert not found.dmarc.failure_reports
    assert found.spf.fail is Suspicion.ACCEPT


def test_every_field_reaches_the_engine() -> None:
    found = compiled(manifest("AccessPolicy", "trust", STRICT)).access
    assert found.spf == engine.SPFPolicy(
        fail=Suspicion.REJECT, temp_error=OnTrouble.DEFER, trusted_clients=("192.0.2.0/24",)
    )
    assert found.dmarc.reject is Forgery.REJECT
    assert found.dmarc.quarantine is Suspicion.HOLD
    assert found.dmarc.known_lists == ("lists.example.org",)
    assert found.arc.trusted_sealers == ("google.com",)


def test_a_folder_has_one() -> None:
    two = [manifest("AccessPolicy", name, "{}") for name in ("a", "b")]
    assert mistake(*two) == ": a second AccessPolicy, after a | Keep one AccessPolicy in a folder."


def test_a_word_that_is_none_is_told() -> None:
    assert "spec.spf.fail" in mistake(manifest("AccessPolicy", "trust", "spf: {fail: Refuse}"))


def test_the_older_one_is_obeyed() -> None:
    old = access("mail/b", STRICT)
    young = access("mail/a", created="2026-02-01T00:00:00Z")
    found = fleets.fleet(young, old)
    assert obeyed(found) == "mail/b"
    assert fleets.told(found, "mail/b") == "Accepted"
    assert fleets.told(found, "mail/a").startswith("PolicyTaken: AccessPolicy mail/b, which is older, is obeyed.")


def test_another_namespace_says_nothing_about_everybodys_mail() -> None:
    found = fleets.fleet(access("shop/mine"))
    assert obeyed(found) == ""
    assert fleets.told(found, "shop/mine").startswith("NotAllowed: ")


def test_one_that_became_wrong_stays_in_force_in_its_last_good_version() -> None:
    first = fleets.fleet(access("mail/trust", STRICT))
    assert first.config is not None
    wrong = access("mail/trust", "{spf: {fail: Refuse}}")
    again = fleets.fleet(wrong, good=parts_in_force(first.config))
    assert again.config is not None
    assert again.config.access == first.config.access
    assert fleets.told(again, "mail/trust").startswith("Invalid: spec.spf.fail")


def test_one_for_another_mta_is_not_ours_to_judge() -> None:
    found = fleets.fleet(access("mail/trust", "{mtaRef: {name: other}}"))
    assert obeyed(found) == ""
    assert found.verdicts == []
