"""Checks passwords off the event loop, and remembers for a while which were right.

Rules
- A check costs tens of milliseconds of CPU and 16 MiB: THREADS at a time, WAITING_MAX in line; more get 454 at once.
- Only what was right is remembered, for REMEMBER seconds, as a keyed hash whose key lives in this process alone and
  that holds the verifier too: a changed password is forgotten with it. What is wrong costs the full price each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from posthof_crds import verifiers
from posthof_crds.verifiers import Verifier
from posthof_pod.replies import Reply, Temporary

THREADS = 1
WAITING_MAX = 64
REMEMBER = 600.0
REMEMBERED = 10_000

BUSY = Reply(454, "4.7.0", "Temporary authentication failure")


class Passwords:
    """`clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float], threads: int = THREADS) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self.waiting = 0

    async def check(self, verifier: Verifier, password: str) -> bool:
        """Whether it is the password. Raises Temporary: too many wait."""
        print_ = self._print(verifier, password)
        now = self._clock()
        until = self._right.get(print_)
        if until is not None and now < until:
            return True
        if self.waiting >= WAITING_MAX:
            raise Temporary(BUSY, "too many passwords wait to be checked")
        self.waiting += 1
        try:
            loop = asyncio.get_running_loop()
            is_right = await loop.run_in_executor(self._pool, verifiers.check, verifier, password)
        finally:
            self.waiting -= 1
        if is_right:
            self._right[print_] = now + REMEMBER
            self._right.move_to_end(print_)
            if len(self._right) > REMEMBERED:
                self._right.popitem(last=False)
        return is_right

    def _print(self, verifier: Verifier, password: str) -> bytes:
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        scrypt, scram = verifier
        for part in (scrypt.salt + scrypt.hash if scrypt else b"", scram.salt + scram.stored_key if scram else b""):
            digest.update(len(part).to_bytes(4, "big") + part)
        digest.update(password.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
