"""The DMARC aggregate report of one domain and day: from counted rows to XML and the mail around it (RFC 9990).

Rules
- The texts are pure; who may get reports about a domain says DNS (section 4).
- One report for each domain that publishes a policy and day, for the whole fleet. Where the policy changed during the
  day, the one most mail was judged by is told.
- What strangers wrote (domains, selectors) is escaped; nothing of a message but counts and identifiers is in it.
"""

from __future__ import annotations

import asyncio
import base64
import calendar
import gzip
import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple
from xml.sax.saxutils import escape

import msgspec

from posthof_pod import fields
from posthof_pod.mailauth.dmarc import discover
from posthof_pod.mailauth.dmarc.record import is_dmarc, mailbox, uris
from posthof_pod.mailauth.dmarc.row import Published, Row
from posthof_pod.mailauth.dns import Lookup, LookupFailed

GENERATOR = "Posthof"
NAMESPACE = "urn:ietf:params:xml:ns:dmarc-2.0"
MOST_RECORDS = 50_000  # in one report
LARGEST = 10 * 1024 * 1024  # octets of a compressed report that is sent
_decode = msgspec.msgpack.Decoder(Row).decode


class Reporter(NamedTuple):
    """Who reports."""

    hostname: str
    organisation: str
    contact: str  # address


class Means(NamedTuple):
    """What is needed from outside. `reporter`: None while no reports are wanted. `send`: sender, recipients, content;
    it returns when the mail is durable."""

    reporter: Callable[[], Reporter | None]
    lookups: Callable[[], Lookup]
    send: Callable[[str, tuple[str, ...], bytes], Awaitable[object]]


async def compose(day: str, rows: Mapping[bytes, int], means: Means) -> int:
    """All reports of a day, on their way. Returns how many. Raises what `send` raises."""
    reporter = means.reporter()
    if reporter is None:
        return 0
    count = 0
    for domain, counted in by_domain(rows).items():
        to = await allowed(published(counted), means.lookups())
        if not to:
            continue
        made = await asyncio.to_thread(report, domain, counted, day, reporter, to=to)
        if len(made.content) <= LARGEST:
            await means.send(reporter.contact, to, made.content)
            count += 1
    return count


class Report(NamedTuple):
    """One domain's, ready: a whole message without envelope."""

    domain: str
    recipients: tuple[str, ...]  # as rua names them; who of them may have it, `allowed` says
    content: bytes
    messages: int


def by_domain(rows: Mapping[bytes, int]) -> dict[str, Counter[Row]]:
    """The rows of each policy's domain. What cannot be read (an older version's) is left out."""
    found: dict[str, Counter[Row]] = defaultdict(Counter)
    for text, count in rows.items():
        try:
            row = _decode(text)
        except msgspec.DecodeError:
            continue
        found[row.published.domain][row] += count
    return dict(found)


def report(domain: str, rows: Counter[Row], day: str, reporter: Reporter, *, to: tuple[str, ...]) -> Report:
    """The message for one domain."""
    begin = calendar.timegm(time.strptime(day, "%Y-%m-%d"))
    identity = hashlib.sha256(f"{reporter.hostname} {domain} {day}".encode()).hexdigest()[:24]
    text = xml(domain, rows, begin, reporter, identity)
    return Report(domain, to, _message(_Day(domain, begin, identity), text, reporter, to), rows.total())


def published(rows: Counter[Row]) -> Published:
    """The policy most of the mail was judged by."""
    counts: Counter[Published] = Counter()
    for row, count in rows.items():
        counts[row.published] += count
    return counts.most_common(1)[0][0]


# ---- the XML


def xml(domain: str, rows: Counter[Row], begin: int, reporter: Reporter, identity: str) -> bytes:
    """Section 3.1 and appendix A."""
    policy = published(rows)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<feedback xmlns="{NAMESPACE}">',
        "<version>1.0</version>",
        "<report_metadata>",
        _tag("org_name", reporter.organisation),
        _tag("email", reporter.contact),
        _tag("report_id", identity),
        f"<date_range><begin>{begin}</begin><end>{begin + 86399}</end></date_range>",
        _tag("generator", GENERATOR),
        "</report_metadata>",
        "<policy_published>",
        _tag("domain", domain),
        "<discovery_method>treewalk</discovery_method>",
        _tag("p", policy.p),
        _tag("sp", policy.sp),
        _tag("np", policy.np),
        _tag("fo", policy.fo),
        _tag("adkim", policy.adkim),
        _tag("aspf", policy.aspf),
        _tag("testing", "y" if policy.is_testing else "n"),
        "</policy_published>",
    ]
    for row, count in rows.most_common(MOST_RECORDS):
        lines += _record(row, count)
    lines.append("</feedback>")
    return ("\n".join(line for line in lines if line) + "\n").encode()


