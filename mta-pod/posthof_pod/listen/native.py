"""The default listener: sockets to dialogues, by asyncio.Protocol on uvloop.

Owns: connections, TLS handshakes, PROXY headers, time-outs, back-pressure, the clean stop.

Rules
- Everything SMTP is the dialogue's (smtp/server.py); here octets go in, octets go out, requests are served.
- A session is one Connection and one Dialogue: no task, no timer, no stream objects. 10,000 of them may be idle.
- One wheel turns once a second for all time-outs. A session is looked at every `stress_timeout` seconds at the
  latest, so that stress shortens the patience with sessions that are open already.
- Reading stops while the client does not read its replies, while a sink is full, and while more than WAITING_MAX
  octets wait for an answer.
- Only whole commands and content count as a sign of life: a line sent octet by octet does not stretch the time-out.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import partial
from typing import cast

from posthof_crds.engine import Listener, TLSMode
from posthof_pod.listen import proxy
from posthof_pod.listen.networks import plain
from posthof_pod.listen.reception import (
    BACKLOG,
    SHUTDOWN,
    TIMED_OUT,
    Contexts,
    FrontDesk,
    Watch,
    cipher_of,
)
from posthof_pod.listen.steps import PENDING, run
from posthof_pod.listen.timers import Wheel
from posthof_pod.listen.tls import proven_names
from posthof_pod.outbox import outbox_of
from posthof_pod.replies import Reply
from posthof_pod.smtp.server import Dialogue, Gate, Request

WAITING_MAX = 64 * 1024  # octets gathered during an answer before reading stops
LINGER = 5.0  # seconds a client has to read its last reply
HANDSHAKE_MAX = 60.0  # seconds for a TLS handshake
LOOK_MAX = 10.0  # seconds between two looks at a session
LINGER_MAX = 1024 * 1024  # octets thrown away meanwhile

BROKEN = Reply(421, "4.3.0", "Something failed here, try again later")

# What the octets of a connection are.
_PROXY, _HANDSHAKE, _TALK, _LINGER, _GONE = range(5)

# Why reading is stopped.
_CLIENT_IS_SLOW, _ANSWER_IS_DUE = 1, 2

_WAIT, _START_TLS = Request.WAIT, Request.START_TLS


class NativeListener:
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
        tick: float = 1.0,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`tick`: seconds, the precision of time-outs."""
        self.loop = loop or asyncio.get_running_loop()
        self.clock = self.loop.time
        self.desk = FrontDesk(
            listener,
            hostname,
            gate,
            contexts=contexts,
            watch=watch,
            blob_threshold=blob_threshold,
            clock=self.clock,
        )
        self.outbox = outbox_of(self.loop)
        self.connections: set[Connection] = set()
        self.wheel: Wheel[Connection] = Wheel(self.clock(), tick)
        self._tick = tick
        self.is_draining = False
        self._server: asyncio.AbstractServer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None

    @property
    def sessions(self) -> int:
        return len(self.connections)

    @property
    def coming(self) -> int:
        return self.desk.coming

    async def start(self, sock: socket.socket) -> None:
        self._server = await self.loop.create_server(lambda: Connection(self), sock=sock, backlog=BACKLOG)
        self._timer = self.loop.call_later(self._tick, self._turn)

    def swap(self, listener: Listener, hostname: str, gate: Gate) -> None:
        self.desk.swap(listener, hostname, gate)

    async def drain(self, grace: float) -> None:
        self.is_draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.part(SHUTDOWN)
        if self.connections:
            self._emptied = self.loop.create_future()
            await asyncio.wait([self._emptied], timeout=grace)
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self.connections):
            connection.abort("shutdown")

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if self._emptied is not None and not self.connections and not self._emptied.done():
            self._emptied.set_result(None)

    def _turn(self) -> None:
        """Once a tick: who was silent for too long?"""
        self._timer = self.loop.call_later(self._tick, self._turn)
        now = self.clock()
        for connection in self.wheel.turn(now):
            connection.look(now)


