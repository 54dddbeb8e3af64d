"""TLS-RPT (RFC 8460): whom a report goes to, what stands in it, and reports of others read."""

import asyncio
import email
import email.policy
import gzip
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.zones import Zones
from posthof_crds.engine import TLSLevel
from posthof_pod.cli.reports import tls_lines
from posthof_pod.deliver import tlsledger
from posthof_pod.deliver.opening import Fault
from posthof_pod.model import Demand, Destination, DestinationKind, Host, PolicyType, TLSFault
from posthof_pod.reports import tlsreceived, tlsrpt
from posthof_pod.reports.dmarc import Reporter
from posthof_pod.reports.received import BadReport

REPORTER = Reporter("mx.house.test", "House & Sons", "postmaster@house.test")
DAY = "2026-11-23"


def direct(name):
    return Destination(f"direct:{name}", DestinationKind.DIRECT, name)


def counted(sessions):
    """Rows as a journal gives them: what the ledger counted, written and read."""
    ledger = tlsledger.Ledger()
    for destination, host, faults, is_success in sessions:
        ledger.session(destination, host, faults, source="192.0.2.9", is_success=is_success)
    return {msgspec.msgpack.encode(row): count for row, count in ledger.take().items()}


STS = Demand(
    TLSLevel.VERIFY,
    PolicyType.STS,
    "a.test",
    text=("version: STSv1", "mode: enforce", "mx: *.a.test", "max_age: 86400"),
    mx=("*.a.test",),
)
GOOD = Host("mx1.a.test", "192.0.2.1", 25, STS)
BAD = Host("mx2.a.test", "192.0.2.2", 25, STS)
ROWS = counted(
    [
        *[(direct("a.test"), GOOD, (), True)] * 7,
        *[(direct("a.test"), BAD, (Fault(TLSFault.EXPIRED, "it is old"),), False)] * 2,
        (direct("a.test"), Host("mx3.a.test", "192.0.2.3", 25), (), True),
        (direct("b.test"), Host("mx.b.test", "192.0.2.4", 25), (Fault(TLSFault.NO_STARTTLS, "no"),), False),
        (Destination("s", DestinationKind.SMARTHOST, "c.test"), GOOD, (), True),
    ]
)


def composed(rows, zones, *, broken=""):
    """(mails, posts, warnings) of a day."""
    mails, posts, warnings = [], [], []

    async def send(sender, to, content):
        mails.append((sender, to, content))

    async def post(uri, packed):
        if uri == broken:
            raise OSError("away")
        posts.append((uri, packed))

    means = tlsrpt.Means(lambda: REPORTER, lambda: Zones(zones), send, post, warnings.append)
    asyncio.run(tlsrpt.compose(DAY, rows, means))
    return mails, posts, warnings


def test_only_domains_that_ask_get_a_report_and_every_way_they_name():
    record = "v=TLSRPTv1; rua=mailto:tls@a.test,https://r.a.test/v1?x=1"
    mails, posts, warnings = composed(ROWS, {"_smtp._tls.a.test": [{"TXT": record}]})
    [(sender, to, content)] = mails
    assert (sender, to) == ("postmaster@house.test", ("tls@a.test",))
    [(uri, packed)] = posts
    assert uri == "https://r.a.test/v1?x=1"
    assert tlsreceived.read(packed) == tlsreceived.reports(content)[0]
    assert warnings == []


def test_the_report_counts_sessions_by_policy_and_by_what_failed():
    [(_, _, content)] = composed(ROWS, {"_smtp._tls.a.test": [{"TXT": "v=TLSRPTv1;rua=mailto:tls@a.test"}]})[0]
    [report] = tlsreceived.reports(content)
    assert (report.organisation, report.begin, report.end) == (
        "House & Sons",
        "2026-11-23T00:00:00Z",
        "2026-11-23T23:59:59Z",
    )
    none, sts = report.policies
    assert (none.type, none.successes, none.failed) == ("no-policy-found", 1, 0)
    assert (sts.type, sts.domain, sts.successes, sts.failed) == ("sts", "a.test", 7, 2)
    assert sts.failures == (
        tlsreceived.Failure("certificate-expired", 2, "mx2.a.test", "192.0.2.2", "192.0.2.9", "it is old"),
    )
    assert any("certificate-expired  mx2.a.test[192.0.2.2]" in line for line in tls_lines([report]))


