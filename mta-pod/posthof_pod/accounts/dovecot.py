"""Names and passwords that Dovecot knows: one question by its auth socket (protocol 1.2, PLAIN).

Rules
- One connection a question: it is a local socket, and the check behind it costs far more.
- What Dovecot says of temporary trouble, and a socket that is not there, is a 454 and never a "no".
"""

from __future__ import annotations

import asyncio
import base64
import os

from posthof_pod.accounts.directory import Account
from posthof_pod.accounts.exchange import Login, Refusal
from posthof_pod.accounts.passwords import BUSY
from posthof_pod.replies import Temporary
from posthof_pod.smtp.gate import Session
from posthof_pod.smtp.sasl import Claim, Password

PATIENCE = 30.0  # Dovecot itself delays wrong answers
_LINE = 65536


class DovecotBackend:
    """accounts.Backend."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._path = account.credential.dovecot

    async def check(self, claim: Claim, session: Session) -> Login | Refusal | None:
        if not isinstance(claim, Password):
            return None
        ask = asyncio.ensure_future(self._ask(claim, session.client))  # a Task: it has a time-out
        try:
            is_right, user = await ask
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
            raise Temporary(BUSY, f"Dovecot at {self._path}: {error or type(error).__name__}") from None
        return Login(self._account, user or claim.username) if is_right else Refusal("Dovecot says no")

    async def _ask(self, claim: Password, client: str) -> tuple[bool, str]:
        """`(is it right, the user's name as Dovecot has it)`."""
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(self._path, limit=_LINE)
            try:
                await self._greet(reader)
                message = base64.b64encode(f"\0{claim.username}\0{claim.password}".encode()).decode()
                place = f"\trip={client}" if client else ""
                writer.write(f"VERSION\t1\t2\nCPID\t{os.getpid()}\n".encode())
                writer.write(f"AUTH\t1\tPLAIN\tservice=smtp\tsecured{place}\tresp={message}\n".encode())
                return await self._answer(reader)
            finally:
                writer.close()

    async def _greet(self, reader: asyncio.StreamReader) -> None:
        while (words := await _words(reader))[0] != "DONE":
            if words[0] == "VERSION" and words[1] != "1":
                raise ValueError(f"version {words[1][:20]} of its protocol is not known")

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[bool, str]:
        while True:
            words = await _words(reader)
            if words[:2] == ["OK", "1"]:
                user = next((word[5:] for word in words if word.startswith("user=")), "")
                return True, user.casefold()
            if words[:2] == ["FAIL", "1"]:
                if "temp" in words:
                    raise ValueError("temporary trouble")
                return False, ""


async def _words(reader: asyncio.StreamReader) -> list[str]:
    line = await reader.readuntil(b"\n")
    return line.decode("utf-8", "replace").rstrip("\n").split("\t")
