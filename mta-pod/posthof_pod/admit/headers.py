"""The trace this house writes on top of a message, and what it needs to know of the header block.

Rules of this file
- `scan` and `received` run once for each message: together about 3 microseconds (tests/admit/test_headers_cost.py).
- The content itself is never changed: all that is added stands before it, as `trace`.
- A name a client gave for itself is written only where it cannot be read as anything else.
Sources: RFC 5321 section 4.4 and 6.3, RFC 3848 and RFC 6531 4.3 (with-types), RFC 8314 4.3 (the tls clause),
RFC 6409 8.2 and 8.3 (Date and Message-ID for submitters), RFC 5322 3.6.
"""

from __future__ import annotations

import functools
import re

import msgspec

from posthof_pod.fields import block, date, date_text, delivered_to, is_delivered_to, one_line, return_path
from posthof_pod.replies import Reply

__all__ = [
    "LOOP",
    "TOO_MANY_HOPS",
    "Scan",
    "block",
    "date",
    "delivered_to",
    "is_delivered_to",
    "missing",
    "new_message_id",
    "received",
    "return_path",
    "scan",
    "with_type",
]

TOO_MANY_HOPS = Reply(554, "5.4.6", "Too many hops: this message is going round in a loop")
LOOP = Reply(554, "5.4.6", "This message was delivered to this address before: it is going round in a loop")

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}|\[(?:[0-9.]{7,15}|IPv6:[0-9A-Fa-f:.]{2,45})\]")
_TLS_OPTIONAL = re.compile(rb"\ntls-required:[ \t]*no[ \t]*(?:\r\n|\Z)")
_BLANKS = (b" ", b"\t")
_UNSAFE = re.compile(r"[^A-Za-z0-9_. -]+")
_WORD = re.compile(r"[^A-Za-z0-9_.:\[\]-]+")


class Scan(msgspec.Struct, frozen=True, gc=False):
    """What the header block says. `message_id` with its angle brackets, "" where there is none."""

    hops: int  # Received fields
    message_id: str
    has_message_id: bool
    has_date: bool
    is_ascii: bool  # False: RFC 6532 headers, the next hop needs SMTPUTF8 (or they are raw 8-bit)
    has_tls_optional: bool = False  # TLS-Required: No (RFC 8689 section 5)


def scan(head: bytes) -> Scan:
    """One look at the header block (see fields.block), b"" for a message without one."""
    lower = b"\n" + head.lower()
    at = lower.find(b"\nmessage-id:")
    message_id = ""
    if at >= 0:
        end = head.find(b"\n", at + 11)
        message_id = str(head[at + 11 : end if end >= 0 else None], "utf-8", "replace").strip()
        if not message_id or head[end + 1 : end + 2] in _BLANKS:
            message_id = _folded_id(head, at + 11)
        if len(message_id) > 250 or not message_id.isprintable():
            message_id = one_line(message_id, 250)
    return Scan(
        lower.count(b"\nreceived:"),
        message_id,
        at >= 0,
        b"\ndate:" in lower,
        head.isascii(),
        b"\ntls-required:" in lower and _TLS_OPTIONAL.search(lower) is not None,
    )


def _folded_id(head: bytes, start: int) -> str:
    """The Message-ID where the line was folded before it, as some clients do with long ones."""
    lines = head[start:].split(b"\r\n")
    text = lines[0]
    for line in lines[1:]:
        if not line.startswith((b" ", b"\t")):
            break
        text += line
    return text.decode("utf-8", "replace").strip()


def with_type(*, is_extended: bool, is_tls: bool, is_authenticated: bool = False, is_utf8: bool = False) -> str:
    """The protocol word of a Received field (RFC 3848; RFC 6531 4.3 for UTF8SMTP, the MAIL command had SMTPUTF8)."""
    if not is_extended:
        return "SMTP"
    return ("UTF8SMTP" if is_utf8 else "ESMTP") + ("S" if is_tls else "") + ("A" if is_authenticated else "")


def received(
    *,
    helo: str,
    client: str,
    protocol: str,
    hostname: str,
    queue_id: str,
    now: float,
    tls: str = "",
    client_name: str = "",
    recipient: str = "",
) -> bytes:
    """The Received field for a message that came in now.

    `client` is the peer's IP address ("" where there is none), `client_name` its name where one is known (XCLIENT,
    reverse DNS), `protocol` a with-type, `tls` version and cipher as in
    "TLSv1.3 TLS_AES_256_GCM_SHA384" or the cipher alone. `recipient` is what RCPT TO named, and only where it was
    the only one: with more, each would read of the others (RFC 5321 4.4, 7.6).
    """
    first = _first_lines(helo, client, client_name, protocol, hostname)
    ends = _tls_clause(tls) if tls else ""
    if recipient and recipient.isprintable() and (recipient.isascii() or protocol.startswith("UTF8")):
        ends = f"\r\n\tfor <{recipient}>{ends}"
    return f"{first}{queue_id}{ends};\r\n\t{date_text(int(now))}\r\n".encode()


@functools.lru_cache(maxsize=4096)
def _first_lines(helo: str, client: str, client_name: str, protocol: str, hostname: str) -> str:
    """All that is the same for every message of a session."""
    literal = f"[IPv6:{client}]" if ":" in client else f"[{client}]"
    comment = ""
    if _NAME.fullmatch(helo):
        said = helo
    else:
        said = literal if client else "unknown"
        comment = f"HELO {_WORD.sub('?', helo)[:255]} " if helo else ""
    name = client_name + " " if client_name and _NAME.fullmatch(client_name) else ""
    tcp = f" ({comment}{name}{literal})" if client else ""
    return f"Received: from {said}{tcp}\r\n\tby {hostname} with {protocol}\r\n\tid "


@functools.lru_cache(maxsize=64)
def _tls_clause(tls: str) -> str:
    version, _, cipher = _UNSAFE.sub("-", tls)[:100].rpartition(" ")
    return f"\r\n\ttls {cipher} ({version})" if version else f"\r\n\ttls {cipher}"


def new_message_id(queue_id: str, hostname: str) -> str:
    """A Message-ID of our making: the queue id is unique for ever in one spool, the name in the world."""
    return f"<{queue_id}@{hostname}>"


def missing(found: Scan, *, queue_id: str, hostname: str, now: float) -> tuple[bytes, str]:
    """What a submitter left out, as fields, and the Message-ID the message has now (RFC 6409 8.2, 8.3).

    Not for mail from the world: there, what is missing stays missing (RFC 5321 6.4).
    """
    added = b""
    message_id = found.message_id
    if not found.has_date:
        added = b"Date: %b\r\n" % date(now)
    if not found.has_message_id:
        message_id = new_message_id(queue_id, hostname)
        added += b"Message-ID: %b\r\n" % message_id.encode("ascii", "replace")
    return added, message_id
