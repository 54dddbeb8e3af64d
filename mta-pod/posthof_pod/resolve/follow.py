"""Aliases: from the name asked for along its CNAMEs to the records (RFC 1034 3.6.2, RFC 5321 5.1)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from posthof_pod.resolve.cache import Result
from posthof_pod.resolve.wire import Data, Record

MOST_ALIASES = 8

Lookup = Callable[[str, str, float], Awaitable[Result]]


class AliasLoop(Exception):
    """CNAMEs in a circle, or too many of them."""


class Found(NamedTuple):
    """The records at the end of the aliases. `exists`: the last name does. `until`: when the first of it ends.
    `is_secure`: every answer on the way was validated."""

    name: str
    exists: bool
    data: tuple[Data, ...]
    until: float
    is_secure: bool = False


async def find(lookup: Lookup, name: str, kind: str, now: float) -> Found:
    """Ask for `kind` and follow aliases, asking again where an answer ends with one. Raises AliasLoop."""
    seen = {name}
    until = float("inf")
    is_secure = True
    while True:
        result = await lookup(name, kind, now)
        until = min(until, result.until)
        is_secure = is_secure and result.is_secure
        asked = name
        while target := _alias(result.records, name):
            name = target
            if name in seen or len(seen) > MOST_ALIASES:
                raise AliasLoop(f"{name}: CNAME loop, or more than {MOST_ALIASES} in a row")
            seen.add(name)
        data = tuple(record.data for record in result.records if record.name == name and record.kind == kind)
        if data or name == asked:
            return Found(name, result.exists, data, until, is_secure)


def _alias(records: tuple[Record, ...], name: str) -> str:
    """Where the records say `name` is an alias of, or ""."""
    for record in records:
        if record.kind == "CNAME" and record.name == name and isinstance(record.data, str):
            return record.data
    return ""
