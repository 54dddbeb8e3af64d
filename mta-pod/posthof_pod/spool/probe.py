"""What a volume really does: each promise the spool rests on, tried out, with numbers. Nothing of a spool is touched.

    probe(folder)             one client: what this machine's own client shows
    probe(folder, other)      two clients: `other` is the same volume, mounted a second time (or on another machine)

Rules of this file
- `broken`: promises that do not hold. A volume with one of them is refused: mail could be lost on it.
- `warnings`: what cannot be tried out, or works and is slow. It is told, not refused.
- It works in a folder of its own, `.probe-<random>`, and removes it.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from .volume import Volume, file_system, mount_options

SYNCS = 40
ROUNDS = 20  # of a race for one name, and of texts written in place
BLOCK = b"posthof\n" * 512  # 4 KiB
SOON = 0.25  # seconds after which what was synced has to be seen by another client
SLOW = 0.25  # seconds: a sync that takes longer is told of
CLOCKS = 5.0  # seconds between the volume's clock and ours that are told of
PREFIX = ".probe-"
FULL = (errno.ENOSPC, errno.EDQUOT)
IN_MEMORY = ("tmpfs", "ramfs")
LEFT = 3600.0  # seconds until a folder that a killed probe left is removed


class Findings(msgspec.Struct, frozen=True):
    """Times in seconds. `visible`: the longest it took until another client saw what was synced; None: there was one
    client. `clock_offset`: the volume's clock minus ours."""

    file_system: str
    options: str
    sync_median: float
    sync_p99: float
    folder_p99: float
    clock_offset: float
    free_bytes: int
    free_inodes: int  # -1: the file system does not count them
    visible: float | None = None
    broken: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"file system  {self.file_system or 'unknown'} ({self.options})"
        yield f"sync         median {_ms(self.sync_median)}, 99% under {_ms(self.sync_p99)} (4 KiB and fdatasync)"
        yield f"folder sync  99% under {_ms(self.folder_p99)}"
        seen = "one client: not measured; give a second mount" if self.visible is None else _ms(self.visible)
        yield f"visible      {seen}"
        yield f"clock        {self.clock_offset:+.3f} s"
        inodes = "not counted" if self.free_inodes < 0 else str(self.free_inodes)
        yield f"free         {self.free_bytes} bytes, {inodes} inodes"
        for one in self.warnings:
            yield f"warning      {one}"
        for one in self.broken:
            yield f"broken       {one}"
        yield "refused: see above" if self.broken else "every promise holds, as far as it can be tried out"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def probe(folder: str | os.PathLike[str], other: str | os.PathLike[str] | None = None) -> Findings:
    """Try everything out. OSError: the folder cannot be used at all."""
    os.makedirs(folder, mode=0o750, exist_ok=True)
    _sweep(Path(folder))
    name = f"{PREFIX}{os.urandom(6).hex()}"
    here = Volume(Path(folder) / name)
    try:
        there = None if other is None else _second(Path(other) / name)
        return measure(str(folder), here, there)
    finally:
        shutil.rmtree(here.root, ignore_errors=True)


def measure(folder: str, here: Volume, there: Volume | None = None) -> Findings:
    """Try out what `here` does, and what `there`, another client of the same empty folder, sees of it."""
    return _Probe(folder, here, there).run()


def _second(path: Path) -> Volume:
    """The same folder through the other mount. OSError: it is not there."""
    ends = time.monotonic() + 5.0
    while not path.is_dir():
        if time.monotonic() > ends:
            raise OSError(errno.ENOENT, "what is made in the first folder does not appear in the second", str(path))
        time.sleep(0.01)
    return Volume(path)


def _sweep(folder: Path) -> None:
    for path in folder.glob(f"{PREFIX}*"):
        if time.time() - path.stat().st_mtime > LEFT:
            shutil.rmtree(path, ignore_errors=True)


