"""Asking the next hop whether a mailbox exists: MAIL FROM:<>, RCPT TO, QUIT, and no message.

Owns: the answers and how long they are believed, and that a question is asked once at a time.

| what the next hop does | what the client is told | believed for |
|---|---|---|
| 2xx to RCPT | the mailbox exists | `callout.positive` of the MailDomain (1 h) |
| 552 to RCPT | 552 5.2.2, the mailbox is full | `callout.negative` |
| any other 5xx to RCPT | 550 5.1.1 | `callout.negative` (10 min) |
| 4xx to RCPT | 451 4.4.3 | 1 min |
| anything else: no connection, no TLS, a refused MAIL FROM:<>, silence, nonsense | 451 4.4.3 | 1 min |

Rules
- 4.4.3 (RFC 3463: a directory server could not be asked) is the code for "not known at the moment": a mail is never
  refused for good because somebody else is down.
- While the next hop cannot be asked, a "yes" that is too old still counts: what existed yesterday probably exists.
- The question runs in a task of its own, so nobody who waits needs one; a client that goes away cancels nothing.
Source: RFC 5321 section 3.3 (RCPT), 4.5.5 (the null sender). Why not VRFY: nobody answers it truthfully.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from posthof_crds import names
from posthof_crds.engine import Domain
from posthof_pod.admit.recipients import NO_SUCH
from posthof_pod.model import Destination
from posthof_pod.replies import Reply

NOT_KNOWN = Reply(451, "4.4.3", "Whether this mailbox exists could not be found out, try again later")
FULL = Reply(552, "5.2.2", "The mailbox is full")
TEMPORARY = 60.0  # seconds that "not known" is believed
TIMEOUT = 30.0  # seconds for a whole question: a client waits for it at RCPT TO
ANSWERS = 100_000  # remembered at most, the oldest go first


class PeerAnswer(Protocol):
    """A reply of the next hop: smtp.replyline.PeerReply."""

    @property
    def code(self) -> int: ...


class Line(Protocol):
    """A session with the next hop, after its EHLO (and TLS, where the destination demands it)."""

    async def command(self, line: bytes) -> PeerAnswer:
        """Sends one command (without CRLF) and waits for its reply. Raises where there is none."""
        ...

    async def quit(self) -> None: ...


Opener = Callable[[Destination], Awaitable[Line]]


class _Known(NamedTuple):
    """`answer` None: the mailbox exists."""

    answer: Reply | None
    until: float


class Callout:
    """Answers for all callout domains of a worker."""

    def __init__(
        self,
        opener: Opener,
        destination: Callable[[str], Destination | None],
        *,
        monotonic: Callable[[], float],
        timeout: float = TIMEOUT,
        answers: int = ANSWERS,
        on_failure: Callable[[str, Exception], None] = lambda _address, _error: None,
    ) -> None:
        """`destination`: of a MailDomain, by its domain (route.Routes.of_domain). `on_failure`: for the log."""
        self._opener, self._destination, self._monotonic = opener, destination, monotonic
        self._timeout, self._answers, self._on_failure = timeout, answers, on_failure
        self._known: dict[tuple[str, str], _Known] = {}
        self._asking: dict[tuple[str, str], asyncio.Task[Reply | None]] = {}
        self._is_stopping = False

    def ask(self, domain: Domain, address: str) -> Reply | asyncio.Future[Reply | None] | None:
        """None: exists. A reply: refused. A future of either, where the next hop has to be asked."""
        key = (domain.domain, names.fold(names.split(address)[0]))
        known = self._known.get(key)
        if known is not None and self._monotonic() < known.until:
            return known.answer
        task = self._asking.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._find_out(key, domain, address))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return asyncio.shield(task)

    def forget(self) -> None:
        """The configuration changed: nothing is known any more."""
        self._known.clear()

    async def stop(self) -> None:
        """Ends the questions that run; whoever waits for one is told 451."""
        self._is_stopping = True
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _find_out(self, key: tuple[str, str], domain: Domain, address: str) -> Reply | None:
        answer: Reply | None
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._question(domain, address)
        except asyncio.CancelledError:
            if self._is_stopping:
                return NOT_KNOWN  # those who wait for it are still to be answered
            raise
        except Exception as error:  # whatever the peer or the network did: it could not be asked
            self._on_failure(address, error)
            answer = NOT_KNOWN
        before = self._known.pop(key, None)
        if answer is NOT_KNOWN:
            if before is not None and before.answer is None:
                answer = None
            seconds = TEMPORARY
        else:
            seconds = domain.callout.positive if answer is None else domain.callout.negative
        if len(self._known) >= self._answers:
            del self._known[next(iter(self._known))]
        self._known[key] = _Known(answer, self._monotonic() + seconds)
        return answer

    async def _question(self, domain: Domain, address: str) -> Reply | None:
        destination = self._destination(domain.domain)
        if destination is None:
            return NOT_KNOWN
        local = names.split(address)[0]
        utf8 = b"" if local.isascii() else b" SMTPUTF8"
        line = await self._opener(destination)
        try:
            mail = await line.command(b"MAIL FROM:<>" + utf8)
            if mail.code // 100 != 2:
                return NOT_KNOWN
            reply = await line.command(b"RCPT TO:<%b@%b>" % (local.encode(), domain.domain.encode()))
        finally:
            with contextlib.suppress(Exception):  # the question is answered, or has failed already
                await line.quit()
        if reply.code // 100 == 2:
            return None
        if reply.code == 552:  # RFC 5321 4.2.3: it exists, and holds too much
            return FULL
        return NO_SUCH if reply.code // 100 == 5 else NOT_KNOWN
