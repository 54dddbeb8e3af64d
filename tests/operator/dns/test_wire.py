"""Real questions to real servers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kit.dns import KNOT_MISSING, DNSServer, find_knot, knot
from posthof_operator.dns.observe import observe
from posthof_operator.dns.rows import State, Want, rows
from posthof_operator.dns.wire import MX, Answer, Unanswered, Wire

WANT = Want("acme.example", hosts=("mx.example.org",), egress=("192.0.2.1",), proof="posthof-proof=mine")


def ask(server: DNSServer, name: str, kind: str, *, patience: float = 0.5) -> Answer:
    return asyncio.run(Wire([server.address], lifetime=patience, timeout=patience / 2).ask(name, kind))


def test_values_of_each_kind() -> None:
    zone = {
        "example.org": {"MX": ["20 b.example.org", "10 A.example.org"], "TXT": ['"v=spf1 " "-all"', "hello"]},
        "a.example.org": {"A": ["192.0.2.2", "192.0.2.1"], "AAAA": "2001:db8::1"},
        "null.example.org": {"MX": "0 ."},
        "alias.example.org": {"CNAME": "a.example.org"},
    }
    with DNSServer(zone) as server:
        assert ask(server, "example.org", "MX").values == (MX(10, "a.example.org"), MX(20, "b.example.org"))
        assert ask(server, "example.org", "TXT").values == ("hello", "v=spf1 -all")
        assert ask(server, "a.example.org", "A").values == ("192.0.2.1", "192.0.2.2")
        assert ask(server, "a.example.org", "AAAA").values == ("2001:db8::1",)
        assert ask(server, "null.example.org", "MX").values == (MX(0, ""),)
        assert ask(server, "alias.example.org", "A").values == ("192.0.2.1", "192.0.2.2")


def test_nothing_is_an_answer() -> None:
    with DNSServer({"example.org": {"A": "192.0.2.1"}}) as server:
        assert ask(server, "example.org", "MX") == Answer(True)
        assert ask(server, "gone.example.org", "MX") == Answer(False)


def test_no_answer_is_none_and_the_text_says_why() -> None:
    with DNSServer({"example.org": {"A": "192.0.2.1"}}) as server:
        server.failing.add("*")
        with pytest.raises(Unanswered, match=r"example.org A: no server could answer \(SERVFAIL\)"):
            ask(server, "example.org", "A")
        server.failing.clear()
        server.is_away = True
        with pytest.raises(Unanswered, match="no answer in time"):
            ask(server, "example.org", "A")
    with pytest.raises(Unanswered):
        ask(server, "example.org", "A")  # nobody listens there any more


@pytest.mark.parametrize("name", ["a..example", "x" * 64 + ".example", ""])
def test_what_is_no_name_is_not_asked(name: str) -> None:
    with DNSServer({}) as server:
        if name:
            with pytest.raises(Unanswered):
                ask(server, name, "A")
        assert not server.queries


def test_a_large_answer_comes_by_tcp() -> None:
    texts = [f"filler-{number:03}-" + "x" * 200 for number in range(20)]
    with DNSServer({"example.org": {"TXT": texts}}) as server:
        assert len(ask(server, "example.org", "TXT", patience=5).values) == 20
        assert {transport for _, _, transport in server.queries} == {"udp", "tcp"}


def test_a_domain_is_seen_whole() -> None:
    zone = {
        "acme.example": {"MX": "10 mail.acme.example", "TXT": ['"v=spf1 include:spf.example.net -all"', "other"]},
        "mail.acme.example": {"A": "203.0.113.7"},
        "mx.example.org": {"A": "203.0.113.7"},
        "spf.example.net": {"TXT": '"v=spf1 ip4:192.0.2.0/24 -all"'},
        "_dmarc.example": {"TXT": '"v=DMARC1; p=none"'},
        "_posthof-challenge.acme.example": {"TXT": "posthof-proof=mine"},
    }
    with DNSServer(zone) as server:
        seen = asyncio.run(observe(WANT, Wire([server.address]).ask))
    found = rows(WANT, seen)
    assert [row.state for row in found.all] == [State.OK] * 4
    assert seen.troubles == ()


def test_one_name_that_is_not_answered_spoils_its_own_row_alone() -> None:
    zone = {"acme.example": {"MX": "10 mx.example.org", "TXT": '"v=spf1 ip4:192.0.2.1 -all"'}}
    with DNSServer(zone) as server:
        server.failing.add("_dmarc.acme.example")
        seen = asyncio.run(observe(WANT, Wire([server.address], lifetime=0.5, timeout=0.3).ask))
    found = rows(WANT, seen)
    assert (found.mx.state, found.spf.state, found.dmarc.state) == (State.OK, State.OK, State.UNKNOWN)
    assert seen.troubles == ("_dmarc.acme.example TXT: no server could answer (SERVFAIL)",)


def test_as_few_questions_as_will_do() -> None:
    zone = {
        "acme.example": {"MX": "10 mx.example.org", "TXT": '"v=spf1 ip4:192.0.2.1 -all"'},
        "_dmarc.acme.example": {"TXT": '"v=DMARC1; p=none"'},
    }
    with DNSServer(zone) as server:
        asyncio.run(observe(WANT._replace(proof="", spf="v=spf1 ip4:192.0.2.1 -all"), Wire([server.address]).ask))
        assert sorted((name, kind) for name, kind, _ in server.queries) == [
            ("_dmarc.acme.example", "TXT"),
            ("acme.example", "MX"),
            ("acme.example", "TXT"),
        ]


@pytest.mark.interop
@pytest.mark.skipif(find_knot() is None, reason=KNOT_MISSING)
def test_knot_is_understood(tmp_path: Path) -> None:
    zone = (
        '@ MX 10 mx.acme.example.\nmx A 192.0.2.1\n@ TXT "v=spf1 mx -all"\n'
        '_dmarc TXT "v=DMARC1; p=reject"\n_posthof-challenge TXT "posthof-proof=mine"'
    )
    want = WANT._replace(hosts=("mx.acme.example",))
    with knot(tmp_path, {"acme.example": zone}) as address:
        seen = asyncio.run(observe(want, Wire([address]).ask))
    assert [str(row.state) for row in rows(want, seen).all] == ["ok"] * 4
