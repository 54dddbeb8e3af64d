"""A modelled disk, a volume that writes down what is done to it, and what a loss of power may leave of that.

`MemoryDisk` stands in for the volume, in memory. `RecordingVolume` is the real volume and keeps a list of all
changing calls. `Recording` reads such a list back and gives, for every point in it, the states a disk may legally be
found in after the power went there.

What is legal: a write counts for sure once its file was synced, a name once its folder was; before that each may be
there or not, whatever became of the others. A write may also be torn: of its 512-byte sectors some are there, the
others hold what was there before, or zeros. A rename is there or not, never half.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from posthof_pod.spool.volume import LOOK_BYTES, Room, Volume

SECTOR = 512
FEW = 4  # pending writes and names of which every subset is tried
SAMPLES = 8  # random subsets beyond that
ROOT = 0

Entry = tuple[Any, ...]


def _error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)


class MemoryDisk:
    """The calls of a volume on folders and files in memory. Nodes are numbered; node 0 is the root folder."""

    def __init__(
        self,
        folders: dict[int, dict[str, int]] | None = None,
        files: dict[int, bytes] | None = None,
        links: dict[int, str] | None = None,
    ) -> None:
        self.folders = folders if folders is not None else {ROOT: {}}
        self.files = files if files is not None else {}
        self.links = links if links is not None else {}
        self._next = max([*self.folders, *self.files, *self.links]) + 1
        self._open: dict[int, int] = {}
        self._next_fd = 1000
        self._locked: dict[int, int] = {}  # node -> descriptor that holds its lock

    # -- looking up -------------------------------------------------------------------------------------------------

    def _folder(self, path: str) -> dict[str, int]:
        node = ROOT
        for name in path.split("/") if path else ():
            found = self.folders.get(node)
            if found is None:
                raise _error(errno.ENOTDIR, path)
            if name not in found:
                raise _error(errno.ENOENT, path)
            node = found[name]
        if node not in self.folders:
            raise _error(errno.ENOTDIR, path)
        return self.folders[node]

    def _parent(self, path: str) -> tuple[dict[str, int], str]:
        parent, _, name = path.rpartition("/")
        return self._folder(parent), name

    def node(self, path: str) -> int:
        folder, name = self._parent(path)
        if name not in folder:
            raise _error(errno.ENOENT, path)
        return folder[name]

    def _file(self, path: str) -> int:
        node = self.node(path)
        if node in self.folders:
            raise _error(errno.EISDIR, path)
        return node

    def _new(self, path: str) -> int:
        folder, name = self._parent(path)
        if name in folder:
            raise _error(errno.EEXIST, path)
        node = folder[name] = self._next
        self._next += 1
        return node

    def _fd(self, node: int) -> int:
        self._next_fd += 1
        self._open[self._next_fd] = node
        return self._next_fd

    def walk(self, node: int = ROOT, path: str = "") -> Iterator[tuple[str, int]]:
        """Every path below the root, with its node; folders before what is in them."""
        for name, child in sorted(self.folders[node].items()):
            where = f"{path}/{name}" if path else name
            yield where, child
            if child in self.folders:
                yield from self.walk(child, where)

    def fingerprint(self) -> int:
        """The same for two disks that look the same."""
        return hash(
            tuple((path, self.files.get(node, self.links.get(node))) for path, node in self.walk())
        )  # a folder: None

    def write_out(self, root: Path) -> None:
        """The same files in a real folder."""
        for path, node in self.walk():
            if node in self.folders:
                (root / path).mkdir()
            elif node in self.links:
                (root / path).symlink_to(self.links[node])
            else:
                (root / path).write_bytes(self.files[node])

    # -- the calls of a volume --------------------------------------------------------------------------------------

    def listdir(self, path: str) -> list[str]:
        return list(self._folder(path))

    def readlink(self, path: str) -> str:
        node = self.node(path)
        if node not in self.links:
            raise _error(errno.EINVAL, path)
        return self.links[node]

    def size(self, path: str) -> int:
        return len(self.files[self._file(path)])

    def read(self, path: str, size: int, offset: int) -> bytes:
        return self.files[self._file(path)][offset : offset + size]

    def look(self, path: str) -> bytes:
        return self.read(path, LOOK_BYTES, 0)

    def open(self, path: str) -> int:
        return self._fd(self._file(path))

    def length(self, fd: int) -> int:
        return len(self.files[self._open[fd]])

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return self.files[self._open[fd]][offset : offset + size]

    def room(self) -> Room:
        return Room(10**12, 10**12, 0, 0)

    def mkdir(self, path: str) -> None:
        self.folders[self._new(path)] = {}

    def symlink(self, target: str, path: str) -> None:
        self.links[self._new(path)] = target

    def create(self, path: str) -> int:
        node = self._new(path)
        self.files[node] = b""
        return self._fd(node)

    def reopen(self, path: str) -> int:
        return self.open(path)

    def overwrite(self, path: str) -> int:
        try:
            return self.open(path)
        except FileNotFoundError:
            return self.create(path)

    def pwritev(self, fd: int, parts: list[bytes], offset: int) -> int:
        data = b"".join(parts)
        node = self._open[fd]
        self.files[node] = put(self.files[node], offset, data)
        return len(data)

    def fdatasync(self, fd: int) -> None:
        assert fd in self._open

    def fsync_dir(self, path: str) -> None:
        self._folder(path)

    def unlink(self, path: str) -> None:
        folder, name = self._parent(path)
        if self.node(path) in self.folders:
            raise _error(errno.EISDIR, path)
        del folder[name]

    def rmdir(self, path: str) -> None:
        if self._folder(path):
            raise _error(errno.ENOTEMPTY, path)
        folder, name = self._parent(path)
        del folder[name]

    def rename(self, old: str, new: str) -> None:
        node = self.node(old)
        source, name = self._parent(old)
        target, new_name = self._parent(new)
        if self.folders.get(target.get(new_name, -1)):
            raise _error(errno.ENOTEMPTY, new)
        del source[name]
        target[new_name] = node

    def close(self, fd: int) -> None:
        node = self._open.pop(fd)
        if self._locked.get(node) == fd:
            del self._locked[node]

    def lock(self, path: str) -> int:
        fd = self.overwrite(path)
        if self._open[fd] in self._locked:
            del self._open[fd]
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)
        self._locked[self._open[fd]] = fd
        return fd


def put(old: bytes, offset: int, data: bytes) -> bytes:
    """`data` written at `offset` of a file; a hole reads as zeros."""
    return old[:offset].ljust(offset, b"\0") + data + old[offset + len(data) :]


def read_in(root: Path) -> MemoryDisk:
    """A real folder as a modelled disk."""
    disk = MemoryDisk()
    for path in sorted(root.rglob("*")):
        where = str(path.relative_to(root))
        if path.is_symlink():
            disk.symlink(os.readlink(path), where)
        elif path.is_dir():
            disk.mkdir(where)
        else:
            fd = disk.create(where)
            disk.pwritev(fd, [path.read_bytes()], 0)
            disk.close(fd)
    return disk


# -- writing down ----------------------------------------------------------------------------------------------------


class RecordingVolume(Volume):
    """The real volume; `log` has every changing call that succeeded, in order, and the marks of who uses it.

    `fail_sync`: the n-th fdatasync fails once with EIO, and the kernel drops the pages, as Linux does. `forgets`: the
    name of a sync that is left out, to see that a loss is found.
    """

    def __init__(self, root: str, *, sync: bool = True, fail_sync: int = 0, forgets: str = "") -> None:
        super().__init__(root, sync=sync)
        self._forgets = forgets
        self.log: list[Entry] = []
        self._fail_sync = fail_sync
        self._syncs = 0

    def mark(self, *entry: object) -> None:
        """Something the test wants to find again between the calls."""
        self.log.append(("mark", *entry))

    def look(self, path: str) -> bytes:
        text = super().look(path)
        self.log.append(("look", path))
        return text

    def mkdir(self, path: str) -> None:
        super().mkdir(path)
        self.log.append(("mkdir", path))

    def symlink(self, target: str, path: str) -> None:
        super().symlink(target, path)
        self.log.append(("symlink", target, path))

    def create(self, path: str) -> int:
        fd = super().create(path)
        self.log.append(("open", path, fd))
        return fd

    def reopen(self, path: str) -> int:
        fd = super().reopen(path)
        self.log.append(("open", path, fd))
        return fd

    def overwrite(self, path: str) -> int:
        fd = super().overwrite(path)
        self.log.append(("open", path, fd))
        return fd

    def lock(self, path: str) -> int:
        fd = super().lock(path)
        self.log.append(("open", path, fd))
        return fd

    def pwritev(self, fd: int, parts: list[bytes], offset: int) -> int:
        count = super().pwritev(fd, parts, offset)
        self.log.append(("write", fd, offset, b"".join(parts)[:count]))
        return count

    def fdatasync(self, fd: int) -> None:
        self._syncs += 1
        if self._syncs == self._fail_sync:
            self.log.append(("drop", fd))
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fdatasync(fd)
        if self._is_syncing and self._forgets != "fdatasync":
            self.log.append(("sync", fd))

    def fsync_dir(self, path: str) -> None:
        super().fsync_dir(path)
        if self._is_syncing and self._forgets != "fsync_dir":
            self.log.append(("sync_folder", path))

    def unlink(self, path: str) -> None:
        super().unlink(path)
        self.log.append(("unlink", path))

    def rmdir(self, path: str) -> None:
        super().rmdir(path)
        self.log.append(("unlink", path))

    def rename(self, old: str, new: str) -> None:
        super().rename(old, new)
        self.log.append(("rename", old, new))


# -- what a loss of power leaves -------------------------------------------------------------------------------------


class Bytes(NamedTuple):
    """A write that is not synced."""

    node: int
    offset: int
    data: bytes


class Named(NamedTuple):
    """Names that are not synced: (folder, name, node or None where it is taken away), together or not at all."""

    changes: tuple[tuple[int, str, int | None], ...]


Pending = Bytes | Named


class Recording:
    """Goes through a log; at each point it knows what is durable and what is pending."""

    def __init__(self, base: MemoryDisk, log: Sequence[Entry], *, seed: int = 0) -> None:
        self._log = log
        self._now = base  # as a process sees it
        self._folders = {node: dict(names) for node, names in base.folders.items()}  # what is durable
        self._files = dict(base.files)
        self._links = base.links  # a link's text is durable with its name
        self._handles: dict[int, int] = {}
        self.pending: list[Pending] = []
        self._random = random.Random(seed)

    def points(self) -> Iterator[tuple[int, Entry]]:
        """After each entry of the log: its index and the entry; `states` then tells what may be found."""
        for at, entry in enumerate(self._log):
            self._apply(entry)
            yield at, entry

    def _apply(self, entry: Entry) -> None:
        act: Callable[..., None] | None = getattr(self, f"_do_{entry[0]}", None)
        if act is not None:
            act(*entry[1:])

    def _name(self, *changes: tuple[str, int | None]) -> None:
        found = []
        for path, node in changes:
            parent, _, name = path.rpartition("/")
            found.append((self._now.node(parent) if parent else ROOT, name, node))
        self.pending.append(Named(tuple(found)))

    def _do_mkdir(self, path: str) -> None:
        self._now.mkdir(path)
        node = self._now.node(path)
        self._folders[node] = {}
        self._name((path, node))

    def _do_symlink(self, target: str, path: str) -> None:
        self._now.symlink(target, path)
        self._name((path, self._now.node(path)))

    def _do_open(self, path: str, fd: int) -> None:
        try:
            node = self._now.node(path)
        except FileNotFoundError:
            self._now.close(self._now.create(path))
            node = self._now.node(path)
            self._files[node] = b""
            self._name((path, node))
        self._handles[fd] = node

    def _do_write(self, fd: int, offset: int, data: bytes) -> None:
        node = self._handles[fd]
        self._now.files[node] = put(self._now.files[node], offset, data)
        if node in self._hints():
            self._files[node] = self._now.files[node]  # nobody relies on it, and it is never synced
        else:
            self.pending.append(Bytes(node, offset, data))

    def _hints(self) -> set[int]:
        return {node for path, node in self._now.walk() if path.endswith("/load")}

    def _do_sync(self, fd: int) -> None:
        node = self._handles[fd]
        self._settle(lambda one: isinstance(one, Bytes) and one.node == node)

    def _do_drop(self, fd: int) -> None:
        """A failed sync: what was pending is forgotten, and a later sync will not write it."""
        node = self._handles[fd]
        self.pending = [one for one in self.pending if not (isinstance(one, Bytes) and one.node == node)]

    def _do_sync_folder(self, path: str) -> None:
        node = self._now.node(path) if path else ROOT
        self._settle(lambda one: isinstance(one, Named) and any(change[0] == node for change in one.changes))

    def _do_unlink(self, path: str) -> None:
        self._name((path, None))
        folder, _, name = path.rpartition("/")
        del self._now.folders[self._now.node(folder)][name]

    def _do_rename(self, old: str, new: str) -> None:
        self._name((new, self._now.node(old)), (old, None))
        self._now.rename(old, new)

    def _settle(self, is_durable: Callable[[Pending], bool]) -> None:
        left = []
        for one in self.pending:
            if is_durable(one):
                _put_in(self._folders, self._files, one)
            else:
                left.append(one)
        self.pending = left

    def build(self, kept: Iterable[Pending]) -> MemoryDisk:
        """The disk on which of all that is pending only this came to be."""
        folders = {node: dict(names) for node, names in self._folders.items()}
        files = dict(self._files)
        for one in kept:
            _put_in(folders, files, one)
        return MemoryDisk(folders, files, dict(self._links))

    def states(self) -> Iterator[MemoryDisk]:
        """What may be found if the power goes now: all subsets of few, else every prefix, every single loss and a
        sample; and each pending write torn."""
        pending = self.pending
        for kept in self._subsets(len(pending)):
            yield self.build(pending[at] for at in kept)
        for at, one in enumerate(pending):
            if isinstance(one, Bytes):
                for torn in self._tears(one):
                    yield self.build([*pending[:at], *torn])
                    if at + 1 < len(pending):
                        yield self.build([*pending[:at], *torn, *pending[at + 1 :]])

    def _subsets(self, count: int) -> Iterator[Sequence[int]]:
        everything = range(count)
        if count <= FEW:
            for size in range(count + 1):
                yield from combinations(everything, size)
            return
        for size in range(count + 1):
            yield everything[:size]
        for lost in everything:
            yield [at for at in everything if at != lost]
        for _ in range(SAMPLES):
            yield [at for at in everything if self._random.random() < 0.5]

    def _tears(self, one: Bytes) -> Iterator[list[Pending]]:
        """Some of its sectors, not all and not none."""
        cuts = [one.offset]
        at = one.offset - one.offset % SECTOR + SECTOR
        while at < one.offset + len(one.data):
            cuts.append(at)
            at += SECTOR
        cuts.append(one.offset + len(one.data))
        pieces: list[Pending] = [
            Bytes(one.node, begin, one.data[begin - one.offset : end - one.offset]) for begin, end in pairwise(cuts)
        ]
        count = len(pieces)
        if count <= FEW:
            for size in range(1, count):
                for kept in combinations(range(count), size):
                    yield [pieces[index] for index in kept]
            return
        for size in {1, count // 2, count - 1}:
            yield pieces[:size]
            yield pieces[count - size :]
        yield [piece for piece in pieces if self._random.random() < 0.5]


def _put_in(folders: dict[int, dict[str, int]], files: dict[int, bytes], one: Pending) -> None:
    if isinstance(one, Bytes):
        files[one.node] = put(files[one.node], one.offset, one.data)
        return
    for folder, name, node in one.changes:
        if node is None:
            folders[folder].pop(name, None)
        else:
            folders[folder][name] = node
