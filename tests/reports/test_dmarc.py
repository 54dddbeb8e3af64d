"""The aggregate report: what it says, who may have it, and reports of others read (RFC 9990)."""

from __future__ import annotations

import asyncio
import email
import email.policy
import gzip
import io
import zipfile
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from kit.zones import Zones
from posthof_pod.mailauth.dmarc.row import Published, Row
from posthof_pod.reports import dmarc, received
from posthof_pod.reports.dmarc import Means, Reporter
from posthof_pod.reports.received import BadReport, read, reports

VECTORS = Path(__file__).parents[1] / "vectors" / "dmarc-reports"
REPORTER = Reporter("mx.house.test", "House & Sons", "postmaster@house.test")
POLICY = Published(
    "a.example", "a.example", "reject", "", "quarantine", "r", "s", False, "0", ("mailto:d@a.example",)
)
ROW = Row(
    POLICY,
    "192.0.2.1",
    "quarantine",
    False,
    True,
    "a.example",
    "bounce.a.example",
    (("a.example", "s<1>", "fail"),),
    "bounce.a.example",
    "mfrom",
    "pass",
    (("local_policy", "because & so"),),
)


def made(rows: Counter[Row], to: tuple[str, ...] = ("d@a.example",)) -> bytes:
    return dmarc.report("a.example", rows, "2026-11-23", REPORTER, to=to).content


def test_what_is_written_can_be_read() -> None:
    other = msgspec.structs.replace(ROW, source="2001:db8::1", disposition="pass", overrides=())
    (found,) = reports(made(Counter({ROW: 3, other: 1})))
    assert (found.organisation, found.contact, found.domain) == ("House & Sons", "postmaster@house.test", "a.example")
    assert (found.begin, found.end, found.policy) == (1795392000, 1795478399, "reject")
    first, second = found.records
    assert (first.source, first.messages, first.disposition) == ("192.0.2.1", 3, "quarantine")
    assert (first.dkim, first.spf, first.reasons) == ("fail", "pass", ("local_policy",))
    assert first.results == ("dkim=fail a.example/s<1>", "spf=pass bounce.a.example")
    assert second.source == "2001:db8::1"


def test_the_mail_is_as_the_standard_wants_it() -> None:
    mail = email.message_from_bytes(made(Counter({ROW: 1})), policy=email.policy.SMTP)
    assert mail["Subject"].startswith("Report Domain: a.example Submitter: mx.house.test Report-ID: ")
    assert mail["Auto-Submitted"] == "auto-generated"
    (attachment,) = [part for part in mail.walk() if part.get_content_type() == "application/gzip"]
    name = attachment.get_filename()
    assert name is not None
    assert name.startswith("mx.house.test!a.example!1795392000!1795478399!")
    assert name.endswith(".xml.gz")
    text = gzip.decompress(attachment.get_payload(decode=True)).decode()  # type: ignore[arg-type] # bytes, decoded
    assert '<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">' in text
    assert "<discovery_method>treewalk</discovery_method>" in text
    assert "<np>quarantine</np>" in text
    assert "<pct>" not in text


def test_texts_of_strangers_end_no_element() -> None:
    evil = msgspec.structs.replace(ROW, signatures=(("</domain><x>\x00\ud800\ufffe&", "]]>", "fail"),))
    (found,) = reports(made(Counter({evil: 1})))
    assert found.records[0].results[0].startswith("dkim=fail </domain><x>&")


def test_reports_go_only_where_they_are_wanted() -> None:
    rua = ("mailto:d@a.example", "mailto:d@mail.a.example", "mailto:yes@else.example", "mailto:no@none.example")
    policy = msgspec.structs.replace(POLICY, rua=(*rua, "https://a.example/", "mailto:x@moved.example"))
    zones = Zones(
        {
            "_dmarc.a.example": [{"TXT": "v=DMARC1; p=reject"}],
            "a.example._report._dmarc.else.example": [{"TXT": "v=DMARC1"}],
            "a.example._report._dmarc.moved.example": [{"TXT": "v=DMARC1; rua=mailto:y@moved.example"}],
        }
    )
    found = asyncio.run(dmarc.allowed(policy, zones))
    assert found == ("d@a.example", "d@mail.a.example", "yes@else.example", "y@moved.example")


