"""What is expected of a domain's DNS, what is found, and what is said of it."""

from __future__ import annotations

import pytest

from posthof_operator.dns.rows import Row, Seen, State, Want, remembered, rows
from posthof_operator.dns.spf import Judged, Result
from posthof_operator.dns.wire import MX

WANT = Want("acme.example", hosts=("mx.example.org",), egress=("192.0.2.1",))
NOTHING = Seen(mx=(), txt=(), dmarc={"_dmarc.acme.example": ()}, challenge=())


def short(row: Row) -> tuple[str, str, str]:
    return row.expected, row.observed, str(row.state)


def test_an_empty_zone_gets_the_exact_texts_to_publish() -> None:
    found = rows(WANT, NOTHING)
    assert short(found.mx) == ("10 mx.example.org.", "", "missing")
    assert short(found.spf) == ("v=spf1 ip4:192.0.2.1 ~all", "", "missing")
    assert short(found.dmarc) == ("v=DMARC1; p=none", "", "missing")
    assert (found.dmarc.name, found.proof) == ("_dmarc.acme.example", None)


def test_before_dns_answered_everything_is_unknown() -> None:
    assert {row.state for row in rows(WANT, Seen()).all} == {State.UNKNOWN}


# -- MX


@pytest.mark.parametrize(
    ("mx", "state"),
    [
        ((MX(10, "mx.example.org"),), State.OK),
        ((MX(5, "mx.example.org"), MX(20, "backup.example.net")), State.OK),
        ((MX(10, "filter.example.net"), MX(10, "mx.example.org")), State.OK),
        ((MX(5, "filter.example.net"), MX(10, "mx.example.org")), State.DIFFERS),
        ((MX(10, "filter.example.net"),), State.DIFFERS),
        ((MX(0, ""),), State.DIFFERS),
        ((), State.MISSING),
    ],
)
def test_mx_is_right_when_mail_comes_here_first(mx: tuple[MX, ...], state: State) -> None:
    assert rows(WANT, NOTHING._replace(mx=mx)).mx.state is state


def test_a_name_of_the_domains_own_is_ours_by_its_address() -> None:
    vanity = NOTHING._replace(mx=(MX(10, "mail.acme.example"),), foreign={"mail.acme.example": ("203.0.113.7",)})
    assert rows(WANT, vanity).mx.state is State.DIFFERS
    assert rows(WANT._replace(addresses=("203.0.113.7",)), vanity).mx.state is State.OK
    assert rows(WANT, vanity._replace(own=("203.0.113.7",))).mx.state is State.OK


def test_one_of_several_mtas_is_enough() -> None:
    two = WANT._replace(hosts=("a.example.org", "b.example.org"))
    found = rows(two, NOTHING._replace(mx=(MX(10, "b.example.org"),))).mx
    assert short(found) == ("10 a.example.org.\n10 b.example.org.", "10 b.example.org.", "ok")


def test_several_observed_hosts_stand_in_lines() -> None:
    found = rows(WANT, NOTHING._replace(mx=(MX(5, "a.example.net"), MX(10, "mx.example.org")))).mx
    assert found.observed == "5 a.example.net.\n10 mx.example.org."
    assert found.note == "mail goes to a.example.net first"


# -- SPF


def spf_row(text: str, result: Result, why: str = "", want: Want = WANT) -> Row:
    return rows(want, NOTHING._replace(txt=(text, "other=1"), spf={"192.0.2.1": Judged(result, why)})).spf


def test_an_spf_record_that_lets_us_send_is_right_as_it_is() -> None:
    text = "v=spf1 include:_spf.example.net -all"
    assert short(spf_row(text, Result.PASS)) == (text, text, "ok")


def test_one_that_does_not_gets_our_addresses_added() -> None:
    row = spf_row("v=spf1 mx -all", Result.FAIL)
    assert short(row) == ("v=spf1 mx ip4:192.0.2.1 -all", "v=spf1 mx -all", "differs")
    assert row.note == "it does not let 192.0.2.1 send"


def test_one_that_receivers_cannot_use_is_told() -> None:
    row = spf_row("v=spf1 mx hello -all", Result.ERROR, "'hello' is no term of SPF")
    assert short(row) == ("v=spf1 ip4:192.0.2.1 ~all", "v=spf1 mx hello -all", "differs")
    assert "receivers cannot use it: 'hello' is no term" in row.note


