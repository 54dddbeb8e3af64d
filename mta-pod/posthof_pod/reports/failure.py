"""The report about one message that failed: to domain owners who ask for it (`ruf`), where the AccessPolicy lets us
(RFC 9991, in the form of RFC 5965 and 6591).

Rules
- Off unless `failureReports` says so. MOST an hour for each domain and worker: a flood of forgeries is told by ten.
- The header of the message is in it, no body; the receivers' addresses in it (To, Cc, Bcc, Delivered-To) are not.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable

from posthof_pod import fields
from posthof_pod.mailauth import canon
from posthof_pod.mailauth.dmarc.row import Failure
from posthof_pod.mailauth.dns import Lookup
from posthof_pod.reports.dmarc import GENERATOR, Reporter, allowed

MOST = 10  # an hour and domain
DOMAINS = 10_000  # remembered
_HIDDEN = (b"to", b"cc", b"bcc", b"delivered-to", b"x-original-to", b"envelope-to")
_LARGEST = 32 * 1024  # octets of the header


class Pace:
    """How many reports each domain got in this hour."""

    def __init__(self) -> None:
        self._hour = 0
        self._told: dict[str, int] = {}

    def may_tell(self, domain: str, now: float) -> bool:
        hour = int(now // 3600)
        if hour != self._hour or len(self._told) >= DOMAINS:
            self._hour, self._told = hour, {}
        self._told[domain] = self._told.get(domain, 0) + 1
        return self._told[domain] <= MOST


async def compose(
    failed: Failure,
    reporter: Reporter,
    lookup: Lookup,
    send: Callable[[str, tuple[str, ...], bytes], Awaitable[object]],
) -> bool:
    """The report, on its way. False: nobody may have it."""
    to = await allowed(failed.published, lookup, failed.published.ruf)
    if not to:
        return False
    await send(reporter.contact, to, message(failed, reporter, to, time.time()))
    return True


def message(failed: Failure, reporter: Reporter, to: tuple[str, ...], now: float) -> bytes:
    """The whole mail."""
    head = b"".join(raw for name, raw in canon.fields(failed.head) if name not in _HIDDEN)[:_LARGEST]
    identity = hashlib.sha256(failed.head + str(now).encode()).hexdigest()[:24]
    boundary = f"=_{identity}"
    date = fields.date_text(int(now))
    opening = [
        f"From: <{fields.one_line(reporter.contact)}>",
        "To: " + ",\r\n ".join(f"<{fields.one_line(one)}>" for one in to),
        f"Subject: DMARC failure report about {failed.author}",
        f"Date: {date}",
        f"Message-ID: <{identity}@{reporter.hostname}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=feedback-report; boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=utf-8",
        "",
        f"{reporter.hostname} got a message with {failed.author} in its From field",
        "that is not proven to be of that domain (RFC 9991).",
        "",
        f"--{boundary}",
        "Content-Type: message/feedback-report",
        "",
        "Feedback-Type: auth-failure",
        f"User-Agent: {GENERATOR}",
        "Version: 1",
        f"Original-Mail-From: <{fields.one_line(failed.sender, 320)}>",
        f"Arrival-Date: {date}",
        f"Reported-Domain: {failed.author}",
        f"Source-IP: {failed.source}",
        "Auth-Failure: dmarc",
        f"Identity-Alignment: {', '.join(failed.aligned) or 'none'}",
        f"Delivery-Result: {failed.delivery}",
        "",
    ]
    closing = f"\r\n--{boundary}\r\nContent-Type: text/rfc822-headers; charset=utf-8\r\n\r\n".encode()
    start = "\r\n".join(opening).encode("utf-8", "replace")
    return start + failed.results + closing + head + f"\r\n--{boundary}--\r\n".encode()