class Connection(asyncio.Protocol):
    """One client."""

    __slots__ = (
        "_begun",
        "_clock",
        "_dialogue",
        "_dropped",
        "_early",
        "_has_eof",
        "_heard",
        "_holds",
        "_house",
        "_phase",
        "_reason",
        "_say",
        "_slot",
        "_transport",
    )

    def __init__(self, house: NativeListener) -> None:
        self._house = house
        self._phase = _PROXY
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)  # set before anything else happens
        self._dialogue: Dialogue | None = None
        self._early = b""  # what came before the dialogue could take it
        self._holds = 0
        self._clock = house.clock
        self._say = house.outbox.put
        self._heard = self._begun = house.clock()
        self._slot = 0
        self._dropped = 0
        self._has_eof = False
        self._reason = ""

    # ---- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        house = self._house
        house.connections.add(self)
        self._watch_over(house.clock())
        peer = transport.get_extra_info("peername")
        try:
            address, port = plain(peer[0]), int(peer[1])
        except (TypeError, ValueError, IndexError):  # gone already
            self.abort("lost")
            return
        if address not in house.desk.proxies:
            self._enter(address, port)

    def data_received(self, data: bytes) -> None:
        dialogue = self._dialogue
        if dialogue is None or self._phase != _TALK:
            self._take_early(data)
            return
        try:
            replies = dialogue.feed(data)
            if replies:
                self._say(self._transport, replies)
            if dialogue.request:
                self._serve(dialogue)
            elif not dialogue.rest:
                self._heard = self._clock()
        except Exception as error:
            self._broken(error)

    def eof_received(self) -> bool:
        """A half-closed client still gets the reply it waits for; a TLS layer cannot be half-closed."""
        self._house.outbox.flush()  # the transport closes when this returns False
        dialogue = self._dialogue
        is_answer_due = dialogue is not None and dialogue.request is _WAIT and self._phase == _TALK
        self._has_eof = is_answer_due and self._transport.can_write_eof()
        return self._has_eof

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("lost" if exc is not None else "")

    def pause_writing(self) -> None:
        self._hold(_CLIENT_IS_SLOW)

    def resume_writing(self) -> None:
        self._let_go(_CLIENT_IS_SLOW)

    # ---- the beginning: who is it, in the clear or not

    def _take_early(self, data: bytes) -> None:
        """Octets before or after the talk."""
        if self._phase == _PROXY:
            self._early += data
            self._read_proxy_header()
        elif self._phase == _HANDSHAKE:
            self._early += data  # decrypted before we were told that the handshake is done
        elif self._phase == _LINGER:
            self._drop(len(data))

    def _read_proxy_header(self) -> None:
        try:
            header = proxy.parse(self._early)
        except proxy.NotProxied as error:
            peer = self._transport.get_extra_info("peername")
            self._house.desk.turned_away(peer[0] if peer else "", Reply(421, "4.7.0", str(error)))
            self.abort("no PROXY header")
            return
        if header is None:
            return
        self._early = self._early[header.length :]
        peer = self._transport.get_extra_info("peername") or ("", 0)
        address, port = (header.address, header.port) if header.address else (peer[0], peer[1])
        self._enter(plain(address) if address else "", port, is_named=bool(header.address))

    def _enter(self, address: str, port: int, *, is_named: bool = False) -> None:
        """The client is known: let it in, or turn it away."""
        house = self._house
        desk = house.desk
        reply = SHUTDOWN if house.is_draining else desk.clients.enter(address, house.clock())
        is_implicit = desk.listener.tls is TLSMode.IMPLICIT
        if reply is not None:
            desk.turned_away(address, reply)
            if not is_implicit:
                self._transport.write(reply.encode())
            self._phase = _LINGER
            self._transport.close()
            return
        self._dialogue = Dialogue(desk.session(address, port, is_named=is_named), desk)
        if is_implicit:
            self._start_tls(self._dialogue)
        else:
            self._begin_talk(self._dialogue, self._dialogue.greet())

    def _begin_talk(self, dialogue: Dialogue, greeting: bytes) -> None:
        self._phase = _TALK
        self._heard = self._clock()
        if greeting:
            self._say(self._transport, greeting)
        early, self._early = self._early, b""
        if early:
            self.data_received(early)

    # ---- TLS

    def _start_tls(self, dialogue: Dialogue) -> None:
        """RFC 3207, RFC 8314. The transport reads nothing for us until it is done."""
        self._house.outbox.flush()  # what is still in the clear
        is_first = not dialogue.commands
        early, self._early = self._early, b""
        self._phase = _HANDSHAKE
        self._heard = self._clock()
        done = partial(self._tls_is_done, dialogue, is_first)
        result = run(self._shake_hands(), done, self._house.desk.failed)
        if result is not PENDING:
            done(result)
        elif early:  # came behind a PROXY header: the beginning of the handshake
            self._house.loop.call_soon(_inject, self._transport, early)

    async def _shake_hands(self) -> asyncio.Transport | str:
        """The encrypted transport, or why there is none."""
        house = self._house
        context = house.desk.contexts()
        if context is None:
            return "no certificate"
        timeout = min(max(house.desk.clients.timeout, 1.0), HANDSHAKE_MAX)
        try:
            transport = await house.loop.start_tls(
                self._transport, self, context, server_side=True, ssl_handshake_timeout=timeout
            )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            return str(error) or type(error).__name__
        return transport or "lost"

    def _tls_is_done(self, dialogue: Dialogue, is_first: bool, result: object) -> None:
        if self._phase != _HANDSHAKE:
            return
        if isinstance(result, str | Reply):
            self.abort(f"TLS handshake: {result}")
            return
        self._transport = cast(asyncio.Transport, result)
        dialogue.session.certificate = self._transport.get_extra_info("peercert") or {}
        dialogue.session.proven = proven_names(dialogue.session.certificate)
        greeting = dialogue.tls_started(cipher_of(self._transport))
        self._begin_talk(dialogue, dialogue.greet() if is_first else greeting)

    # ---- requests of the dialogue

    def _serve(self, dialogue: Dialogue) -> None:
        """Does what the dialogue asks for, until it only wants more octets."""
        while request := dialogue.request:
            if request is _WAIT:
                awaited = dialogue.awaited
                if awaited is None:  # being answered already
                    if len(dialogue.rest) > WAITING_MAX:
                        self._hold(_ANSWER_IS_DUE)
                    return
                dialogue.awaited = None
                result = run(awaited, self._answered, self._house.desk.failed)
                if result is PENDING:
                    if dialogue.is_reading_content or len(dialogue.rest) > WAITING_MAX:
                        self._hold(_ANSWER_IS_DUE)
                    return
                replies = dialogue.resume(result)
                if replies:
                    self._say(self._transport, replies)
            elif request is _START_TLS:
                self._start_tls(dialogue)
                return
            else:
                self._part_with(dialogue)
                return
        self._heard = self._clock()

    def _answered(self, result: object) -> None:
        """The answer came later than at once."""
        dialogue = self._dialogue
        if dialogue is None:
            return
        try:
            replies = dialogue.resume(result)
            if self._phase != _TALK:  # the client went away meanwhile
                dialogue.lost()
                return
            if replies:
                self._say(self._transport, replies)
            if self._holds:
                self._let_go(_ANSWER_IS_DUE)
            if dialogue.request:
                self._serve(dialogue)
            self._heard = self._clock()
            if self._has_eof and not dialogue.request:
                self._house.outbox.close(self._transport)
        except Exception as error:
            self._broken(error)

    def _hold(self, why: int) -> None:
        if not self._holds and self._phase == _TALK:
            self._transport.pause_reading()
        self._holds |= why

    def _let_go(self, why: int) -> None:
        if not self._holds & why:
            return
        self._holds &= ~why
        if not self._holds and self._phase == _TALK and not self._transport.is_closing():
            self._transport.resume_reading()

    # ---- the end

    def part(self, reply: Reply) -> None:
        """Ends the session as soon as no message is on its way in."""
        dialogue = self._dialogue
        if dialogue is None or self._phase != _TALK:
            if self._phase != _LINGER:
                self.abort("shutdown")
            return
        replies = dialogue.part(reply)
        if replies:
            self._say(self._transport, replies)
        if dialogue.request and dialogue.request is not _WAIT:
            self._reason = "shutdown"
            self._serve(dialogue)

    def abort(self, reason: str) -> None:
        self._end(reason)
        self._transport.abort()

    def look(self, now: float) -> None:
        """Called by the wheel."""
        if self._phase == _GONE:
            return
        dialogue = self._dialogue
        if self._phase == _LINGER:
            patience = LINGER
        else:
            patience = self._house.desk.clients.timeout
        is_ours = dialogue is not None and dialogue.request is _WAIT  # the house is slow, not the client
        if now - self._heard < patience or is_ours:
            self._watch_over(now)
        elif self._phase == _TALK and dialogue is not None and not self._holds:
            self._watch_over(now)
            self._reason = "timeout"
            self._say(self._transport, dialogue.expire(TIMED_OUT))
            self._part_with(dialogue)
        else:
            self.abort("timeout")

    def _watch_over(self, now: float) -> None:
        limits = self._house.desk.clients.limits
        self._slot = self._house.wheel.put(self, now + min(limits.timeout, limits.stress_timeout, LOOK_MAX))

    def _part_with(self, dialogue: Dialogue) -> None:
        """The last reply is written. After QUIT the client expects no more; else it may still be sending, and a
        plain close would make the kernel reset the connection before the reply is read. A stop does not wait for
        clients that stay."""
        if dialogue.has_quit or self._house.is_draining:
            self._phase = _LINGER
            self._heard = self._clock()
            self._house.outbox.close(self._transport)
        else:
            self._say_farewell(b"")

    def _say_farewell(self, last: bytes) -> None:
        """Writes, then reads and drops until the client closes too, or LINGER is over."""
        transport = self._transport
        if last:
            self._say(transport, last)
        self._house.outbox.flush()
        self._phase = _LINGER
        self._heard = self._clock()
        self._early = b""
        if self._holds:
            self._holds = 0
            transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    def _drop(self, size: int) -> None:
        """Octets nobody reads any more."""
        self._dropped += size
        if self._dropped > LINGER_MAX:
            self.abort("")

    def _broken(self, error: Exception) -> None:
        """Our own fault: this session ends, the others do not notice."""
        self._house.desk.failed("session", error)
        self._reason = "internal error"
        self._say_farewell(BROKEN.encode())

    def _end(self, reason: str) -> None:
        """Once: nothing of the session is left behind."""
        if self._phase == _GONE:
            return
        self._phase = _GONE
        house = self._house
        house.wheel.take(self, self._slot)
        dialogue = self._dialogue
        if dialogue is not None:
            session = dialogue.session
            house.desk.clients.leave(session.client)
            dialogue.lost()
            house.desk.ended(
                session,
                commands=dialogue.commands,
                messages=dialogue.messages,
                begun=self._begun,
                reason=self._reason or reason,
            )
        house.forget(self)


def _inject(transport: asyncio.Transport, data: bytes) -> None:
    """Hands octets that were read in the clear to the TLS layer that has replaced us on `transport`."""
    layer = cast(asyncio.BufferedProtocol, transport.get_protocol())
    while data:
        buffer = memoryview(layer.get_buffer(len(data)))
        taken = min(len(buffer), len(data))
        buffer[:taken] = data[:taken]
        data = data[taken:]
        layer.buffer_updated(taken)
