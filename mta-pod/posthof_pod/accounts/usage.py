"""What accounts have sent: by hour, in this worker and in the whole fleet; limits and the guard's question. Pure.

Rules
- Counts are of UTC minutes and hours; a day is the hours of a UTC day. Time is passed in, unix seconds.
- Each worker counts what it took itself. What the others took comes from them every few seconds (shared.py), so the
  fleet's count is a little behind: until the next news a worker takes at most its part of what is left, and one
  message at least. Together they exceed a limit by one message a worker at most, where news are in time.
- Whom an account wrote to is remembered as hashes of 32 bits, KNOWN at most; beyond that nobody is a stranger.
- Memory is bounded by accounts: an hour costs three numbers, HOURS of them are kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

import msgspec

from posthof_crds.engine import Guard, Quota

HOURS = 8 * 24
KNOWN = 5000
_HOUR = 3600

Counts = tuple[int, int, int]  # messages, recipients, strangers
NONE: Counts = (0, 0, 0)


class Use(msgspec.Struct, array_like=True):
    """Of one account, in one worker."""

    hours: dict[int, Counts] = {}
    minute: int = 0
    messages: int = 0  # in that minute
    last_used: float = 0.0
    held: str = ""  # why its mail is held; "": it is not
    print_: bytes = b""  # of the password at that time: another one ends it


class Ledger:
    """One worker's counts, and those of others. `parts`: workers that count at present, this one too."""

    def __init__(self) -> None:
        self.own: dict[str, Use] = {}
        self.known: dict[str, set[int]] = {}
        self.parts = 1
        self._others: dict[str, Use] = {}  # merged
        self._known_to_others: dict[str, set[int]] = {}
        self._since: dict[str, Counts] = {}  # taken since the others were heard

    # ---- news

    def hear(self, others: Iterable[Mapping[str, Use]], known: Iterable[Mapping[str, bytes]], parts: int) -> None:
        """What the other workers have counted."""
        merged: dict[str, Use] = {}
        for uses in others:
            for name, use in uses.items():
                merged[name] = _sum(merged[name], use) if name in merged else use
        self._others, self._since, self.parts = merged, {}, max(1, parts)
        for names in known:
            for name, packed in names.items():
                self._known_to_others.setdefault(name, set()).update(unpacked(packed))

    def adopt(self, uses: Mapping[str, Use], known: Mapping[str, set[int]]) -> None:
        """What a dead worker counted is ours from now on."""
        for name, use in uses.items():
            self.own[name] = _sum(self.own[name], use) if name in self.own else use
        for name, found in known.items():
            self.known.setdefault(name, set()).update(found)

    def forget(self, now: float) -> None:
        """Hours that nobody asks for any more."""
        oldest = int(now // _HOUR) - HOURS
        for use in self.own.values():
            for hour in [hour for hour in use.hours if hour < oldest]:
                del use.hours[hour]

    # ---- counting

    def strangers(self, name: str, recipients: Iterable[str]) -> int:
        """How many of these it never wrote to; from now on it has."""
        known, theirs = self.known.setdefault(name, set()), self._known_to_others.get(name, set())
        fresh = {zlib.crc32(address.casefold().encode("utf-8", "replace")) for address in recipients} - known - theirs
        if len(known) + len(theirs) + len(fresh) > KNOWN:
            return 0
        known |= fresh
        return len(fresh)

    def count(self, name: str, recipients: int, strangers: int, now: float) -> None:
        """One message was taken."""
        use = self.own.setdefault(name, Use())
        hour, minute = int(now // _HOUR), int(now // 60)
        use.hours[hour] = _add(use.hours.get(hour, NONE), (1, recipients, strangers))
        if use.minute != minute:
            use.minute, use.messages = minute, 0
        use.messages += 1
        use.last_used = now
        self._since[name] = _add(self._since.get(name, NONE), (1, recipients, strangers))

    def hold(self, name: str, why: str, print_: bytes) -> None:
        use = self.own.setdefault(name, Use())
        use.held, use.print_ = why, print_

    # ---- questions

    def names(self) -> set[str]:
        """All that were ever counted."""
        return {*self.own, *self._others}

    def held(self, name: str, print_: bytes) -> str:
        """Why its mail is held; "": it is not, or it has another password since."""
        for use in (self.own.get(name), self._others.get(name)):
            if use is not None and use.held and use.print_ == print_:
                return use.held
        return ""

    def hour(self, name: str, now: float) -> Counts:
        hour = int(now // _HOUR)
        return _add(self._hours(self.own, name).get(hour, NONE), self._hours(self._others, name).get(hour, NONE))

    def day(self, name: str, now: float) -> Counts:
        first = int(now // 86400) * 24
        total = NONE
        for uses in (self.own, self._others):
            for hour, counts in self._hours(uses, name).items():
                if first <= hour < first + 24:
                    total = _add(total, counts)
        return total

    def minute(self, name: str, now: float) -> int:
        minute = int(now // 60)
        found = (self.own.get(name), self._others.get(name))
        return sum(use.messages for use in found if use is not None and use.minute == minute)

    def busiest(self, name: str, now: float) -> Counts:
        """The largest counts of any hour before this one."""
        own, others, present = self._hours(self.own, name), self._hours(self._others, name), int(now // _HOUR)
        before = [_add(own.get(hour, NONE), others.get(hour, NONE)) for hour in {*own, *others} if hour < present]
        return (
            max((one[0] for one in before), default=0),
            max((one[1] for one in before), default=0),
            max((one[2] for one in before), default=0),
        )

    def last_used(self, name: str) -> float:
        found = (self.own.get(name), self._others.get(name))
        return max((use.last_used for use in found if use is not None), default=0.0)

    def _hours(self, uses: Mapping[str, Use], name: str) -> dict[int, Counts]:
        use = uses.get(name)
        return use.hours if use is not None else {}

    def exceeded(self, name: str, quota: Quota, recipients: int, now: float) -> str:
        """The limit that one more message to so many recipients would exceed; "": none."""
        since = self._since.get(name, NONE)
        if quota.messages_minute and not self._has_room(quota.messages_minute, self.minute(name, now), since[0], 1):
            return f"{quota.messages_minute} messages in a minute"
        if quota.messages_hour or quota.recipients_hour:
            used = self.hour(name, now)
            if quota.messages_hour and not self._has_room(quota.messages_hour, used[0], since[0], 1):
                return f"{quota.messages_hour} messages in an hour"
            if quota.recipients_hour and not self._has_room(quota.recipients_hour, used[1], since[1], recipients):
                return f"{quota.recipients_hour} recipients in an hour"
        if quota.messages_day or quota.recipients_day:
            used = self.day(name, now)
            if quota.messages_day and not self._has_room(quota.messages_day, used[0], since[0], 1):
                return f"{quota.messages_day} messages in a day"
            if quota.recipients_day and not self._has_room(quota.recipients_day, used[1], since[1], recipients):
                return f"{quota.recipients_day} recipients in a day"
        return ""

    def _has_room(self, limit: int, used: int, since: int, wanted: int) -> bool:
        """`used` holds `since`, what this worker took after the last news of the others."""
        if used + wanted > limit:
            return False
        left = limit - (used - since)  # when the others were heard
        return since == 0 or since + wanted <= left / self.parts


def suspicion(guard: Guard, hour: Counts, busiest: Counts) -> str:
    """Why an account that sent this much in this hour sends unlike itself; "": it does not."""
    if not guard.is_on:
        return ""
    if hour[1] > max(guard.recipients, guard.factor * busiest[1]):
        return f"{hour[1]} recipients in this hour, and its busiest hour before had {busiest[1]}"
    if hour[2] > max(guard.strangers, guard.factor * busiest[2]):
        return f"{hour[2]} recipients in this hour that it never wrote to, and never more than {busiest[2]} before"
    return ""


def packed(known: Iterable[int]) -> bytes:
    """Hashes as 4 octets each."""
    return b"".join(one.to_bytes(4, "big") for one in sorted(known))


def unpacked(text: bytes) -> set[int]:
    return {int.from_bytes(text[at : at + 4], "big") for at in range(0, len(text) - len(text) % 4, 4)}


def _add(one: Counts, two: Counts) -> Counts:
    return one[0] + two[0], one[1] + two[1], one[2] + two[2]


def _sum(one: Use, two: Use) -> Use:
    hours = dict(one.hours)
    for hour, counts in two.hours.items():
        hours[hour] = _add(hours.get(hour, NONE), counts)
    minute = max(one.minute, two.minute)
    messages = sum(use.messages for use in (one, two) if use.minute == minute)
    held = one if one.held else two
    return Use(hours, minute, messages, max(one.last_used, two.last_used), held.held, held.print_)
