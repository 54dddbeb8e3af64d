"""Authentication-Results: what we write can be read, and what others write in our name is found."""

from __future__ import annotations

import pytest

from posthof_pod.mailauth.canon import fields
from posthof_pod.mailauth.results import Result, disarmed, field, is_ours, without_ours

OURS = "mx.example.org"


def test_each_method_stands_on_a_line_of_its_own() -> None:
    made = field(
        OURS,
        [
            Result("spf", "pass", (("smtp.mailfrom", "bob@example.com"),)),
            Result("dkim", "fail", (("header.d", "example.com"), ("header.b", "a/b=")), reason="body hash"),
            Result("dmarc", "pass", (("header.from", "example.com"), ("nothing", "")), comment="p=reject"),
        ],
    )
    assert made == (
        b"Authentication-Results: mx.example.org;\r\n"
        b"\tspf=pass smtp.mailfrom=bob@example.com;\r\n"
        b'\tdkim=fail reason="body hash" header.d=example.com header.b="a/b=";\r\n'
        b"\tdmarc=pass (p=reject) header.from=example.com\r\n"
    )


def test_nothing_done_is_said() -> None:
    assert field(OURS, []) == b"Authentication-Results: mx.example.org; none\r\n"


@pytest.mark.parametrize(
    "evil", ['x"; dmarc=pass', "a\r\nX: y", "a;b", "ü@x.example", "a\\", "(", "\x00", "x" * 5000]
)
def test_no_value_ends_the_value_or_the_field(evil: str) -> None:
    made = field(OURS, [Result("spf", "fail", (("smtp.mailfrom", evil),), reason=evil, comment=evil)])
    assert made.count(b"\r\n") == made.count(b"\r\n\t") + 1
    assert made.isascii()
    value = made.partition(b"smtp.mailfrom=")[2].strip()
    assert value.startswith(b'"') == value.endswith(b'"')
    assert value.strip(b'"').count(b'"') == 0


@pytest.mark.parametrize(
    "value",
    [
        " mx.example.org; spf=pass",
        " MX.Example.ORG 1; spf=pass",
        "\r\n\tmx.example.org;\r\n\tspf=pass",
        " (comment) mx.example.org (another); spf=pass",
        " (;) mx.example.org; spf=pass",
        ' "mx.example.org"; spf=pass',
        ' "mx.example\\.org"; spf=pass',
        " mx.example.org",
        " (unended mx.example.org; spf=pass",
        " mx .example.org; spf=pass",
        " (a(b)c)mx.example.org;",
    ],
)
def test_a_field_in_our_name_is_found_however_it_is_written(value: str) -> None:
    assert is_ours(b"Authentication-Results:" + value.encode() + b"\r\n", OURS)


@pytest.mark.parametrize(
    "value",
    [
        " mx.example.com; spf=pass",
        " other-mx.example.org; spf=pass",
        " mx.example.org.evil.example; spf=pass",
        " example.com; spf=pass smtp.helo=mx.example.org",
        " example.com (by mx.example.org); none",
    ],
)
def test_a_field_of_another_house_stays(value: str) -> None:
    assert not is_ours(b"Authentication-Results:" + value.encode() + b"\r\n", OURS)


def test_what_others_made_up_never_looks_like_a_result_of_its_own() -> None:
    """Not even to those who look for `; dmarc=pass` anywhere in the field."""
    forged = 'x"; dmarc=pass y'
    made = field(OURS, [Result("spf", "pass", (("smtp.mailfrom", f"{forged}@evil.example"),), forged, forged)])
    assert made.count(b";") == 1


def test_ours_are_removed_and_the_rest_stays_as_it_came() -> None:
    other = b"Authentication-Results: else.example; spf=pass\r\nFrom: a@b.example\r\n"
    head = b"Authentication-Results: mx.example.org; dmarc=pass\r\n" + other
    assert without_ours(head, fields(head), OURS) == other
    assert without_ours(other, fields(other), OURS) is other
    renamed = disarmed(head, fields(head), OURS)
    assert renamed == b"X-Foreign-Auth-Results: mx.example.org; dmarc=pass\r\n" + other
    assert len(renamed) == len(head)


def test_content_that_is_all_header_keeps_its_end() -> None:
    head = b"Authentication-Results: mx.example.org; none\r\nFrom: a@b.example"
    assert without_ours(head, fields(head), OURS) == b"From: a@b.example"
