"""A report as a message: multipart/report with words for people, fields for programs, and what was sent. Pure.

Rules of this file
- The envelope sender is null, NOTIFY is NEVER: nothing ever answers a report (RFC 3461 6.2, RFC 3834 2).
- Whatever a peer said, an address holds or the message contains, the structure stays: text is made harmless before it
  enters a field, and the boundary occurs in no part.
- What is sent back: only its header, unless delivery failed; then as RET asked: FULL up to FULL_MAX, HDRS the header.
  Without RET the message up to FULL_DEFAULT. A message that came with bare CR, bare LF or NUL is sent back as header:
  it could leave by BDAT alone (docs/decisions/0003-reports.md).
- The outer header is ASCII except for a UTF-8 address of the sender, so a report needs SMTPUTF8 only then; the inner
  parts use message/global-* (RFC 6533) where they hold UTF-8.
Sources: RFC 3464, RFC 3461 section 6, RFC 6522, RFC 6533, RFC 3834 section 3, RFC 5321 section 6.1.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from posthof_crds.engine import EngineConfig, Retry
from posthof_pod import fields
from posthof_pod.bounce import notice as words
from posthof_pod.bounce import who
from posthof_pod.bounce.who import Action, Concern, Notice
from posthof_pod.model import Body, Envelope, Notify, Origin, Outcome, Recipient, Status, TLSWish

FULL_MAX = (
    256 * 1024
)  # bytes of a message that RET=FULL gets back: what is larger is a blob and never in memory whole
FULL_DEFAULT = 50 * 1024  # the same without RET
DIAGNOSTIC = 1500  # characters of a reply in Diagnostic-Code

_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{1,250}>")
_STATUS = re.compile(r"[245](\.\d{1,3}\.\d{1,3})")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]+")
_UNCLEAN = re.compile(rb"[^\t\r\n -~]|[^\r\n]{999}")
_SUBJECTS = {
    Action.FAILED: "Not delivered",
    Action.DELAYED: "Not delivered yet",
    Action.RELAYED: "Handed on",
    Action.DELIVERED: "Delivered",
}


class Report(NamedTuple):
    """A message of our own, ready for the spool: Spool.settle(..., report=report)."""

    envelope: Envelope
    trace: bytes
    body: bytes


def reports(
    envelope: Envelope,
    outcomes: Sequence[Outcome],
    delayed: Collection[int] = (),
    *,
    trace: bytes,
    content: bytes,
    is_whole: bool,
    config: EngineConfig,
    retry: Retry,
    now: float,
    new_id: Callable[[], str],
) -> Report | None:
    """The report a try causes, None where it causes none; `who.told` and `build` in one.

    `trace` and `content` are the spool's: fields we added, and what came in. `content` may be the first
    fields.LIMIT bytes of it (`is_whole` False): of a blob no more is needed. `retry` is the destination's.
    """
    head = fields.block(content)
    notice = who.told(
        envelope,
        outcomes,
        delayed,
        double_bounce_to=who.double_bounce_address(config),
        is_automatic=bool(delayed) and who.is_automatic(head),
    )
    if notice is None:
        return None
    return build(
        notice,
        envelope,
        trace=trace,
        content=content,
        is_whole=is_whole,
        hostname=config.hostname,
        retry=retry,
        now=now,
        queue_id=new_id(),
    )


def wants_whole(notice: Notice, envelope: Envelope) -> bool:
    """Whether a report sends the message back whole, as far as the envelope tells: else its header is enough."""
    if notice.action is not Action.FAILED or envelope.has_binary or envelope.ret == "HDRS":
        return False
    if envelope.tls_wish == TLSWish.REQUIRED:
        return False  # RFC 8689 section 5: as if RET=HDRS had been given
    return envelope.size <= (FULL_MAX if envelope.ret == "FULL" else FULL_DEFAULT)


def build(
    notice: Notice,
    envelope: Envelope,
    *,
    trace: bytes,
    content: bytes,
    is_whole: bool,
    hostname: str,
    retry: Retry,
    now: float,
    queue_id: str,
) -> Report:
    """The report for `notice` about `envelope`. Parameters as in `reports`; `queue_id` will be the report's id."""
    head = trace + fields.block(content)
    whole = trace + content if is_whole and wants_whole(notice, envelope) and _is_sendable(content) else None
    until = envelope.arrived + (retry.lifetime if envelope.sender else retry.bounce_lifetime)
    status = _status_part(notice, envelope, hostname=hostname, until=until, now=now)
    facts = words.Facts(
        hostname=hostname,
        subject=_decoded(fields.value(head, b"subject")),
        date=fields.one_line(fields.value(head, b"date").decode("ascii", "replace"), 60),
        until=until,
        now=now,
        returned="its header" if whole is None else "the message itself",
    )
    text = words.write(notice, envelope, facts).replace("\n", "\r\n").encode("utf-8")
    parts = (_text_part(text), status, _header_part(head) if whole is None else _message_part(whole, head))
    message_id = f"<{who.DOUBLE if notice.is_double else ''}{queue_id}@{hostname}>"
    body = _assembled(parts, _outer(notice, head, message_id, hostname, now), queue_id)
    sealed = Envelope(
        id=queue_id,
        sender="",
        recipients=(Recipient(notice.to, notify=int(Notify.NEVER)),),
        arrived=now,
        size=len(body),
        body=int(Body.SEVENBIT if body.isascii() else Body.EIGHTBIT),
        smtputf8=not notice.to.isascii(),
        origin=int(Origin.REPORT),
        message_id=message_id,
        tls_wish=envelope.tls_wish if envelope.tls_wish == TLSWish.REQUIRED else 0,  # RFC 8689 section 5
    )
    return Report(sealed, _received(hostname, queue_id, now), body)


