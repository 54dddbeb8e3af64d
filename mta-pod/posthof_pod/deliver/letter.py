"""A message made fit for one session: who cannot be reached there, how the content travels, what it must become.

Rules
- What the peer lacks is found before MAIL, and told per recipient: 5.6.7 for a non-ASCII address, 5.6.9 for a UTF-8
  header (RFC 6531 3.2 and 4.4), 5.3.4 for the size, 5.6.3 for a content that cannot be converted.
- A content that needs no change is the very object that was given.
- A signed content is changed only where it would be returned to its sender otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import NamedTuple, Protocol

from posthof_pod.deliver.convert import Signed, Unconvertible, convert, has_utf8_header
from posthof_pod.model import Body, Envelope, Outcome, Reason, Status, TLSWish
from posthof_pod.smtp.client import Transaction, is_sendable, rounds
from posthof_pod.smtp.extensions import Carriage, Extensions, Need, carriage

_REQUIRED = int(TLSWish.REQUIRED)
IN_LOOP = 262144  # bytes a conversion may have in the loop's thread; a larger one goes to another
AT_ONCE = 131072  # bytes: a content up to this is written in one piece, by BDAT together with its envelope; a peer
# that reads 220 bytes a second takes it within the time the dot has (RFC 5321 4.5.3.2.6)
PIECE = 65536  # bytes a write of a content that is not sent in one piece


class BodyReader(Protocol):
    """A content too large to hold: each `async for` begins again at its first byte."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class Outgoing(NamedTuple):
    """A message for one session."""

    envelope: Envelope
    recipients: tuple[int, ...]  # indices in envelope.recipients
    trace: bytes  # header lines to stand before the body
    body: bytes | BodyReader  # the content as it was received
    permit: Callable[[], bool | Awaitable[bool]]  # asked just before the dot; False drops the session without it
    resign: Callable[[bytes], bytes] | None = (
        None  # the trace for this content: a conversion breaks a signature of ours
    )


class Letter:
    """An Outgoing on its way through one session."""

    __slots__ = (
        "carriage",
        "has_reset",
        "is_behind",
        "is_plain",
        "left",
        "mail",
        "must_check_header",
        "outcomes",
        "size",
        "smtputf8",
        "text",
        "transaction",
    )

    def __init__(self, mail: Outgoing, size: int, way: Carriage) -> None:
        self.mail = mail
        self.text = mail.body  # converted, where it had to be
        self.size = size  # bytes of trace and text
        self.carriage = way
        self.smtputf8 = False
        self.must_check_header = False  # a UTF-8 header could stand there, and the peer must not get one
        self.left: list[tuple[int, ...]] = [mail.recipients]  # recipients of the transactions still to come
        self.outcomes: list[Outcome] = []
        self.transaction: Transaction | None = None  # the running one: its MAIL is written
        self.has_reset = False  # an RSET stands before that MAIL
        self.is_plain = False  # one recipient, a small content that is held, nothing to judge, convert or look up
        self.is_behind = False  # plain, and its MAIL, RCPT and DATA stand behind the dot of the message before

    @property
    def is_ready(self) -> bool:
        """Nothing needs to be read or converted before MAIL."""
        return not (self.carriage.need or self.must_check_header)

    def refuse(self, recipients: tuple[int, ...], reason: Reason, enhanced: str, text: str, peer: str) -> None:
        self.outcomes += [Outcome(n, Status.FAILED, reason, 0, enhanced, text, peer) for n in recipients]

    def refuse_all(self, reason: Reason, enhanced: str, text: str, peer: str) -> None:
        left, self.left = self.left, []
        for recipients in left:
            self.refuse(recipients, reason, enhanced, text, peer)


def plan(mail: Outgoing, offer: Extensions, peer: str, *, is_lmtp: bool) -> Letter:
    """What can be said without reading a content that is not held. `peer` names the host in outcomes."""
    envelope, recipients, trace, body, _, _ = mail
    if isinstance(body, bytes):
        size = len(trace) + len(body)
        is_ascii = body.isascii() and trace.isascii()
    else:
        size = len(trace) + body.size
        is_ascii = False  # not known; to a peer without 8BITMIME `prepare` looks
    way = carriage(offer, envelope.body, has_binary=envelope.has_binary, is_ascii=is_ascii)
    letter = Letter(mail, size, way)
    if is_lmtp and way.by_chunks and (way.need or not _is_binary(envelope)):
        letter.carriage = way = way._replace(by_chunks=False)  # its replies per recipient come after DATA everywhere
    is_plain = _has_plain_addresses(envelope, recipients)
    if not is_plain:
        _judge_addresses(letter, offer, peer)
    if envelope.tls_wish == _REQUIRED and not is_lmtp:
        is_plain = False
        if not offer.requiretls:
            text = "the message may only go to hosts that offer REQUIRETLS"
            letter.refuse_all(Reason.TLS_REQUIRED, "5.7.30", text, peer)
    if envelope.smtputf8:
        is_plain = False
        letter.smtputf8 = offer.smtputf8
        letter.must_check_header = not (offer.smtputf8 or is_ascii)
    if 0 < offer.size < size:
        is_plain = False
        _judge_size(letter, offer, peer)
    if offer.rcpt_max or offer.rcpt_domain_max or offer.mail_max:
        is_plain = False
        if letter.left:
            letter.left = rounds(envelope, letter.left[0], offer)
    if is_plain and size <= AT_ONCE and len(recipients) == 1 and not (is_lmtp or way.need or way.by_chunks):
        letter.is_plain = isinstance(body, bytes)
    return letter


