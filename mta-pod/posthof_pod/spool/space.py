"""Space: may another message come? And the reserve that lets a full disk still take settles.

Bytes (of the volume, or of the MTA's `size`), inodes, and how long the running turn takes are watched. Over a limit
clients are told 452 4.3.1; what was accepted before goes on.
"""

from __future__ import annotations

import asyncio
from functools import partial

from . import layout
from .core import Core
from .protocol import Call, Steps
from .volume import Disk, Room, ShortWrite

WALK_EVERY = 10.0  # seconds between two sums over all files of the spool (only where `size` is set)
SLOWEST = 10.0  # seconds a turn may take before new mail is refused
BLOCK = 1024 * 1024


class Space:
    """Watches the volume for one worker."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._room = Room(0, 0, 0, 0)
        self._used = 0  # bytes of all files of the spool, at the last walk
        self._walked = float("-inf")
        self._headroom = float("inf")  # bytes a message may have, by what the volume said last; -1: none may come
        self._reserve = 0  # bytes written of it
        self._is_dropping = False
        self.is_full = False
        core.on_full = self.drop_reserve

    def room(self, size: int) -> bool:
        """Whether a message of this size may come."""
        if self.is_full or size > self._headroom:
            return False
        core = self._core
        began = core.journal.began
        if began and core.monotonic() - began > SLOWEST:
            return False
        lane = core.open_lane
        return lane is None or lane.failures <= 1

    def _measure(self) -> float:
        """The headroom, once the volume was asked."""
        settings, room = self._core.settings, self._room
        if room.inodes and room.inodes_free <= room.inodes * (1 - settings.max_usage):
            return -1.0
        if settings.size:
            return min(settings.size * settings.max_usage - self._used, room.free)
        if room.size:
            return room.size * settings.max_usage - (room.size - room.free)
        return float("inf")

    def stats(self) -> dict[str, float]:
        return {
            "volume_bytes": self._room.size,
            "volume_free_bytes": self._room.free,
            "volume_inodes_free": self._room.inodes_free,
            "reserve_bytes": self._reserve,
        }

    async def watch(self) -> None:
        """Once a second: ask the volume; keep the reserve; say when it gets full or has room again."""
        core = self._core
        try:
            self._room = await core.reading(core.disk.room)
            if core.settings.size and core.monotonic() - self._walked > WALK_EVERY:
                self._used = await core.reading(partial(used_bytes, core.disk))
                self._walked = core.monotonic()
        except OSError as error:
            core.event("volume_unknown", error=str(error))
            return
        self._headroom = self._measure()
        was_full, self.is_full = self.is_full, False
        self.is_full = not self.room(0)
        if self.is_full and not was_full:
            core.event("full", free=self._room.free, size=self._room.size)
        elif was_full and not self.is_full:
            core.event("room_again", free=self._room.free, size=self._room.size)
        await self._keep_reserve()

    async def _keep_reserve(self) -> None:
        """Write the reserve block by block, so that no commit waits long; only where there is plenty of space."""
        core, wanted = self._core, self._core.settings.reserve_bytes
        if self.is_full or self._reserve >= wanted or self._room.free < 3 * wanted:
            return
        block = core.random(min(4096, wanted)) * (BLOCK // 4096 or 1)
        path = layout.reserve(core.worker)
        try:
            while self._reserve < wanted and not core.is_stopping and not core.journal.is_fenced:
                part = block[: wanted - self._reserve]
                await core.io(_write_block(path, part, self._reserve, is_last=self._reserve + len(part) >= wanted))
                self._reserve += len(part)
        except OSError as error:
            core.event("no_reserve", error=str(error))
            self.drop_reserve()

    def drop_reserve(self) -> None:
        """The disk is full: give the reserve to the settles. Queued before whatever is written next."""
        if self._is_dropping:
            return
        self._is_dropping = True
        self._reserve = 0
        self.is_full = True
        done = self._core.io(_drop(layout.reserve(self._core.worker)))
        done.add_done_callback(self._dropped)

    def _dropped(self, done: asyncio.Future[None]) -> None:
        self._is_dropping = False
        if done.exception() is not None:
            self._core.event("no_reserve", error=str(done.exception()))


def _write_block(path: str, block: bytes, offset: int, *, is_last: bool) -> Steps[None]:
    fd = yield Call("overwrite", (path,))
    try:
        count = yield Call("pwritev", (fd, [block], offset))
        if count != len(block):
            raise ShortWrite(path, count, len(block))
        if is_last:
            yield Call("fdatasync", (fd,))
    except OSError:
        yield Call("close", (fd,))
        raise
    yield Call("close", (fd,))


def _drop(path: str) -> Steps[None]:
    try:
        yield Call("unlink", (path,))
    except FileNotFoundError:
        pass  # there was none, or it is used already


def used_bytes(disk: Disk) -> int:
    """The sum over all files of the spool."""
    total = 0
    folders = [layout.LANES, layout.WORKERS]
    for folder in folders:
        for name in disk.listdir(folder):
            try:
                for file in disk.listdir(f"{folder}/{name}"):
                    if file.startswith(("own.", "free.")):
                        continue
                    total += disk.size(f"{folder}/{name}/{file}")
            except (FileNotFoundError, NotADirectoryError):
                continue
    return total