def _received(hostname: str, queue_id: str, now: float) -> bytes:
    return f"Received: by {hostname} (Posthof)\r\n\tid {queue_id};\r\n\t{fields.date_text(int(now))}\r\n".encode()


# -------------------------------------------------------------------- the outer message


def _outer(notice: Notice, head: bytes, message_id: str, hostname: str, now: float) -> bytes:
    """The fields of the report itself, without those that name the boundary."""
    lines = [
        f"From: Mail Delivery System <mailer-daemon@{hostname}>\r\n".encode(),
        b"To: " + fields.path(notice.to) + b"\r\n",
        _subject(notice, fields.value(head, b"subject")),
        b"Date: " + fields.date(now) + b"\r\n",
        f"Message-ID: {message_id}\r\n".encode("ascii", "replace"),
        *_thread(head),
        b"Auto-Submitted: auto-replied\r\n",
        b"MIME-Version: 1.0\r\n",
    ]
    return b"".join(lines)


def _thread(head: bytes) -> list[bytes]:
    """In-Reply-To and References, so that a mail program shows the report beside the message (RFC 5322 3.6.4)."""
    ids = _MESSAGE_ID.findall(fields.value(head, b"message-id"))
    if not ids:
        return []
    before = _MESSAGE_ID.findall(fields.value(head, b"references"))
    if len(before) > 10:
        before = [before[0], *before[-9:]]  # the root and the nearest
    references = [*(one for one in before if one != ids[0]), ids[0]]
    return [b"In-Reply-To: " + ids[0] + b"\r\n", b"References: " + b"\r\n ".join(references) + b"\r\n"]


def _subject(notice: Notice, original: bytes) -> bytes:
    lead = "Double bounce" if notice.is_double else _SUBJECTS[notice.action]
    if not original:
        return f"Subject: {lead}\r\n".encode()
    text = fields.one_line(original.decode("utf-8", "replace"), 300)
    if text.isascii():  # encoded words stay as they are: a blank stands before the first
        return _folded("Subject", f"{lead}: {text}")
    return f"Subject: {lead}:\r\n {_encoded(text)}\r\n".encode("ascii")