def _is_binary(envelope: Envelope) -> bool:
    return envelope.has_binary or envelope.body == Body.BINARY


def _has_plain_addresses(envelope: Envelope, recipients: tuple[int, ...]) -> bool:
    """All of printable ASCII, as nearly always."""
    everyone = envelope.recipients
    if len(recipients) == 1:
        words = envelope.sender + everyone[recipients[0]].address
    else:
        words = "".join([envelope.sender, *[everyone[n].address for n in recipients]])
    return words.isascii() and words.isprintable()


def _judge_addresses(letter: Letter, offer: Extensions, peer: str) -> None:
    sender = letter.mail.envelope.sender
    if not is_sendable(sender):
        letter.refuse_all(Reason.SENDER_REFUSED, "5.1.7", "the sender's address holds a control character", peer)
    elif not (sender.isascii() or offer.smtputf8):
        text = "the sender's address is not ASCII and the host does not offer SMTPUTF8"
        letter.refuse_all(Reason.CONVERSION_FAILED, "5.6.7", text, peer)
    else:
        _judge_recipients(letter, offer, peer)


def _judge_recipients(letter: Letter, offer: Extensions, peer: str) -> None:
    everyone = letter.mail.envelope.recipients
    fit: list[int] = []
    for n in letter.mail.recipients:
        address = everyone[n].address
        if not is_sendable(address):
            letter.refuse((n,), Reason.RECIPIENT_REFUSED, "5.1.3", "the address holds a control character", peer)
        elif address.isascii() or offer.smtputf8:
            fit.append(n)
        else:
            text = "the address is not ASCII and the host does not offer SMTPUTF8"
            letter.refuse((n,), Reason.CONVERSION_FAILED, "5.6.7", text, peer)
    letter.left = [tuple(fit)] if fit else []
    is_ascii = letter.mail.envelope.sender.isascii() and all(everyone[n].address.isascii() for n in fit)
    letter.smtputf8 = not is_ascii


def _judge_size(letter: Letter, offer: Extensions, peer: str) -> None:
    text = f"the message has {letter.size} bytes and the host takes at most {offer.size}"
    letter.refuse_all(Reason.MESSAGE_REFUSED, "5.3.4", text, peer)


async def prepare(letter: Letter, offer: Extensions, peer: str) -> None:
    """Read, check and convert the content, so far as this peer needs it. Raises what the reader raises."""
    body = letter.mail.body
    if not isinstance(body, bytes):
        if not _is_binary(letter.mail.envelope) and await _is_ascii(body):
            letter.carriage = Carriage(letter.carriage.by_chunks, b"", Need.NOTHING)
            letter.must_check_header = False
            return
        body = await _gather(body)
    if letter.must_check_header and (not letter.mail.trace.isascii() or has_utf8_header(body)):
        text = "the header holds UTF-8 and the host does not offer SMTPUTF8"
        letter.refuse_all(Reason.CONVERSION_FAILED, "5.6.9", text, peer)
    letter.must_check_header = False
    need = letter.carriage.need
    if not need or not letter.left:
        return
    try:
        changed = await asyncio.to_thread(_changed, body, need) if len(body) > IN_LOOP else _changed(body, need)
    except Unconvertible as error:
        letter.refuse_all(Reason.CONVERSION_FAILED, "5.6.3", str(error), peer)
        return
    letter.text = changed
    if letter.mail.resign is not None:
        letter.mail = letter.mail._replace(trace=letter.mail.resign(changed))
    letter.size = len(letter.mail.trace) + len(changed)
    is_eightbit = offer.eightbit and not changed.isascii()
    letter.carriage = Carriage(letter.carriage.by_chunks, b" BODY=8BITMIME" if is_eightbit else b"", Need.NOTHING)
    if 0 < offer.size < letter.size:
        _judge_size(letter, offer, peer)


def _changed(content: bytes, need: Need) -> bytes:
    """The content converted. The other choice is to return it to its sender, so a signature must give way."""
    try:
        return convert(content, need, may_break_signatures=False)
    except Signed:
        return convert(content, need, may_break_signatures=True)


async def _is_ascii(body: BodyReader) -> bool:
    async for chunk in body:
        if not chunk.isascii():
            return False
    return True


async def _gather(body: BodyReader) -> bytes:
    return b"".join([chunk async for chunk in body])


async def pieces(letter: Letter) -> AsyncGenerator[bytes, None]:
    """Trace and content, in pieces of at most 64 KiB, or as the reader gives them."""
    if letter.mail.trace:
        yield letter.mail.trace
    text = letter.text
    if isinstance(text, bytes):
        for start in range(0, len(text), PIECE):
            yield text[start : start + PIECE]
        return
    chunks = aiter(text)
    try:
        async for chunk in chunks:
            if chunk:
                yield chunk
    finally:
        close = getattr(chunks, "aclose", None)  # a generator is closed here and now, not when it is collected
        if close is not None:
            await close()
