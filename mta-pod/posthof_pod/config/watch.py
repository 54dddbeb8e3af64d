"""Has the manifest folder changed? Asked every half second; names, times, sizes and inodes say so.

Owns: FolderWatcher. Polling and not inotify: it costs 20 microseconds a second, works on every file system (network
mounts, Kubernetes' symbolic links to `..data`), and needs no limits raised.

Rules
- A change is told when the folder has been still for one interval: an editor or `cp` writes several files, a few
  times. A folder that never comes to rest is told every `patience` seconds.
- What changes while a change is being loaded is told again: the baseline is taken before the caller loads.
- A folder that vanishes is a change too; loading it says what is wrong.
- `poke` (SIGHUP) tells at once, also without a change: what files outside the folder hold may be new.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

Snapshot = tuple[tuple[str, int, int, int], ...]  # name, mtime in ns, size, inode

INTERVAL = 0.5
PATIENCE = 5.0
_SUFFIXES = (".yaml", ".yml")


def snapshot(folder: Path, others: Iterable[Path] = ()) -> Snapshot:
    """What `load` would read, by name, and other files by path. A file that cannot be looked at has an inode of 0."""
    try:
        found = [folder / name for name in os.listdir(folder)]
    except OSError:
        found = []
    read = (path for path in found if path.suffix in _SUFFIXES and not path.name.startswith("."))
    return tuple(_look(path) for path in sorted({*read, *others}))


def _look(path: Path) -> tuple[str, int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return str(path), 0, 0, 0
    return str(path), status.st_mtime_ns, status.st_size, status.st_ino


class FolderWatcher:
    """Watches from the moment it is made: make it before the first load."""

    def __init__(
        self,
        folder: Path,
        *,
        others: Callable[[], Iterable[Path]] = tuple,
        interval: float = INTERVAL,
        patience: float = PATIENCE,
    ) -> None:
        """`others`: files outside the folder that matter too, such as certificates; asked at every look."""
        self._folder, self._others = folder, others
        self._interval, self._patience = interval, patience
        self._seen = self._look()
        self._poked: asyncio.Event | None = None

    def _look(self) -> Snapshot:
        return snapshot(self._folder, self._others())

    def poke(self) -> None:
        """The next `changed` returns at once. Call it in the loop's thread."""
        self._wake().set()

    def _wake(self) -> asyncio.Event:
        if self._poked is None:
            self._poked = asyncio.Event()
        return self._poked

    async def changed(self) -> None:
        """Returns when there is something new to load."""
        waited = 0.0
        last = self._look()
        while not await self._poked_within(self._interval):
            now = self._look()
            waited = waited + self._interval if now != self._seen else 0.0
            if now != self._seen and (now == last or waited >= self._patience):
                self._seen = now
                return
            last = now
        self._seen = self._look()

    async def _poked_within(self, seconds: float) -> bool:
        poked = self._wake()
        try:
            await asyncio.wait_for(poked.wait(), seconds)
        except TimeoutError:
            return False
        poked.clear()
        return True

    async def run(self, on_change: Callable[[], Awaitable[object]]) -> None:
        """Calls back for every change, one after the other, until cancelled."""
        while True:
            await self.changed()
            await on_change()