def test_the_mail_is_as_the_standard_wants_it():
    [(_, _, content)] = composed(ROWS, {"_smtp._tls.a.test": [{"TXT": "v=TLSRPTv1; rua=mailto:t@a.test"}]})[0]
    mail = email.message_from_bytes(content, policy=email.policy.SMTP)
    assert mail.get_content_type() == "multipart/report"
    assert mail.get_param("report-type") == "tlsrpt"
    assert mail["TLS-Report-Domain"] == "a.test"
    assert mail["TLS-Required"] == "No"
    attached = mail.get_payload()[1]
    assert attached.get_content_type() == "application/tlsrpt+gzip"
    told = msgspec.json.decode(gzip.decompress(attached.get_payload(decode=True)))
    policy = told["policies"][1]["policy"]
    assert policy["policy-string"] == list(STS.text)
    assert policy["mx-host"] == ["*.a.test"]
    assert all(len(line) <= 998 for line in content.split(b"\r\n"))


def test_a_web_server_that_is_away_keeps_nothing_back():
    zones = {
        "_smtp._tls.a.test": [{"TXT": "v=TLSRPTv1; rua=https://a.test/x"}],
        "_smtp._tls.b.test": [{"TXT": "v=TLSRPTv1; rua=mailto:x@b.test"}],
    }
    mails, posts, warnings = composed(ROWS, zones, broken="https://a.test/x")
    assert (len(mails), posts, len(warnings)) == (1, [], 1)


@pytest.mark.parametrize(
    ("texts", "targets"),
    [
        (["v=TLSRPTv1; rua=mailto:a@b.test"], ("mailto:a@b.test",)),
        (["v=TLSRPTv1;rua=mailto:a%40b.test , https://c.test/"], ("mailto:a@b.test", "https://c.test/")),
        (["v=TLSRPTv1; rua=mailto:a@b.test; ext=1"], ("mailto:a@b.test",)),
        (["v=TLSRPTv1; rua=http://c.test/"], ()),
        (["v=TLSRPTv1; rua=https://user@c.test/"], ()),
        (["v=TLSRPTv1; rua=mailto:a b@c.test"], ()),
        (["v=TLSRPTv1; rua=mailto:a@b.test%0d%0aTo:x@y.test"], ()),
        (["v=TLSRPTv1"], ()),
        (["v=spf1 -all"], ()),
        (["v=TLSRPTv1; rua=mailto:a@b.test", "v=TLSRPTv1; rua=mailto:c@d.test"], ()),
        ([], ()),
    ],
)
def test_where_reports_go_is_read_strictly(texts, targets):
    assert tlsrpt.targets_of([text.encode() for text in texts]) == targets


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"policies": 1}',
        b"[" * 100_000,
        b'{"policies": [' + b"[" * 5000,
        gzip.compress(b"\0" * (tlsreceived.MOST_BYTES + 1)),
        gzip.compress(b"{}")[:10],
        b"\x1f\x8b",
        b"\xff\xfe",
    ],
)
def test_what_is_no_report_is_refused_whatever_it_weighs(data):
    with pytest.raises(BadReport):
        tlsreceived.reports(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=20,
)
_NAMES = st.sampled_from(["policy", "summary", "failure-details", "policy-type", "total-successful-session-count"])


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries({"policies": st.lists(st.dictionaries(_NAMES, _JSON, max_size=4), max_size=4) | _JSON}))
def test_any_json_is_read_or_refused(told):
    try:
        found = tlsreceived.read(msgspec.json.encode(told))
    except BadReport:
        return
    assert all(policy.successes >= 0 for policy in found.policies)
    assert list(tls_lines([found])) is not None


def test_the_ledger_is_bounded(monkeypatch):
    monkeypatch.setattr(tlsledger, "MOST", 3)
    ledger = tlsledger.Ledger()
    for number in range(10):
        ledger.policy_failed(f"{number}.test", "sts-policy-fetch-error", "x")
    ledger.policy_failed("0.test", "sts-policy-fetch-error", "x")
    taken = ledger.take()
    assert (len(taken), taken.total()) == (3, 4)
    assert ledger.take() == Counter()
