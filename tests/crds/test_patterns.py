"""Address patterns: one wildcard, no regular expressions."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthof_crds import names, patterns
from posthof_crds.patterns import AddressSet, Glob


def holds(pattern: str, address: str) -> bool:
    local, domain = names.split(address)
    return AddressSet([patterns.normalise(pattern)]).matches(names.fold(local), domain)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("<>", [""], ["a@example.org"]),
        ("*", ["a@example.org"], [""]),
        ("bob@example.org", ["bob@example.org", "BOB@Example.ORG", '"bob"@example.org'], ["bobby@example.org", ""]),
        ("*@example.org", ["a@example.org"], ["a@sub.example.org", "a@example.org.evil.test"]),
        ("example.org", ["a@example.org"], ["a@sub.example.org", "example.org@evil.test"]),
        ("*.example.org", ["a@x.example.org", "a@x.y.example.org"], ["a@example.org", "a@badexample.org"]),
        ("sales-*@*.example.org", ["sales-eu@x.example.org"], ["sales@x.example.org", "sales-eu@example.org"]),
        ("a*b*c@example.org", ["abc@example.org", "aXbYbZc@example.org"], ["acb@example.org", "ab@example.org"]),
        ("*@münchen.example", ["a@xn--mnchen-3ya.example", "a@MÜNCHEN.example"], ["a@munchen.example"]),
        ("*@xn--mnchen-3ya.example", ["a@münchen.example"], []),
        ("jürgen@example.org", ["JÜRGEN@example.org"], ["jurgen@example.org"]),
        ("*@[192.0.2.1]", ["a@[192.0.2.1]"], ["a@[192.0.2.10]"]),
    ],
)
def test_what_a_pattern_matches(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [address for address in yes if not holds(pattern, address)] == []
    assert [address for address in no if holds(pattern, address)] == []


@pytest.mark.parametrize(
    "pattern", ["", "@example.org", "bob@", "a b@c.d", "bob@exa mple.org", "bob@-x.org", "bob@[x]"]
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError):
        patterns.normalise(pattern)


@pytest.mark.parametrize(
    ("pattern", "bounds"),
    [
        ("*@example.org", True),
        ("example.org", True),
        ("bob@example.org", True),
        ("*.example.org", True),
        ("*.co.uk", True),
        ("localhost", True),
        ("*.org", False),
        ("*", False),
        ("*@*", False),
        ("*example.org", False),
        ("example.*", False),
        ("*@mail.*.org", False),
        ("<>", False),
    ],
)
def test_which_patterns_keep_to_domains_that_somebody_wrote_down(pattern: str, bounds: bool) -> None:
    assert patterns.bounds_domain(patterns.normalise(pattern)) is bounds


def test_a_hostile_pattern_is_not_slow() -> None:
    glob = Glob("*a" * 500 + "b")
    begun = time.perf_counter()
    assert not glob.matches("a" * 5000)
    assert time.perf_counter() - begun < 0.1


@settings(max_examples=300, deadline=None)
@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_globs_agree_with_fnmatch(pattern: str, text: str) -> None:
    assert Glob(pattern).matches(text) == fnmatch.fnmatchcase(text, pattern)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_normalising_raises_nothing_but_value_error_and_is_stable(pattern: str) -> None:
    try:
        once = patterns.normalise(pattern)
    except ValueError:
        return
    assert patterns.normalise(once) == once
    AddressSet([once])
