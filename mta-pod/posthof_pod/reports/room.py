"""The reports of a worker: its journals, written each second, and the turns it takes.

Rules
- One loop, started with the worker; nothing here waits on a message's path.
- A composer is registered by kind; what it raises is told, and the day is another's turn half an hour later.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from posthof_pod.reports.collect import GRACE, Compose, collect
from posthof_pod.reports.journal import Journal

FLUSH = 1.0  # seconds
LOOK = 60.0  # seconds between looks for days that are over
SPREAD = 3000.0  # seconds after GRACE, by the house's name: not all houses report at once


class Watch(Protocol):
    """The part of observe.events.Events that is called here."""

    def warned(self, what: str) -> None: ...


class Reports:
    """`spread`: 0 to 1, where in the first hour of a day this house reports."""

    def __init__(
        self, spool: Path, worker: str, *, clock: Callable[[], float], watch: Watch, spread: float = 0.0
    ) -> None:
        self._spool, self._worker, self._clock, self._watch = spool, worker, clock, watch
        self._delay = GRACE + SPREAD * spread
        self._journals: dict[str, Journal] = {}
        self._composers: dict[str, Compose] = {}
        self._told = 0
        self.sent = 0  # days reported

    def register(self, kind: str, compose: Compose) -> None:
        """A kind of reports ("dmarc", "tls"), and who makes them."""
        self._journals[kind] = Journal(self._spool, kind, self._worker)
        self._composers[kind] = compose

    def note(self, kind: str, row: object, count: int = 1) -> None:
        """Something happened that a report counts, so many times."""
        self._journals[kind].note(row, self._clock(), count)

    async def flush(self) -> None:
        """Write what waits."""
        for journal in self._journals.values():
            if not journal.is_due:
                continue
            try:
                await asyncio.to_thread(journal.write, journal.take())
            except OSError as error:
                self._watch.warned(f"reports: a second of counts is lost: {error}")
        dropped = sum(journal.dropped for journal in self._journals.values())
        if dropped and not self._told:
            self._watch.warned("reports: more different rows than are kept; some are not counted")
        self._told = dropped

    async def collect(self) -> None:
        """Take the turns that are due."""
        for kind, compose in self._composers.items():
            try:
                self.sent += await collect(self._spool, kind, self._worker, self._clock(), compose, delay=self._delay)
            except Exception as error:  # one kind's trouble is not the other's, and tomorrow is another day
                self._watch.warned(f"reports: those of {kind} were not made: {type(error).__name__}: {error}")

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        look = loop.time() + LOOK
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(FLUSH)
                await self.flush()
                if loop.time() >= look:
                    await self.collect()
                    look = loop.time() + LOOK
        await self.flush()
