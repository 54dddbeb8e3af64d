"""Whatever strangers write in DNS, in headers and in reports: no parser raises anything but what it says, none takes
for ever, and nothing forged counts as proven."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import zipfile

from hypothesis import example, given, settings
from hypothesis import strategies as st

from kit.zones import Zones
from posthof_pod.mailauth import fromline, results
from posthof_pod.mailauth.canon import fields
from posthof_pod.mailauth.dmarc import discover, evaluate, parse
from posthof_pod.mailauth.dmarc.record import mailbox, uris
from posthof_pod.mailauth.spf import Identity, check
from posthof_pod.mailauth.spf.macro import Unreadable
from posthof_pod.mailauth.spf.record import parse as parse_spf
from posthof_pod.reports.journal import frames
from posthof_pod.reports.received import BadReport, reports

TERMS = st.sampled_from(
    [
        "all",
        "-all",
        "~all",
        "?all",
        "a",
        "mx",
        "ptr",
        "a/24",
        "a//64",
        "mx/8//8",
        "include:a.example",
        "include:b.example",
        "exists:%{i}.a.example",
        "redirect=a.example",
        "redirect=b.example",
        "exp=%{d}",
        "ip4:192.0.2.0/24",
        "ip6:2001:db8::/32",
        "ip4:1",
        "a:%{p}",
        "%{x}",
        "a:%{l1r-+=}.example",
        "include:%{o}",
        "ptr:%{d2}",
        "unknown=%%",
        "=x",
        ":",
        "/",
        "ip6:::/129",
        "mx:%{H}.a.example",
        "exists:%{",
        "ü",
        "a:" + "a" * 70 + ".example",
        "exists:" + "%{s}." * 40 + "example",
        "\x00",
    ]
)
SPF = st.lists(TERMS, max_size=12).map(lambda terms: " ".join(["v=spf1", *terms]))
TEXTS = st.text(max_size=60) | st.sampled_from(["", "@", "a@a.example", "<>", "a@b@c", "[192.0.2.1]", "." * 300])


@settings(max_examples=400, deadline=None)
@given(SPF, SPF, TEXTS, TEXTS, st.sampled_from(["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"]))
def test_spf_always_has_a_result_within_its_limits(one: str, other: str, helo: str, sender: str, client: str) -> None:
    table = Zones(
        {
            "a.example": [{"TXT": one}, {"A": "192.0.2.1"}, {"MX": [10, "b.example"]}],
            "b.example": [{"TXT": other}, {"AAAA": "2001:db8::1"}],
            "1.2.0.192.in-addr.arpa": [{"PTR": "a.example"}, {"PTR": "x" * 70 + ".example"}],
        }
    )
    for mailfrom in (sender, "x@a.example"):
        verdict = asyncio.run(check(Identity(client, helo, mailfrom), table, explain=True))
        assert verdict.result in ("none", "neutral", "pass", "fail", "softfail", "temperror", "permerror")
    assert len(table.asked) < 400


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_octets_are_an_spf_record_or_none(data: bytes) -> None:
    found = parse_spf(b"v=spf1 " + data)
    assert isinstance(found, Unreadable) or found.mechanisms is not None


TAGS = st.lists(
    st.sampled_from(
        [
            "p=reject",
            "p=none",
            "p=",
            "sp=reject",
            "np=reject",
            "psd=y",
            "psd=n",
            "psd=u",
            "t=y",
            "adkim=s",
            "aspf=s",
            "fo=1:d:s",
            "rua=",
            "v=DMARC1",
            "pct=0",
            "=",
            "ü=ü",
            "p=p=p",
            "rua=mailto:a@a.example!5m,x",
            "ruf=mailto:%0d%0a@a.example",
        ]
    ),
    max_size=8,
).map(lambda tags: "v=DMARC1;" + ";".join(tags))


@settings(max_examples=300, deadline=None)
@given(st.lists(TAGS, min_size=3, max_size=3), st.text("abc.-_", max_size=120))
def test_the_tree_walk_ends_and_only_an_organisations_own_is_aligned(records: list[str], prefix: str) -> None:
    author = f"{prefix.strip('.')}.a.example".lstrip(".")
    places = ("_dmarc.a.example", "_dmarc.example", f"_dmarc.{author}")
    table = Zones({name: [{"TXT": text}] for name, text in zip(places, records, strict=True)})
    found = asyncio.run(discover(author, table))
    assert len(table.asked) <= 8
    assert author == found.organisation or author.endswith(f".{found.organisation}")
    verdict = asyncio.run(evaluate(author, "evil.test", ["evil.test", "xa-example.test"], table))
    assert verdict.result != "pass"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.text(max_size=200))
def test_any_dmarc_record_and_uri_is_read(data: bytes, text: str) -> None:
    parse(data)
    parse(b"v=DMARC1;" + data)
    for uri in uris(text):
        address = mailbox(uri)
        assert "\r" not in address
        assert "\n" not in address


LINES = [
    *(b"From: a@a.example", b"from : b@b.example", b"From:", b" folded", b"\t", b"From: (", b'From: "x', b"To: x"),
    *(b"From a@c.example", b"\x00", b"From: a@a.example, b@b.example", b"From: =?utf-8?q?a=40b?= <x@d.example>"),
    *(b"From: x <a@a.example", b"Subject: \r bare", b"From: \xff", b"From: <@r:a@a.example>", b"X: \n y"),
]
HEADS = st.lists(st.sampled_from(LINES) | st.binary(max_size=80), max_size=8).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)


@settings(max_examples=500, deadline=None)
@given(HEADS)
@example(b"From: a@a.example\r\n" * 3)
def test_an_author_is_one_domain_of_the_only_from_field_or_nobody(head: bytes) -> None:
    found = fields(head)
    author = fromline.read(found, head)
    assert bool(author.domain) != bool(author.problem)
    if author.domain:
        (raw,) = [raw for name, raw in found if name == b"from"]
        assert author.address.rpartition("@")[2].encode().lower() in raw.lower()
        assert b"\x00" not in head


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=120), st.sampled_from([b"spf", b"dmarc"]))
def test_our_name_is_found_behind_any_comment(noise: str, method: bytes) -> None:
    inside = noise.replace("\\", "").replace("(", "").replace(")", "").replace("\r", "").replace("\n", "")
    raw = (
        b"Authentication-Results: ("
        + inside.encode("utf-8", "replace")
        + b") mx.example.org; "
        + method
        + b"=pass\r\n"
    )
    assert results.is_ours(raw, "mx.example.org")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["plain", "gzip", "zip", "mail", "xml"]))
def test_any_report_is_read_or_refused(data: bytes, form: str) -> None:
    if form == "gzip":
        data = gzip.compress(data)
    elif form == "xml":
        data = b"<feedback><policy_published><domain>" + data + b"</domain></policy_published></feedback>"
    elif form == "mail":
        data = b"Content-Type: application/gzip\r\nContent-Transfer-Encoding: base64\r\n\r\n" + data
    elif form == "zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("x.xml", data)
        data = file.getvalue()
    found = []
    with contextlib.suppress(BadReport):
        found = reports(data)
        assert found
    assert all(one.domain for one in found)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_journal_is_read_to_where_it_breaks(data: bytes) -> None:
    for row, count in frames(data):
        assert isinstance(row, bytes)
        assert isinstance(count, int)
