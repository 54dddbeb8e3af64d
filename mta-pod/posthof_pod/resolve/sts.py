"""MTA-STS policies: found, fetched, kept on disk, fetched again in time (RFC 8461 sections 3.3, 5 and 10).

Owns: `Policies`, and `Shelf`, the folder that holds them: `<spool>/mta-sts/<domain>`, JSON, one file a domain. All
workers that share the spool share the folder; a file is written whole or not at all, and the newest counts.

Rules
- A policy that is kept and has not run out counts, whatever DNS or the host say today: an attacker who can hide the
  record or the host must not be able to hide the policy (section 10.1).
- A record with another id makes it be fetched again; until that succeeds the kept one counts.
- No policy is kept and it cannot be fetched: the domain has none, for now (section 5.1); it is fetched again after
  five minutes (section 3.3). Every failure is told, with its name in RFC 8460.
- One fetch a domain at a time; `refresh` fetches again what is older than a day or half its age, while it is used.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from posthof_pod.resolve import stspolicy
from posthof_pod.resolve.follow import AliasLoop, Lookup, find
from posthof_pod.resolve.https import Failed
from posthof_pod.resolve.stspolicy import BadPolicy, Mode, Policy
from posthof_pod.resolve.wire import BadName, Unanswered

FOLDER = "mta-sts"
AGAIN = 300.0  # seconds until a host that failed is asked again
FRESH = 86400.0  # a policy older than this is fetched again in the background
LISTED = 60.0  # seconds between looks at which files there are
MOST = 10_000  # policies held in memory
UNUSED = 30 * 86400.0  # seconds after which a policy nobody asked for is no longer fetched again
INVALID = "sts-policy-invalid"

Fetch = Callable[[str], Awaitable[bytes]]
"""The content at the policy host of a domain. Raises Failed."""

_FILE = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,252}")


class Shelf:
    """The folder. Every method may block for as long as the volume takes: call them in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> set[str]:
        """The domains with a policy."""
        try:
            return {name for name in os.listdir(self._folder) if _FILE.fullmatch(name)}
        except OSError:
            return set()

    def read(self, domain: str) -> Policy | None:
        """The policy, None where there is none that can be read."""
        if not _FILE.fullmatch(domain):
            return None
        try:
            found = msgspec.json.decode((self._folder / domain).read_bytes(), type=Policy)
        except (OSError, msgspec.DecodeError):
            return None
        return found if found.domain == domain else None

    def write(self, policy: Policy) -> None:
        """Keep it. A volume that takes nothing is no reason not to use the policy."""
        if not _FILE.fullmatch(policy.domain):
            return
        fresh = self._folder / f"-{os.getpid()}-{policy.domain[:200]}"  # "-": never a domain's file
        try:
            self._folder.mkdir(exist_ok=True)
            fresh.write_bytes(msgspec.json.encode(policy))
            fresh.replace(self._folder / policy.domain)
        except OSError:
            fresh.unlink(missing_ok=True)

    def tidy(self, domain: str, now: float) -> None:
        """Remove a policy that has run out. `now`: unix seconds."""
        found = self.read(domain)
        if found is not None and found.until <= now:
            (self._folder / domain).unlink(missing_ok=True)


