"""TLS reports that others send us, read: from the mail, an attachment, gzip or plain JSON (RFC 8460 section 4).

Rules
- Bounded as received.py is: MOST_BYTES after decompression, MOST_POLICIES, MOST_FAILURES. A bomb is a BadReport.
- Nothing but BadReport is raised for what stands in it. Fields nobody knows are passed over; missing ones are empty.
"""

from __future__ import annotations

import email
import email.policy
import zlib
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any, NamedTuple

import msgspec

from posthof_pod.reports.received import BadReport

MOST_BYTES = 16 * 1024 * 1024
MOST_POLICIES = 10_000
MOST_FAILURES = 10_000
MOST_TEXT = 1000
_KINDS = ("application/tlsrpt+json", "application/tlsrpt+gzip", "application/json", "application/gzip")
_MORE = ("application/x-gzip", "application/octet-stream")


class Failure(NamedTuple):
    """How sessions failed."""

    kind: str
    sessions: int
    mx: str
    address: str  # of the MX host
    source: str  # of the sender
    why: str


class PolicyResult(NamedTuple):
    """What a reporter saw under one policy."""

    type: str
    domain: str
    successes: int
    failed: int
    failures: tuple[Failure, ...]


class TLSReport(NamedTuple):
    """One report."""

    organisation: str
    contact: str
    identity: str
    begin: str
    end: str
    policies: tuple[PolicyResult, ...]


def reports(content: bytes) -> list[TLSReport]:
    """The reports in `content`: a mail (each attachment that is one), or the report itself. BadReport: none."""
    if content[:2] == b"\x1f\x8b" or content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
        return [read(content)]
    found: list[TLSReport] = []
    why = "there is no report in it"
    for attachment in _attachments(content):
        try:
            found.append(read(attachment))
        except BadReport as error:
            why = str(error)
    if not found:
        raise BadReport(why)
    return found


def read(data: bytes) -> TLSReport:
    """One report: JSON, or gzip of it. BadReport."""
    if data[:2] == b"\x1f\x8b":
        data = _unzipped(data)
    if len(data) > MOST_BYTES:
        raise BadReport("it is too large")
    try:
        found = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadReport(f"it is no JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("policies"), list):
        raise BadReport("it has no policies")
    span = _dict(found, "date-range")
    return TLSReport(
        _text(found, "organization-name"),
        _text(found, "contact-info"),
        _text(found, "report-id"),
        _text(span, "start-datetime"),
        _text(span, "end-datetime"),
        tuple(_policy(one) for one in found["policies"][:MOST_POLICIES] if isinstance(one, dict)),
    )


def _policy(one: dict[str, Any]) -> PolicyResult:
    policy, summary = _dict(one, "policy"), _dict(one, "summary")
    details = one.get("failure-details")
    failures = details[:MOST_FAILURES] if isinstance(details, list) else []
    return PolicyResult(
        _text(policy, "policy-type"),
        _text(policy, "policy-domain"),
        _count(summary, "total-successful-session-count"),
        _count(summary, "total-failure-session-count"),
        tuple(
            Failure(
                _text(each, "result-type"),
                _count(each, "failed-session-count"),
                _text(each, "receiving-mx-hostname"),
                _text(each, "receiving-ip"),
                _text(each, "sending-mta-ip"),
                _text(each, "failure-reason-code"),
            )
            for each in failures
            if isinstance(each, dict)
        ),
    )


def _dict(of: dict[str, Any], name: str) -> dict[str, Any]:
    found = of.get(name)
    return found if isinstance(found, dict) else {}


def _text(of: dict[str, Any], name: str) -> str:
    found = of.get(name)
    text = found[:MOST_TEXT] if isinstance(found, str) else ""
    return "".join(c if c.isprintable() else " " for c in text)


def _count(of: dict[str, Any], name: str) -> int:
    found = of.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 1 << 62 else 0


def _unzipped(data: bytes) -> bytes:
    unzip = zlib.decompressobj(wbits=31)
    try:
        found = unzip.decompress(data, MOST_BYTES + 1)
    except zlib.error as error:
        raise BadReport(f"it is no gzip: {error}") from None
    if len(found) > MOST_BYTES:
        raise BadReport("it is too large when decompressed")
    return found


def _attachments(content: bytes) -> Iterator[bytes]:
    try:
        mail = email.message_from_bytes(content, policy=email.policy.SMTP)
        parts = list(mail.walk())[:100]
    except Exception as error:  # the standard library's parser raises what it pleases on broken mail
        raise BadReport("the mail cannot be read") from error
    for part in parts:
        if not isinstance(part, EmailMessage) or part.get_content_type() not in (*_KINDS, *_MORE):
            continue
        data = part.get_payload(decode=True)
        if isinstance(data, bytes) and data:
            yield data
