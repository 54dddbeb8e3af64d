"""Does the resolver validate DNSSEC? Asked at the start, and again from time to time.

Rules
- The question is the root's NS: the root is signed, so a resolver that validates answers with AD (RFC 6840 5.8).
- The AD bit is worth as much as the path to the resolver. Which resolver that is, is the MTA's to say.
- No answer, or one without AD: it does not validate; DANE is off, and that is said. Asked again after a minute.
- Yes holds for ten minutes. When the question then goes unanswered, yes stays: a resolver that is away has not
  stopped to validate, and DANE must not end with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from posthof_pod.resolve.wire import Answer, BadName, Unanswered

YES_FOR = 600.0
NO_FOR = 60.0


class Validation:
    """`await holds(now)`. `told(holds, why)` is called when the answer is first known, and when it changes."""

    def __init__(
        self, query: Callable[[str, str], Awaitable[Answer]], told: Callable[[bool, str], object] | None = None
    ) -> None:
        self._query = query
        self._told = told
        self._is_known = False
        self._holds = False
        self._until = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def holds(self, now: float) -> bool:
        """Whether AD of this resolver counts. `now` in seconds of any one epoch."""
        if now >= self._until:
            if self._asking is None:
                self._asking = asyncio.ensure_future(self._ask(now))
                self._asking.add_done_callback(self._asked)
            if not self._is_known:
                await asyncio.shield(self._asking)
        return self._holds

    async def _ask(self, now: float) -> None:
        why = "its answer for the root zone has no AD bit"
        try:
            holds = (await self._query(".", "NS")).is_secure
        except (Unanswered, BadName) as error:
            holds = self._is_known and self._holds
            why = f"it does not answer for the root zone: {error}"
        is_new = not self._is_known or holds != self._holds
        self._is_known, self._holds = True, holds
        self._until = now + (YES_FOR if holds else NO_FOR)
        if is_new and self._told is not None:
            self._told(holds, "" if holds else why)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()
