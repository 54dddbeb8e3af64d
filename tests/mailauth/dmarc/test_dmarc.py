"""DMARC by RFC 9989: which record holds, what it wants, and what is aligned with the author."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kit.zones import Zones
from posthof_pod.mailauth.dmarc import Verdict, discover, evaluate, parse, record
from posthof_pod.mailauth.dmarc.record import mailbox, uris
from posthof_pod.mailauth.dmarc.walk import names


def zones(**rows: Any) -> Zones:
    """`example_org="p=none"` is the DMARC record of example.org."""
    found: dict[str, list[Any]] = {}
    for name, text in rows.items():
        texts = text if isinstance(text, list) else [text]
        rows_ = [{"TXT": f"v=DMARC1; {one}"} if one != "TIMEOUT" else one for one in texts]
        found[f"_dmarc.{name.replace('__', '-').replace('_', '.')}"] = rows_
    return Zones(found)


def judged(author: str, spf: str, dkim: list[str], table: Zones) -> Verdict:
    return asyncio.run(evaluate(author, spf, dkim, table))


def organisation(domain: str, table: Zones) -> str:
    return asyncio.run(discover(domain, table)).organisation


def test_the_walk_asks_the_domain_and_its_parents() -> None:
    assert names("a.mail.example.com") == ["a.mail.example.com", "mail.example.com", "example.com", "com"]


def test_the_walk_never_asks_more_than_eight_names() -> None:
    walk = names("a.b.c.d.e.f.g.h.i.j.example.com")
    assert len(walk) == 8
    assert walk[1] == "f.g.h.i.j.example.com"
    assert walk[-1] == "com"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"example_com": "p=none", "mail_example_com": "p=none"}, "example.com"),
        ({"com": "psd=y"}, "example.com"),
        ({"mail_example_com": "p=none; psd=n", "example_com": "p=none"}, "mail.example.com"),
        ({"mail_example_com": "p=none", "com": "psd=y"}, "example.com"),
        ({"a_mail_example_com": "p=none; psd=y", "example_com": "p=none"}, "example.com"),
        ({}, "a.mail.example.com"),
        ({"example_com": ["p=none", "p=reject"]}, "a.mail.example.com"),
    ],
)
def test_the_organisation_is_found_without_a_list_of_suffixes(rows: dict[str, Any], expected: str) -> None:
    assert organisation("a.mail.example.com", zones(**rows)) == expected


def test_a_domains_own_record_holds_before_its_organisations() -> None:
    table = zones(mail_example_com="p=quarantine", example_com="p=reject; sp=none")
    assert judged("mail.example.com", "", [], table).wish == "quarantine"


def test_a_record_between_the_domain_and_its_organisation_does_not_hold() -> None:
    table = zones(mail_example_com="p=quarantine", example_com="p=reject; sp=none")
    verdict = judged("a.mail.example.com", "", [], table)
    assert verdict.policy is not None
    assert (verdict.policy.domain, verdict.wish) == ("example.com", "none")


def test_np_holds_for_names_that_do_not_exist() -> None:
    rows = {
        "_dmarc.example.com": [{"TXT": "v=DMARC1; p=none; sp=quarantine; np=reject"}],
        "real.example.com": [{"A": "192.0.2.1"}],
    }
    assert judged("real.example.com", "", [], Zones(rows)).wish == "quarantine"
    assert judged("made-up.example.com", "", [], Zones(rows)).wish == "reject"


def test_a_public_suffix_speaks_where_the_organisation_does_not() -> None:
    table = zones(gov="psd=y; p=none; np=reject")
    assert judged("tax.gov", "", [], table).wish == "reject"


def test_a_suffix_does_not_speak_for_an_organisation_with_a_record() -> None:
    table = zones(gov="psd=y; p=reject", tax_gov="p=none")
    assert judged("tax.gov", "", [], table).wish == "none"


def test_test_mode_wants_one_step_less() -> None:
    assert judged("example.com", "", [], zones(example_com="p=reject; t=y")).wish == "quarantine"
    assert judged("example.com", "", [], zones(example_com="p=quarantine; t=y")).wish == "none"


def test_pct_says_nothing_any_more() -> None:
    assert judged("example.com", "", [], zones(example_com="p=reject; pct=0; rf=afrf; ri=3600")).wish == "reject"


@pytest.mark.parametrize(
    ("spf", "dkim", "result"),
    [
        ("example.com", [], "pass"),
        ("bounce.example.com", [], "pass"),
        ("example.org", [], "fail"),
        ("notexample.com", ["notexample.com"], "fail"),
        ("", ["news.example.com"], "pass"),
        ("", ["com"], "fail"),
        ("", [f"d{n}.example.net" for n in range(50)] + ["example.com"], "pass"),
    ],
)
def test_relaxed_alignment_is_within_the_organisation(spf: str, dkim: list[str], result: str) -> None:
    assert judged("example.com", spf, dkim, zones(example_com="p=reject")).result == result


def test_strict_alignment_is_letter_for_letter() -> None:
    table = zones(example_com="p=reject; adkim=s; aspf=s")
    assert judged("example.com", "bounce.example.com", ["mail.example.com"], table).result == "fail"
    assert judged("example.com", "example.com", [], table).result == "pass"


def test_a_part_that_says_it_is_its_own_organisation_is_not_aligned() -> None:
    table = zones(example_com="p=reject", customer_example_com="p=none; psd=n")
    assert judged("example.com", "customer.example.com", [], table).result == "fail"


def test_no_record_no_dmarc() -> None:
    assert judged("example.com", "example.com", [], zones()).result == "none"


def test_dns_that_does_not_answer_is_a_temporary_error() -> None:
    assert judged("example.com", "", [], zones(example_com="TIMEOUT")).result == "temperror"


def test_what_is_aligned_already_counts_though_dns_fails_elsewhere() -> None:
    table = zones(example_com="p=reject", other_example_com="TIMEOUT")
    assert judged("example.com", "other.example.com", ["example.com"], table).result == "pass"
    assert judged("example.com", "other.example.com", [], table).result == "temperror"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v=DMARC1;p=reject", "reject"),
        ("v = DMARC1 ; p = Reject ;", "reject"),
        ("v=DMARC1", "none"),
        ("v=DMARC1; p=nonsense; rua=mailto:a@example.com", "none"),
        ("v=DMARC1; p=nonsense", None),
        ("v=DMARC1; p=reject; sp=what", None),
        ("v=DMARC10; p=reject", None),
        ("p=reject; v=DMARC1", None),
        ("v=dmarc1; p=reject", None),
        ("v=DMARC1; p=reject; p=none", "reject"),
        ("v=DMARC1;; =;x; p=reject; \x00", "reject"),
    ],
)
def test_records_are_read_as_the_standard_says(text: str, expected: str | None) -> None:
    record = parse(text.encode())
    assert (record.p if record else None) == expected


def test_reports_go_to_mailboxes_alone() -> None:
    found = uris("mailto:a@example.com!10m, https://example.com/x , mailto:b%2Bc@example.org?subject=x, nonsense")
    assert [mailbox(one) for one in found] == ["a@example.com", "", "b+c@example.org"]
    assert mailbox("mailto:a@b@example.com") == ""
    assert mailbox("mailto:a%0d%0aBcc:x@example.com") == ""


def test_a_large_record_is_read_and_not_kept() -> None:
    before = record._kept.cache_info().currsize
    found = parse(b"v=DMARC1; p=reject; x=" + b"y" * 60_000)
    assert found is not None
    assert found.p == "reject"
    assert record._kept.cache_info().currsize == before
