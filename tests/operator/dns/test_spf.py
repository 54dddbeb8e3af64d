"""SPF as a receiver reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from posthof_operator.dns import spf
from posthof_operator.dns.spf import Judged, Result
from posthof_operator.dns.wire import MX, Answer

Zone = Mapping[tuple[str, str], tuple[object, ...]]


def judged(address: str, zone: Zone, domain: str = "example.org") -> Judged:
    async def ask(name: str, kind: str) -> Answer:
        return Answer(any(name == known for known, _ in zone), zone.get((name, kind), ()))

    return asyncio.run(spf.check(address, domain, ask))


def txt(text: str, domain: str = "example.org") -> dict[tuple[str, str], tuple[object, ...]]:
    return {(domain, "TXT"): (text,)}


@pytest.mark.parametrize(
    ("record", "address", "result"),
    [
        ("v=spf1 ip4:192.0.2.1 -all", "192.0.2.1", Result.PASS),
        ("v=spf1 ip4:192.0.2.0/24 -all", "192.0.2.77", Result.PASS),
        ("V=SPF1 IP4:192.0.2.1 -ALL", "192.0.2.1", Result.PASS),
        ("v=spf1 ip4:192.0.2.1 -all", "192.0.2.2", Result.FAIL),
        ("v=spf1 ip4:192.0.2.1 ~all", "192.0.2.2", Result.SOFT_FAIL),
        ("v=spf1 ip4:192.0.2.1", "192.0.2.2", Result.NEUTRAL),
        ("v=spf1 ?ip4:192.0.2.1", "192.0.2.1", Result.NEUTRAL),
        ("v=spf1 ip6:2001:db8::/32 -all", "2001:db8::25", Result.PASS),
        ("v=spf1 ip6:2001:db8::/32 -all", "192.0.2.1", Result.FAIL),
        ("v=spf1 +all", "2001:db8::25", Result.PASS),
        ("v=spf1 exp=why.example.org unknown=x ip4:192.0.2.1 -all", "192.0.2.1", Result.PASS),
        ("v=spf10 +all", "192.0.2.1", Result.NONE),
        ("v=spf1 exists:%{i}.example.net -all", "192.0.2.1", Result.UNSURE),
        ("v=spf1 include:%{ir}.example.net -all", "192.0.2.1", Result.UNSURE),
        ("v=spf1 ptr -all", "192.0.2.1", Result.UNSURE),
        ("v=spf1 ptr ip4:192.0.2.1 -all", "192.0.2.1", Result.PASS),
    ],
)
def test_a_record_alone(record: str, address: str, result: Result) -> None:
    assert judged(address, txt(record)).result is result


@pytest.mark.parametrize(
    "record",
    [
        "v=spf1 ip4:192.0.2",
        "v=spf1 ip4:2001:db8::1",
        "v=spf1 hello -all",
        "v=spf1 include: -all",
        "v=spf1 a/33",
        "v=spf1 all/8",
    ],
)
def test_a_record_receivers_cannot_use(record: str) -> None:
    found = judged("192.0.2.1", txt(record))
    assert found.result is Result.ERROR
    assert found.why


def test_a_and_mx_are_looked_up_with_their_prefixes() -> None:
    zone: Zone = {
        **txt("v=spf1 a:out.example.org/28 mx -all"),
        ("out.example.org", "A"): ("192.0.2.16",),
        ("example.org", "MX"): (MX(10, "mx.example.org"),),
        ("mx.example.org", "A"): ("198.51.100.1",),
        ("mx.example.org", "AAAA"): ("2001:db8::1",),
    }
    assert judged("192.0.2.31", zone).result is Result.PASS
    assert judged("192.0.2.32", zone).result is Result.FAIL
    assert judged("198.51.100.1", zone).result is Result.PASS
    assert judged("2001:db8::1", zone).result is Result.PASS


def test_include_passes_on_a_pass_and_nothing_else() -> None:
    zone: Zone = {
        **txt("v=spf1 include:a.example include:b.example ~all"),
        **txt("v=spf1 ip4:192.0.2.1 -all", "a.example"),
        **txt("v=spf1 ip4:192.0.2.2 -all", "b.example"),
    }
    assert judged("192.0.2.1", zone).result is Result.PASS
    assert judged("192.0.2.2", zone).result is Result.PASS
    assert judged("192.0.2.3", zone).result is Result.SOFT_FAIL


def test_redirect_takes_the_others_answer() -> None:
    zone: Zone = {**txt("v=spf1 redirect=a.example"), **txt("v=spf1 ip4:192.0.2.1 -all", "a.example")}
    assert judged("192.0.2.1", zone).result is Result.PASS
    assert judged("192.0.2.3", zone).result is Result.FAIL


@pytest.mark.parametrize(
    ("record", "word"),
    [("v=spf1 include:gone.example -all", "include"), ("v=spf1 redirect=gone.example", "redirect")],
)
def test_what_leads_nowhere_is_an_error(record: str, word: str) -> None:
    why = f"{word} leads to gone.example, which has no SPF record"
    assert judged("192.0.2.1", txt(record)) == Judged(Result.ERROR, why)


def test_two_records_are_an_error() -> None:
    zone: Zone = {("example.org", "TXT"): ("v=spf1 -all", "hello", "v=spf1 +all")}
    assert "2 SPF records" in judged("192.0.2.1", zone).why


def test_more_than_ten_look_ups_are_an_error_and_a_circle_ends() -> None:
    found = judged("192.0.2.1", txt("v=spf1 include:example.org -all"))
    assert found == Judged(Result.ERROR, "it takes more than 10 look-ups, where receivers give up")


def test_more_than_two_look_ups_in_vain_are_an_error() -> None:
    found = judged("192.0.2.1", txt("v=spf1 a:x.example a:y.example a:z.example ip4:192.0.2.1 -all"))
    assert "find nothing" in found.why


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        ("", "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 ~all"),
        ("v=spf1 mx -all", "v=spf1 mx ip4:192.0.2.1 ip6:2001:db8::1 -all"),
        ("v=spf1 include:x.example ?all", "v=spf1 include:x.example ip4:192.0.2.1 ip6:2001:db8::1 ?all"),
        ("v=spf1 redirect=x.example", "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 redirect=x.example"),
        ("v=spf1 ip4:192.0.2.1 mx", "v=spf1 mx ip4:192.0.2.1 ip6:2001:db8::1"),
    ],
)
def test_a_proposal_keeps_what_others_need(observed: str, expected: str) -> None:
    addresses = ("192.0.2.1", "2001:db8::1")
    assert spf.proposal(addresses, observed) == expected
    for address in addresses:
        direct = txt(spf.proposal(addresses, observed))
        assert judged(address, {**direct, **txt("v=spf1 -all", "x.example")}).result is Result.PASS
