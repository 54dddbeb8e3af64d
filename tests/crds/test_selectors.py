"""Label selectors: what they match, and that their texts are read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthof_crds.allowed import Allowance, AllowedNamespace
from posthof_crds.engine import HopKind, NextHop
from posthof_crds.ports import container_port, is_free
from posthof_crds.selectors import LabelSelector, Selection, Selector, parse, parse_selection, selector


def made(**parts: object) -> Selector:
    return selector(LabelSelector.model_validate(parts))


@pytest.mark.parametrize(
    ("parts", "labels", "matches"),
    [
        ({}, {}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchLabels": {"a": ""}}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, {"a": "2"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {"a": "1"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
    ],
)
def test_what_a_selector_matches(parts: dict[str, object], labels: dict[str, str], matches: bool) -> None:
    assert made(**parts).matches(labels) == matches


def test_a_selector_is_written_as_kubectl_takes_it() -> None:
    expressions = [
        {"key": "tier", "operator": "NotIn", "values": ["b", "a"]},
        {"key": "example.org/x", "operator": "Exists"},
        {"key": "old", "operator": "DoesNotExist"},
    ]
    found = made(matchLabels={"app": "web"}, matchExpressions=expressions)
    assert str(found) == "app=web,example.org/x,!old,tier notin (a,b)"


KEYS, VALUES = st.sampled_from(["app", "example.org/team", "a.b_c"]), st.sampled_from(["", "x", "y-1", "Z.z"])
MANY = st.lists(VALUES, min_size=1, max_size=3).map(lambda values: tuple(sorted(set(values))))
NEEDS = st.one_of(
    st.tuples(KEYS, st.sampled_from(["In", "NotIn"]), MANY),
    st.tuples(KEYS, st.sampled_from(["Exists", "DoesNotExist"]), st.just(())),
)


@given(st.lists(NEEDS, max_size=4))
def test_the_text_of_a_selector_is_read_back(needs: list[tuple[str, str, tuple[str, ...]]]) -> None:
    given = Selector(tuple(sorted(set(needs))))
    assert parse(str(given)) == given
    for selection in (Selection("shop", Selector(), given), Selection("", given, Selector())):
        assert parse_selection(str(selection)) == selection


def test_what_is_no_selector_is_refused() -> None:
    for text in ("a=b=c", "a in", "(", "a notin (b"):
        with pytest.raises(ValueError, match="is not a selector"):
            parse(text)


class TestAllowance:
    def allowance(self, **parts: object) -> Allowance:
        return Allowance([AllowedNamespace.model_validate({"selector": {}, **parts})], "shop")

    @pytest.mark.parametrize(
        ("pattern", "domain", "is_covered"),
        [
            ("acme.example", "acme.example", True),
            ("acme.example", "sub.acme.example", False),
            ("*.acme.example", "sub.acme.example", True),
            ("*.acme.example", "acme.example", False),
            ("*.{namespace}.example", "a.shop.example", True),
            ("*.{namespace}.example", "a.blog.example", False),
            ("Bücher.example", "xn--bcher-kva.example", True),
            ("*", "any.example", True),
        ],
    )
    def test_domains(self, pattern: str, domain: str, is_covered: bool) -> None:
        assert self.allowance(domains=[pattern]).covers_domain(domain) == is_covered

    @pytest.mark.parametrize(
        ("pattern", "name", "is_covered"),
        [
            ("smtp.example.org", "smtp.example.org", True),
            ("10.0.0.0/8", "10.1.2.3", True),
            ("10.0.0.0/8", "11.0.0.1", False),
            ("10.0.0.0/8", "smtp.example.org", False),
            ("*.example.org", "10.0.0.1", False),
            ("192.0.2.1", "192.0.2.1", True),
            ("*", "127.0.0.1", True),
        ],
    )
    def test_hops(self, pattern: str, name: str, is_covered: bool) -> None:
        hop = NextHop(kind=HopKind.HOST, name=name)
        assert self.allowance(nextHops=[pattern]).covers_hop(hop) == is_covered

    def test_a_socket_is_nobodys(self) -> None:
        hop = NextHop(kind=HopKind.UNIX, name="/run/lmtp", port=0)
        assert not self.allowance(nextHops=["*"]).covers_hop(hop)


def test_a_pod_binds_ports_above_1024_and_keeps_its_own() -> None:
    assert [container_port(port) for port in (25, 465, 587, 24, 2525, 10025)] == [
        2525,
        4465,
        5587,
        10024,
        2525,
        10025,
    ]
    assert [port for port in (25, 8025, 8080, 8081) if not is_free(port)] == [8025, 8080]
