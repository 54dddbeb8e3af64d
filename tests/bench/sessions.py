"""What an idle session costs: memory of the whole system with N sessions open that said EHLO and nothing more."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from bench import place
from bench.systems import PosthofSystem
from bench.tools import sink

PARALLEL = 100  # sessions being opened at one time


class Idle(NamedTuple):
    """PSS sums in bytes."""

    sessions: int
    before: int
    total: int

    @property
    def per_session(self) -> float:
        return (self.total - self.before) / self.sessions


def measure(count: int, folder: Path, *, is_encrypted: bool) -> Idle:
    """Memory of Posthof with `count` idle sessions; each has said EHLO, after STARTTLS if `is_encrypted`."""
    _raise_file_limit(2 * count + 500)
    limits = {"clientSessions": 2 * count, "sessions": 2 * count}
    with sink() as target, place.below(folder, f"idle-{count}-{is_encrypted}") as own:
        system = PosthofSystem(own, target.port, listener_limits=limits)
        try:
            system.start()
            return asyncio.run(_measure(system, count, is_encrypted))
        finally:
            system.stop()


async def _measure(system: PosthofSystem, count: int, is_encrypted: bool) -> Idle:
    async with _sessions(system.port, 20, is_encrypted):  # what the first session loads is not a session's cost
        await asyncio.sleep(0.5)
    before = system.pss_bytes()
    async with _sessions(system.port, count, is_encrypted):
        await asyncio.sleep(1)
        return Idle(count, before, system.pss_bytes())


@contextlib.asynccontextmanager
async def _sessions(port: int, count: int, is_encrypted: bool) -> AsyncIterator[None]:
    """Open sessions, some at a time; all are closed at the end."""
    gate = asyncio.Semaphore(PARALLEL)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    async def one() -> asyncio.StreamWriter:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await _reply(reader)
            await _say(reader, writer)
            if is_encrypted:
                writer.write(b"STARTTLS\r\n")
                await _reply(reader)
                await writer.start_tls(context)
                await _say(reader, writer)
            return writer

    writers = await asyncio.gather(*[one() for _ in range(count)])
    try:
        yield
    finally:
        for writer in writers:
            writer.transport.abort()


async def _say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"EHLO idle.bench\r\n")
    await _reply(reader)


async def _reply(reader: asyncio.StreamReader) -> None:
    while True:
        line = await asyncio.wait_for(reader.readline(), 60)
        if not line or line[:1] != b"2":
            raise ConnectionError(f"session refused: {line!r}")
        if line[3:4] == b" ":
            return


def _raise_file_limit(files: int) -> None:
    """For us and for what we start; SystemExit where the machine does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= files:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(hard, files)))
    except ValueError:
        if hard < files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