class _Probe:
    """One run. `_there` is the second client, or the first once more."""

    def __init__(self, folder: str, here: Volume, there: Volume | None) -> None:
        self._folder, self._here = folder, here
        self._has_two = there is not None
        self._there = here if there is None else there
        self._broken: list[str] = []
        self._warnings: list[str] = []
        self._visible = 0.0

    def run(self) -> Findings:
        kind, options = file_system(self._folder), mount_options(self._folder)
        self._options(kind, options)
        with self._promise("a name is made once (symlink)"):
            self._names()
        with self._promise("a file is created once (O_EXCL)"):
            self._files()
        syncs = [0.0]
        with self._promise("what was appended and synced is there for a fresh open"):
            syncs = self._appends()
        with self._promise("a text changed in place is seen by a fresh open (the latch)"):
            self._in_place()
        folders = [0.0]
        with self._promise("a folder can be synced"):
            folders = self._folders()
        with self._promise("folders and files can be renamed and removed"):
            self._removals()
        offset = 0.0
        with self._promise("files have a time"):
            offset = self._clock()
        room = self._here.room()
        self._numbers(syncs, offset)
        return Findings(
            file_system=kind,
            options=options,
            sync_median=_share(syncs, 0.5),
            sync_p99=_share(syncs, 0.99),
            folder_p99=_share(folders, 0.99),
            clock_offset=round(offset, 3),
            free_bytes=room.free,
            free_inodes=room.inodes_free if room.inodes else -1,
            visible=round(self._visible, 4) if self._has_two else None,
            broken=tuple(self._broken),
            warnings=tuple(self._warnings),
        )

    @contextmanager
    def _promise(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                self._warnings.append(f"{what}: could not be tried, for it is full")
            else:
                self._broken.append(f"{what}: {error}")
        except _Broken as error:
            self._broken.append(f"{what}: {error}")

    # ------------------------------------------------------------------ one by one

    def _options(self, kind: str, options: str) -> None:
        words = options.split(",")
        if "nocto" in words:
            self._broken.append("the mount option nocto: a changed latch would not be seen. Mount without it")
        if "ro" in words:
            self._broken.append("it is mounted read-only")
        if kind in IN_MEMORY:
            self._warnings.append(f"{kind} is memory: what is accepted is gone when the machine is")
        if kind.startswith("nfs"):
            self._warnings.append("whether the server exports with sync cannot be seen: with async, 250 is a lie")
        if kind == "fuse.juicefs":
            self._warnings.append("whether it was mounted with --writeback cannot be seen: with it, 250 is a lie")

    def _names(self) -> None:
        for n in range(ROUNDS):
            winners = self._race(f"name-{n}")
            if len(winners) != 1:
                raise _Broken(f"{len(winners)} of two callers were told that they made it")
            for late in (self._here, self._there):
                self._refuses(late, f"name-{n}")
            seen = {one.readlink(f"name-{n}") for one in (self._here, self._there)}
            if seen != set(winners):
                raise _Broken(f"{winners[0]} made it, and it says {' and '.join(sorted(seen))}")

    def _refuses(self, volume: Volume, path: str) -> None:
        """Whoever comes late is told so, and not only in a race that this one may happen to win."""
        try:
            volume.symlink("late", path)
        except FileExistsError:
            return
        raise _Broken("a caller that came late was told that it made it")

    def _race(self, path: str) -> list[str]:
        """Two callers make one name; who was told that it did."""
        winners: list[str] = []
        failures: list[OSError] = []
        start = threading.Barrier(2)

        def run(volume: Volume, who: str) -> None:
            start.wait()
            try:
                volume.symlink(who, path)
                winners.append(who)
            except FileExistsError:
                if volume.readlink(path) == who:  # a repeated call: it was we
                    winners.append(who)
            except OSError as error:
                failures.append(error)

        callers = [threading.Thread(target=run, args=one) for one in ((self._here, "one"), (self._there, "two"))]
        for one in callers:
            one.start()
        for one in callers:
            one.join()
        if failures:
            raise failures[0]
        return winners

    def _files(self) -> None:
        self._here.close(self._here.create("file"))
        try:
            self._there.close(self._there.create("file"))
        except FileExistsError:
            return
        raise _Broken("it was created twice")

    def _appends(self) -> list[float]:
        """Seconds of each sync."""
        fd = self._here.create("log")
        found, at = [], 0
        try:
            self._here.fsync_dir("")
            for _ in range(SYNCS):
                at += self._here.pwritev(fd, [BLOCK], at)
                begun = time.monotonic()
                self._here.fdatasync(fd)
                found.append(time.monotonic() - begun)
                self._see(lambda at=at: self._there.size("log") >= at, f"{at} bytes")  # type: ignore[misc]  # a default keeps the value of this turn
                if self._there.read("log", len(BLOCK), at - len(BLOCK)) != BLOCK:
                    raise _Broken("it has other bytes")
        finally:
            self._here.close(fd)
        return found

    def _in_place(self) -> None:
        text = b"open"
        for n in range(ROUNDS):
            text = b"fenced by %04d " % n + text[:200]
            fd = self._here.overwrite("latch")
            self._here.pwritev(fd, [text], 0)
            self._here.fdatasync(fd)
            self._here.close(fd)
            self._see(lambda text=text: self._there.look("latch") == text, "the new text")  # type: ignore[misc]  # as above

    def _see(self, is_seen: Callable[[], bool], what: str) -> None:
        """Wait until the other client sees it."""
        begun = time.monotonic()
        while not is_seen():
            if time.monotonic() - begun > SOON:
                raise _Broken(f"{what} was not seen {SOON:g} s after the sync")
            time.sleep(0.001)
        self._visible = max(self._visible, time.monotonic() - begun)

    def _folders(self) -> list[float]:
        found = []
        for n in range(ROUNDS):
            self._here.mkdir(f"folder-{n}")
            begun = time.monotonic()
            self._here.fsync_dir("")
            found.append(time.monotonic() - begun)
            self._see(lambda n=n: f"folder-{n}" in self._there.listdir(""), f"folder-{n}")  # type: ignore[misc]  # as above
        return found

    def _removals(self) -> None:
        self._here.rename("folder-0", "folder-renamed")
        self._here.rmdir("folder-renamed")
        self._here.unlink("file")
        if {"folder-0", "folder-renamed", "file"} & set(self._here.listdir("")):
            raise _Broken("names are still there")

    def _clock(self) -> float:
        before = time.time()
        fd = self._here.create("now")
        self._here.pwritev(fd, [BLOCK], 0)
        self._here.fdatasync(fd)
        self._here.close(fd)
        after = time.time()
        at = os.stat(self._here.full("now")).st_mtime
        return at - min(max(at, before - 0.01), after + 0.01)  # coarse clocks may lag by a tick

    def _numbers(self, syncs: list[float], offset: float) -> None:
        if _share(syncs, 0.99) > SLOW:
            self._warnings.append(f"a sync takes up to {_ms(max(syncs))}: each 250 waits for one")
        if abs(offset) > CLOCKS:
            self._warnings.append(f"its clock is {offset:+.0f} s from ours: nothing rests on it, look into it")


class _Broken(Exception):
    """A promise does not hold. The text says how."""


def _share(values: list[float], share: float) -> float:
    """The value that this share of all is not above, in seconds."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 6)
