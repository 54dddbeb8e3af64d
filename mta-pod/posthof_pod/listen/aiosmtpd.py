"""The other listener: the same gate behind aiosmtpd's own protocol code. The only file that imports aiosmtpd.

It is an independent reading of RFC 5321: aiosmtpd cuts lines, parses addresses, reads DATA and knows the order of
commands; here is only what connects it with the house, and guards where it is laxer than the house allows.

Rules
- Its EHLO is smaller: SIZE, 8BITMIME, SMTPUTF8, STARTTLS, AUTH. No PIPELINING, CHUNKING, DSN, LIMITS, XCLIENT and no
  enhanced codes beyond those the gate gives.
- A message is held in memory whole, a line of it may have LINE_MAX octets, and a session costs a task and streams.
  Who needs more takes the native listener.
- Guards: command lines end with CRLF and hold no control character; a bare CR or LF in content is refused or
  normalised as the listener says; nothing may follow STARTTLS in its packet; addresses pass the house's grammar too.
"""

# ruff: noqa: N802 - aiosmtpd finds hooks and commands by names like handle_MAIL

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import ssl
from collections.abc import Awaitable
from functools import partial
from typing import Any, cast

from aiosmtpd.smtp import SMTP

from posthof_crds.engine import Listener, TLSMode
from posthof_pod.listen.networks import plain
from posthof_pod.listen.reception import BACKLOG, SHUTDOWN, TIMED_OUT, Contexts, FrontDesk, Watch, cipher_of
from posthof_pod.listen.steps import reply_for, run
from posthof_pod.listen.tls import proven_names
from posthof_pod.model import Body, Recipient
from posthof_pod.replies import Reply
from posthof_pod.smtp import answers as say
from posthof_pod.smtp import grammar, sasl
from posthof_pod.smtp.data import BARE_NEWLINE, has_bare_newline, without_bcc
from posthof_pod.smtp.gate import Gate, Incoming, Session
from posthof_pod.smtp.grammar import MailParameters, Malformed
from posthof_pod.smtp.server import GUESSES_MAX, RESPONSE_MAX

LINE_MAX = 1024 * 1024  # octets of one line of content
PROXY_TIMEOUT = 10.0

_MALFORMED = b"MALFORMED\r\n"
_TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors")
_INJECTED = Reply(421, "4.7.0", "Nothing may follow STARTTLS before the handshake")
_TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
_BODIES = {"BODY=8BITMIME": Body.EIGHTBIT, "BODY=7BIT": Body.SEVENBIT}


