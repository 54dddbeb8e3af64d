"""One strict reading of From: whose mail it is, and what is nobody's."""

from __future__ import annotations

import pytest

from posthof_pod.mailauth.canon import fields
from posthof_pod.mailauth.fromline import Author, read

REST = b"Subject: x\r\nTo: bob@a.example\r\n"


def author(*lines: bytes, rest: bytes = REST) -> Author:
    head = b"".join(line + b"\r\n" for line in lines) + rest
    return read(fields(head), head)


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        (b"bob@example.com", "example.com"),
        (b" Bob <bob@Example.COM>", "example.com"),
        (b'"Bob, the Builder" <bob@example.com>', "example.com"),
        (b'"ceo@bank.example" <bob@example.com>', "example.com"),
        (b"Bob (of the shop) <bob@example.com> (office)", "example.com"),
        (b"(a (nested \\) one)) bob@example.com", "example.com"),
        (b"=?utf-8?q?J=C3=BCrgen?= <j@example.com>", "example.com"),
        (b"J\xc3\xbcrgen <j\xc3\xbcrgen@b\xc3\xbccher.example>", "xn--bcher-kva.example"),
        (b"Bob\r\n <bob@example.com>", "example.com"),
        (b'"odd local"@example.com', "example.com"),
        (b"bob@example.com <bob@example.com>", "example.com"),
        (b"<bob@example.com>", "example.com"),
        (b"A. B. Cee <abc@mail.example.com>", "mail.example.com"),
    ],
)
def test_what_people_write_is_read(value: bytes, domain: str) -> None:
    assert author(b"From:" + value) == Author(domain, author(b"From:" + value).address, "")
    assert author(b"From:" + value).domain == domain
    assert author(b"FROM :" + value).domain == domain


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "no From"),
        ([b"From: a@example.com", b"From: b@example.com"], "2 From fields"),
        ([b"From: a@example.com", b"fRoM : b@evil.example"], "2 From fields"),
        ([b"From:"], "no address"),
        ([b"From: "], "no address"),
        ([b"From: <>"], "no address"),
        ([b"From: Bob"], "no address"),
        ([b"From: a@example.com, b@evil.example"], "several"),
        ([b"From: <a@example.com>, <b@evil.example>"], "several"),
        ([b"From: <a@example.com> <b@evil.example>"], "behind"),
        ([b"From: a@example.com <b@evil.example>"], "another domain"),
        ([b"From: a@example.com b@evil.example"], "no address"),
        ([b"From: undisclosed:;"], "group"),
        ([b"From: friends: a@example.com;"], "group"),
        ([b"From: <@relay.example:a@example.com>"], "source route"),
        ([b"From: a@example.com\x00@evil.example"], "NUL"),
        ([b"Subject: a\x00b", b"From: a@example.com"], "NUL"),
        ([b"From: a@example.com\x01"], "control"),
        ([b"From: a@[192.0.2.1]"], "no address"),
        ([b"From: <a@[192.0.2.1]>"], "without a domain"),
        ([b"From: a@localhost"], "no name"),
        ([b"From: a@example.1"], "no name"),
        ([b"From: a@example..com"], "none"),
        ([b"From: a@-example.com"], "none"),
        ([b"From: a@" + b"a" * 64 + b".com"], "none"),
        ([b"From: a@example.com."], "none"),
        ([b"From: =?utf-8?q?a=40example=2Ecom?="], "no address"),
        ([b"From: =?utf-8?Q?a=40good.example=00?=@evil.example"], "encoded word"),
        ([b"From: <=?utf-8?q?a?=@example.com>"], "encoded word"),
        ([b"From: a@good.example <b@evil.example"], "without its >"),
        ([b"From: (a@good.example b@evil.example"], "does not end"),
        ([b"From: <a@(x)example.com>"], "none"),
        ([b'From: "a@good.example"@evil.example'], "no address"),
        ([b"From: a@good.example\r\n \r\n\t<b@evil.example>"], "blanks alone"),
        ([b"From: a@example.com", b"From a@evil.example Mon Jan  1 00:00:00 2026"], "take for From"),
        ([b"From: a@example.com", b"\x01From: b@evil.example"], "take for From"),
        ([b"From: a@example.com", b"From\xa0: b@evil.example"], "take for From"),
        ([b"From: a@example.com\nFrom: b@evil.example"], "line end"),
        ([b"From: a@example.com\rFrom: b@evil.example"], "line end"),
        ([b"From: \xff@example.com"], "no text"),
        ([b"From: " + b"(" * 9000], "too long"),
        ([b"From: .a@example.com"], "no address"),
        ([b"From: a@b@example.com"], "no address"),
    ],
)
def test_attacks_are_nobodys_mail(lines: list[bytes], problem: str) -> None:
    found = author(*lines)
    assert found.domain == ""
    assert problem in found.problem


def test_a_comment_inside_an_address_without_brackets_is_read_away_or_refused_but_never_another_domain() -> None:
    assert author(b"From: a@(evil.example)example.com").domain in ("", "example.com")


def test_a_header_that_was_not_read_whole_is_nobodys() -> None:
    head = b"From: a@example.com\r\n"
    assert read(fields(head), head, is_whole=False).problem


def test_a_leading_line_of_blanks_hides_nothing() -> None:
    assert author(b" From: b@evil.example", b"From: a@example.com").problem
