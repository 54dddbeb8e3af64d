"""Aggregate reports that others send us, read: from the mail, an attachment, gzip, zip or plain XML (RFC 9990, 7489).

Rules
- Bounded: MOST_BYTES after decompression, MOST_RECORDS, MOST_DEPTH. No document type, so no entity but the five of
  XML: bombs of any sort are a BadReport, not a load.
- Nothing but BadReport is raised for what stands in it. Elements nobody knows are passed over; empty ones are empty.
"""

from __future__ import annotations

import email
import email.policy
import io
import zipfile
import zlib
from collections.abc import Iterator
from email.message import EmailMessage
from typing import NamedTuple
from xml.parsers import expat

MOST_BYTES = 64 * 1024 * 1024
MOST_RECORDS = 200_000
MOST_DEPTH = 12
MOST_TEXT = 4096  # characters of one element
_XML = ("text/xml", "application/xml", "application/gzip", "application/x-gzip", "application/zip")
_MORE = ("application/x-zip-compressed", "application/octet-stream")


class BadReport(ValueError):
    """It is no aggregate report; the text says why."""


class Record(NamedTuple):
    """What the reporter saw of one client."""

    source: str
    messages: int
    disposition: str
    dkim: str
    spf: str
    author: str  # header_from
    sender: str  # envelope_from
    reasons: tuple[str, ...]
    results: tuple[str, ...]  # "dkim=pass example.org/selector", "spf=fail example.org"

    @property
    def is_aligned(self) -> bool:
        return "pass" in (self.dkim, self.spf)


class Received(NamedTuple):
    """One report."""

    organisation: str
    contact: str
    identity: str
    begin: int
    end: int
    domain: str
    policy: str
    records: tuple[Record, ...]

    @property
    def messages(self) -> int:
        return sum(one.messages for one in self.records)


def reports(content: bytes) -> list[Received]:
    """The reports in `content`: a mail (each attachment that is one), or the report itself. BadReport where there is
    none."""
    if content[:2] in (b"\x1f\x8b", b"PK") or content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        return [read(content)]
    found: list[Received] = []
    why = "there is no report in it"
    for attachment in _attachments(content):
        try:
            found.append(read(attachment))
        except BadReport as error:
            why = str(error)
    if not found:
        raise BadReport(why)
    return found


def _attachments(content: bytes) -> Iterator[bytes]:
    try:
        mail = email.message_from_bytes(content, policy=email.policy.SMTP)
        parts = list(mail.walk())[:100]
    except Exception as error:  # the standard library's parser raises what it pleases on broken mail
        raise BadReport("the mail cannot be read") from error
    for part in parts:
        if not isinstance(part, EmailMessage) or part.get_content_type() not in (*_XML, *_MORE):
            continue
        data = part.get_payload(decode=True)
        if isinstance(data, bytes) and data:
            yield data


def read(data: bytes) -> Received:
    """One report: XML, gzip or zip of it. BadReport."""
    if data[:2] == b"\x1f\x8b":
        data = _unzipped(data)
    elif data[:2] == b"PK":
        data = _from_zip(data)
    if len(data) > MOST_BYTES:
        raise BadReport("it is too large")
    reader = _Reader()
    reader.read(data)
    return reader.report()


def _unzipped(data: bytes) -> bytes:
    unzip = zlib.decompressobj(wbits=31)
    try:
        found = unzip.decompress(data, MOST_BYTES + 1)
    except zlib.error as error:
        raise BadReport(f"it is no gzip: {error}") from None
    if len(found) > MOST_BYTES:
        raise BadReport("it is too large when decompressed")
    return found


def _from_zip(data: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [one for one in archive.infolist() if one.filename.lower().endswith(".xml")]
            if len(names) != 1:
                raise BadReport(f"the zip holds {len(names)} XML files")
            if names[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadReport("the zip is compressed in a way that reports are not")
            with archive.open(names[0]) as file:
                found = file.read(MOST_BYTES + 1)
    except (
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        if isinstance(error, BadReport):
            raise
        raise BadReport(f"the zip cannot be read: {error}") from None
    if len(found) > MOST_BYTES:
        raise BadReport("it is too large when decompressed")
    return found


class _Reader:
    """Collects texts by their path while expat walks."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self._text: list[str] = []
        self._length = 0
        self._head: dict[str, str] = {}
        self._one: dict[str, list[str]] = {}
        self._records: list[Record] = []

    def read(self, data: bytes) -> None:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            parser.Parse(data, True)
        except BadReport:
            raise
        except (expat.ExpatError, LookupError, ValueError) as error:
            raise BadReport(f"it is no XML: {error}") from None

    def _refuse(self, *_: object) -> None:
        raise BadReport("it has a document type, which no report needs")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name.rpartition(":")[2])
        if len(self._path) > MOST_DEPTH:
            raise BadReport("it is nested too deep")
        if len(self._path) == 1 and self._path[0] != "feedback":
            raise BadReport(f"it is no feedback but {self._path[0][:40]}")
        self._text, self._length = [], 0

    def _characters(self, text: str) -> None:
        if self._length < MOST_TEXT:
            self._text.append(text[: MOST_TEXT - self._length])
            self._length += len(text)

    def _end(self, _: str) -> None:
        text = "".join(self._text).strip()
        path = "/".join(self._path[1:])
        if path == "record":
            self._end_record()
        elif path.startswith("record/"):
            self._one.setdefault(path[7:], []).append(text)
        elif text:
            self._head.setdefault(path, text)
        self._path.pop()
        self._text, self._length = [], 0

    def _end_record(self) -> None:
        if len(self._records) >= MOST_RECORDS:
            raise BadReport(f"it has more than {MOST_RECORDS} records")
        one, self._one = self._one, {}
        self._records.append(_record(one))

    def report(self) -> Received:
        head = self._head
        if "policy_published/domain" not in head:
            raise BadReport("it does not say which domain it is about")
        return Received(
            head.get("report_metadata/org_name", ""),
            head.get("report_metadata/email", ""),
            head.get("report_metadata/report_id", ""),
            _number(head.get("report_metadata/date_range/begin", "")),
            _number(head.get("report_metadata/date_range/end", "")),
            head["policy_published/domain"].lower(),
            head.get("policy_published/p", ""),
            tuple(self._records),
        )


def _record(one: dict[str, list[str]]) -> Record:
    def first(path: str) -> str:
        return one.get(path, [""])[0]

    domains = one.get("auth_results/dkim/domain", [])
    selectors = one.get("auth_results/dkim/selector", [])
    signed = one.get("auth_results/dkim/result", [])
    results = [
        f"dkim={signed[n] if n < len(signed) else ''} {domain}"
        + (f"/{selectors[n]}" if len(selectors) == len(domains) and selectors[n] else "")
        for n, domain in enumerate(domains)
    ]
    sent = one.get("auth_results/spf/result", [])
    results += [
        f"spf={sent[n] if n < len(sent) else ''} {domain}"
        for n, domain in enumerate(one.get("auth_results/spf/domain", []))
    ]
    return Record(
        first("row/source_ip"),
        _number(first("row/count")),
        first("row/policy_evaluated/disposition"),
        first("row/policy_evaluated/dkim"),
        first("row/policy_evaluated/spf"),
        first("identifiers/header_from"),
        first("identifiers/envelope_from"),
        tuple(text for text in one.get("row/policy_evaluated/reason/type", []) if text),
        tuple(results),
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