class AiosmtpdListener:
    """A listener of the worker (reception.Listening)."""

    def __init__(
        self,
        listener: Listener,
        hostname: str,
        gate: Gate,
        *,
        contexts: Contexts,
        watch: Watch,
        blob_threshold: int = 256 * 1024,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.loop = loop or asyncio.get_running_loop()
        self.desk = FrontDesk(
            listener,
            hostname,
            gate,
            contexts=contexts,
            watch=watch,
            blob_threshold=blob_threshold,
            clock=self.loop.time,
        )
        self.conversations: set[Conversation] = set()
        self.is_draining = False
        self._server: asyncio.AbstractServer | None = None
        self._emptied: asyncio.Future[None] | None = None

    @property
    def sessions(self) -> int:
        return len(self.conversations)

    @property
    def coming(self) -> int:
        return 0  # aiosmtpd's own code has them

    async def start(self, sock: socket.socket) -> None:
        logging.getLogger("mail.log").setLevel(logging.CRITICAL)  # what is worth a line is told to the Watch
        is_implicit = self.desk.listener.tls is TLSMode.IMPLICIT
        factory = partial(_TLSFirst if is_implicit else Conversation, self)
        self._server = await self.loop.create_server(factory, sock=sock, backlog=BACKLOG)

    def swap(self, listener: Listener, hostname: str, gate: Gate) -> None:
        self.desk.swap(listener, hostname, gate)

    async def drain(self, grace: float) -> None:
        self.is_draining = True
        if self._server is not None:
            self._server.close()
        for conversation in list(self.conversations):
            conversation.part(SHUTDOWN)
        if self.conversations:
            self._emptied = self.loop.create_future()
            await asyncio.wait([self._emptied], timeout=grace)
        for conversation in list(self.conversations):
            conversation.abort()

    def forget(self, conversation: Conversation) -> None:
        self.conversations.discard(conversation)
        if self._emptied is not None and not self.conversations and not self._emptied.done():
            self._emptied.set_result(None)


class _TLSFirst(asyncio.Protocol):
    """Implicit TLS: the handshake, then a Conversation on the encrypted transport."""

    def __init__(self, house: AiosmtpdListener) -> None:
        self._house = house

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins the handshake before anything is read: what comes is for the TLS layer."""
        run(self._shake_hands(cast(asyncio.Transport, transport)), _nothing_more, self._house.desk.failed)

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        house = self._house
        context = house.desk.contexts()
        conversation = Conversation(house)
        if context is None:
            transport.abort()
            return
        try:
            secure = await house.loop.start_tls(transport, conversation, context, server_side=True)
        except (OSError, ssl.SSLError, TimeoutError):
            transport.abort()
            return
        if secure is not None:
            conversation.connection_made(secure)


def _nothing_more(_: object) -> None:
    """The conversation has begun, or the transport was aborted."""


class _GuardedReader:
    """A StreamReader whose command lines are held to RFC 5321 2.3.8: what is none becomes the command MALFORMED."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.__dict__["reader"] = reader
        self.__dict__["commands"] = 0
        self.__dict__["verb"] = ""

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        line: bytes = await self.reader.readuntil(separator)
        if separator != b"\n":
            return line
        self.__dict__["commands"] += 1
        self.__dict__["verb"] = line[:16].split(b" ")[0].decode("ascii", "replace").strip().upper()
        if not line.endswith(b"\r\n") or _has_control(line[:-2]):
            return _MALFORMED
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["reader"], name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.__dict__["reader"], name, value)


def _has_control(line: bytes) -> bool:
    return any(octet < 32 or octet == 127 for octet in line)


