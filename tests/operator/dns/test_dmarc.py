"""Which DMARC record holds for a domain, and whether receivers obey it."""

from __future__ import annotations

import pytest

from posthof_operator.dns import dmarc


def test_the_walk_goes_from_the_domain_to_its_parents() -> None:
    assert dmarc.names("a.example.org") == ["_dmarc.a.example.org", "_dmarc.example.org", "_dmarc.org"]


def test_the_walk_of_a_deep_name_asks_eight_times_at_most() -> None:
    names = dmarc.names("a.b.c.d.e.f.g.h.i.mail.example.com")
    assert names[:2] == ["_dmarc.a.b.c.d.e.f.g.h.i.mail.example.com", "_dmarc.f.g.h.i.mail.example.com"]
    assert len(names) == 8
    assert names[-1] == "_dmarc.com"


def test_its_own_record_holds() -> None:
    found = dmarc.discover(
        "a.example.org",
        {"_dmarc.a.example.org": ("hello", "v=DMARC1; p=reject"), "_dmarc.example.org": ("v=DMARC1; p=none",)},
    )
    assert found.record is not None
    assert (found.record.name, found.record.tags["p"]) == ("_dmarc.a.example.org", "reject")
    assert found.mistake == ""


def test_without_one_that_of_the_organisation_holds() -> None:
    found = dmarc.discover(
        "a.b.example.org",
        {"_dmarc.b.example.org": ("v=DMARC1; p=none",), "_dmarc.example.org": ("v=DMARC1; p=reject",)},
    )
    assert found.record is not None
    assert found.record.domain == "example.org"


def test_psd_says_where_organisations_end() -> None:
    zone = {"_dmarc.b.co.example": ("v=DMARC1; p=reject",), "_dmarc.co.example": ("v=DMARC1; p=none; psd=y",)}
    found = dmarc.discover("a.b.co.example", zone)
    assert found.record is not None
    assert found.record.domain == "b.co.example"
    closed = {"_dmarc.b.co.example": ("v=DMARC1; p=reject; psd=n",), "_dmarc.example": ("v=DMARC1; p=none",)}
    found = dmarc.discover("a.b.co.example", closed)
    assert found.record is not None
    assert found.record.domain == "b.co.example"


def test_several_records_count_for_nothing() -> None:
    found = dmarc.discover("example.org", {"_dmarc.example.org": ("v=DMARC1; p=none", "v=DMARC1; p=reject")})
    assert (found.record, found.several) == (None, "_dmarc.example.org")


@pytest.mark.parametrize("text", ["v=DMARC1; p=none", "v=DMARC1;p=reject;pct=50", "v = DMARC1 ; p=none", "v=DMARC1"])
def test_a_record_begins_with_its_version(text: str) -> None:
    assert dmarc.is_dmarc(text)


@pytest.mark.parametrize("text", ["v=dmarc1; p=none", "p=none; v=DMARC1", "v=DMARC12; p=none", "v=spf1 -all", ""])
def test_others_are_not_of_dmarc(text: str) -> None:
    assert not dmarc.is_dmarc(text)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("v=DMARC1; p=quarantine; rua=mailto:a@example.org", ""),
        ("v=DMARC1; P=None", ""),
        ("v=DMARC1; p=later; rua=mailto:a@example.org", ""),
        ("v=DMARC1; p=later", "p=later is none of none, quarantine, reject"),
        ("v=DMARC1; sp=none", "it has no p= (none, quarantine or reject)"),
    ],
)
def test_what_receivers_do_not_obey_is_told(text: str, mistake: str) -> None:
    assert dmarc.mistake_of(dmarc.parse("_dmarc.example.org", text)) == mistake


def test_order_and_spaces_do_not_make_two_records_differ() -> None:
    assert dmarc.same("v=DMARC1; p=none; rua=mailto:a@b.example", "v=DMARC1;rua=mailto:a@b.example ;p=none;")
    assert not dmarc.same("v=DMARC1; p=none", "v=DMARC1; p=reject")