def _encoded(text: str) -> str:
    """RFC 2047 encoded words, each within 75 characters and of whole characters, folded."""
    encoded: list[str] = []
    chunk = b""
    for character in text:
        octets = character.encode("utf-8")
        if len(chunk) + len(octets) > 42:
            encoded.append(f"=?utf-8?B?{base64.b64encode(chunk).decode()}?=")
            chunk = b""
        chunk += octets
    encoded.append(f"=?utf-8?B?{base64.b64encode(chunk).decode()}?=")
    return "\r\n ".join(encoded)


def _decoded(value: bytes) -> str:
    """A Subject as a person reads it; as it stands where its encoded words cannot be read."""
    text = fields.one_line(value.decode("utf-8", "replace"), 300)
    if "=?" not in text:
        return text
    from email.errors import HeaderParseError
    from email.header import decode_header, make_header

    try:
        return fields.one_line(str(make_header(decode_header(text))), 300)
    except (HeaderParseError, LookupError, ValueError):
        return text


def _assembled(parts: Sequence[bytes], outer: bytes, seed: str) -> bytes:
    """The parts behind their boundary, which is in none of them (RFC 2046 5.1.1)."""
    together = b"".join(parts)
    boundary = b"=_report_%08x" % zlib.crc32(together, zlib.crc32(seed.encode()))
    while boundary in together:
        boundary += b"_%08x" % zlib.crc32(boundary)
    line = b"--" + boundary
    return b"".join(
        (
            outer,
            b'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="' + boundary + b'"\r\n',
            b"" if together.isascii() else b"Content-Transfer-Encoding: 8bit\r\n",
            b"\r\nThis is a delivery report in MIME form.\r\n\r\n",
            *(line + b"\r\n" + part + b"\r\n" for part in parts),
            line + b"--\r\n",
        )
    )


# -------------------------------------------------------------------- the three parts


def _text_part(text: bytes) -> bytes:
    charset, encoding = (b"us-ascii", b"7bit") if text.isascii() else (b"utf-8", b"8bit")
    return (
        b"Content-Type: text/plain; charset=%b\r\nContent-Transfer-Encoding: %b\r\n"
        b"Content-Description: What happened\r\n\r\n%b" % (charset, encoding, text)
    )


def _status_part(notice: Notice, envelope: Envelope, *, hostname: str, until: float, now: float) -> bytes:
    """message/delivery-status (RFC 3464 2), or message/global-delivery-status for a UTF-8 address (RFC 6533)."""
    concerned = [envelope.recipients[one.outcome.recipient] for one in notice.concerns]
    is_global = not all(r.address.isascii() and r.orcpt.isascii() for r in concerned)
    lines = (
        _folded("Reporting-MTA", hostname, "dns"),
        _folded("Original-Envelope-Id", _ascii(envelope.envid, 300)),
        _folded("Received-From-MTA", _ascii(envelope.client_name, 300), "dns"),
        b"Arrival-Date: " + fields.date(envelope.arrived) + b"\r\n",
    )
    groups = [b"".join(lines)]
    groups += [_group(one, envelope, is_global=is_global, until=until, now=now) for one in notice.concerns]
    status = b"\r\n".join(groups)
    kind = b"message/global-delivery-status" if is_global else b"message/delivery-status"
    encoding = b"" if status.isascii() else b"Content-Transfer-Encoding: 8bit\r\n"
    return b"Content-Type: " + kind + b"\r\n" + encoding + b"Content-Description: For mail programs\r\n\r\n" + status


