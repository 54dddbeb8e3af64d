"""The server's side of an SMTP session, as a function of octets: no socket, no clock, no await.

Owns: RFC 5321 4.1 and 4.3 (commands and their order), RFC 2920 (a pipelined group is answered in one piece), RFC 3030
(BDAT), RFC 3207 (STARTTLS), RFC 2034 (enhanced codes), RFC 4954 (AUTH; what a mechanism says is sasl.py's), RFC 9422
(LIMITS), XCLIENT. Words are read by grammar.py, content by data.py.

Rules
- `feed(octets) -> replies`. Then look at `request`: NOTHING (feed more), WAIT (await `awaited`, `resume(result)`),
  START_TLS (write, shake hands, `tls_started(cipher)`), CLOSE (write, then close).
- While it waits it only gathers what comes; nothing is parsed. Replies made before a WAIT leave with those after it.
- The Gate decides about mail; the Reception (the listener) about clients. Either may be slow only where an Awaitable
  stands in the signature.
- Nothing a client sends raises. What fails in the house becomes a 451 and is told to the Reception.
- Exactly CRLF ends a command. A line that ends in a bare LF, or holds a control character, is refused, never read.
- Terms and Gate are read anew between two messages, so that a configuration swaps under a session.
- Where `terms.needs_login`, no transaction begins before the client is known; AUTH exists only within TLS.
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from posthof_pod.model import Body, Recipient
from posthof_pod.replies import Failure, Reply
from posthof_pod.smtp import answers as say
from posthof_pod.smtp import grammar, sasl
from posthof_pod.smtp.data import BARE_NEWLINE, INTERNAL, BodySink, Content, DotReader, whole, without_bcc
from posthof_pod.smtp.gate import Exchange, Gate, Incoming, Reception, Session
from posthof_pod.smtp.grammar import MailParameters, Malformed, RecipientParameters, parse_mail, parse_rcpt
from posthof_pod.smtp.terms import Terms

__all__ = [
    "BodySink",
    "Dialogue",
    "Gate",
    "Incoming",
    "MailParameters",
    "Reception",
    "RecipientParameters",
    "Request",
    "Session",
    "Terms",
]

PENDING_MAX = 1024 * 1024  # octets a sink may hold unwritten before the session waits for it
JUNK_MAX = 100  # commands that move no mail (NOOP, RSET, EHLO, ...) between two messages before each is an error
OVERSHOOT_MAX = 1000  # RCPT beyond the limit before each is an error
GUESSES_MAX = 3  # failed AUTH of one session before it ends
RESPONSE_MAX = 12288  # octets of one AUTH response (RFC 4954 section 4)


class Request(enum.IntEnum):
    """What the dialogue needs of its driver."""

    NOTHING = 0
    WAIT = 1
    START_TLS = 2
    CLOSE = 3


class Transaction:
    """From MAIL to the end of its content (RFC 5321 3.3)."""

    __slots__ = ("accepted", "content", "overshoot", "parameters", "recipients", "sender", "was_refused")

    def __init__(self, sender: str, parameters: MailParameters) -> None:
        self.sender = sender
        self.parameters = parameters
        self.recipients: list[Recipient] = []
        self.accepted = 0  # RCPT commands answered with 250
        self.overshoot = 0  # RCPT commands beyond the limit
        self.was_refused = False  # some RCPT was
        self.content: Content | None = None  # since the first BDAT


# What the next octets are. Plain integers: an enum's members cost a look-up each.
_COMMAND = 0
_DATA = 1
_CHUNK = 2  # octets of a BDAT that are content
_DROP_CHUNK = 3  # octets of a refused BDAT
_DROP_LINE = 4  # the rest of an over-long command line
_RESPONSE = 5  # a line that answers a challenge of AUTH

_NOTHING, _WAIT, _START_TLS, _CLOSE = Request

_FOREIGN_VERBS = frozenset(
    b"GET POST PUT HEAD DELETE OPTIONS CONNECT PATCH TRACE PRI PROXY HTTP/1.1 HTTP/1.0 SSH-2.0 USER NICK".split()
)


class Dialogue:
    """One session. See the head of the file for how it is driven."""

    __slots__ = (
        "_chunk_left",
        "_exchange",
        "_guesses",
        "_is_last_chunk",
        "_out",
        "_parting",
        "_reader",
        "_reception",
        "_state",
        "_then",
        "_transaction",
        "awaited",
        "commands",
        "errors",
        "has_quit",
        "junk",
        "messages",
        "request",
        "rest",
        "session",
        "terms",
    )

    def __init__(self, session: Session, reception: Reception) -> None:
        self.session = session
        self.terms = reception.terms
        self.request: Request = _NOTHING
        self.has_quit = False
        self.awaited: Awaitable[object] | None = None
        self.commands = 0
        self.messages = 0  # accepted
        self.errors = 0  # 5xx since the last accepted message
        self.junk = 0  # commands that moved no mail since the last accepted message
        self._reception = reception
        self._state = _COMMAND
        self.rest = b""  # octets not yet parsed
        self._out: list[bytes] = []
        self._then: Callable[[Any], None] | None = None  # what goes on when the awaited is there
        self._transaction: Transaction | None = None
        self._reader: DotReader | None = None  # while DATA comes in more than one piece
        self._chunk_left = 0
        self._is_last_chunk = False
        self._parting: Reply | None = None  # said at the next chance, then the session ends
        self._exchange: Exchange | None = None  # an AUTH on its way
        self._guesses = 0  # failed ones

    # ---- the driver's side

    def greet(self) -> bytes:
        """The first line (RFC 5321 4.3.1)."""
        return self.terms.greeting

    @property
    def is_in_content(self) -> bool:
        """Whether a message is on its way in, or waits for its reply: not the time to be interrupted."""
        return self._state in (_DATA, _CHUNK) or self.request is _WAIT

    @property
    def is_reading_content(self) -> bool:
        """Whether more octets of a message are to come."""
        return self._state in (_DATA, _CHUNK)

    @property
    def waiting(self) -> int:
        """Octets gathered and not parsed."""
        return len(self.rest)

    def feed(self, data: bytes) -> bytes:
        """Octets from the client -> octets for it (b"" = nothing to write yet).

        The two usual packets, one command line and the whole of a content, go straight to those who read them.
        """
        if self.rest:
            data = self.rest + data
        if self.request:
            return self._feed_while(self.request, data)
        state = self._state
        if state == _COMMAND and data.find(b"\n") == len(data) - 1 >= 0:
            self.rest = b""
            self._line(data[:-1])
        elif state != _DATA or self._parting is not None:
            self._parse(data)
        else:
            self.rest = b""
            end = self._data(data, 0)
            if end < len(data):
                self._parse(data[end:])
        if self.request is _WAIT:
            return b""
        out = self._out
        return out.pop() if len(out) == 1 else self._take()

    def resume(self, result: object) -> bytes:
        """What was awaited is there. A `Reply` in place of the expected result is a failure's reply."""
        then, self._then, self.awaited = self._then, None, None
        self.request = _NOTHING
        if then is not None:
            then(result)
        if not self.request and (self.rest or self._parting is not None):
            self._parse(self.rest)
        return self._take()

    def tls_started(self, cipher: str) -> bytes:
        """The handshake is done: the session begins anew (RFC 3207 4.2), without a greeting."""
        session = self.session
        session.tls, session.helo, session.is_extended = cipher, "", False
        session.credential = session.user = ""
        self._drop_transaction()
        self.request = _NOTHING
        return b""

    def part(self, reply: Reply) -> bytes:
        """Ends the session with `reply` (421): at once, or after the message that is on its way in."""
        if self.request is _CLOSE:
            return b""
        if self.is_in_content:
            self._parting = reply
            return b""
        return self.expire(reply)

    def expire(self, reply: Reply) -> bytes:
        """Ends the session with `reply` (421) now, whatever is on its way."""
        self._say_farewell(reply)
        return self._take()

    def lost(self) -> None:
        """The connection is gone: what was gathered is let go. A message that waits for its reply is the gate's."""
        self._drop_transaction()
        self.rest = b""
        if self.request is not _WAIT:
            self.request = _CLOSE

    # ---- octets to lines and content

    def _take(self) -> bytes:
        """The replies made so far, in one piece; none while something is awaited."""
        out = self._out
        if not out or self.request is _WAIT:
            return b""
        replies = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return replies

    def _feed_while(self, request: Request, data: bytes) -> bytes:
        if request is _WAIT:
            self.rest = data
        elif request is _START_TLS and data:
            self._leave(say.INJECTED)
        else:
            self.rest = b""
        return self._take()

    def _parse(self, data: bytes) -> None:
        """Reads `data` until it ends or the driver is needed; keeps what is left."""
        at, size = 0, len(data)
        while at < size and not self.request:
            state = self._state
            if state == _COMMAND:
                if self._parting is not None:
                    break
                end = data.find(b"\n", at)
                if end < 0:
                    self._unfinished(data, at)
                    return
                line, at = data[at:end], end + 1
                self._line(line)
            elif state == _DATA:
                at = self._data(data, at)
            elif state == _RESPONSE:
                end = data.find(b"\n", at)
                if end < 0:
                    self._unfinished_response(data, at)
                    return
                line, at = data[at:end], end + 1
                self._response(line)
            elif state == _DROP_LINE:
                end = data.find(b"\n", at)
                at = size if end < 0 else end + 1
                if end >= 0:
                    self._state = _COMMAND
            else:
                at = self._chunk(data, at)
        self.rest = data[at:] if at < size and self.request is not _CLOSE else b""
        if self._parting is not None and self._state == _COMMAND and not self.request:
            self._say_farewell(self._parting)
        elif self.rest and self.request is _START_TLS:  # in the packet of STARTTLS: RFC 3207, CVE-2011-0411
            self.rest = b""
            self._out.pop()
            self._leave(say.INJECTED)

    def _unfinished(self, data: bytes, at: int) -> None:
        """A command line without its end."""
        self.rest = data[at:]
        if data.startswith(b"\x16\x03", at):  # a TLS handshake where a command belongs
            self._leave(say.NOT_SMTP)
        elif len(self.rest) >= self.terms.command_line:
            line, self.rest = self.rest, b""
            self._state = _DROP_LINE
            self._line(line)

    def _line(self, line: bytes) -> None:
        """One line, up to its LF: a command if a CR ends it."""
        self.commands += 1
        terms = self.terms
        if self.commands > terms.commands:
            self._leave(say.TOO_MANY_COMMANDS)
            return
        if len(line) >= terms.command_line:
            self._refuse("", say.LINE_TOO_LONG)
            return
        if line[-1:] != b"\r":
            self._not_a_command(line, say.BARE_LF)
            return
        line = line[:-1]
        method = _USUAL.get(line[:5])
        if method is None:
            verb = line.split(b" ", 1)[0]
            method = _VERBS.get(verb) or _VERBS.get(verb.upper())
            if method is None:
                self._not_a_command(line, say.UNKNOWN)
                return
        try:
            method(self, line)
        except Malformed as malformed:
            self._refuse(_name(line), malformed.reply)
        except Failure as failure:
            self._refuse(_name(line), failure.reply)
        except Exception as error:  # whatever a gate raises: the session goes on, the fault is told
            self._reception.failed(_name(line), error)
            self._refuse(_name(line), INTERNAL)

    def _not_a_command(self, line: bytes, reply: Reply) -> None:
        """What is plainly another protocol, or a message's header, ends the session; the rest gets `reply`."""
        verb = (line.split(None, 1) or [b""])[0].upper()
        if verb in _FOREIGN_VERBS or verb.endswith(b":") or line.startswith(b"\x16\x03"):
            self._leave(say.NOT_SMTP)
            return
        try:
            grammar.command_text(line)
        except Malformed as malformed:
            reply = malformed.reply
        self._refuse(_name(verb), reply)

    # ---- replies

    def _refuse(self, verb: str, reply: Reply, *, sender: str | None = None, recipient: str | None = None) -> None:
        """A 4xx or 5xx: told to the log; a 5xx counts as an error, and too many end the session."""
        self._out.append(say.octets(reply))
        self._reception.refused(self.session, verb, self._sender() if sender is None else sender, recipient, reply)
        if reply.code >= 500:
            self._count_error()
        elif reply.code == 421:
            self._close()

    def _sender(self) -> str | None:
        return None if self._transaction is None else self._transaction.sender

    def _count_error(self) -> None:
        self.errors += 1
        if self.errors >= self.terms.limits.errors > 0 and not self.request:
            self._leave(say.TOO_MANY_ERRORS)

    def _leave(self, reply: Reply) -> None:
        """The last reply of the session, for what the client did."""
        self._reception.refused(self.session, "", self._sender(), None, reply)
        self._say_farewell(reply)

    def _say_farewell(self, reply: Reply) -> None:
        """The last reply of the session."""
        self._out.append(say.octets(reply))
        self._close()

    def _close(self) -> None:
        self._drop_transaction()
        self.rest = b""
        self.request = _CLOSE

    def _count_junk(self) -> None:
        """Commands that move no mail are free until they are many."""
        self.junk += 1
        if self.junk > JUNK_MAX:
            self._count_error()

    def _wait(self, awaited: Awaitable[object], then: Callable[[Any], None]) -> None:
        self.awaited = awaited
        self._then = then
        self.request = _WAIT

    # ---- commands

    def _ehlo(self, line: bytes) -> None:
        session = self.session
        name = grammar.parse_helo(_argument(line))
        self._begin_anew()
        session.helo, session.is_extended = name, True
        self._out.append(self.terms.ehlo(is_secure=bool(session.tls), has_xclient=session.has_xclient))
        self._count_junk()

    def _helo(self, line: bytes) -> None:
        session = self.session
        name = grammar.parse_helo(_argument(line))
        self._begin_anew()
        session.helo, session.is_extended = name, False
        self._out.append(self.terms.hello)
        self._count_junk()

    def _mail(self, line: bytes) -> None:
        """RFC 5321 4.1.1.2."""
        session = self.session
        if not session.helo:
            self._refuse("MAIL", say.EHLO_FIRST)
            return
        if self._transaction is not None:
            self._refuse("MAIL", say.NESTED_MAIL)
            return
        reception = self._reception
        terms = self.terms = reception.terms  # between two messages: the newest configuration
        if terms.needs_login and not session.credential and not reception.gate.knows(session):
            self._refuse("MAIL", say.AUTH_FIRST if session.tls else say.TLS_FIRST)
            return
        address, parameters = parse_mail(line)
        if self.messages >= terms.messages:
            self._leave(say.TOO_MANY_MESSAGES)
            return
        if parameters.size > terms.message_size:
            self._refuse("MAIL", terms.too_large, sender=address)
            return
        if parameters.requiretls and not session.tls:
            self._refuse("MAIL", say.REQUIRETLS_NEEDS_TLS, sender=address)
            return
        gate = reception.gate
        reply = reception.admits_message(session) if terms.is_rated else None
        reply = reply or gate.room(parameters.size)
        if reply is not None:
            self._refuse("MAIL", reply, sender=address)
            return
        answer = gate.sender(session, address, parameters)
        if answer is None:
            self._transaction = Transaction(address, parameters)
            reception.coming += 1
            self._out.append(say.SENDER_OK)
        elif isinstance(answer, Reply):
            self._sender_answered(address, parameters, answer)
        else:
            self._wait(answer, lambda result: self._sender_answered(address, parameters, result))

    def _sender_answered(self, address: str, parameters: MailParameters, reply: Reply | None) -> None:
        if reply is not None and not reply.is_positive:
            self._refuse("MAIL", reply, sender=address)
            return
        self._transaction = Transaction(address, parameters)
        self._reception.coming += 1
        self._out.append(say.SENDER_OK if reply is None else say.octets(reply))

    def _rcpt(self, line: bytes) -> None:
        """RFC 5321 4.1.1.3."""
        transaction = self._transaction
        if transaction is None:
            self._refuse("RCPT", say.MAIL_FIRST)
            return
        if transaction.content is not None:
            self._refuse("RCPT", say.AFTER_BDAT)
            return
        address, parameters = parse_rcpt(line, smtputf8=transaction.parameters.smtputf8)
        if transaction.accepted >= self.terms.recipients:
            transaction.overshoot += 1
            transaction.was_refused = True
            self._refuse("RCPT", say.TOO_MANY_RECIPIENTS, recipient=address)
            if transaction.overshoot > OVERSHOOT_MAX:
                self._count_error()
            return
        answer = self._reception.gate.recipient(self.session, transaction.sender, address, parameters)
        if not isinstance(answer, tuple):
            self._wait(answer, lambda result: self._recipient_answered(address, result))
        elif isinstance(answer, Reply):
            self._recipient_answered(address, answer)
        else:  # the usual answer
            transaction.recipients += answer
            transaction.accepted += 1
            self._out.append(say.RECIPIENT_OK)

    def _recipient_answered(self, address: str, answer: Reply | tuple[Recipient, ...]) -> None:
        transaction = self._transaction
        if transaction is None:  # lost meanwhile
            return
        if not isinstance(answer, Reply):
            transaction.recipients += answer
        elif not answer.is_positive:
            transaction.was_refused = True
            self._refuse("RCPT", answer, recipient=address)
            return
        transaction.accepted += 1
        self._out.append(say.octets(answer) if isinstance(answer, Reply) else say.RECIPIENT_OK)

    def _cannot_take_content(self) -> Reply | None:
        """Why content may not begin now (RFC 5321 3.3)."""
        transaction = self._transaction
        if transaction is None:
            return say.MAIL_FIRST if self.session.helo else say.EHLO_FIRST
        if transaction.accepted:
            return None
        return say.NO_RECIPIENTS if transaction.was_refused else say.RCPT_FIRST

    def _data_command(self, line: bytes) -> None:
        transaction = self._transaction
        reply = None if transaction is not None and transaction.accepted else self._cannot_take_content()
        if len(line) > 4 and line[4:].strip(b" "):
            self._refuse("DATA", say.NO_ARGUMENT)
        elif reply is not None or transaction is None:
            self._refuse("DATA", reply or say.MAIL_FIRST)
        elif transaction.content is not None:
            self._refuse("DATA", say.AFTER_BDAT)
        elif transaction.parameters.body is Body.BINARY:
            self._refuse("DATA", say.BINARY_NEEDS_BDAT)
        else:
            self._state = _DATA
            self._out.append(say.SEND_DATA)

    def _rset(self, line: bytes) -> None:
        if _argument(line).strip(b" "):
            self._refuse("RSET", say.NO_ARGUMENT)
            return
        self._drop_transaction()
        self._out.append(say.RESET)
        self._count_junk()

    def _noop(self, line: bytes) -> None:
        grammar.command_text(line)
        self._out.append(say.NOOP)
        self._count_junk()

    def _vrfy(self, line: bytes) -> None:
        """RFC 5321 3.5.3: no address is told, none is denied."""
        grammar.command_text(line)
        if not _argument(line).strip(b" "):
            self._refuse("VRFY", say.NEEDS_ARGUMENT)
            return
        self._out.append(say.VRFY)
        self._count_junk()

    def _expn(self, line: bytes) -> None:
        grammar.command_text(line)
        self._refuse("EXPN", say.NOT_OFFERED)

    def _help(self, line: bytes) -> None:
        grammar.command_text(line)
        self._out.append(say.HELP)
        self._count_junk()

    def _quit(self, line: bytes) -> None:
        if _argument(line).strip(b" "):
            self._refuse("QUIT", say.NO_ARGUMENT)
            return
        self._out.append(say.BYE)
        self.has_quit = True
        self._close()

    def _starttls(self, line: bytes) -> None:
        """RFC 3207."""
        if _argument(line).strip(b" "):
            self._refuse("STARTTLS", say.NO_ARGUMENT)
        elif self.session.tls:
            self._refuse("STARTTLS", say.IN_TLS)
        elif not self.terms.has_starttls:
            self._refuse("STARTTLS", say.NOT_OFFERED)
        else:
            self._drop_transaction()
            self._out.append(say.READY_FOR_TLS)
            self.request = _START_TLS

    def _auth(self, line: bytes) -> None:
        """RFC 4954 section 4."""
        session, terms = self.session, self.terms
        words = grammar.command_text(line).split(" ")
        mechanism = words[1].upper() if len(words) > 1 else ""
        if not terms.mechanisms:
            self._refuse("AUTH", say.NOT_OFFERED)
        elif not session.tls:
            self._refuse("AUTH", say.TLS_FIRST)
        elif not session.is_extended:
            self._refuse("AUTH", say.EHLO_FIRST)
        elif session.credential:
            self._refuse("AUTH", say.IS_AUTHENTICATED)
        elif self._transaction is not None:
            self._refuse("AUTH", say.IN_TRANSACTION)
        elif not mechanism or len(words) > 3:
            self._refuse("AUTH", say.NEEDS_ARGUMENT)
        elif mechanism not in terms.mechanisms:
            self._refuse("AUTH", say.NO_MECHANISM)
        else:
            initial = words[2].encode() if len(words) == 3 else None
            if initial is not None:
                initial = b"" if initial == b"=" else sasl.decode(initial)
            self._begin_exchange(mechanism, initial)

    def _begin_exchange(self, mechanism: str, initial: bytes | None) -> None:
        exchange = self._reception.authenticate(self.session, mechanism)
        if isinstance(exchange, Reply):
            self._refuse("AUTH", exchange)
            return
        self._exchange = exchange
        self._wait(exchange.respond(initial), self._challenged)

    def _response(self, line: bytes) -> None:
        """A line that answers a challenge."""
        self._state = _COMMAND
        exchange, self._exchange = self._exchange, None
        if exchange is None:  # its connection began anew meanwhile
            return
        if len(line) >= RESPONSE_MAX:
            self._refuse("AUTH", say.TOO_LONG_RESPONSE)
        elif line[-1:] != b"\r":
            self._refuse("AUTH", say.BARE_LF)
        elif line == b"*\r":
            self._refuse("AUTH", say.CANCELLED)
        else:
            try:
                response = sasl.decode(line[:-1])
            except Malformed as malformed:
                self._refuse("AUTH", malformed.reply)
                return
            self._exchange = exchange
            self._wait(exchange.respond(response), self._challenged)

    def _challenged(self, word: bytes | Reply) -> None:
        """The exchange has spoken: a challenge, or its end."""
        if not isinstance(word, Reply):
            self._state = _RESPONSE
            self._out.append(b"334 " + base64.b64encode(word) + b"\r\n")
            return
        self._exchange = None
        if word.is_positive:
            self.errors = 0
            self._out.append(say.octets(word))
            return
        self._refuse("AUTH", word)
        self._guesses += 1
        if self._guesses >= GUESSES_MAX and not self.request:
            self._leave(say.TOO_MANY_GUESSES)

    def _unfinished_response(self, data: bytes, at: int) -> None:
        self.rest = data[at:]
        if len(self.rest) >= RESPONSE_MAX:
            self.rest = b""
            self._exchange = None
            self._state = _DROP_LINE
            self._refuse("AUTH", say.TOO_LONG_RESPONSE)

    def _xclient(self, line: bytes) -> None:
        """The front end says who the client is; the session begins anew with a greeting."""
        session = self.session
        if not session.has_xclient:
            self._refuse("XCLIENT", say.NO_XCLIENT)
            return
        if self._transaction is not None:
            self._refuse("XCLIENT", say.IN_TRANSACTION)
            return
        found = grammar.parse_xclient(_argument(line))
        session.credential = session.user = ""  # whoever it was, this is another client
        session.certificate, session.proven = {}, ()  # and the certificate is the front end's
        if "ADDR" in found and found["ADDR"] != session.client:
            reply = self._reception.moves(session, found["ADDR"])
            if reply is not None:
                self._leave(reply)
                return
            session.client, session.client_name, session.client_port = found["ADDR"], "", 0
            session.vouched = session.client  # a trusted front end's word
        self._begin_anew()
        session.client_name = found.get("NAME", session.client_name)
        session.client_port = int(found.get("PORT") or session.client_port)
        session.helo = found.get("HELO", "")
        session.is_extended = bool(session.helo) and found.get("PROTO", "ESMTP") == "ESMTP"
        self._out.append(self.terms.greeting)

    def _begin_anew(self) -> None:
        self._drop_transaction()
        self.terms = self._reception.terms

    def _drop_transaction(self) -> None:
        transaction, self._transaction = self._transaction, None
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.abort()
        if transaction is not None:
            self._reception.coming -= 1
            if transaction.content is not None:
                transaction.content.abort()

    # ---- DATA

    def _data(self, data: bytes, at: int) -> int:
        """Content from data[at:] -> the index behind what was read."""
        terms, reader = self.terms, self._reader
        if reader is None:
            body = whole(data, at)
            if body is not None and len(body) <= terms.whole_max:
                self._state = _COMMAND
                if terms.needs_login:
                    body = without_bcc(body)
                self._accept(body, b"", len(body))
                return len(data)
            reader = self._reader = DotReader(
                terms.limits.message_size,
                terms.blob_threshold,
                partial(self._reception.gate.blob, self.session),
                normalises=terms.normalises,
                removes_bcc=terms.needs_login,
            )
        end = reader.feed(data, at)
        if end >= 0:
            self._state = _COMMAND
            self._reader = None
            self._content_is_whole("DATA", reader)
            return end
        if terms.drop_limit and reader.raw > terms.drop_limit:
            self._leave(say.ABSURD)
        elif reader.sink is not None and reader.sink.pending > PENDING_MAX:
            self._wait(reader.sink.drain(), lambda result: self._drained(reader, result))
        return len(data)

    def _drained(self, content: Content, result: object) -> None:
        if isinstance(result, Reply) and not result.is_positive:
            content.refuse(result)

    def _content_is_whole(self, verb: str, content: Content, *, has_binary: bool = False) -> None:
        if content.fault is not None:
            self._reception.failed(verb, content.fault)
        if content.refusal is not None:
            self._refuse(verb, content.refusal)
            self._drop_transaction()
        else:
            body = content.take()
            self._accept(body, content.head, content.size, has_binary=has_binary)

    def _accept(self, body: bytes | BodySink, head: bytes, size: int, *, has_binary: bool = False) -> None:
        """The last octet is here: hand the message to the gate and wait for its word."""
        transaction, self._transaction = self._transaction, None
        if transaction is None:  # only after `lost`
            return
        self._reception.coming -= 1
        session, parameters = self.session, transaction.parameters
        mail = Incoming(
            session,
            transaction.sender,
            parameters,
            transaction.recipients,
            body,
            head,
            size,
            has_binary,
            session.protocol(smtputf8=parameters.smtputf8),
        )
        try:
            self._wait(self._reception.gate.accept(mail), self._accepted)
        except Exception as error:  # a gate that fails before its coroutine began
            self._reception.failed("accept", error)
            if not isinstance(body, bytes):
                body.abort()
            self._accepted(INTERNAL)

    def _accepted(self, reply: Reply) -> None:
        """The gate's events tell the log, whatever it decided; here it is only counted."""
        self._out.append(say.octets(reply))
        code = reply.code
        if code < 400:
            self.messages += 1
            self.errors = self.junk = 0
        elif code >= 500:
            self._count_error()
        elif code == 421:
            self._close()

    # ---- BDAT

    def _bdat(self, line: bytes) -> None:
        """RFC 3030 2. A refused chunk is read to its end and dropped, so that content never becomes commands."""
        try:
            size, is_last = grammar.parse_bdat(line)
        except Malformed as malformed:
            self._refuse("BDAT", malformed.reply)
            self._leave(say.LOST_CHUNK)
            return
        limits, drop_limit = self.terms.limits, self.terms.drop_limit
        transaction = self._transaction
        reply = self._cannot_take_content()
        if drop_limit and size > drop_limit:
            self._leave(say.ABSURD)
        elif reply is not None or transaction is None:
            self._begin_chunk(_DROP_CHUNK, size, is_last=is_last)
            self._refuse("BDAT", reply or say.MAIL_FIRST)
            self._finish_chunk_if_empty()
        else:
            content = transaction.content
            if content is None:
                terms = self.terms
                content = Content(
                    limits.message_size,
                    terms.blob_threshold,
                    partial(self._reception.gate.blob, self.session),
                    removes_bcc=terms.needs_login,
                )
                transaction.content = content
            if limits.message_size and content.size + size > limits.message_size:
                content.refuse(Reply(552, "5.3.4", f"The message exceeds the limit of {limits.message_size} octets"))
            self._begin_chunk(_CHUNK, size, is_last=is_last)
            self._finish_chunk_if_empty()

    def _begin_chunk(self, state: int, size: int, *, is_last: bool) -> None:
        self._state = state
        self._chunk_left = size
        self._is_last_chunk = is_last

    def _finish_chunk_if_empty(self) -> None:
        if not self._chunk_left:
            self._chunk_is_whole()

    def _chunk(self, data: bytes, at: int) -> int:
        """Octets of a chunk from data[at:] -> the index behind what was read."""
        end = min(at + self._chunk_left, len(data))
        self._chunk_left -= end - at
        transaction = self._transaction
        content = transaction.content if transaction is not None else None
        if self._state == _CHUNK and content is not None:
            content.add(data[at:end])
            if content.sink is not None and content.sink.pending > PENDING_MAX:
                self._wait(content.sink.drain(), lambda result: self._chunk_drained(content, result))
                return end
        self._finish_chunk_if_empty()
        return end

    def _chunk_drained(self, content: Content, result: object) -> None:
        self._drained(content, result)
        self._finish_chunk_if_empty()

    def _chunk_is_whole(self) -> None:
        state, self._state = self._state, _COMMAND
        transaction = self._transaction
        content = transaction.content if transaction is not None else None
        if state == _DROP_CHUNK or transaction is None or content is None:
            return  # its reply left with the command
        if self._is_last_chunk:
            if content.has_hidden_field:
                content.refuse(BARE_NEWLINE)
            is_binary = content.has_bare_newline or transaction.parameters.body is Body.BINARY
            self._content_is_whole("BDAT", content, has_binary=is_binary)
        elif content.refusal is not None:
            self._refuse("BDAT", content.refusal)
        else:
            self._out.append(b"250 2.0.0 %d octets received\r\n" % content.size)


