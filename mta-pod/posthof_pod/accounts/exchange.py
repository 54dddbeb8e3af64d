"""One AUTH on its way: a mechanism's claims are checked, guesses counted, the session learns who it is.

Rules
- Every wrong answer is the same words (535 5.7.8), and none leaves before its delay has passed, counted from the
  moment the claim was made: what was checked, and against what, shows neither in words nor in time.
- A blocked client or account is told 454 4.7.0 and nothing is checked.
- The log learns the exact reason; a password stands nowhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from posthof_pod.accounts.directory import Account
from posthof_pod.accounts.guesses import DELAY, Guesses
from posthof_pod.replies import Failure, Reply
from posthof_pod.smtp import answers as say
from posthof_pod.smtp.gate import Session
from posthof_pod.smtp.grammar import Malformed
from posthof_pod.smtp.sasl import Claim, Mechanism, Password, Proof, Token

BLOCKED = Reply(454, "4.7.0", "Temporary authentication failure, try again later")


class Login(NamedTuple):
    """Who somebody has proven to be. `user`: the name logged in with, where the account stands for many; else ""."""

    account: Account
    user: str = ""


class Refusal(NamedTuple):
    """Why a claim does not hold: for the log."""

    why: str


class Watch(Protocol):
    """The part of observe.events.Events that tells of logins."""

    def authenticated(self, session: Session, mechanism: str, username: str) -> None: ...
    def not_authenticated(self, session: Session, mechanism: str, username: str, why: str) -> None: ...
    def account_held(self, credential: str, user: str, why: str) -> None: ...


Check = Callable[[Claim, Session], Awaitable[Login | Refusal]]


class LoginExchange:
    """smtp.gate.Exchange. `begin(initial)` makes the mechanism."""

    def __init__(
        self,
        session: Session,
        name: str,
        begin: Callable[[bytes | None], Mechanism],
        *,
        check: Check,
        guesses: Guesses,
        watch: Watch,
        client: str,
        least: float = 0.0,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`client`: what counts as one client, "" where its address is not to be believed. `least`: seconds
        that no wrong answer is quicker than. `clock`: monotonic."""
        self._session, self._name, self._client = session, name, client
        self._begin, self._check = begin, check
        self._guesses, self._watch = guesses, watch
        self._clock, self._sleep, self._least = clock, sleep, least
        self._mechanism: Mechanism | None = None
        self._login: Login | None = None
        self._username = ""
        self._counted = ("", "")  # client, account of the attempt that is under way
        self._why = "the proof of the mechanism does not hold"
        self._until = 0.0  # when a wrong answer may leave
        self._is_told = False

    async def respond(self, response: bytes | None) -> bytes | Reply:
        """smtp.gate.Exchange."""
        try:
            return await self._respond(response)
        except Malformed as malformed:
            return malformed.reply
        except Failure as failure:
            self._guesses.undone(*self._counted, self._clock())
            self._watch.not_authenticated(self._session, self._name, self._username, failure.reason)
            return failure.reply

    async def _respond(self, response: bytes | None) -> bytes | Reply:
        ended, word = self._step(response)
        while not ended and not isinstance(word, bytes):
            assert not isinstance(word, bool)
            verdict = await self._judge(word)
            if isinstance(verdict, Reply):
                return verdict
            ended, word = self._step(verdict)
        return await self._ended(is_right=bool(word)) if ended else _challenge(word)

    def _step(self, sent: bytes | bool | None) -> tuple[bool, bytes | Claim | bool]:
        """`(ended, what it yields or returns)`."""
        try:
            if self._mechanism is None:
                assert not isinstance(sent, bool)
                self._mechanism = self._begin(sent)
                return False, next(self._mechanism)
            assert sent is not None
            return False, self._mechanism.send(sent)
        except StopIteration as end:
            return True, bool(end.value)

    async def _judge(self, claim: Claim) -> bool | Reply:
        session, now = self._session, self._clock()
        self._username = claim.username
        is_guess = isinstance(claim, Password | Proof)
        self._counted = (self._client, claim.username if is_guess else "")
        delay = self._guesses.attempt(*self._counted, now)
        if delay is None:
            self._watch.not_authenticated(session, self._name, claim.username, "too many wrong attempts: blocked")
            await self._sleep(DELAY)
            return BLOCKED
        self._until = now + max(delay, self._least)
        found = await self._check(claim, session)
        if isinstance(found, Refusal):
            self._why = found.why
            if isinstance(claim, Token):  # a challenge tells the client (RFC 7628 3.2.3), which need not answer it
                await self._refused()
            return False
        self._login = found
        return True

    async def _ended(self, *, is_right: bool) -> Reply:
        session, login, now = self._session, self._login, self._clock()
        if is_right and login is not None:
            self._guesses.right(*self._counted, now)
            session.credential, session.user = login.account.name, login.user
            self._watch.authenticated(session, self._name, self._username)
            return say.AUTHENTICATED
        await self._refused()
        return say.WRONG

    async def _refused(self) -> None:
        """Tell it, and wait until a wrong answer may leave; once."""
        if self._is_told:
            return
        self._is_told = True
        self._watch.not_authenticated(self._session, self._name, self._username, self._why)
        left = self._until - self._clock()
        if left > 0:
            await self._sleep(left)


def _challenge(word: bytes | Claim | bool) -> bytes:
    assert isinstance(word, bytes)
    return word
