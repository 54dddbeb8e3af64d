"""Spools on real folders: what the tests of tests/spool share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from posthof_crds.engine import SpoolSettings
from posthof_pod.model import Envelope, Held, Recipient, Settlement
from posthof_pod.spool import Disk, FlockLiveness, Live, Liveness, Spool, Stored, Verdict, new_worker

BODY = b"Subject: hello\r\n\r\nfirst line\r\nsecond line\r\n"
TRACE = b"Received: from a by b; now\r\n"


def settings(path: Path, **changes: object) -> SpoolSettings:
    """Small sizes, so that a test sees segments and lanes roll over."""
    values: dict[str, object] = {"path": str(path), "reserve_bytes": 0, "settle_delay": 0.01, "max_usage": 1.0}
    return SpoolSettings(**{**values, **changes})  # type: ignore[arg-type]  # names and types are the tests' own


def envelope(message: str, *to: str, arrived: float = 1000.0, size: int = len(BODY)) -> Envelope:
    recipients = tuple(Recipient(address) for address in to or ("b@example.org",))
    return Envelope(message, "a@example.org", recipients, arrived, size)


def done(*recipients: int) -> Settlement:
    return Settlement(recipients or (0,))


def waiting(*held: Held, reason: str = "ConnectFailed", detail: str = "450 later") -> Settlement:
    return Settlement((), held, reason, detail)


class Lying:
    """A judge told what to say: of which workers it believes that they are dead."""

    def __init__(self, dead: set[str], verdict: Verdict = Verdict.PROVEN) -> None:
        self.dead = dead
        self.verdict = verdict
        self._own = FlockLiveness()

    def begin(self, disk: Disk, worker: str) -> None:
        self._own.begin(disk, worker)

    def judge(self, worker: str) -> Verdict:
        return self.verdict if worker in self.dead else Verdict.ALIVE

    def end(self) -> None:
        self._own.end()


class Harness:
    """One spool with what it told."""

    def __init__(self, config: SpoolSettings, *, liveness: Liveness | None = None, **more: object) -> None:
        self.lives: list[Live] = []
        self.gone: list[int] = []
        self.busy: list[int] = []
        self.events: list[tuple[str, dict[str, object]]] = []
        self.spool = Spool(
            config,
            worker_id=new_worker(),
            loop=asyncio.get_running_loop(),
            liveness=liveness or FlockLiveness(),
            on_live=self.lives.extend,
            on_event=lambda name, **fields: self.events.append((name, fields)),
            on_gone=self._on_gone,
            **more,  # type: ignore[arg-type]  # names and types are the tests' own
        )

    def _on_gone(self, refs: list[int]) -> list[int]:
        self.gone += refs
        return [ref for ref in self.busy if ref in refs]

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def fields(self, name: str) -> dict[str, object]:
        return next(fields for found, fields in self.events if found == name)

    async def put(self, *to: str, body: bytes = BODY, at_once: bool = True) -> Stored:
        message = self.spool.next_id()
        return await self.spool.commit(envelope(message, *to, size=len(body)), TRACE, body, at_once=at_once)

    async def bodies(self) -> dict[str, bytes]:
        """What was replayed: id -> content."""
        found = {}
        for live in self.lives:
            found[live.envelope.id] = await content(self.spool, live.ref)
        return found


async def content(spool: Spool, ref: int) -> bytes:
    stored = spool.read(ref)
    if not isinstance(stored, Stored):
        stored = await stored
    return stored.body if isinstance(stored.body, bytes) else await stored.body.read()


@contextlib.asynccontextmanager
async def running(config: SpoolSettings, **more: object) -> AsyncIterator[Harness]:
    """A started spool, ended cleanly."""
    harness = Harness(config, **more)  # type: ignore[arg-type]  # as above
    await harness.spool.start()
    try:
        yield harness
    finally:
        await harness.spool.stop()


@contextlib.asynccontextmanager
async def killed(config: SpoolSettings, **more: object) -> AsyncIterator[Harness]:
    """A started spool whose process ends without a word."""
    harness = Harness(config, **more)  # type: ignore[arg-type]  # as above
    await harness.spool.start()
    try:
        yield harness
    finally:
        harness.spool.abandon()


async def until(condition: Callable[[], object] | Callable[[], Awaitable[object]], seconds: float = 20.0) -> None:
    """Wait for a condition, not for the machine's speed."""
    ends = asyncio.get_running_loop().time() + seconds
    while True:
        met = condition()
        if asyncio.iscoroutine(met):
            met = await met
        if met:
            return
        if asyncio.get_running_loop().time() > ends:
            raise TimeoutError("the condition was not met")
        await asyncio.sleep(0.005)


def found(root: Path, pattern: str) -> list[Path]:
    """Files below a spool's root, sorted."""
    return sorted(root.glob(pattern))
