"""The client's half of SMTP and LMTP as values: what to say, and what the answers mean. No socket, clock or await.

Rules
- A verdict is per recipient. Only the reply to the dot (or to BDAT LAST) makes one RELAYED; what has no reply there
  is UNCERTAIN, and everything lost before is DEFERRED.
- Replies count in order, as far as they came: a connection that breaks between two RCPTs leaves the first verdict.
- A reply of the wrong kind (250 to DATA, 354 to MAIL) is a broken peer, never a yes.
- 421 anywhere ends the session; whoever had no verdict yet gets this one (RFC 5321 3.8).
- Commands carry no byte that could end a line early: an address with a control character is refused here.
Sources: RFC 5321 section 4, RFC 2033 (LMTP), RFC 2920, RFC 3030, RFC 3461, RFC 6531, RFC 6533, RFC 3207.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from posthof_crds.engine import TLSLevel
from posthof_pod.model import Envelope, Notify, Outcome, Reason, Status, TLSWish
from posthof_pod.smtp.data import dot_line
from posthof_pod.smtp.extensions import HELO_ONLY, Extensions, parse_extensions
from posthof_pod.smtp.replyline import Broken, PeerReply, enhanced_code

# --- greeting, EHLO, STARTTLS


class Refused(Exception):
    """The session cannot come about. `code` is 0 where no reply of the peer said so."""

    def __init__(self, reason: Reason, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.code = code
        self.enhanced = enhanced
        self.text = text

    @classmethod
    def by(cls, reason: Reason, reply: PeerReply) -> Refused:
        return cls(reason, reply.code, reply.enhanced, str(reply))


class Ask(NamedTuple):
    """Say this and wait for one reply. An empty command waits for the banner; `is_tls`: no bytes, a TLS handshake."""

    step: str  # for the log and the timeout's text
    command: bytes = b""
    is_tls: bool = False


BANNER = Ask("banner")
HANDSHAKE = Ask("TLS handshake", is_tls=True)
STARTTLS = Ask("STARTTLS", b"STARTTLS\r\n")

Dialogue = Generator[Ask, PeerReply, Extensions]
"""Yields what to ask, is sent the reply (any PeerReply after HANDSHAKE), returns what the peer offers at last."""


@dataclass(frozen=True, slots=True)
class Hello:
    """How a session begins."""

    name: str  # our name for EHLO
    level: TLSLevel = TLSLevel.NONE
    is_lmtp: bool = False
    is_encrypted: bool = False  # TLS from the first byte, or a socket of this machine that needs none


def introduce(hello: Hello) -> Dialogue:
    """Banner, EHLO (HELO where the peer does not know it), STARTTLS by level, EHLO again. Raises Refused, Broken."""
    banner = yield BANNER
    if banner.code >= 400:
        raise Refused.by(Reason.GREETING_REFUSED, banner)
    if banner.code >= 300:
        raise Broken(f"the greeting is {banner}")
    offer = yield from _hello(hello)
    if hello.is_encrypted or hello.level is TLSLevel.NONE:
        return offer
    must = hello.level is not TLSLevel.MAY
    if not offer.starttls:
        if must:
            raise Refused(Reason.TLS_REQUIRED, 0, "4.7.4", "TLS is required here and the host does not offer it")
        return offer
    reply = yield STARTTLS
    if reply.code != 220:
        if reply.code == 421 or must:
            raise Refused(Reason.TLS_REQUIRED, reply.code, "4.7.4", f"TLS is required here, STARTTLS got: {reply}")
        return offer
    yield HANDSHAKE
    return (yield from _hello(hello))  # what was offered in plain text is forgotten (RFC 3207 4.2)


def _hello(hello: Hello) -> Dialogue:
    name = hello.name.encode("ascii", "replace")
    verb = "LHLO" if hello.is_lmtp else "EHLO"
    reply = yield Ask(verb, b"%b %b\r\n" % (verb.encode(), name))
    if reply.code // 100 == 2:
        return parse_extensions(reply)
    if reply.code >= 500 and not hello.is_lmtp:
        reply = yield Ask("HELO", b"HELO %b\r\n" % name)  # RFC 5321 3.2
        if reply.code // 100 == 2:
            return HELO_ONLY
    if reply.code < 400:
        raise Broken(f"{verb} got {reply}")
    raise Refused.by(Reason.EHLO_REFUSED, reply)


# --- MAIL, RCPT

_REQUIRED = int(TLSWish.REQUIRED)

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def is_sendable(address: str) -> bool:
    """No byte in it could end the command or the line. The null sender is sendable."""
    return address.isprintable() or not _CONTROL.search(address)


def envelope_commands(
    envelope: Envelope, recipients: Sequence[int], offer: Extensions, *, size: int, parameter: bytes, smtputf8: bool
) -> list[bytes]:
    """MAIL and the RCPTs, each with its CRLF. `parameter` is the BODY parameter of the Carriage, `size` in bytes."""
    mail = b"MAIL FROM:<%b>" % envelope.sender.encode()
    if offer.has_size:
        mail = b"%b SIZE=%d%b" % (mail, size, parameter)
    elif parameter:
        mail += parameter
    if smtputf8:
        mail += b" SMTPUTF8"
    if envelope.tls_wish == _REQUIRED and offer.requiretls:
        mail += b" REQUIRETLS"
    if offer.dsn:
        if envelope.ret:
            mail += b" RET=" + envelope.ret.encode("ascii", "replace")
        if envelope.envid:
            mail += b" ENVID=" + xtext(envelope.envid).encode()
        return [mail + b"\r\n", *[_rcpt_with_dsn(envelope, n) for n in recipients]]
    everyone = envelope.recipients
    return [mail + b"\r\n", *[b"RCPT TO:<%b>\r\n" % everyone[n].address.encode() for n in recipients]]


def plain_commands(envelope: Envelope, recipient: int, offer: Extensions, size: int, parameter: bytes) -> bytes:
    """MAIL, RCPT and DATA for one recipient in one piece: what `envelope_commands` says where nothing is special."""
    to = envelope.recipients[recipient]
    if offer.dsn and (to.notify or to.orcpt or envelope.ret or envelope.envid):
        commands = envelope_commands(envelope, (recipient,), offer, size=size, parameter=parameter, smtputf8=False)
        return b"".join(commands) + b"DATA\r\n"
    if offer.has_size:
        parameter = b" SIZE=%d%b" % (size, parameter)
    words = (envelope.sender.encode(), parameter, to.address.encode())
    return b"MAIL FROM:<%b>%b\r\nRCPT TO:<%b>\r\nDATA\r\n" % words


def _rcpt_with_dsn(envelope: Envelope, index: int) -> bytes:
    recipient = envelope.recipients[index]
    command = b"RCPT TO:<%b>" % recipient.address.encode()
    if recipient.notify:
        command += b" NOTIFY=" + notify_words(recipient.notify).encode()
    if recipient.orcpt:
        kind, _, address = recipient.orcpt.partition(";")
        encode = _utf8_address if kind.lower() == "utf-8" else xtext
        command += b" ORCPT=%b;%b" % (xtext(kind).encode(), encode(address).encode())
    return command + b"\r\n"


def notify_words(notify: int) -> str:
    """The value of NOTIFY (RFC 3461 4.1): NEVER alone, or a list."""
    if notify & Notify.NEVER:
        return "NEVER"
    return ",".join(f.name for f in (Notify.SUCCESS, Notify.FAILURE, Notify.DELAY) if notify & f and f.name)


def xtext(text: str) -> str:
    """RFC 3461 section 4: everything but printable ASCII without "+" and "=" becomes +XX."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else _plus(c) for c in text)


