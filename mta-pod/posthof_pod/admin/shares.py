"""What the workers of this house may use of the fleet's limits: decided in schedule/shares.py, carried out here.

Rules of this file
- One step at a time: what the workers are told is confirmed by all of them before anything else is decided.
- On one machine nobody else is there: everything is ours, and nothing runs.
- What a pod uses is written beside its state, with a young date while it hears of the fleet: a container that begins
  again goes on with it for as long as nobody else can have taken it, also with the API server away. A pod that has
  nothing yet sends nothing and lets nobody in: it is not ready.
- A pod that begins and never hears of the fleet takes a STRANGERth of every limit after a while, so that mail flows
  where the API server is away from the start. This is the one case in which shares may add up to more than a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from posthof_pod.admin.crew import Crew
from posthof_pod.members import SHARE, Members
from posthof_pod.observe.events import Events
from posthof_pod.schedule.shares import Shares
from posthof_pod.schedule.slices import NOTHING, WHOLE, Slice

FILE = "share"  # in the state folder: what this pod uses
STRANGER = 16
UNHEARD = 10.0  # seconds from the start
YOUNG = 15.0  # seconds a pod's own note counts; others wait for 20 and GONE before they take what it had
REFRESH = 5.0  # seconds between two looks at the note's date


class Sharing:
    """`annotate`: writes into this pod's Lease, soon."""

    def __init__(
        self,
        own: str,
        crew: Crew,
        events: Events,
        annotate: Callable[[dict[str, str]], None],
        folder: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._crew, self._events, self._annotate, self._clock = crew, events, annotate, clock
        self._note = folder / FILE
        self._members = Members(own=own)
        self._heard = asyncio.Event()
        self._refreshed = float("-inf")
        self._began = clock()
        self._has_heard = False
        crew.slice = self._earlier()
        self.shares = Shares(own, crew.ports.copies, os.urandom(6).hex(), use=crew.slice)

    @property
    def has_some(self) -> bool:
        """Whether anything is ours."""
        return self._crew.slice.width > 0

    def hear(self, members: Members) -> None:
        """The newest of who is in the fleet."""
        self._members = members
        self._heard.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._heard.clear()
            await self.step()
            look = self.shares.next_look()
            with contextlib.suppress(TimeoutError):
                pause = REFRESH if look is None else min(REFRESH, max(0.0, look - self._clock()))
                await asyncio.wait_for(self._heard.wait(), pause)

    async def step(self) -> None:
        """Decide with what is known now, and do it."""
        shares, now = self.shares, self._clock()
        self._has_heard = self._has_heard or self._members.known
        if not self._has_heard and not shares.use.width and now - self._began >= UNHEARD:
            shares.use = WHOLE.part(int.from_bytes(os.urandom(1)) % STRANGER, 1, STRANGER)
        shares.decide(self._members, now)
        if shares.use != self._crew.slice:
            use, before = shares.use, self._crew.slice
            self._write(use.common(before))
            await self._crew.share(use)
            self._write(use)
            self._events.share_changed(before.share, use.share)
            shares.confirmed(use)
        elif not shares.is_confirmed:
            shares.confirmed(shares.use)
        if shares.claim:
            self._annotate({SHARE: shares.claim})
        if self._members.known and now - self._refreshed >= REFRESH:
            self._refreshed = now
            self._write(shares.use)

    def _earlier(self) -> Slice:
        """What the container before this one used, where that was a moment ago."""
        try:
            age = time.time() - self._note.stat().st_mtime
            low, high = (int(part, 16) for part in self._note.read_text("ascii").split("-"))
        except (OSError, ValueError):
            return NOTHING
        return Slice(low, high) if 0 <= age < YOUNG and Slice(low, high).is_sound else NOTHING

    def _write(self, use: Slice) -> None:
        fresh = self._note.with_suffix(".new")
        try:
            fresh.write_text(f"{use.low:x}-{use.high:x}", "ascii")
            fresh.replace(self._note)
        except OSError as error:  # only a container that begins again would miss it
            self._events.warned(f"{self._note}: {error.strerror}")