def _name(line: bytes) -> str:
    """The verb of a command, for the log."""
    return line.split(b" ", 1)[0].decode("ascii", "replace").upper()


def _argument(line: bytes) -> bytes:
    """What follows the verb of a command."""
    return line.partition(b" ")[2]


_Method = Callable[[Dialogue, bytes], None]
_VERBS: dict[bytes, _Method] = {
    b"EHLO": Dialogue._ehlo,
    b"HELO": Dialogue._helo,
    b"MAIL": Dialogue._mail,
    b"RCPT": Dialogue._rcpt,
    b"DATA": Dialogue._data_command,
    b"BDAT": Dialogue._bdat,
    b"RSET": Dialogue._rset,
    b"NOOP": Dialogue._noop,
    b"VRFY": Dialogue._vrfy,
    b"EXPN": Dialogue._expn,
    b"HELP": Dialogue._help,
    b"QUIT": Dialogue._quit,
    b"STARTTLS": Dialogue._starttls,
    b"AUTH": Dialogue._auth,
    b"XCLIENT": Dialogue._xclient,
}
# The first five octets of the commands that move mail, as nearly every client writes them.
_USUAL: dict[bytes, _Method] = {
    b"MAIL ": Dialogue._mail,
    b"RCPT ": Dialogue._rcpt,
    b"DATA": Dialogue._data_command,
}
