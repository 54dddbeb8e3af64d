"""Domains, local parts and literals: when two spellings are one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthof_crds import names


@pytest.mark.parametrize(
    ("address", "local", "domain"),
    [
        ("Bob@Example.ORG", "Bob", "example.org"),
        ("bob@MÜNCHEN.example", "bob", "xn--mnchen-3ya.example"),
        ("bob@XN--MNCHEN-3YA.example", "bob", "xn--mnchen-3ya.example"),
        ('"a@b"@example.org', '"a@b"', "example.org"),
        ("postmaster", "postmaster", ""),
        ("bob@[IPv6:2001:DB8::1]", "bob", "[ipv6:2001:db8::1]"),
        ("", "", ""),
        ("bob@b\u2260d..", "bob", "b\u2260d.."),
    ],
)
def test_an_address_falls_into_local_part_and_domain(address: str, local: str, domain: str) -> None:
    assert names.split(address) == (local, domain)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Bob", "bob"), ('"bob"', "bob"), ('"b\\ob"', "bob"), ("JÜRGEN", "jürgen"), ("ju\u0308rgen", "j\u00fcrgen")],
)
def test_spellings_of_one_mailbox_fold_to_the_same(one: str, other: str) -> None:
    assert names.fold(one) == names.fold(other)


@pytest.mark.parametrize(
    ("domain", "address"),
    [
        ("[192.0.2.1]", "192.0.2.1"),
        ("[ipv6:2001:db8::1]", "2001:db8::1"),
        ("[IPv6:2001:DB8:0::1]", "2001:db8::1"),
        ("[2001:db8::1]", None),
        ("[192.0.2]", None),
        ("192.0.2.1", None),
        ("[x-tag:content]", None),
    ],
)
def test_address_literals(domain: str, address: str | None) -> None:
    assert names.literal(domain) == address


@pytest.mark.parametrize(
    ("name", "is_fqdn"),
    [
        ("mail.example.org", True),
        ("a.b", True),
        ("localhost", False),
        ("-a.example.org", False),
        ("a..b", False),
        ("192.0.2.1", False),
        ("a_b.example.org", False),
        ("x" * 64 + ".org", False),
        (".".join(["a"] * 130), False),
    ],
)
def test_fully_qualified_names(name: str, is_fqdn: bool) -> None:
    assert names.is_fqdn(name) is is_fqdn


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_splitting_and_folding_never_raise(text: str) -> None:
    local, domain = names.split(text)
    assert names.fold(names.fold(local)) == names.fold(local) or '"' in local
    assert domain == domain.lower()