def _record(row: Row, count: int) -> Iterable[str]:
    yield "<record><row>"
    yield _tag("source_ip", row.source)
    yield f"<count>{count}</count><policy_evaluated>"
    yield _tag("disposition", row.disposition)
    yield _tag("dkim", "pass" if row.dkim else "fail")
    yield _tag("spf", "pass" if row.spf else "fail")
    for kind, comment in row.overrides:
        yield f"<reason>{_tag('type', kind)}{_tag('comment', comment)}</reason>"
    yield "</policy_evaluated></row><identifiers>"
    yield _tag("header_from", row.author)
    yield _tag("envelope_from", row.sender)
    yield "</identifiers><auth_results>"
    for domain, selector, result in row.signatures:
        yield f"<dkim>{_tag('domain', domain)}{_tag('selector', selector)}{_tag('result', result)}</dkim>"
    scope = _tag("scope", row.spf_scope)
    domain = _tag("domain", row.spf_domain) or "<domain/>"  # the schema wants one
    yield f"<spf>{domain}{scope}{_tag('result', row.spf_result)}</spf>"
    yield "</auth_results></record>"


def _tag(name: str, text: str) -> str:
    """The element, "" where there is nothing to say."""
    clean = "".join(c for c in text if c >= " " and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff")
    return f"<{name}>{escape(clean[:1000])}</{name}>" if clean else ""


# ---- the mail


class _Day(NamedTuple):
    """What a report is called by."""

    domain: str
    begin: int  # unix seconds
    identity: str


def _message(about: _Day, text: bytes, reporter: Reporter, to: tuple[str, ...]) -> bytes:
    """Section 4.1: the report compressed, its name and subject as the standard writes them."""
    domain, begin, identity = about
    name = f"{reporter.hostname}!{domain}!{begin}!{begin + 86399}!{identity}.xml.gz"
    packed = base64.encodebytes(gzip.compress(text, mtime=0)).replace(b"\n", b"\r\n")
    boundary = f"=_{identity}"
    day = time.strftime("%Y-%m-%d", time.gmtime(begin))
    head = [
        f"From: <{fields.one_line(reporter.contact)}>",
        "To: " + ",\r\n\t".join(f"<{fields.one_line(one)}>" for one in to),
        f"Subject: Report Domain: {domain}\r\n Submitter: {reporter.hostname}\r\n Report-ID: {identity}",
        f"Date: {fields.date_text(int(time.time()))}",
        f"Message-ID: <{identity}.{int(time.time())}@{reporter.hostname}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/mixed; boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"A DMARC aggregate report (RFC 9990) about mail of {domain}",
        f"that {reporter.hostname} saw on {day} (UTC).",
        "",
        f"--{boundary}",
        "Content-Type: application/gzip",
        "Content-Transfer-Encoding: base64",
        f'Content-Disposition: attachment;\r\n\tfilename="{name}"',
        "",
        "",
    ]
    return "\r\n".join(head).encode("utf-8") + packed + f"--{boundary}--\r\n".encode()


# ---- who may have it


async def allowed(policy: Published, lookup: Lookup, wanted: Iterable[str] | None = None) -> tuple[str, ...]:
    """The addresses of `rua` (or of the URIs given) that may get reports about the domain: those of the same
    organisation, and those whose host agrees by a record of its own (section 4). A host that DNS cannot tell about
    gets none this time."""
    found: dict[str, None] = {}
    for uri in policy.rua if wanted is None else wanted:
        address = mailbox(uri)
        host = address.rpartition("@")[2].lower()
        if not address:
            continue
        try:
            for one in await _agreed(address, host, policy, lookup):
                found[one] = None
        except LookupFailed:
            continue
    return tuple(found)


async def _agreed(address: str, host: str, policy: Published, lookup: Lookup) -> tuple[str, ...]:
    if host == policy.domain or (await discover(host, lookup)).organisation == policy.organisation:
        return (address,)
    texts = [text for text in await lookup.txt(f"{policy.domain}._report._dmarc.{host}") if is_dmarc(text)]
    if len(texts) != 1:
        return ()
    instead = [
        part.partition("=")[2]
        for part in texts[0].decode("ascii", "replace").split(";")[1:]
        if part.partition("=")[0].strip().lower() == "rua"
    ]
    if not instead:
        return (address,)
    addresses = [mailbox(uri) for uri in uris(instead[0])]
    return tuple(one for one in addresses if one.rpartition("@")[2].lower() == host) or (address,)
