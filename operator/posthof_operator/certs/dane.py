"""TLSA records that go before the key: which there shall be, since when all servers show them, when an old one goes.

`follow` is pure; `Publisher` asks DNS and publishes, in threads, and what it found stands in the status.

Rules of this file
- A certificate with the next key is made only when its records have been seen at every authoritative server for two
  TTLs: whoever looked before has forgotten by then (RFC 7671 8.1, RFC 7672 3.1.1).
- An old record goes when all pods serve the new key, and two TTLs after the key was changed.
- When DNS does not answer, what was seen stays seen; what was not seen is not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from posthof_certs import pair, zone
from posthof_certs.background import background
from posthof_certs.pair import Pair, time_text, unix_time
from posthof_certs.zone import Key as TSIGKey
from posthof_certs.zone import Record, Server, Unpublished
from posthof_crds.reasons import Condition, Reason
from posthof_operator.certs.wish import Dane, Wish
from posthof_operator.conditions import Said, said
from posthof_operator.resources import Key, Raw

NEVER = float("inf")
SOON, LATER = 15.0, 3600.0  # seconds between looks at DNS: while something is lacking, and after

log = logging.getLogger("posthof_operator.certificates")

Text = Callable[[str, str], Awaitable[str]]  # Secret, key of it -> what is there; raises LookupError


class Shown(NamedTuple):
    """A record there shall be. `key`: current, next, old. Times are unix seconds; 0: not yet."""

    record: Record
    key: str
    seen: float = 0.0  # since when all servers show it
    until: float = 0.0  # of an old one: when it may go


class Standing(NamedTuple):
    """How it stands. `lacking`: servers that do not show a record, for people; `trouble`: why that is not known, or
    why nothing can be published."""

    records: tuple[Shown, ...] = ()
    lacking: tuple[str, ...] = ()
    trouble: str = ""
    checked: float = 0.0

    def key_from(self, ttl: int) -> float:
        """When the next key may be served."""
        following = [one for one in self.records if one.key == "next"]
        if not following or not all(one.seen for one in following):
            return NEVER
        return max(one.seen for one in following) + 2 * ttl


def wanted(wish: Wish, current: Pair | None, following: bytes | None) -> dict[str, list[Record]]:
    """By whose key: the records there shall be."""
    keys = {"current": current.key if current is not None else None, "next": following}
    return {whose: records_of(wish, pair.pin(key)) for whose, key in keys.items() if key is not None}


def records_of(wish: Wish, pin: str) -> list[Record]:
    assert wish.dane is not None
    names = [f"_{port}._tcp.{name}" for port in wish.dane.ports for name in wish.order.names]
    return [Record(name, "TLSA", f"3 1 1 {pin}") for name in names]


def follow(
    before: Sequence[Shown],
    want: dict[str, list[Record]],
    missing: Iterable[Record],
    *,
    is_served: bool,
    now: float,
    ttl: int,
) -> tuple[Shown, ...]:
    """The records there shall be from now on. `missing`: those that some server does not show."""
    known = {one.record: one for one in before}
    unseen = set(missing)
    fresh: list[Shown] = []
    for whose, records in want.items():
        for record in records:
            old = known.pop(record, None)
            since = old.seen if old is not None and old.seen else now
            fresh.append(Shown(record, whose, 0.0 if record in unseen else since))
    for one in known.values():
        until = one.until or now + 2 * ttl
        if not (is_served and now >= until):
            fresh.append(one._replace(key="old", until=until))
    return tuple(fresh)


def read(raw: Raw) -> tuple[Shown, ...]:
    """What the status says."""
    return tuple(
        Shown(
            Record(one["name"], "TLSA", one["text"]),
            one["key"],
            unix_time(one["seen"]) if one.get("seen") else 0.0,
            unix_time(one["until"]) if one.get("until") else 0.0,
        )
        for one in (raw.get("status") or {}).get("tlsa") or ()
    )


def told(standing: Standing) -> list[Raw] | None:
    """For the status."""
    found: list[Raw] = []
    for one in standing.records:
        row: Raw = {"name": one.record.name, "text": one.record.text, "key": one.key}
        row |= {"seen": time_text(one.seen)} if one.seen else {}
        found.append(row | ({"until": time_text(one.until)} if one.until else {}))
    return found or None


def condition(wish: Wish, standing: Standing) -> list[Said]:
    """DANEReady, where it is asked for."""
    if wish.dane is None or not standing.records:
        return []
    if standing.trouble:
        return [said(Condition.DANE_READY, False, Reason.RECORDS_UNKNOWN, f"{standing.trouble}.")]
    if standing.lacking:
        by_hand = wish.dane.update is None and not wish.dane.by_endpoint
        mend = ": publish what status.tlsa says" if by_hand else ""
        text = f"{pair.some(standing.lacking, 3)}{mend}."
        return [said(Condition.DANE_READY, False, Reason.RECORDS_MISSING, text)]
    text = f"{len(standing.records)} TLSA records stand at every authoritative server."
    return [said(Condition.DANE_READY, True, Reason.RECORDS_RIGHT, text)]


def again(standing: Standing, now: float) -> float | None:
    """In how many seconds to look again, None: nothing is looked at."""
    if not standing.records:
        return None
    look = SOON if standing.lacking or standing.trouble else LATER
    ends = [one.until - now for one in standing.records if one.until > now]
    return max(1.0, min([look, *ends]))


class Surroundings(NamedTuple):
    """`resolver` and `port`: who is asked, and where authoritative servers listen; `text` reads a Secret
    (LookupError); `endpoint` writes the DNSEndpoint object."""

    resolver: Sequence[str]
    port: int
    text: Text
    endpoint: Callable[[list[Record]], Awaitable[object]]


class Publisher:
    """Remembers when it looked."""

    def __init__(self) -> None:
        self._standing: dict[Key, tuple[Wish, frozenset[Record], Standing]] = {}

    def forget(self, key: Key) -> None:
        self._standing.pop(key, None)

    async def stand(
        self,
        key: Key,
        wish: Wish,
        raw: Raw,
        want: dict[str, list[Record]],
        *,
        is_served: bool,
        now: float,
        world: Surroundings,
    ) -> Standing:
        """Publish what is lacking, look what all servers show, take away what is old."""
        assert wish.dane is not None
        shall = frozenset(record for records in want.values() for record in records)
        known = self._standing.get(key)
        before = known[2].records if known is not None else read(raw)
        if known is not None and known[:2] == (wish, shall):
            is_calm = not known[2].lacking and not known[2].trouble
            outdated = any(one.until and one.until <= now for one in known[2].records)
            if now - known[2].checked < (LATER if is_calm else SOON) and not outdated:
                return known[2]
        missing, lacking, trouble = await self._look(sorted(shall), world)
        records = follow(before, want, missing, is_served=is_served, now=now, ttl=wish.dane.ttl)
        gone = [one.record for one in before if one.record not in {each.record for each in records}]
        if missing or gone:
            trouble = await self._publish(wish, [one.record for one in records], gone, world) or trouble
        standing = Standing(records, tuple(lacking), trouble, now)
        self._standing[key] = (wish, shall, standing)
        return standing

    async def _look(self, shall: list[Record], world: Surroundings) -> tuple[list[Record], list[str], str]:
        """What some server does not show, in values and in words; and why it is not known."""
        ask = partial(zone.unseen, shall, world.resolver, port=world.port)
        try:
            found = await asyncio.wrap_future(background(ask))
        except Unpublished as error:
            return shall, [], str(error)
        return list(found), [text for texts in found.values() for text in texts], ""

    async def _publish(
        self,
        wish: Wish,
        records: list[Record],
        gone: list[Record],
        world: Surroundings,
    ) -> str:
        """Why it could not be, "" where it was, or is not ours to do."""
        dane = wish.dane
        assert dane is not None
        try:
            if dane.by_endpoint:
                await world.endpoint(records)
            elif dane.update is not None:
                server = await _server(dane, world.text)
                await asyncio.wrap_future(background(partial(zone.add, server, records)))
                if gone:
                    await asyncio.wrap_future(background(partial(zone.remove, server, gone)))
        except (Unpublished, LookupError) as error:
            return str(error.args[0])
        return ""


async def _server(dane: Dane, text: Text) -> Server:
    update = dane.update
    assert update is not None
    secret = await text(update.key_secret.name, update.key_secret.key)
    return Server(update.server, TSIGKey(update.key_name, update.key_algorithm, secret), update.zone, dane.ttl)
