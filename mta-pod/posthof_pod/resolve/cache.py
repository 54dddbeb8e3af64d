"""What DNS said, for as long as it holds; and a little longer when DNS is away.

Owns: time to live, single flight, the bound on memory. `now` is given by the caller, in seconds of any one epoch.

Rules
- A TTL counts between 5 s and a day; "there is none" as the SOA says (RFC 2308), between 5 s and an hour.
- The same question asked twice at once goes out once.
- A failure is remembered for 2 s (RFC 9520): a storm of mail to a domain with broken DNS asks once.
- Serve stale (RFC 8767): an answer that ran out is asked for again; if that fails or takes longer than 1.8 s, the old
  one serves, for up to 3 days. Only what exists is served stale: an old "does not exist" would bounce mail.
- The oldest entries leave when there are more than `size`, or more than `octets` of texts in them (TXT records are
  what strangers may make large).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from posthof_pod.resolve.wire import Answer, Record, Unanswered

SHORTEST, LONGEST = 5.0, 86400.0
LONGEST_NEGATIVE = 3600.0
FAILED_FOR = 2.0
STALE_FOR = 3 * 86400.0
STALE_AFTER = 1.8  # seconds a caller waits for a fresh answer when there is an old one
OCTETS = 16 << 20  # of texts that are kept
STALE_AGAIN = 30.0  # an old answer that served counts as fresh for so long


class Result(NamedTuple):
    """An answer and until when it serves."""

    exists: bool
    records: tuple[Record, ...]
    until: float
    is_secure: bool
    ran_out: float = 0.0  # served stale: when it truly ended, else 0
    failure: str = ""  # DNS did not answer: what Unanswered says


class Cache:
    """Answers by (name, kind)."""

    def __init__(
        self, query: Callable[[str, str], Awaitable[Answer]], *, size: int = 20_000, octets: int = OCTETS
    ) -> None:
        self._query = query
        self._size, self._most = size, octets
        self._octets = 0  # of texts, in what is kept
        self._results: dict[tuple[str, str], Result] = {}
        self._flights: dict[tuple[str, str], asyncio.Task[Result]] = {}

    def peek(self, name: str, kind: str, now: float) -> Result | None:
        """What is known and still holds, without asking."""
        result = self._results.get((name, kind))
        return result if result is not None and now < result.until else None

    async def lookup(self, name: str, kind: str, now: float) -> Result:
        """The answer, from memory where it still holds. Raises Unanswered, BadName."""
        key = (name, kind)
        old = self._results.get(key)
        if old is not None and now < old.until:
            return _checked(old)
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.ensure_future(self._fetch(key, now))
            self._flights[key] = flight
            flight.add_done_callback(lambda task: self._landed(key, task))
        if old is None or not _may_serve(old, now):
            return _checked(await asyncio.shield(flight))
        done, _ = await asyncio.wait([flight], timeout=STALE_AFTER)
        return _checked(flight.result()) if done else self._serve_stale(key, old, now + STALE_AFTER)

    def clear(self) -> None:
        """Forget everything, flights excepted."""
        self._results.clear()
        self._octets = 0

    async def _fetch(self, key: tuple[str, str], now: float) -> Result:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            result = _result(key[1], await self._query(*key), now)
        except Unanswered as error:
            now += loop.time() - began
            old = self._results.get(key)
            if old is not None and _may_serve(old, now):
                return self._serve_stale(key, old, now)
            result = Result(False, (), now + FAILED_FOR, False, failure=str(error))
        self._keep(key, result)
        return result

    def _serve_stale(self, key: tuple[str, str], old: Result, now: float) -> Result:
        result = old._replace(ran_out=old.ran_out or old.until, until=now + STALE_AGAIN)
        self._keep(key, result)
        return result

    def _landed(self, key: tuple[str, str], flight: asyncio.Task[Result]) -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # whoever waited has it; nobody may have

    def _keep(self, key: tuple[str, str], result: Result) -> None:
        self._drop(key)
        self._results[key] = result
        self._octets += _octets(result)
        while len(self._results) > self._size or self._octets > self._most:
            self._drop(next(iter(self._results)))

    def _drop(self, key: tuple[str, str]) -> None:
        old = self._results.pop(key, None)
        if old is not None:
            self._octets -= _octets(old)


def _octets(result: Result) -> int:
    return sum(len(record.data) for record in result.records if isinstance(record.data, bytes | str))


def _checked(result: Result) -> Result:
    if result.failure:
        raise Unanswered(result.failure)
    return result


def _may_serve(old: Result, now: float) -> bool:
    return not old.failure and old.exists and bool(old.records) and now - (old.ran_out or old.until) < STALE_FOR


def _result(kind: str, answer: Answer, now: float) -> Result:
    """An answer with its time: the shortest TTL of its records, or the SOA's when the kind asked for is not there."""
    ttl = min((float(record.ttl) for record in answer.records), default=LONGEST)
    longest = LONGEST
    if not any(record.kind == kind for record in answer.records):
        ttl = min(ttl, answer.negative_ttl)
        longest = LONGEST_NEGATIVE
    return Result(answer.exists, answer.records, now + min(max(ttl, SHORTEST), longest), answer.is_secure)