class Policies:
    """Asked for every domain that mail goes to Direct."""

    def __init__(
        self,
        lookup: Lookup,
        fetch: Fetch,
        shelf: Shelf | None,
        *,
        clock: Callable[[], float] = time.time,
        failed: Callable[[str, str, str], object] = lambda _domain, _kind, _why: None,
    ) -> None:
        """`clock`: unix seconds. `failed(domain, result type of RFC 8460, why)`."""
        self._lookup = lookup
        self._fetch = fetch
        self._shelf = shelf
        self._clock = clock
        self._failed = failed
        self._known: dict[str, Policy] = {}
        self._used: dict[str, float] = {}
        self._names: set[str] = set()
        self._listed = float("-inf")
        self._again: dict[str, float] = {}  # domain -> not fetched before
        self._flights: dict[str, asyncio.Task[Policy | None]] = {}

    async def find(self, domain: str, now: float) -> Policy | None:
        """The policy that counts for the domain, None where there is none. `now` in seconds of the DNS cache's epoch.

        A policy of mode `none` counts as none."""
        kept = await self._kept(domain)
        announced = await self._announced(domain, now)
        if announced and (kept is None or kept.id != announced):
            kept = await self._fetched(domain, announced) or kept
        if kept is None:
            return None
        self._used[domain] = self._clock()
        return None if kept.mode is Mode.NONE else kept

    async def refresh(self) -> int:
        """Fetch again what is used and no longer fresh; what nobody uses is forgotten. Returns how many."""
        now = self._clock()
        for domain in [one for one, policy in self._known.items() if policy.until <= now]:
            self._forget(domain)
            if self._shelf is not None:
                await asyncio.to_thread(self._shelf.tidy, domain, now)
        old = [
            policy
            for domain, policy in self._known.items()
            if now - policy.fetched > min(FRESH, policy.max_age / 2) and now - self._used.get(domain, now) < UNUSED
        ]
        for policy in old:
            newer = await asyncio.to_thread(self._shelf.read, policy.domain) if self._shelf else None
            if newer is not None and newer.fetched > policy.fetched:
                self._keep(newer)  # another worker was first
                continue
            announced = await self._announced(policy.domain, now)
            await self._fetched(policy.domain, announced or policy.id)
        return len(old)

    # --- what is kept

    async def _kept(self, domain: str) -> Policy | None:
        now = self._clock()
        known = self._known.get(domain)
        if known is not None and now < known.until:
            return known
        if self._shelf is None:
            return None
        if now - self._listed >= LISTED:
            self._listed = now
            self._names = await asyncio.to_thread(self._shelf.names)
        if domain not in self._names:
            return None
        found = await asyncio.to_thread(self._shelf.read, domain)
        if found is None or now >= found.until:
            return None
        self._keep(found)
        return found

    def _keep(self, policy: Policy) -> None:
        self._known.pop(policy.domain, None)
        self._known[policy.domain] = policy
        while len(self._known) > MOST:
            self._forget(next(iter(self._known)))

    def _forget(self, domain: str) -> None:
        self._known.pop(domain, None)
        self._used.pop(domain, None)

    # --- what is asked

    async def _announced(self, domain: str, now: float) -> str:
        """The id in DNS; "" where none stands there, or DNS does not answer: then what is kept counts."""
        try:
            found = await find(self._lookup, stspolicy.record_name(domain), "TXT", now)
        except (Unanswered, AliasLoop, BadName):
            return ""
        return stspolicy.read_record([data for data in found.data if isinstance(data, bytes)])

    async def _fetched(self, domain: str, announced: str) -> Policy | None:
        """The policy as its host gives it now, None where it cannot be had."""
        flight = self._flights.get(domain)
        if flight is None:
            if self._clock() < self._again.get(domain, 0.0):
                return None
            flight = self._flights[domain] = asyncio.ensure_future(self._fetch_now(domain, announced))
            flight.add_done_callback(lambda _: self._flights.pop(domain, None))
        return await asyncio.shield(flight)

    async def _fetch_now(self, domain: str, announced: str) -> Policy | None:
        try:
            content = await self._fetch(domain)
            policy = stspolicy.read_policy(domain, announced, content, self._clock())
        except Failed as error:
            self._put_off(domain, error.fault, str(error))
            return None
        except BadPolicy as error:
            self._put_off(domain, INVALID, f"the policy of {domain} is none: {error}")
            return None
        self._again.pop(domain, None)
        self._keep(policy)
        if self._shelf is not None:
            await asyncio.to_thread(self._shelf.write, policy)
        return policy

    def _put_off(self, domain: str, kind: str, why: str) -> None:
        now = self._clock()
        if len(self._again) > MOST:
            self._again = {one: until for one, until in self._again.items() if until > now}
        self._again[domain] = now + AGAIN
        self._failed(domain, kind, why)
