"""TLS reports (RFC 8460): from counted sessions to JSON, and to whom a domain wants it sent, by mail or HTTPS.

Rules
- One report for each domain and day, for the whole fleet; only where `_smtp._tls.<domain>` asks for it.
- By mail it is signed as all our mail is, and says TLS-Required: No: it must arrive just where TLS is broken
  (RFC 8460 section 3, RFC 8689). By HTTPS it is handed over once; what fails is told, and not tried again.
- Nothing of a message is in it: policies, hosts and counts.
"""

from __future__ import annotations

import asyncio
import base64
import calendar
import gzip
import hashlib
import re
import time
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from posthof_pod import fields
from posthof_pod.mailauth.dns import Lookup, LookupFailed
from posthof_pod.reports.dmarc import Reporter

LARGEST = 10 * 1024 * 1024  # octets of a compressed report that is sent
MOST_FAILURES = 1000  # kinds of failures of one policy in a report
MOST_TARGETS = 4
MEDIA = "application/tlsrpt+gzip"
_RECORD = re.compile(r"v=TLSRPTv1[ \t]*;[ \t]*rua[ \t]*=[ \t]*([^;]+)(?:;.*)?", re.DOTALL)


class Way(msgspec.Struct, frozen=True, array_like=True):
    """As deliver/tlsledger.py writes it."""

    kind: str
    mx: str = ""
    address: str = ""
    source: str = ""
    why: str = ""


class Row(msgspec.Struct, frozen=True, array_like=True):
    """As deliver/tlsledger.py writes it."""

    domain: str
    type: str
    text: tuple[str, ...]
    mx: tuple[str, ...]
    failure: Way | None = None


_decode = msgspec.msgpack.Decoder(Row).decode


class Means(NamedTuple):
    """What is needed from outside. `reporter`: None while no reports are wanted. `send`: sender, recipients, content;
    it returns when the mail is durable. `post`: hands a report to an https: URI, raises what fails."""

    reporter: Callable[[], Reporter | None]
    lookups: Callable[[], Lookup]
    send: Callable[[str, tuple[str, ...], bytes], Awaitable[object]]
    post: Callable[[str, bytes], Awaitable[object]]
    warned: Callable[[str], object]


async def compose(day: str, rows: Mapping[bytes, int], means: Means) -> int:
    """All reports of a day, on their way. Returns how many. Raises what `send` raises."""
    reporter = means.reporter()
    if reporter is None:
        return 0
    count = 0
    for domain, counted in by_domain(rows).items():
        targets = await wanted(domain, means.lookups())
        if not targets:
            continue
        identity = hashlib.sha256(f"tls {reporter.hostname} {domain} {day}".encode()).hexdigest()[:24]
        about = About(domain, calendar.timegm(time.strptime(day, "%Y-%m-%d")), identity)
        packed = await asyncio.to_thread(_packed, counted, about, reporter)
        if len(packed) > LARGEST:
            means.warned(f"the TLS report about {domain} is too large to be sent")
            continue
        addresses = tuple(one.removeprefix("mailto:") for one in targets if one.startswith("mailto:"))
        if addresses:
            await means.send(reporter.contact, addresses, message(about, packed, reporter, addresses))
        for uri in (one for one in targets if one.startswith("https:")):
            try:
                await means.post(uri, packed)
            except Exception as error:  # one domain's web server must not keep the others' reports back
                means.warned(f"the TLS report about {domain} could not be handed over: {error}")
        count += 1
    return count


class About(NamedTuple):
    """What a report is called by."""

    domain: str
    begin: int  # unix seconds
    identity: str


def by_domain(rows: Mapping[bytes, int]) -> dict[str, Counter[Row]]:
    """The rows of each domain. What cannot be read (an older version's) is left out."""
    found: dict[str, Counter[Row]] = defaultdict(Counter)
    for text, count in rows.items():
        try:
            row = _decode(text)
        except msgspec.DecodeError:
            continue
        found[row.domain][row] += count
    return dict(found)


# ---- who wants one


async def wanted(domain: str, lookup: Lookup) -> tuple[str, ...]:
    """Where the domain's reports go, as mailto: and https: URIs; () where none are wanted, or DNS does not say."""
    try:
        texts = await lookup.txt(f"_smtp._tls.{domain}")
    except LookupFailed:
        return ()
    return targets_of(texts)