def test_a_day_becomes_a_report_for_each_domain() -> None:
    other = msgspec.structs.replace(ROW, published=msgspec.structs.replace(POLICY, domain="b.example", rua=()))
    rows = Counter({msgspec.msgpack.encode(ROW): 2, msgspec.msgpack.encode(other): 5, b"\xc1 of another version": 1})
    sent: list[tuple[str, tuple[str, ...], bytes]] = []

    async def send(sender: str, recipients: tuple[str, ...], content: bytes) -> None:
        sent.append((sender, recipients, content))

    count = asyncio.run(dmarc.compose("2026-11-23", rows, Means(lambda: REPORTER, lambda: Zones({}), send)))
    assert count == len(sent) == 1
    assert sent[0][:2] == ("postmaster@house.test", ("d@a.example",))
    assert reports(sent[0][2])[0].messages == 2


# ---- reports of others


@pytest.mark.parametrize(
    ("name", "organisation", "domain", "messages"),
    [
        ("_example.com_1538204542_1538463818.xml", "", "example.com", 1),
        ("empty_reason.xml", "example.org", "example.com", 2),
        ("fastmail.com_example.com_1516060800_1516147199_102675056.xml.gz", "FastMail Pty Ltd", "indemed.com", 1),
        ("rfc9990-sample.xml", "Sample Reporter", "example.com", 123),
    ],
)
def test_reports_of_others_are_read(name: str, organisation: str, domain: str, messages: int) -> None:
    (found,) = reports((VECTORS / name).read_bytes())
    assert (found.organisation, found.domain, found.messages) == (organisation, domain, messages)


def test_every_vector_is_in_a_test() -> None:
    named = {"LICENSE", "invalid_xml.xml", "_example.com_1538204542_1538463818.xml", "empty_reason.xml"}
    named |= {"fastmail.com_example.com_1516060800_1516147199_102675056.xml.gz", "rfc9990-sample.xml"}
    assert {path.name for path in VECTORS.iterdir()} == named


def test_what_is_no_xml_says_where() -> None:
    with pytest.raises(BadReport, match=r"it is no XML: .*line 5"):
        reports((VECTORS / "invalid_xml.xml").read_bytes())


def test_a_zip_that_is_broken_in_an_unusual_way_is_no_report_and_no_fault() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.xml", "<feedback>" + "x" * 5000)
    broken = bytearray(file.getvalue())
    broken[50:80] = bytes(octet ^ 0xFF for octet in broken[50:80])
    with pytest.raises(BadReport):
        read(bytes(broken))


def test_a_zip_is_read() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("report.xml", (VECTORS / "rfc9990-sample.xml").read_bytes())
    assert read(file.getvalue()).messages == 123


LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<feedback><policy_published><domain>&b;</domain></policy_published></feedback>"""
OUTSIDE = b'<!DOCTYPE f SYSTEM "file:///etc/passwd"><feedback/>'


@pytest.mark.parametrize("bomb", [LAUGHS, OUTSIDE])
def test_a_document_type_is_refused(bomb: bytes) -> None:
    with pytest.raises(BadReport, match="document type"):
        read(bomb)


def test_what_grows_without_end_is_refused() -> None:
    with pytest.raises(BadReport, match="too large when decompressed"):
        read(gzip.compress(b"<feedback>" + b" " * (received.MOST_BYTES + 10)))
    with pytest.raises(BadReport, match="nested too deep"):
        read(b"<feedback>" + b"<a>" * 100_000)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x1f\x8b", b"PK\x03\x04", b"<html/>", b"<feedback/>", b"Subject: no\r\n\r\nhello\r\n", b"\xff" * 99],
)
def test_what_is_no_report_is_said(data: bytes) -> None:
    with pytest.raises(BadReport):
        reports(data)
