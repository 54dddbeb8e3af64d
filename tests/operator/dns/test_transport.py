"""What a MailDomain's status says of MTA-STS and TLS-RPT, and what is published for it."""

from __future__ import annotations

import pytest

from posthof_crds import policytext
from posthof_crds.engine import OwnPolicy
from posthof_operator.dns import status
from posthof_operator.dns.endpoint import endpoint
from posthof_operator.dns.rows import Rows, Seen, State, Want, rows
from posthof_operator.dns.transport import policy_of
from posthof_operator.dns.want import certificates_of, house_of, want_of

HOST = "mx.example.org"
ASKED = {"mode": "Enforce", "maxAge": "1d"}
PROVEN = policy_of(ASKED, (HOST,), frozenset({HOST}))
TESTING = policy_of(ASKED, (HOST,), frozenset())
WANT = Want("acme.example", hosts=(HOST,), policy=PROVEN, tls_rpt="v=TLSRPTv1; rua=mailto:tls@acme.example")
assert PROVEN is not None
assert TESTING is not None
RIGHT = Seen(
    mx=(),
    txt=(),
    dmarc={},
    challenge=(),
    sts=(PROVEN.record,),
    tls_rpt=("v=TLSRPTv1;rua=mailto:tls@acme.example;",),
    policy_host=("203.0.113.7",),
    own_hosts=("203.0.113.7", "203.0.113.8"),
)


def said(want: Want, seen: Seen) -> tuple[str, str, str]:
    found = status.policy_ready(want, rows(want, seen))
    assert found is not None
    return found.status, str(found.reason), found.message


def states(found: Rows) -> list[str]:
    return [str(row.state) for row in (found.sts, found.policy_host, found.tls_rpt) if row is not None]


def test_the_record_is_the_one_of_the_text_that_pods_serve() -> None:
    own = OwnPolicy(mode="enforce", max_age=86400)
    text = policytext.text(own, (HOST,), "enforce")
    assert (policytext.record(text), "enforce", "enforce", ()) == PROVEN


def test_enforce_is_announced_as_testing_until_every_host_is_proven() -> None:
    assert TESTING is not None
    assert (TESTING.mode, TESTING.waits_for) == ("testing", (HOST,))
    assert TESTING.record != PROVEN.record  # type: ignore[union-attr]  # asserted above
    more = policy_of({**ASKED, "mx": ["backup.example"]}, (HOST,), frozenset({HOST}))
    assert more is not None
    assert more.waits_for == ("backup.example",)
    want = WANT._replace(policy=TESTING)
    status_, reason, message = said(want, RIGHT._replace(sts=(TESTING.record,)))
    assert (status_, reason) == ("False", "HostsNotProven")
    assert HOST in message


def test_what_is_published_rightly_is_right() -> None:
    assert states(rows(WANT, RIGHT)) == ["ok", "ok", "ok"]
    assert said(WANT, RIGHT)[:2] == ("True", "RecordsRight")


@pytest.mark.parametrize(
    ("change", "states_", "reason"),
    [
        ({"sts": ()}, ["missing", "ok", "ok"], "RecordsMissing"),
        ({"sts": ("v=STSv1; id=old;",)}, ["differs", "ok", "ok"], "RecordsDiffer"),
        ({"sts": ("v=STSv1; id=a;", "v=STSv1; id=b;")}, ["differs", "ok", "ok"], "RecordsDiffer"),
        ({"policy_host": ()}, ["ok", "missing", "ok"], "RecordsMissing"),
        ({"policy_host": ("198.51.100.1",)}, ["ok", "differs", "ok"], "RecordsDiffer"),
        ({"sts": None}, ["unknown", "ok", "ok"], "RecordsUnknown"),
        ({"tls_rpt": ()}, ["ok", "ok", "missing"], "RecordsRight"),
    ],
)
def test_what_is_not_is_told(change: dict[str, object], states_: list[str], reason: str) -> None:
    seen = RIGHT._replace(**change)  # type: ignore[arg-type]  # parts of a NamedTuple
    assert states(rows(WANT, seen)) == states_
    assert said(WANT, seen)[1] == reason


def test_who_asks_for_nothing_sees_nothing() -> None:
    found = rows(Want("acme.example", hosts=(HOST,)), RIGHT)
    assert states(found) == []
    assert status.policy_ready(Want("acme.example"), found) is None
    assert "mtaSts" not in status.fields(Want("acme.example"), found)["dns"]