def _plus(char: str) -> str:
    return "".join(f"+{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


def _utf8_address(text: str) -> str:
    """utf-8-addr-xtext (RFC 6533 section 3): pure ASCII, so that every DSN peer takes it."""
    return "".join(c if "!" <= c <= "~" and c not in "\\+=" else f"\\x{{{ord(c):X}}}" for c in text)


def rounds(envelope: Envelope, recipients: tuple[int, ...], offer: Extensions) -> list[tuple[int, ...]]:
    """The recipients by transaction, as the peer's LIMITS want it (RFC 9422); one transaction where it named none."""
    if not (offer.rcpt_max or offer.rcpt_domain_max):
        return [recipients]
    most = offer.rcpt_max or len(recipients)
    most_domains = offer.rcpt_domain_max or len(recipients)
    made: list[tuple[int, ...]] = []
    group: list[int] = []
    domains: set[str] = set()
    for index in recipients:
        domain = envelope.recipients[index].address.rpartition("@")[2].lower()
        if group and (len(group) >= most or (domain not in domains and len(domains) >= most_domains)):
            made.append(tuple(group))
            group, domains = [], set()
        group.append(index)
        domains.add(domain)
    made.append(tuple(group))
    return made


# --- the verdicts of one transaction

_RELAYED, _DELIVERED, _RECEIVED = (
    Status.RELAYED,
    Status.DELIVERED,
    Reason.RECEIVED,
)  # an enum's member costs a look-up in its class


_TAKEN = (_RELAYED, _DELIVERED)
_new = tuple.__new__  # an Outcome without the cost of its keyword handling


def relayed(recipient: int, reply: PeerReply, host: str, *, dsn: bool) -> Outcome:
    """The peer has the message, for this recipient."""
    code, text = reply
    return _new(Outcome, (recipient, _RELAYED, _RECEIVED, code, enhanced_code(code, text), str(reply), host, dsn))


class Transaction:
    """One MAIL, its RCPTs, one content, and what became of each recipient.

    `outcomes` is filled place by place, in the order of `recipients`; whoever still stands at None is undecided.
    """

    __slots__ = ("accepted", "dsn", "goodbye", "host", "is_behind", "later", "mail_taken", "outcomes", "recipients")

    def __init__(self, recipients: tuple[int, ...], host: str, *, dsn: bool, is_behind: bool = False) -> None:
        self.recipients = recipients
        self.host = host
        self.dsn = dsn
        self.is_behind = is_behind  # its MAIL was written behind the dot of the message before
        self.outcomes: list[Outcome | None] = [None] * len(recipients)
        self.accepted: list[int] = []  # places whose RCPT was accepted and that wait for the final reply
        self.later: list[int] = []  # recipients (indices) beyond what the peer takes at once: another transaction
        self.goodbye: PeerReply | None = None  # the 421 that ended the session
        self.mail_taken = False

    @property
    def is_taken(self) -> bool:
        """The peer has the message, for somebody."""
        return any(outcome is not None and outcome.status in _TAKEN for outcome in self.outcomes)

    def read_envelope(self, replies: Sequence[PeerReply]) -> None:
        """The replies to MAIL and the RCPTs, as many as came. Raises Broken."""
        if not replies:
            return
        mail = replies[0]
        if mail.code >= 400:
            if mail.code == 421:
                self.goodbye = mail
            elif mail.code == 503 and self.is_behind:
                raise Broken(f"MAIL behind the message before got {mail}")  # it lost step: no verdict on this one
            self.refuse(Reason.SENDER_REFUSED, mail)
            return
        if mail.code >= 300:
            raise Broken(f"MAIL got {mail}")
        self.mail_taken = True
        for place, reply in enumerate(replies[1:]):
            if reply.code < 300:
                self.accepted.append(place)
            elif reply.code < 400:
                raise Broken(f"RCPT got {reply}")
            elif reply.code == 421:
                self.goodbye = reply
                self.accepted.clear()
                self.refuse(Reason.RECIPIENT_REFUSED, reply)
                return
            else:
                self._refuse_recipient(place, reply)

    def _refuse_recipient(self, place: int, reply: PeerReply) -> None:
        if reply.code in {452, 552}:
            if self.accepted and _is_too_many(reply):
                self.later.append(self.recipients[place])
            enhanced = "4" + reply.enhanced[1:]  # RFC 5321 4.5.3.1.10: 552 means 452 here
            outcome = self._outcome(place, Status.DEFERRED, Reason.RECIPIENT_REFUSED, reply)
            self.outcomes[place] = outcome._replace(enhanced=enhanced)
            return
        self.outcomes[place] = self._outcome(place, _status(reply), Reason.RECIPIENT_REFUSED, reply)

    def read_data(self, reply: PeerReply) -> bool:
        """The reply to DATA: True where the content may follow. Raises Broken."""
        if reply.code // 100 == 3:
            return True
        if reply.code < 300 and self.accepted:
            raise Broken(f"DATA got {reply}")
        if reply.code == 421:
            self.goodbye = reply
        self.refuse(Reason.DATA_REFUSED, reply)
        return False

    def read_final(self, replies: Sequence[PeerReply], *, is_lmtp: bool) -> None:
        """The reply to the content, or LMTP's one for each accepted recipient, as many as came. Raises Broken."""
        if not is_lmtp:
            if replies[0].code < 300:
                self._take_all(replies[0])
                return
            replies = list(replies[:1]) * len(self.accepted)
        for reply in replies:
            if 300 <= reply.code < 400:
                raise Broken(f"the content got {reply}")
            if not self.accepted:
                return
            place = self.accepted.pop(0)
            if reply.code < 300:
                # LMTP is the protocol of final delivery (RFC 2033): what its server takes is in the mailbox.
                outcome = self._outcome(place, _DELIVERED if is_lmtp else _RELAYED, _RECEIVED, reply)
                self.outcomes[place] = outcome._replace(dsn_relayed=self.dsn)
            else:
                self.outcomes[place] = self._outcome(place, _status(reply), Reason.MESSAGE_REFUSED, reply)
            if reply.code == 421:
                self.goodbye = reply

    def _take_all(self, reply: PeerReply) -> None:
        """The peer has the message: for everyone whose RCPT it accepted."""
        outcomes, recipients = self.outcomes, self.recipients
        for place in self.accepted:
            outcomes[place] = relayed(recipients[place], reply, self.host, dsn=self.dsn)
        self.accepted = []

    def refuse(self, reason: Reason, reply: PeerReply) -> None:
        """This reply is the verdict of everyone who has none yet."""
        status = _status(reply)
        for place, outcome in enumerate(self.outcomes):
            if outcome is None:
                self.outcomes[place] = self._outcome(place, status, reason, reply)
        self.accepted.clear()

    def fail(self, status: Status, reason: Reason, enhanced: str, text: str) -> None:
        """Everyone without a verdict gets ours: DEFERRED before the dot, UNCERTAIN after it."""
        for place, outcome in enumerate(self.outcomes):
            if outcome is None:
                self.outcomes[place] = Outcome(
                    self.recipients[place], status, reason, 0, enhanced, text, self.host, False
                )
        self.accepted.clear()

    def _outcome(self, place: int, status: Status, reason: Reason, reply: PeerReply) -> Outcome:
        return Outcome(self.recipients[place], status, reason, reply.code, reply.enhanced, str(reply), self.host)


def _status(reply: PeerReply) -> Status:
    return Status.FAILED if reply.code >= 500 else Status.DEFERRED


def _is_too_many(reply: PeerReply) -> bool:
    """Too many recipients in this transaction, rather than a full mailbox or disk."""
    return reply.enhanced[2:] in {"5.3", "0.0"} or b"too many" in reply.text.lower()


# --- the content

DOT = b".\r\n"
CRLF_DOT = b"\r\n.\r\n"


class Stuffer:
    """Doubles the dot at the beginning of a line (RFC 5321 4.5.2), across the borders of chunks."""

    __slots__ = ("_is_at_line_start", "_tail")

    def __init__(self) -> None:
        self._tail = b"\r\n"

    def stuff(self, chunk: bytes) -> bytes:
        if not chunk:
            return chunk
        if dot_line(chunk, 0, len(chunk)) >= 0:
            stuffed = chunk.replace(b"\n.", b"\n..")
        else:
            stuffed = chunk
        if chunk[0] == 46 and self._tail[-1:] == b"\n":
            stuffed = b"." + stuffed
        self._tail = (self._tail + chunk[-2:])[-2:]
        return stuffed

    @property
    def end(self) -> bytes:
        """The dot, with a CRLF before it where the content does not end with one."""
        return DOT if self._tail == b"\r\n" else CRLF_DOT


def content_pieces(trace: bytes, body: bytes) -> tuple[bytes, bytes, bytes]:
    """A content held whole, dots doubled, with the dot that ends it: the three pieces of one write."""
    if dot_line(body, 0, len(body)) >= 0:
        stuffed = body.replace(b"\n.", b"\n..")
    else:
        stuffed = body
    if body[:1] == b"." and (not trace or trace[-1] == 10):
        stuffed = b"." + stuffed
    if trace[:1] == b"." or trace.find(b"\n.") >= 0:
        trace = Stuffer().stuff(trace)
    if body[-2:] == b"\r\n":
        return trace, stuffed, DOT
    ends = len(body) < 2 and ((trace + body).endswith(b"\r\n") or not (trace or body))
    return trace, stuffed, DOT if ends else CRLF_DOT
