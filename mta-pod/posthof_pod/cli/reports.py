"""`posthof reports show PATH...`: what other houses report about our domains, as a table: DMARC aggregate reports,
and TLS reports (RFC 8460).

A PATH is a mail, its attachment (XML, JSON, gzip, zip), a folder of such files, or a Maildir; "-" is standard input.
Mail that brings reports is delivered like any other: to the mailbox that the domain's `rua` names.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from posthof_pod.fields import one_line
from posthof_pod.reports import tlsreceived
from posthof_pod.reports.received import MOST_BYTES, BadReport, Received, Record
from posthof_pod.reports.received import reports as read
from posthof_pod.reports.tlsreceived import TLSReport


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("reports", help="what other houses report about our domains")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    show = verbs.add_parser("show", help="read reports and print what they say")
    show.add_argument("paths", nargs="+", metavar="PATH", help='a mail, an attachment, a folder, a Maildir; "-"')
    show.add_argument("--domain", default="", help="only reports about this domain")
    show.add_argument("--json", action="store_true", help="print the answer as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status: 1 where no report was found."""
    found: list[Received] = []
    about_tls: list[TLSReport] = []
    for name, content in _contents(args.paths):
        try:
            about_tls += tlsreceived.reports(content)
            continue
        except BadReport:
            pass  # then it may be one about DMARC
        try:
            found += read(content)
        except BadReport as error:
            if not name.endswith("/"):
                print(f"{name}: {error}", file=sys.stderr)
    found = [one for one in found if args.domain.lower() in ("", one.domain)]
    about_tls = [one for one in about_tls if _is_about(one, args.domain.lower())]
    if args.json:
        print(msgspec.json.format(msgspec.json.encode([*found, *about_tls]), indent=2).decode())
    else:
        for line in (*lines(found), *tls_lines(about_tls)):
            print(line)
    return 0 if found or about_tls else 1


def _is_about(report: TLSReport, domain: str) -> bool:
    return not domain or any(policy.domain.lower() == domain for policy in report.policies)


def tls_lines(found: Iterable[TLSReport]) -> Iterator[str]:
    """For people: by domain and policy; what failed under it."""
    for one in sorted(found, key=lambda report: report.begin):
        for policy in one.policies:
            about = f"{policy.domain} {policy.type}: {policy.successes} sessions with TLS, {policy.failed} without"
            yield one_line(f"{one.begin[:10]}  {one.organisation or one.contact}  {about}", 400)
            for failure in sorted(policy.failures, key=lambda each: -each.sessions):
                place = f"{failure.mx}[{failure.address}]" if failure.mx or failure.address else "no host"
                yield one_line(f"    {failure.sessions:7}  {failure.kind}  {place}  {failure.why}", 400)


def _contents(paths: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Of a folder only what is a report is told: its name ends with a slash here."""
    for path in paths:
        if path == "-":
            yield path, sys.stdin.buffer.read(MOST_BYTES)
            continue
        try:
            files = sorted(one for one in Path(path).rglob("*") if one.is_file()) if Path(path).is_dir() else None
            if files is None:
                yield path, Path(path).read_bytes()
                continue
            for file in files:
                if file.stat().st_size <= MOST_BYTES:
                    yield f"{file}/", file.read_bytes()
        except OSError as error:
            print(f"{path}: {error.strerror}", file=sys.stderr)


def lines(found: Iterable[Received]) -> Iterator[str]:
    """For people: by domain, and in it by reporter; what is not aligned first, because it asks for something."""
    by_domain: dict[str, list[Received]] = defaultdict(list)
    for one in found:
        by_domain[one.domain].append(one)
    for domain, reports in sorted(by_domain.items()):
        total = sum(one.messages for one in reports)
        good = sum(record.messages for one in reports for record in one.records if record.is_aligned)
        yield f"{one_line(domain)}: {total} messages, {good} proven to be its own, {total - good} not"
        for one in sorted(reports, key=lambda report: report.begin):
            yield f"  {_period(one)}  {one_line(one.organisation or one.contact)}  p={one_line(one.policy)}"
            for record in sorted(one.records, key=lambda record: (record.is_aligned, -record.messages)):
                yield "    " + _row(record)


def _period(one: Received) -> str:
    begin, end = (time.strftime("%Y-%m-%d", time.gmtime(moment)) for moment in (one.begin, one.end))
    return begin if begin == end else f"{begin}..{end}"


def _row(record: Record) -> str:
    why = f" ({', '.join(record.reasons)})" if record.reasons else ""
    told = "; ".join(record.results)
    text = (
        f"{record.messages:7}  {record.source:39}  dkim={record.dkim:4} spf={record.spf:4}  {record.disposition}{why}"
    )
    return one_line(f"{text}  {told}", 400)