def test_one_that_depends_on_the_message_is_not_judged() -> None:
    assert spf_row("v=spf1 exists:%{i}.x.example -all", Result.UNSURE).state is State.UNKNOWN


def test_two_records_are_one_too_many() -> None:
    row = rows(WANT, NOTHING._replace(txt=("v=spf1 -all", "v=spf1 mx -all"))).spf
    assert (row.state, row.observed) == (State.DIFFERS, "v=spf1 -all\nv=spf1 mx -all")


def test_without_egress_addresses_spf_is_unknown() -> None:
    row = rows(WANT._replace(egress=()), NOTHING._replace(txt=("v=spf1 mx -all",))).spf
    assert short(row) == ("", "v=spf1 mx -all", "unknown")


def test_a_text_of_the_mail_domain_has_to_be_published() -> None:
    want = WANT._replace(spf="v=spf1 mx  -ALL")
    assert spf_row("v=spf1 MX -all", Result.FAIL, want=want).state is State.OK
    assert spf_row("v=spf1 +all", Result.PASS, want=want).state is State.DIFFERS
    assert rows(want, NOTHING).spf.state is State.MISSING


def test_empty_texts_switch_checks_off() -> None:
    found = rows(WANT._replace(spf="", dmarc=""), NOTHING)
    assert (found.spf.state, found.dmarc.state) == (State.OFF, State.OFF)
    assert (found.spf.expected, found.dmarc.expected) == ("", "")


# -- DMARC


def dmarc_row(*texts: str, want: Want = WANT) -> Row:
    return rows(want, NOTHING._replace(dmarc={"_dmarc.acme.example": texts})).dmarc


def test_any_valid_policy_is_right() -> None:
    text = "v=DMARC1; p=reject; rua=mailto:a@acme.example"
    assert short(dmarc_row(text)) == (text, text, "ok")


def test_the_policy_of_a_parent_is_right_and_says_where_it_stands() -> None:
    seen = NOTHING._replace(dmarc={"_dmarc.acme.example": (), "_dmarc.example": ("v=DMARC1; p=none",)})
    row = rows(WANT, seen).dmarc
    assert (row.observed, row.state) == ("_dmarc.example: v=DMARC1; p=none", State.OK)


def test_a_broken_policy_is_told() -> None:
    row = dmarc_row("v=DMARC1; p=maybe")
    assert row.state is State.DIFFERS
    assert row.note == "receivers do not obey it: p=maybe is none of none, quarantine, reject"


def test_two_policies_count_for_none() -> None:
    assert dmarc_row("v=DMARC1; p=none", "v=DMARC1; p=reject").state is State.DIFFERS


def test_a_policy_of_the_mail_domain_has_to_be_published() -> None:
    want = WANT._replace(dmarc="v=DMARC1; p=reject")
    assert dmarc_row("v=DMARC1;p=reject", want=want).state is State.OK
    assert dmarc_row("v=DMARC1; p=none", want=want).state is State.DIFFERS
    assert dmarc_row(want=want).state is State.MISSING


# -- the proof


@pytest.mark.parametrize(
    ("texts", "state"),
    [((), State.MISSING), (("posthof-proof=x",), State.DIFFERS), (("other", "posthof-proof=mine"), State.OK)],
)
def test_the_proof_is_looked_for_where_it_is_asked(texts: tuple[str, ...], state: State) -> None:
    row = rows(WANT._replace(proof="posthof-proof=mine"), NOTHING._replace(challenge=texts)).proof
    assert row is not None
    assert (row.name, row.expected, row.state) == (
        "_posthof-challenge.acme.example",
        "posthof-proof=mine",
        state,
    )


# -- what is remembered


def test_what_is_not_answered_is_as_it_was() -> None:
    old = NOTHING._replace(mx=(MX(10, "mx.example.org"),), challenge=("posthof-proof=mine",))
    new = Seen(txt=("v=spf1 -all",), dmarc={}, troubles=("acme.example MX: no answer in time",))
    found = remembered(old, new)
    assert (found.mx, found.challenge, found.txt) == (old.mx, old.challenge, new.txt)
    assert found.troubles == new.troubles
    assert remembered(old, NOTHING) == NOTHING