def targets_of(texts: Sequence[bytes]) -> tuple[str, ...]:
    """The URIs of the one TLS-RPT record among TXT records (section 3); of several none counts."""
    ours = [text for text in texts if text.startswith(b"v=TLSRPTv1")]
    if len(ours) != 1:
        return ()
    match = _RECORD.fullmatch(ours[0].decode("ascii", "replace"))
    if match is None:
        return ()
    found: dict[str, None] = {}
    for part in match[1].split(","):
        uri = _uri(part.strip())
        if uri:
            found[uri] = None
    return tuple(found)[:MOST_TARGETS]


def _uri(text: str) -> str:
    scheme, colon, rest = text.partition(":")
    if not colon or not rest.isascii() or not rest.isprintable() or " " in rest:
        return ""
    if scheme.lower() == "mailto":
        address = urllib.parse.unquote(rest.partition("?")[0])
        is_address = "@" in address and address.isascii() and address.isprintable() and not set(address) & set('<> "')
        return f"mailto:{address}" if is_address else ""
    if scheme.lower() == "https" and rest.startswith("//"):
        parsed = urllib.parse.urlsplit(f"https:{rest}")
        return f"https:{rest}" if parsed.hostname and parsed.username is None else ""
    return ""


# ---- the report


def content(rows: Counter[Row], about: About, reporter: Reporter) -> dict[str, Any]:
    """Section 4.4, as what becomes JSON."""
    policies: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Counter[Way | None]] = defaultdict(Counter)
    for row, count in rows.items():
        policies[row.type, row.text, row.mx][row.failure] += count
    return {
        "organization-name": reporter.organisation,
        "date-range": {"start-datetime": _moment(about.begin), "end-datetime": _moment(about.begin + 86399)},
        "contact-info": reporter.contact,
        "report-id": about.identity,
        "policies": [_policy(about.domain, *policy, ways) for policy, ways in sorted(policies.items())],
    }


def _policy(
    domain: str, kind: str, text: tuple[str, ...], mx: tuple[str, ...], ways: Counter[Way | None]
) -> dict[str, Any]:
    policy: dict[str, Any] = {"policy-type": kind, "policy-domain": domain}
    if text:
        policy["policy-string"] = list(text)
    if mx:
        policy["mx-host"] = list(mx)
    failures = Counter({way: count for way, count in ways.items() if way is not None})
    made: dict[str, Any] = {
        "policy": policy,
        "summary": {
            "total-successful-session-count": ways[None],
            "total-failure-session-count": failures.total(),
        },
    }
    if failures:
        made["failure-details"] = [_failure(way, count) for way, count in failures.most_common(MOST_FAILURES)]
    return made


def _failure(way: Way, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {"result-type": way.kind, "failed-session-count": count}
    named = {
        "sending-mta-ip": way.source,
        "receiving-mx-hostname": way.mx,
        "receiving-ip": way.address,
        "failure-reason-code": way.why,
    }
    return found | {name: value for name, value in named.items() if value}


def _moment(when: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def _packed(rows: Counter[Row], about: About, reporter: Reporter) -> bytes:
    return gzip.compress(msgspec.json.encode(content(rows, about, reporter)), mtime=0)


# ---- the mail


def message(about: About, packed: bytes, reporter: Reporter, to: tuple[str, ...]) -> bytes:
    """Section 5.3: multipart/report of type tlsrpt."""
    domain, begin, identity = about
    name = f"{reporter.hostname}!{domain}!{begin}!{begin + 86399}!{identity}.json.gz"
    boundary = f"=_{identity}"
    head = [
        f"From: <{fields.one_line(reporter.contact)}>",
        "To: " + ",\r\n\t".join(f"<{fields.one_line(one)}>" for one in to),
        f"Subject: Report Domain: {domain}\r\n Submitter: {reporter.hostname}\r\n Report-ID: <{identity}>",
        f"Date: {fields.date_text(int(time.time()))}",
        f"Message-ID: <{identity}.{int(time.time())}@{reporter.hostname}>",
        f"TLS-Report-Domain: {domain}",
        f"TLS-Report-Submitter: {reporter.hostname}",
        "TLS-Required: No",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type="tlsrpt";\r\n\tboundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"A report (RFC 8460) about TLS with the mail servers of {domain}",
        f"as {reporter.hostname} found it on {time.strftime('%Y-%m-%d', time.gmtime(begin))} (UTC).",
        "",
        f"--{boundary}",
        f"Content-Type: {MEDIA}",
        "Content-Transfer-Encoding: base64",
        f'Content-Disposition: attachment;\r\n\tfilename="{name}"',
        "",
        "",
    ]
    body = base64.encodebytes(packed).replace(b"\n", b"\r\n")
    return "\r\n".join(head).encode("utf-8") + body + f"--{boundary}--\r\n".encode()
