"""DNS for sender authentication: mailauth's Lookup, over the cache that routes use.

Rules
- One object for a message: its questions have a deadline together (RFC 7208 4.6.4 allows SPF twenty seconds and
  more; a client waits for the reply to its dot meanwhile), and what is known costs no await of anything.
- A name that did not answer is left alone for a while, so that mail goes on, with `temperror`, where DNS is away.
- Every failure is LookupFailed; a name DNS cannot be asked for has no records.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable

from posthof_pod.mailauth.dns import LookupFailed
from posthof_pod.resolve.cache import Cache
from posthof_pod.resolve.follow import AliasLoop, find
from posthof_pod.resolve.wire import BadName, Data, Record, Unanswered

PATIENCE = 10.0  # seconds for all questions of one message
LEFT_ALONE = 30.0  # seconds after a failure (RFC 9520 3.2 allows five minutes)
MOST_FAILURES = 4096


Failures = dict[tuple[str, str], float]
"""(name, kind) -> until when it is left alone; shared by the lookups of a worker."""


class CachedLookup:
    """mailauth.dns.Lookup. `clock`: unix seconds."""

    __slots__ = ("_cache", "_clock", "_ends", "_failures")

    def __init__(
        self, cache: Cache, clock: Callable[[], float], failures: Failures, patience: float = PATIENCE
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._failures = failures
        self._ends = clock() + patience

    async def txt(self, name: str) -> tuple[bytes, ...]:
        return tuple([one for one in await self._ask(name, "TXT") if type(one) is bytes])

    async def a(self, name: str) -> tuple[str, ...]:
        return tuple([one for one in await self._ask(name, "A") if type(one) is str])

    async def aaaa(self, name: str) -> tuple[str, ...]:
        return tuple([one for one in await self._ask(name, "AAAA") if type(one) is str])

    async def mx(self, name: str) -> tuple[tuple[int, str], ...]:
        found = await self._ask(name, "MX")
        return tuple([(one[0], one[1]) for one in found if isinstance(one, tuple) and len(one) == 2])

    async def ptr(self, address: str) -> tuple[str, ...]:
        name = ipaddress.ip_address(address.partition("%")[0]).reverse_pointer
        return tuple([one for one in await self._ask(name, "PTR") if type(one) is str])

    async def _ask(self, name: str, kind: str) -> tuple[Data, ...]:
        name = name.removesuffix(".").lower()
        now = self._clock()
        known = self._cache.peek(name, kind, now)
        if known is not None and not known.failure and _is_direct(known.records, name, kind):
            return tuple([one.data for one in known.records])
        key = (name, kind)
        if self._failures and now < self._failures.get(key, 0.0):
            raise LookupFailed(f"{name} {kind}: no answer a moment ago")
        try:
            if known is not None and not known.failure:
                return (await find(self._cache.lookup, name, kind, now)).data
            return await self._in_time(name, kind, now)
        except (Unanswered, AliasLoop, TimeoutError) as error:
            if len(self._failures) >= MOST_FAILURES:
                self._failures.clear()
            self._failures[key] = self._clock() + LEFT_ALONE
            raise LookupFailed(str(error)) from error
        except BadName:
            return ()

    async def _in_time(self, name: str, kind: str, now: float) -> tuple[Data, ...]:
        """What is not known yet is asked for in a task of its own: whoever waits here may have none."""
        left = self._ends - now
        if left <= 0:
            raise LookupFailed(f"{name} {kind}: no time is left")
        asking = asyncio.get_running_loop().create_task(find(self._cache.lookup, name, kind, now))
        done, _ = await asyncio.wait([asking], timeout=left)
        if not done:
            asking.cancel()
            raise TimeoutError(f"{name} {kind}: no answer in time")
        return asking.result().data


def _is_direct(records: tuple[Record, ...], name: str, kind: str) -> bool:
    """Whether the records are the name's own, without an alias."""
    return bool(records) and all(one.name == name and one.kind == kind for one in records)
