"""The volume: every system call on the spool passes through here, and nothing else does I/O on it (but mate.py, which
syncs and looks for us in a process of its own).

Rules of this file
- One method is one step of the protocol; calls that change something are one system call each (named after it), so a
  modelled disk can stand in, and `strace -e inject` can count them. They are made in one thread (see iothread.py).
- Paths are text relative to the root ("lanes/x/own.1"); descriptors are ints a modelled disk may make up.
- Reads are fresh opens: another worker may have changed the file, and a network client checks only at open.
- Nothing is repeated and nothing is swallowed: an OSError goes up as it is.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from typing import NamedTuple, Protocol

IOV_MAX = 1024  # parts of one pwritev (Linux UIO_MAXIOV)
LOOK_BYTES = 512  # of a latch: more than any of its texts

# File systems whose client may keep old bytes of a file: there a look goes past the page cache.
NETWORK = ("nfs", "nfs4", "ceph", "cifs", "smb3", "glusterfs", "lustre", "9p", "gpfs", "beegfs", "fuse")


class Room(NamedTuple):
    """What statvfs says of the volume."""

    size: int  # bytes
    free: int  # bytes an ordinary user may still write
    inodes: int  # 0: the file system does not count them
    inodes_free: int


class ShortWrite(OSError):
    """pwritev took fewer bytes than it was given: the segment is in an unknown state."""

    def __init__(self, path: str, wrote: int, wanted: int) -> None:
        super().__init__(errno.EIO, f"short write: {wrote} of {wanted} bytes", path)


class Disk(Protocol):
    """What a volume can do: `Volume` does it for real, tests/kit/disk.py in memory."""

    def listdir(self, path: str) -> list[str]: ...
    def readlink(self, path: str) -> str: ...
    def size(self, path: str) -> int: ...
    def read(self, path: str, size: int, offset: int) -> bytes: ...
    def look(self, path: str) -> bytes: ...
    def open(self, path: str) -> int: ...
    def length(self, fd: int) -> int: ...
    def pread(self, fd: int, size: int, offset: int) -> bytes: ...
    def room(self) -> Room: ...
    def mkdir(self, path: str) -> None: ...
    def symlink(self, target: str, path: str) -> None: ...
    def create(self, path: str) -> int: ...
    def reopen(self, path: str) -> int: ...
    def overwrite(self, path: str) -> int: ...
    def pwritev(self, fd: int, parts: list[bytes], offset: int) -> int: ...
    def fdatasync(self, fd: int) -> None: ...
    def fsync_dir(self, path: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def rename(self, old: str, new: str) -> None: ...
    def close(self, fd: int) -> None: ...
    def lock(self, path: str) -> int: ...


class Volume:
    """A directory of the machine's file systems. Thread-safe: no state but the root, and a page for each thread."""

    def __init__(self, root: str | os.PathLike[str], *, sync: bool = True, direct: bool | None = None) -> None:
        """`sync=False` leaves out every sync: only the crash harness does, as its negative control.

        `direct`: looks use O_DIRECT; None: when the root lies on a network file system.
        """
        self.root = os.path.abspath(os.fspath(root))
        self._prefix = self.root + "/"
        self._is_syncing = sync
        os.makedirs(self.root, mode=0o750, exist_ok=True)
        self._direct = os.O_DIRECT if (is_network(self.root) if direct is None else direct) else 0
        self._pages = threading.local()  # a new page for each look would be half its cost

    @property
    def is_local(self) -> bool:
        """Only this machine writes here: nothing waits for a server, and the page cache is the truth."""
        return not self._direct

    @property
    def is_syncing(self) -> bool:
        return self._is_syncing

    def full(self, path: str) -> str:
        """The path for another process."""
        return self._prefix + path

    # -- reading: a fresh open each time ---------------------------------------------------------------------------

    def listdir(self, path: str) -> list[str]:
        return os.listdir(self._prefix + path)

    def readlink(self, path: str) -> str:
        return os.readlink(self._prefix + path)

    def size(self, path: str) -> int:
        """Bytes of the file, asked through a fresh open (a network client may answer a stat from memory)."""
        fd = os.open(self._prefix + path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def read(self, path: str, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the file's end."""
        fd = os.open(self._prefix + path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self.pread(fd, size, offset)
        finally:
            os.close(fd)

    def look(self, path: str) -> bytes:
        """The first bytes of a small file as they are on the volume now."""
        if not self._direct:
            fd = os.open(self._prefix + path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.read(fd, LOOK_BYTES)
            finally:
                os.close(fd)
        page = getattr(self._pages, "page", None)
        if page is None:
            page = self._pages.page = mmap.mmap(-1, mmap.PAGESIZE)  # aligned, as O_DIRECT wants it
        fd = os.open(self._prefix + path, os.O_RDONLY | os.O_CLOEXEC | self._direct)
        try:
            count = os.preadv(fd, [page], 0)
            return bytes(page[: min(count, LOOK_BYTES)])
        finally:
            os.close(fd)

    def open(self, path: str) -> int:
        return os.open(self._prefix + path, os.O_RDONLY | os.O_CLOEXEC)

    def length(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        data = os.pread(fd, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]
        got = len(data)
        while got < size:
            data = os.pread(fd, size - got, offset + got)
            if not data:
                break
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def room(self) -> Room:
        stat = os.statvfs(self.root)
        return Room(stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize, stat.f_files, stat.f_favail)

    # -- changing: one system call each, in one thread -------------------------------------------------------------

    def mkdir(self, path: str) -> None:
        os.mkdir(self._prefix + path, 0o750)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, self._prefix + path)

    def create(self, path: str) -> int:
        """A new file for writing; FileExistsError when the name was used."""
        return os.open(self._prefix + path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def reopen(self, path: str) -> int:
        """An existing file for writing."""
        return os.open(self._prefix + path, os.O_WRONLY | os.O_CLOEXEC)

    def overwrite(self, path: str) -> int:
        """A file for writing in place, made where it is missing."""
        return os.open(self._prefix + path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def pwritev(self, fd: int, parts: list[bytes], offset: int) -> int:
        """Write at most IOV_MAX parts; the count of bytes taken may be short."""
        return os.pwritev(fd, parts, offset)

    def fdatasync(self, fd: int) -> None:
        if self._is_syncing:
            os.fdatasync(fd)

    def fsync_dir(self, path: str) -> None:
        """Make the names in a folder durable ("" = the root)."""
        if not self._is_syncing:
            return
        fd = os.open(self._prefix + path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def unlink(self, path: str) -> None:
        os.unlink(self._prefix + path)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._prefix + path)

    def rename(self, old: str, new: str) -> None:
        os.rename(self._prefix + old, self._prefix + new)

    def close(self, fd: int) -> None:
        os.close(fd)

    def lock(self, path: str) -> int:
        """The descriptor of a lock file with its flock held; BlockingIOError when someone else holds it.

        The lock goes with the descriptor: `close` frees it, and so does the end of the process. Descriptors are
        not inherited over exec, and nothing here forks without exec.
        """
        fd = os.open(self._prefix + path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return fd


def file_system(path: str, mounts: str = "/proc/self/mountinfo") -> str:
    """The type of the file system that holds `path` ("ext4", "nfs4", "fuse.juicefs"), "" when it cannot be told."""
    return _mount(path, mounts)[0]


def mount_options(path: str, mounts: str = "/proc/self/mountinfo") -> str:
    """How the file system that holds `path` is mounted ("rw,relatime,vers=4.1"), "" when it cannot be told."""
    return _mount(path, mounts)[1]


def _mount(path: str, mounts: str) -> tuple[str, str]:
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as lines:
            table = [line.split() for line in lines]
    except OSError:
        return "", ""
    path = os.path.realpath(path)
    best, kind, options = -1, "", ""
    for fields in table:
        point = fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= best:
            rest = fields[fields.index("-") + 1 :]
            best, kind = len(point), rest[0]
            options = ",".join(dict.fromkeys([*fields[5].split(","), *"".join(rest[2:3]).split(",")]))
    return kind, options


def is_network(path: str) -> bool:
    """Whether other machines may write the files below `path`."""
    kind = file_system(path)
    return kind in NETWORK or kind.startswith("fuse.")
