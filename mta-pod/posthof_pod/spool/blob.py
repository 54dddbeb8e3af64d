"""Content over the threshold: a file of its own, written while it arrives, read back in chunks.

Rules of this file
- Writing is done by the I/O thread; `write` never blocks, `pending` tells what it has not taken yet, `drain` waits.
- A reader checks length and CRC as it goes and says so after the last chunk: who sends them must hold back the final
  dot until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import Protocol
from zlib import crc32

from ..replies import Temporary
from . import layout, protocol
from .iothread import IOThread
from .journal import FULL, TROUBLE
from .lane import Lane
from .protocol import BlobFile
from .record import BlobNote, Damaged
from .volume import Disk

CHUNK = 256 * 1024  # bytes given to the I/O thread at once, and read at once
HIGH_WATER = 1024 * 1024  # `drain` waits while more than this is pending


class BlobOwner(Protocol):
    def blob_ended(self, blob: Blob) -> None:
        """It was committed, aborted or failed."""


class Strainer(Protocol):
    """What content passes before it is written: of the same length, some of it perhaps later."""

    def take(self, data: bytes) -> bytes: ...
    def end(self) -> bytes: ...


class Blob:
    """A sink for one message's content. `id` is the message's: the envelope must carry it."""

    def __init__(self, disk: Disk, thread: IOThread, lane: Lane, number: int, owner: BlobOwner) -> None:
        self.lane = lane
        self.number = number
        self.id = layout.message_id(lane.name, number)
        self.size = 0
        self.crc = 0
        self.pending = 0  # bytes not yet on the volume (or in its cache)
        self.file = BlobFile(lane.folder, number)
        self.is_ended = False
        self.strainer: Strainer | None = None  # set before the first write
        self._disk = disk
        self._thread = thread
        self._owner = owner
        self._parts: list[bytes] = []
        self._gathered = 0
        self._drainers: list[asyncio.Future[None]] = []

    @property
    def error(self) -> OSError | None:
        """What went wrong with the volume: the commit will fail."""
        return self.file.error

    def write(self, data: bytes) -> None:
        """Take a piece of content. An error of the volume shows at `drain` and at the commit."""
        if self.strainer is not None:
            data = self.strainer.take(data)
        self._take(data)

    def _take(self, data: bytes) -> None:
        self.crc = crc32(data, self.crc)
        self.size += len(data)
        self.pending += len(data)
        self._parts.append(data)
        self._gathered += len(data)
        if self._gathered >= CHUNK:
            self._pass_on()

    async def drain(self) -> None:
        """Wait until the volume has caught up. Temporary: it cannot take this message."""
        self.check()
        if self.pending > HIGH_WATER:
            waiter: asyncio.Future[None] = self._thread.loop.create_future()
            self._drainers.append(waiter)
            await waiter
            self.check()

    def check(self) -> None:
        """Temporary: writing failed."""
        if self.file.error is not None:
            reply = FULL if self.file.error.errno in protocol.FULL_ERRORS else TROUBLE
            raise Temporary(reply, f"blob {self.id}: {self.file.error}")

    def finish(self) -> BlobNote:
        """All content was written: what the accept says of it. Temporary: writing failed."""
        self.check()
        if self.strainer is not None:
            self._take(self.strainer.end())
        self._pass_on(is_last=True)
        return BlobNote(self.number, self.size, self.crc)

    def abort(self) -> None:
        """The message will not come: the file goes. Nothing was promised, so it needs no look."""
        if self.is_ended:
            return
        self.is_ended = True
        self._parts.clear()
        self._gathered = 0
        self._owner.blob_ended(self)
        self._thread.put(_Abort(self._disk, self.file, self.lane.name, self.number))

    def committed(self) -> None:
        """The accept was told; the journal owns the file from here on."""
        self.is_ended = True
        self._owner.blob_ended(self)

    def _pass_on(self, *, is_last: bool = False) -> None:
        if self._parts or (is_last and self.size == 0):
            parts, self._parts = self._parts, []
            size, self._gathered = self._gathered, 0
            self._thread.put(_Append(self._disk, self.file, parts, lambda: self._thread.tell(self._wrote, size)))

    def _wrote(self, size: int) -> None:
        self.pending -= size
        if self.pending <= HIGH_WATER // 2 or self.file.error is not None:
            drainers, self._drainers = self._drainers, []
            for waiter in drainers:
                if not waiter.done():
                    waiter.set_result(None)


class _Append:
    """In the I/O thread: some chunks of a blob."""

    __slots__ = ("disk", "done", "file", "parts")

    def __init__(self, disk: Disk, file: BlobFile, parts: list[bytes], done: Callable[[], None]) -> None:
        self.disk, self.file, self.parts, self.done = disk, file, parts, done

    def work(self) -> None:
        if self.file.error is None:
            try:
                protocol.run(self.disk, protocol.append_blob(self.file, self.parts))
            except OSError as error:
                self.file.error = error
        self.done()


class _Abort:
    """In the I/O thread: a blob nobody will name."""

    __slots__ = ("disk", "file", "lane", "number")

    def __init__(self, disk: Disk, file: BlobFile, lane: str, number: int) -> None:
        self.disk, self.file, self.lane, self.number = disk, file, lane, number

    def work(self) -> None:
        if self.file.fd < 0:
            return
        try:
            self.disk.close(self.file.fd)
            self.file.fd = -1
            protocol.run(self.disk, protocol.remove_blob(self.lane, self.number))
        except OSError:
            return  # an orphan: the next take-over of the lane removes it


class BlobReader:
    """Content of a committed message, read in chunks in the reader threads."""

    __slots__ = ("_disk", "_executor", "_loop", "crc", "path", "size")

    def __init__(
        self, disk: Disk, loop: asyncio.AbstractEventLoop, executor: Executor, lane: str, note: BlobNote
    ) -> None:
        self._disk = disk
        self._loop = loop
        self._executor = executor
        self.path = layout.blob(lane, note.number)
        self.size = note.size
        self.crc = note.crc

    def __len__(self) -> int:
        return self.size

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks()

    async def chunks(self, size: int = CHUNK) -> AsyncIterator[bytes]:
        """The content, in order. Damaged after the last chunk where length or CRC do not fit, or at once where the
        file is missing: the connection must then be dropped without the dot. Temporary: it cannot be read now."""
        try:
            fd = await self._loop.run_in_executor(self._executor, self._disk.open, self.path)
        except OSError as error:
            raise self._failure(error) from error
        try:
            at = crc = 0
            while at < self.size:
                data = await self._read(fd, min(size, self.size - at), at)
                if not data:
                    break
                crc = crc32(data, crc)
                at += len(data)
                yield data
            if at != self.size or crc != self.crc or await self._read(fd, 1, at):
                raise Damaged(self.path, "length or CRC of the content do not fit")
        finally:
            self._disk.close(fd)

    async def _read(self, fd: int, size: int, at: int) -> bytes:
        try:
            return await self._loop.run_in_executor(self._executor, self._disk.pread, fd, size, at)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> Damaged | Temporary:
        """Only a file that is not there is damage; any other error is the volume's, and may pass."""
        if isinstance(error, FileNotFoundError):
            return Damaged(self.path, "the file with the content is missing")
        return Temporary(TROUBLE, f"{self.path} cannot be read: {error}")

    async def head(self, size: int) -> bytes:
        """The first bytes, unchecked (for a report's copy of the headers). Raises as `chunks` does."""
        try:
            return await self._loop.run_in_executor(self._executor, self._disk.read, self.path, size, 0)
        except OSError as error:
            raise self._failure(error) from error

    async def read(self) -> bytes:
        """All of it, checked: only for those who must have it whole (conversion)."""
        return b"".join([chunk async for chunk in self.chunks()])
