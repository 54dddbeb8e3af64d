"""The socket under a session: bytes out, replies in, and one deadline.

Rules
- Nothing here raises for what a peer does. A wire that is over says why (`failure`, or `goodbye` for a 421), and the
  replies that came before stay readable: they are verdicts.
- Every command written is owed one reply. A reply nobody asked for makes the peer broken, so no answer can stand in
  for a later one; half a line where nothing is owed counts as one. In `listening` (content is being streamed) a
  refusal may come early: it stops the stream.
- A waiting wire has a deadline, renewed by each whole reply, not by each byte. One sweep a loop looks at them all;
  no timer is made for a command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

from posthof_pod.model import Reason
from posthof_pod.outbox import outbox_of
from posthof_pod.smtp.replyline import Broken, PeerReply, ReplyReader

FOREVER = float("inf")
QUIT_PATIENCE = 5.0  # seconds the 221 may take; only the session's place waits for it


class Wire(asyncio.Protocol):
    """One connection. Used by one task at a time."""

    __slots__ = (
        "_drained",
        "_is_paused",
        "_is_quitting",
        "_label",
        "_last",
        "_loop",
        "_need",
        "_patience",
        "_period",
        "_put",
        "_reader",
        "_time",
        "_waiter",
        "deadline",
        "failure",
        "goodbye",
        "inbox",
        "is_closed",
        "is_over",
        "listening",
        "on_close",
        "owed",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, period: float) -> None:
        self._loop = loop
        self._time = loop.time
        self._put = outbox_of(loop).put
        self._period = period  # seconds between two looks at the deadline
        self._reader = ReplyReader()
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._is_paused = False
        self._is_quitting = False
        self._need = 0
        self._label = ""
        self._patience = 0.0
        self._last = 0.0
        self.transport: asyncio.Transport
        self.inbox: list[PeerReply] = []
        self.owed = 1  # the banner
        self.listening = False
        self.deadline = FOREVER
        self.failure: tuple[Reason, str] | None = None
        self.goodbye: PeerReply | None = None
        self.is_over = False  # nothing more will be said or can be trusted
        self.is_closed = False
        self.on_close: Callable[[], None] | None = None  # called once, when the connection is gone

    # --- what the session does

    def say(self, data: bytes | memoryview, owed: int) -> None:
        """Write; the peer owes this many replies for it."""
        self.owed += owed
        self._put(self.transport, data)

    def say_pieces(self, pieces: tuple[bytes | memoryview, ...], owed: int) -> None:
        """Write several pieces as one, uncopied."""
        self.owed += owed
        self._put(self.transport, pieces)

    async def replies(self, count: int, label: str, patience: float, last: float = 0.0) -> list[PeerReply]:
        """The next `count` replies, fewer where the wire is over, taken out of the inbox. Times as in `arrival`."""
        if len(self.inbox) < count and not self.is_over:
            await self.arrival(count, label, patience, last)
        taken = self.inbox[:count]
        del self.inbox[:count]
        return taken

    async def arrive(self, count: int, label: str, patience: float) -> None:
        """Until `count` replies stand in the inbox, or the wire is over."""
        if len(self.inbox) < count and not self.is_over:
            await self.arrival(count, label, patience)

    def arrival(self, count: int, label: str, patience: float, last: float = 0.0) -> asyncio.Future[None]:
        """Done when `count` replies stand in the inbox, or the wire is over; neither is so yet.

        Each may take `patience` seconds, the last one `last` where given. `label` names the commands for the log.
        """
        self._need = count
        self._label = label
        self._patience = patience
        self._last = last or patience
        self.deadline = self._time() + (self._last if count - len(self.inbox) == 1 else patience)
        self._waiter = waiter = self._loop.create_future()
        return waiter

    async def drain(self, patience: float) -> None:
        """Until the kernel took most of what was written; `patience` seconds at most, then the wire is over.

        It lets the loop turn in any case: a content given without a pause must not run on over a refusal or a reset.
        """
        await asyncio.sleep(0)
        while self._is_paused and not self.is_over and not self.is_refused:
            self._label = "a block of content"
            self.deadline = self._loop.time() + patience
            self._drained = self._loop.create_future()
            await self._drained

    @property
    def is_refused(self) -> bool:
        """The peer said no while the content was still on its way."""
        return any(reply.code >= 400 for reply in self.inbox)

    def give_up(self, reason: Reason, text: str) -> None:
        """The end, with its reason. The first reason stays."""
        if self.failure is None:
            self.failure = (reason, text)
        self.is_over = True
        _sweep(self._loop).drop(self)
        self.transport.abort()
        self._wake()

    def quit(self) -> None:
        """Say QUIT and go; the transport closes by itself after the 221 or a short time."""
        if self.is_closed:
            return
        if self.owed or self.is_over:
            self.is_over = True
            self.transport.abort() if self.owed else self.transport.close()
            return
        self.is_over = self._is_quitting = True
        self._label = "QUIT"
        self.deadline = self._loop.time() + QUIT_PATIENCE
        self.say(b"QUIT\r\n", 1)

    # --- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # create_connection gives a Transport
        _sweep(self._loop).add(self, self._period)

    def data_received(self, data: bytes) -> None:
        usual = None if self._is_quitting or b"421" in data else self._reader.whole(data)
        if usual is None or len(usual) > self.owed:
            self._hear(data)
            return
        inbox = self.inbox
        inbox += usual
        self.owed -= len(usual)
        missing = self._need - len(inbox)
        waiter = self._waiter
        if missing > 0:
            if waiter is not None:
                self.deadline = self._time() + (self._last if missing == 1 else self._patience)
        elif waiter is None or waiter.done():
            self._wake()
        else:
            self.deadline = FOREVER
            self._need = 0
            self._waiter = None
            waiter.set_result(None)

    def _hear(self, data: bytes) -> None:
        """Anything but whole replies that are owed."""
        try:
            replies = self._reader.feed(data)
        except Broken as error:
            self.give_up(Reason.PEER_BROKEN, f"the host does not speak SMTP: {error}")
            return
        if self._is_quitting:
            if replies:
                self.transport.close()
            return
        owed = self.owed
        inbox = self.inbox
        for reply in replies:
            if reply.code == 421:
                self.goodbye = reply
                self.is_over = True
            if owed or (self.listening and reply.code >= 400):
                owed -= owed > 0
                inbox.append(reply)
            elif reply.code != 421:
                self.give_up(Reason.PEER_BROKEN, f"the host said unasked: {reply}")
        self.owed = owed
        if not owed and self._reader.is_inside and not self.listening:
            self.give_up(Reason.PEER_BROKEN, "the host spoke unasked")
        missing = self._need - len(inbox)
        if missing <= 0 or self.is_over:
            self._wake()
        elif replies and self._waiter is not None:
            self.deadline = self._time() + (self._last if missing == 1 else self._patience)
        if self.goodbye is not None:
            self.transport.close()

    def eof_received(self) -> None:
        """The peer closes: so do we."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = self.is_closed = True
        _sweep(self._loop).drop(self)
        if self.failure is None:
            how = f"the connection broke: {exc}" if exc else "the host closed the connection"
            where = " in the middle of a reply" if self._reader.is_inside else ""
            self.failure = (Reason.PEER_CLOSED, how + where)
        self._wake()
        if self.on_close is not None:
            self.on_close()
            self.on_close = None

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            self.deadline = FOREVER
            drained.set_result(None)

    def expire(self) -> None:
        """The deadline has passed."""
        self.give_up(Reason.PEER_TIMEOUT, f"the host was silent too long after {self._label}")

    def _wake(self) -> None:
        self.deadline = FOREVER
        self._need = 0
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)


class _Sweep:
    """Looks at the deadlines of a loop's wires, as often as the most impatient of them wants."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._wires: set[Wire] = set()
        self._period = FOREVER
        self._handle: asyncio.TimerHandle | None = None

    def add(self, wire: Wire, period: float) -> None:
        self._wires.add(wire)
        if period < self._period or self._handle is None:
            self._period = period
            if self._handle is not None:
                self._handle.cancel()
            self._handle = self._loop.call_later(period, self._run)

    def drop(self, wire: Wire) -> None:
        self._wires.discard(wire)

    def _run(self) -> None:
        self._handle = None
        now = self._loop.time()
        for wire in [wire for wire in self._wires if wire.deadline <= now]:
            wire.expire()
        if self._wires:
            self._handle = self._loop.call_later(self._period, self._run)
        else:
            self._period = FOREVER


_SWEEPS: WeakKeyDictionary[asyncio.AbstractEventLoop, _Sweep] = WeakKeyDictionary()


def _sweep(loop: asyncio.AbstractEventLoop) -> _Sweep:
    sweep = _SWEEPS.get(loop)
    if sweep is None:
        sweep = _SWEEPS[loop] = _Sweep(loop)
    return sweep