def _group(concern: Concern, envelope: Envelope, *, is_global: bool, until: float, now: float) -> bytes:
    """The fields of one recipient (RFC 3464 2.3)."""
    action, outcome = concern
    recipient = envelope.recipients[outcome.recipient]
    address = recipient.address
    lines: list[bytes] = []
    kind, _, original = recipient.orcpt.partition(";")
    if original and _ADDRESS_TYPE.fullmatch(kind):
        lines.append(_folded("Original-Recipient", fields.one_line(original, 600), kind))
    kind = "rfc822" if address.isascii() else "utf-8"
    lines.append(_folded("Final-Recipient", fields.one_line(address, 600), kind))
    lines.append(f"Action: {action}\r\nStatus: {status_code(concern)}\r\n".encode())
    name = _ascii(outcome.host, 300)
    name = name.partition("[")[0] or name
    lines.append(_folded("Remote-MTA", name, "x-unix" if name.startswith("/") else "dns"))
    said = words.reply(outcome)
    if said:
        kind = "smtp" if outcome.code and outcome.host else "x-posthof"
        said = fields.one_line(said, DIAGNOSTIC) if is_global else _ascii(said, DIAGNOSTIC)
        lines.append(_folded("Diagnostic-Code", said, kind))
    lines.append(b"Last-Attempt-Date: " + fields.date(now) + b"\r\n")
    lines.append(f"Final-Log-ID: {envelope.id}\r\n".encode("ascii", "replace"))
    if action is Action.DELAYED and until < 1e11:
        lines.append(b"Will-Retry-Until: " + fields.date(until) + b"\r\n")
    return b"".join(lines)


def status_code(concern: Concern) -> str:
    """The Status field (RFC 3463): the peer's own code where its class fits the action, else made to fit.

    What was given up after too long a time is 4.4.7, as RFC 3463 has it: abandoned, though it was never refused.
    """
    if concern.action is Action.FAILED and concern.outcome.status is Status.EXPIRED:
        return "4.4.7"
    first = {Action.FAILED: "5", Action.DELAYED: "4"}.get(concern.action, "2")
    found = _STATUS.fullmatch(concern.outcome.enhanced)
    if found is None:
        return first + ".0.0"
    return first + found[1]


def _header_part(head: bytes) -> bytes:
    """The message's header: text/rfc822-headers, or message/global-headers where it is UTF-8."""
    head = head.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
    if not head.endswith(b"\r\n"):
        head += b"\r\n"
    encoding = b""
    kind = b"text/rfc822-headers"
    if _UNCLEAN.search(head):
        if not head.isascii() and _is_utf8(head) and not _UNCLEAN.search(head.decode().encode("ascii", "ignore")):
            kind, encoding = b"message/global-headers", b"Content-Transfer-Encoding: 8bit\r\n"
        else:
            encoding = b"Content-Transfer-Encoding: quoted-printable\r\n"
            head = binascii.b2a_qp(head, istext=True).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return (
        b"Content-Type: " + kind + b"\r\n" + encoding + b"Content-Description: Header of the message\r\n\r\n" + head
    )


def _message_part(whole: bytes, head: bytes) -> bytes:
    """The message byte for byte: message/rfc822, or message/global where its header is UTF-8."""
    kind = b"message/rfc822" if head.isascii() or not _is_utf8(head) else b"message/global"
    encoding = b"" if whole.isascii() else b"Content-Transfer-Encoding: 8bit\r\n"
    return b"Content-Type: " + kind + b"\r\n" + encoding + b"Content-Description: The message\r\n\r\n" + whole


def _is_sendable(content: bytes) -> bool:
    """No NUL, no bare CR, no bare LF: it may stand inside a message that leaves by DATA."""
    ends = content.count(b"\r\n")
    return content.count(b"\n") == ends and content.count(b"\r") == ends and b"\0" not in content


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _ascii(text: str, limit: int) -> str:
    return fields.one_line(text, limit).encode("ascii", "backslashreplace").decode("ascii")


def _folded(name: str, value: str, kind: str = "") -> bytes:
    """A field folded at blanks into lines of about 76, none above 410 (RFC 5322 2.2.3); b"" for an empty value.

    `kind` is the type before the semicolon where the field has one (RFC 3464 2.1.2).
    """
    text = value.split()
    if not text:
        return b""
    lines: list[str] = []
    line = start = f"{name}: {kind};" if kind else name + ":"
    for word in text:
        while len(word) > 400:
            lines.append(line)
            line, word = " " + word[:400], word[400:]
        if len(line) + 1 + len(word) > 76 and (kind or line != start):
            lines.append(line)
            line = ""
        line += " " + word
    lines.append(line)
    return "\r\n".join(lines).encode("utf-8") + b"\r\n"