class _SameForAll(dict[str, int]):
    """aiosmtpd's table of line lengths per command, which it shares between sessions and adds to at each EHLO."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length

    def __missing__(self, key: str) -> int:
        return self._length

    def __setitem__(self, key: str, value: int) -> None:
        """Every command has the same length."""


class _Hooks:
    """What aiosmtpd asks, answered by the gate."""

    def __init__(self, house: AiosmtpdListener) -> None:
        self._house = house

    async def handle_PROXY(self, server: Conversation, session: Any, envelope: Any, proxy_data: Any) -> bool:
        if proxy_data.src_addr is not None:
            server.is_someone(str(proxy_data.src_addr), int(proxy_data.src_port or 0), is_named=True)
        return server.is_welcome

    async def handle_HELO(self, server: Conversation, session: Any, envelope: Any, hostname: str) -> str:
        server.facts.helo = session.host_name = grammar.parse_helo(hostname.encode("utf-8", "replace"))
        server.facts.is_extended = False
        return f"250 {server.hostname}"

    async def handle_EHLO(
        self, server: Conversation, session: Any, envelope: Any, hostname: str, responses: list[str]
    ) -> list[str]:
        server.facts.helo = session.host_name = grammar.parse_helo(hostname.encode("utf-8", "replace"))
        server.facts.is_extended = True
        offers = [response for response in responses if not response.startswith("250-AUTH")]
        terms = self._house.desk.terms
        if terms.mechanisms and server.facts.tls:
            offers.insert(-1, "250-AUTH " + " ".join(self._house.desk.listener.mechanisms))
        return offers

    async def handle_MAIL(
        self, server: Conversation, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        parameters = _parameters(options)
        sender = _checked(address, smtputf8=parameters.smtputf8, is_sender=True)
        desk, facts = self._house.desk, server.facts
        if desk.terms.needs_login and not facts.credential and not desk.gate.knows(facts):
            return server.say(say.AUTH_FIRST if facts.tls else say.TLS_FIRST)
        limits = desk.listener.limits
        reply = desk.admits_message(facts) if limits.client_message_rate else None
        reply = reply or desk.gate.room(parameters.size) or await _of(desk.gate.sender(facts, sender, parameters))
        if reply is not None and not reply.is_positive:
            return server.say(reply)
        envelope.mail_from = address
        server.begin(sender, parameters)
        return "250 2.1.0 Sender accepted"

    async def handle_RCPT(
        self, server: Conversation, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        recipient = _checked(address, smtputf8=server.parameters.smtputf8, is_sender=False)
        desk = self._house.desk
        if len(envelope.rcpt_tos) >= desk.listener.limits.recipients:
            return server.say(_TOO_MANY_RECIPIENTS)
        gate = desk.gate
        answer = await _of(gate.recipient(server.facts, server.sender, recipient, grammar.NO_RECIPIENT_PARAMETERS))
        if isinstance(answer, Reply) and not answer.is_positive:
            return server.say(answer)
        if not isinstance(answer, Reply):
            server.recipients += answer
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Recipient accepted"

    async def handle_DATA(self, server: Conversation, session: Any, envelope: Any) -> str:
        content = bytes(envelope.content)
        if has_bare_newline(content):
            if not self._house.desk.listener.normalise_newlines:
                return server.say(BARE_NEWLINE)
            content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        if self._house.desk.terms.needs_login:
            content = without_bcc(content)
        mail = await server.incoming(content)
        reply = await self._house.desk.gate.accept(mail)
        if reply.is_positive:
            server.messages += 1
            server.errors = 0
        return server.say(reply)

    async def handle_exception(self, error: Exception) -> str:
        if isinstance(error, Malformed):
            return _text(error.reply)
        return _text(reply_for(error, self._house.desk.failed))


class Conversation(SMTP):
    """One client."""

    line_length_limit = LINE_MAX

    def __init__(self, house: AiosmtpdListener) -> None:
        desk = house.desk
        listener = desk.listener
        self._house = house
        self.facts: Session = desk.session("", 0)
        self.is_welcome = False
        self.sender = ""
        self.parameters = grammar.NO_MAIL_PARAMETERS
        self.recipients: list[Recipient] = []
        self.messages = 0
        self.errors = 0
        self._guesses = 0
        self._begun = house.loop.time()
        self._is_counted = False
        self._is_busy = False
        self._parting: Reply | None = None
        self._reason = ""
        self._guard: _GuardedReader | None = None
        self.command_size_limit = listener.limits.command_line - 2
        self.command_size_limits = _SameForAll(self.command_size_limit)
        super().__init__(
            _Hooks(house),
            data_size_limit=listener.limits.message_size or None,
            enable_SMTPUTF8=True,
            hostname=desk.terms.hostname,
            ident="ESMTP Posthof",
            tls_context=desk.contexts() if listener.tls is TLSMode.STARTTLS else None,
            timeout=desk.clients.timeout,
            loop=house.loop,
        )

    # ---- connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._original_transport is not None:  # after STARTTLS: the same client
            super().connection_made(transport)
            self.facts.tls, self.facts.helo, self.facts.is_extended = cipher_of(transport), "", False
            self.facts.credential = ""
            self._read_certificate(transport)
            return
        self._house.conversations.add(self)
        peer = transport.get_extra_info("peername")
        address = plain(peer[0]) if peer else ""
        if address and address in self._house.desk.proxies:
            self._proxy_timeout = PROXY_TIMEOUT
        else:
            self.is_someone(address, peer[1] if peer else 0)
        if transport.get_extra_info("cipher"):
            self.facts.tls = cipher_of(transport)
            self._read_certificate(transport)
        super().connection_made(transport)

    def _read_certificate(self, transport: asyncio.BaseTransport) -> None:
        """Whom the client's certificate names, where it has one that holds."""
        self.facts.certificate = transport.get_extra_info("peercert") or {}
        self.facts.proven = proven_names(self.facts.certificate)

    def is_someone(self, address: str, port: int, *, is_named: bool = False) -> None:
        """The client is known: count it, or mark it as not welcome."""
        desk = self._house.desk
        tls, certificate, proven = self.facts.tls, self.facts.certificate, self.facts.proven
        self.facts = desk.session(address, port, is_named=is_named)
        self.facts.tls, self.facts.certificate, self.facts.proven = tls, certificate, proven
        self.facts.has_xclient = False
        reply = SHUTDOWN if self._house.is_draining else desk.clients.enter(address, desk.clock())
        self.is_welcome = self._is_counted = reply is None
        if reply is not None:
            desk.turned_away(address, reply)
            self._parting = reply

    def connection_lost(self, error: Exception | None) -> None:
        if self.session is None:  # the handshake failed before there was a session
            return
        super().connection_lost(error)
        house = self._house
        if self not in house.conversations:
            return
        if self._is_counted:
            house.desk.clients.leave(self.facts.client)
            commands = self._guard.commands if self._guard is not None else 0
            house.desk.ended(
                self.facts, commands=commands, messages=self.messages, begun=self._begun, reason=self._reason
            )
        house.forget(self)

    def _cb_client_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super()._cb_client_connected(reader, writer)
        self._guard = _GuardedReader(reader)
        self._reader = cast(asyncio.StreamReader, self._guard)

    async def _handle_client(self) -> None:
        if self._parting is not None:
            self._leave(self._parting)
            return
        await super()._handle_client()

    def _leave(self, reply: Reply) -> None:
        """The last reply of the session."""
        if self.transport is not None and not self.transport.is_closing():
            self._writer.write(reply.encode())
            self.transport.close()

    def _timeout_cb(self) -> None:
        self._reason = "timeout"
        self._leave(TIMED_OUT)

    def part(self, reply: Reply) -> None:
        """Ends the session as soon as no message is on its way in."""
        self._reason = "shutdown"
        if self._is_busy:
            self._parting = reply
        else:
            self._leave(reply)

    def abort(self) -> None:
        if self.transport is not None:
            cast(asyncio.WriteTransport, self.transport).abort()

    # ---- replies

    def say(self, reply: Reply) -> str:
        """The reply as aiosmtpd wants it."""
        return _text(reply)

    async def push(self, status: str | bytes) -> None:
        text = status.decode("utf-8", "replace") if isinstance(status, bytes) else status
        await super().push(text)
        if text[:1] in "45" and text[:3].isdigit():
            await self._refused(text)

    async def _refused(self, text: str) -> None:
        """A 4xx or 5xx left: tell it; too many 5xx end the session."""
        verb = self._guard.verb if self._guard is not None else ""
        status, _, words = text[4:].partition(" ")
        is_enhanced = status[:2] == text[0] + "."
        reply = Reply(int(text[:3]), status if is_enhanced else "", words if is_enhanced else text[4:])
        self._house.desk.refused(self.facts, verb, self.sender if self.recipients else None, None, reply)
        self.errors += reply.code >= 500
        limit = self._house.desk.listener.limits.errors
        if reply.code == 421 and self.transport is not None:
            self.transport.close()
        elif self.errors >= limit > 0:
            self._leave(_TOO_MANY_ERRORS)

    # ---- transactions

    def begin(self, sender: str, parameters: MailParameters) -> None:
        self.sender, self.parameters, self.recipients = sender, parameters, []

    async def incoming(self, content: bytes) -> Incoming:
        """The message as the gate takes it; a large one goes to a sink first."""
        body: Any = content
        head = b""
        desk = self._house.desk
        if len(content) > desk.terms.blob_threshold:
            body = desk.gate.blob(self.facts)
            body.write(content)
            await body.drain()
            head = b"" if content.startswith(b"\r\n") else content[: content.find(b"\r\n\r\n") + 2]
        protocol = self.facts.protocol(smtputf8=self.parameters.smtputf8)
        return Incoming(
            self.facts, self.sender, self.parameters, self.recipients, body, head, len(content), False, protocol
        )

    # ---- commands

    async def smtp_MALFORMED(self, arg: str | None) -> None:
        """What a line that is no command line becomes."""
        await self.push("500 5.5.2 A command line ends with CRLF and holds no control characters")

    async def smtp_DATA(self, arg: str | None) -> None:
        self._is_busy = True
        try:
            await super().smtp_DATA(arg)
        finally:
            self._is_busy = False
            if self._parting is not None:
                self._leave(self._parting)

    async def smtp_STARTTLS(self, arg: str | None) -> None:
        if not arg and self.tls_context and self._guard is not None and self._guard.reader._buffer:
            await self.push(_text(_INJECTED))
            return
        await super().smtp_STARTTLS(arg)

    async def smtp_AUTH(self, arg: str | None) -> None:
        """RFC 4954 section 4. The mechanisms are the house's, not aiosmtpd's."""
        terms, facts = self._house.desk.terms, self.facts
        words = (arg or "").split(" ")
        reply: Reply | None = None
        if not terms.mechanisms:
            reply = say.NOT_OFFERED
        elif not facts.tls:
            reply = say.TLS_FIRST
        elif not facts.is_extended:
            reply = say.EHLO_FIRST
        elif facts.credential:
            reply = say.IS_AUTHENTICATED
        elif self.envelope is not None and self.envelope.mail_from is not None:
            reply = say.IN_TRANSACTION
        elif not words[0] or len(words) > 2:
            reply = say.NEEDS_ARGUMENT
        elif words[0].upper() not in terms.mechanisms:
            reply = say.NO_MECHANISM
        if reply is None:
            reply = await self._exchange(words[0].upper(), words[1] if len(words) == 2 else None)
        await self.push(_text(reply))
        if not reply.is_positive and reply.code in (454, 535):
            self._guesses += 1
            if self._guesses >= GUESSES_MAX:
                self._leave(say.TOO_MANY_GUESSES)

    async def _exchange(self, mechanism: str, initial: str | None) -> Reply:
        """From the mechanism's first word to the reply that ends it."""
        exchange = self._house.desk.authenticate(self.facts, mechanism)
        if isinstance(exchange, Reply):
            return exchange
        try:
            response = None if initial is None else b"" if initial == "=" else sasl.decode(initial.encode())
            while True:
                word = await exchange.respond(response)
                if isinstance(word, Reply):
                    return word
                await super().push("334 " + base64.b64encode(word).decode())
                line = await self._reader.readline()
                if not line.endswith(b"\r\n"):
                    return say.BARE_LF
                if line == b"*\r\n":
                    return say.CANCELLED
                if len(line) > RESPONSE_MAX:
                    return say.TOO_LONG_RESPONSE
                response = sasl.decode(line[:-2])
        except Malformed as malformed:
            return malformed.reply


def _text(reply: Reply) -> str:
    return reply.encode().decode().removesuffix("\r\n")


async def _of(answer: Any) -> Any:
    """What a gate's answer comes to; it may be awaitable."""
    return await answer if isinstance(answer, Awaitable) else answer


def _parameters(options: list[str]) -> MailParameters:
    """aiosmtpd has checked them; they are upper case."""
    size, body = 0, Body.SEVENBIT
    for option in options:
        body = _BODIES.get(option, body)
        if option.startswith("SIZE="):
            size = int(option[5:])
    return MailParameters(size, body, "SMTPUTF8" in options)


def _checked(address: str, *, smtputf8: bool, is_sender: bool) -> str:
    """The address as the house writes it. aiosmtpd's parser is e-mail's (RFC 5322); paths are stricter."""
    if is_sender:
        if address in ("", "<>"):
            return ""
        line = f"MAIL FROM:<{address}>{' SMTPUTF8' if smtputf8 else ''}"
        return grammar.parse_mail(line.encode("utf-8", "surrogateescape"))[0]
    line = f"RCPT TO:<{address}>"
    return grammar.parse_rcpt(line.encode("utf-8", "surrogateescape"), smtputf8=smtputf8)[0]