def test_what_cannot_be_read_is_none() -> None:
    for asked in (None, "Enforce", {"maxAge": "soon"}, {"maxAge": 5}):
        assert policy_of(asked, (HOST,), frozenset()) is None


def test_a_missing_record_is_in_the_status_with_the_text_to_publish() -> None:
    told = status.fields(WANT, rows(WANT, RIGHT._replace(sts=())))
    row = next(one for one in told["dnsRecords"] if one["purpose"] == "mtaSts")
    assert row == {
        "type": "TXT",
        "name": "_mta-sts.acme.example",
        "purpose": "mtaSts",
        "expected": WANT.policy.record,  # type: ignore[union-attr]  # it has one
        "state": "missing",
    }
    assert told["dns"]["mtaSts"] == State.MISSING


def test_they_are_published_with_the_others() -> None:
    made = endpoint("mail", "acme", WANT._replace(may_publish=True), {"kind": "MailDomain"})
    assert made is not None
    entries = {(one["dnsName"], one["recordType"]): one["targets"] for one in made["spec"]["endpoints"]}
    assert entries["_mta-sts.acme.example", "TXT"] == [f'"{PROVEN.record}"']  # type: ignore[union-attr]  # as above
    assert entries["mta-sts.acme.example", "CNAME"] == [HOST]
    assert ("_smtp._tls.acme.example", "TXT") in entries


def test_the_wish_stands_in_the_object_and_the_proof_in_the_mtas_status() -> None:
    accepted = {"type": "Accepted", "status": "True", "reason": "Accepted"}
    raw = {
        "metadata": {"namespace": "mail", "name": "acme"},
        "spec": {"domain": "acme.example", "dns": {"mtaSts": ASKED, "tlsRpt": WANT.tls_rpt}},
        "status": {"bindings": [{"namespace": "mail", "mta": "edge", "conditions": [accepted]}]},
    }
    mta = {"spec": {"hostname": HOST}, "status": {"provenHosts": [HOST]}}
    want = want_of(raw, lambda *_: house_of(mta), b"salt", is_proven=False)
    assert want is not None
    assert (want.policy, want.tls_rpt) == (PROVEN, WANT.tls_rpt)


# -- TLSA


KEYS = ("3 1 1 " + "a" * 64, "3 1 1 " + "b" * 64)
PLACE = "_25._tcp.mx.example.org"


@pytest.mark.parametrize(
    ("texts", "seen", "state"),
    [
        (KEYS, {PLACE: KEYS}, "ok"),
        (KEYS, {PLACE: (*KEYS, "3 1 1 " + "c" * 64)}, "ok"),
        (KEYS, {PLACE: KEYS[:1]}, "differs"),
        (KEYS, {PLACE: ()}, "missing"),
        (KEYS, {}, "unknown"),
        ((), {PLACE: KEYS}, "unknown"),
    ],
)
def test_every_key_that_may_be_served_has_to_stand_in_dns(
    texts: tuple[str, ...], seen: dict[str, tuple[str, ...]], state: str
) -> None:
    want = Want("acme.example", hosts=(HOST,), tlsa=((PLACE, texts),))
    found = rows(want, RIGHT._replace(tlsa=seen))
    [row] = found.tlsa
    assert str(row.state) == state
    assert [one["state"] for one in status.fields(want, found)["dnsRecords"] if one["purpose"] == "dane"] == [state]


def test_the_records_are_those_of_the_certificates_at_mx_listeners() -> None:
    mta = {
        "spec": {
            "hostname": HOST,
            "listeners": [
                {"role": "MX", "tls": {"certRefs": [{"name": "mx"}, {"name": "mx"}]}},
                {"role": "Internal", "tls": {"certRefs": [{"name": "inside"}]}},
            ],
        }
    }
    cert = {"status": {"tlsa": [{"name": PLACE, "text": KEYS[0]}, {"name": "_465._tcp.mx.example.org", "text": "x"}]}}
    assert certificates_of(mta) == ["mx"]
    assert house_of(mta, [cert]).tlsa == KEYS[:1]
    accepted = {"type": "Accepted", "status": "True", "reason": "Accepted"}
    raw = {
        "metadata": {"namespace": "mail", "name": "acme"},
        "spec": {"domain": "acme.example", "dns": {"dane": True}},
        "status": {"bindings": [{"namespace": "mail", "mta": "edge", "conditions": [accepted]}]},
    }
    want = want_of(raw, lambda *_: house_of(mta, [cert]), b"salt", is_proven=False)
    assert want is not None
    assert want.tlsa == ((PLACE, KEYS[:1]),)
