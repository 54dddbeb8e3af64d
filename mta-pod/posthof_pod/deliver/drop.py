"""Files into Maildirs: one batch, one thread, no event loop.

Rules of this file
- A file is written and synced in tmp/, renamed into new/, and its folder is synced: only then is it said to be there.
- Every step below the mail root is taken with the folder's own descriptor and O_NOFOLLOW: no name, and no symbolic
  link that somebody put there, leads out of the root. Folders are made with mode 0700, files with 0600.
- A file's name in new/ is made from the queue id and the recipient's number: writing it a second time after a crash
  replaces it by the same bytes instead of adding one.
- An error of one file is that file's alone; nothing raises out of `write`.
Source: the description of Maildir by its author (cr.yp.to/proto/maildir.html); `,S=` is Maildir++'s size.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterable, Sequence

from posthof_crds import names
from posthof_crds.engine import Domain
from posthof_crds.mailboxes import Where, look_up

NAME_MAX = 200  # bytes of one folder's name; the file system's limit is 255

_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.+=@")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PARTS = ("tmp", "new", "cur")
_process = os.urandom(6).hex()  # not the process id: pods on one volume share those
_serial = itertools.count()


class Item:
    """One file to be: for one recipient of one message."""

    __slots__ = ("error", "fd", "folder", "is_repeat", "is_there", "name", "pieces", "size", "temporary")

    def __init__(
        self, folder: tuple[str, ...], stem: str, pieces: tuple[bytes, ...], *, is_repeat: bool, size: int = -1
    ) -> None:
        self.folder = folder  # below the root
        self.pieces = pieces  # the whole file, or its start where the rest is streamed
        self.size = sum(map(len, pieces)) if size < 0 else size  # of the whole file
        self.name = f"{stem},S={self.size}"
        self.temporary = f"{stem}.{_process}_{next(_serial)}"
        self.is_repeat = is_repeat  # an earlier try may have written it: look first
        self.is_there = False
        self.fd = -1  # of the file in tmp/, while it is written
        self.error: OSError | None = None


# -------------------------------------------------------------------- names


def folder_of(domain: Domain, address: str) -> tuple[str, ...]:
    """The mailbox's folder below the mail root, name by name: `Domain.maildir` filled in.

    The detail of a sub-address does not count, nor do case and quotes. What is not safe in a name is
    percent-encoded, a dot at its start too: no name is "..", and none is hidden.
    """
    local = names.split(address)[0]
    hit = look_up(domain, local, skip_aliases=True)
    key = hit.key if hit.where in (Where.MAILBOX, Where.ASK) else names.fold(local)
    filled = {"{local}": _encoded(key), "{domain}": _encoded(domain.domain)}
    return tuple(_filled(part, filled) for part in domain.maildir.split("/"))


def _filled(part: str, filled: dict[str, str]) -> str:
    name = part
    for placeholder, text in filled.items():
        name = name.replace(placeholder, text)
    if name in ("", ".", "..") or "\0" in name:  # the manifests' check does not let such a template through
        name = "%" + name.encode().hex()
    if len(name.encode()) > NAME_MAX:
        name = name[: NAME_MAX - 40] + "%" + hashlib.sha256(name.encode()).hexdigest()[:32]
    return name


def _encoded(text: str) -> str:
    octets = text.encode("utf-8", "surrogatepass")
    encoded = "".join(chr(o) if o in _SAFE else f"%{o:02X}" for o in octets)
    return "%2E" + encoded[1:] if encoded.startswith(".") else encoded


def stem(queue_id: str, recipient: int, arrived: float, hostname: str) -> str:
    """The name of the file for a recipient (its number in the envelope), without size: the same at every try."""
    host = hostname.replace("/", "\\057").replace(":", "\\072").replace(",", "\\054")
    return f"{int(arrived)}.Q{queue_id.replace('/', '_')}R{recipient}.{host}"


# -------------------------------------------------------------------- folders


class _Maildir:
    """An open Maildir, for as long as one batch."""

    def __init__(self, root: int, parts: Sequence[str]) -> None:
        self.fds: list[int] = []
        try:
            at = root
            for part in parts:
                at = self._enter(at, part)
            self.tmp, self.new, self.cur = (self._enter(at, part) for part in _PARTS)
        except OSError:
            self.close()
            raise

    def _enter(self, at: int, name: str) -> int:
        fd = enter(at, name)
        self.fds.append(fd)
        return fd

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


def enter(at: int, name: str) -> int:
    """Open the folder `name` in the folder `at`, making it where it is missing. OSError: also for a symbolic link."""
    try:
        return os.open(name, _FOLDER, dir_fd=at)
    except FileNotFoundError:
        pass
    try:
        os.mkdir(name, 0o700, dir_fd=at)
    except FileExistsError:
        pass  # another thread or worker was quicker; what it made is opened, and synced, all the same
    os.fsync(at)
    return os.open(name, _FOLDER, dir_fd=at)


def open_root(root: str) -> int:
    """The mail root, made where it is missing. It may be a symbolic link itself: the operator chose it."""
    try:
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        os.makedirs(root, mode=0o700, exist_ok=True)
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


# -------------------------------------------------------------------- writing


def write(root: str, items: Sequence[Item]) -> None:
    """Make all files durable, or say in each item's `error` why it is not. Its `pieces` are let go of."""
    with contextlib.ExitStack() as stack:
        try:
            top = open_root(root)
        except OSError as error:
            _fail(items, error)
            return
        stack.callback(os.close, top)
        maildirs: dict[tuple[str, ...], _Maildir | OSError] = {}
        for item in items:
            _begin(item, _maildir(maildirs, top, item.folder, stack))
        for item in items:
            _sync(item)
        for item in items:
            _move(item, maildirs[item.folder])
        _sync_folders(items, maildirs)


def _maildir(
    known: dict[tuple[str, ...], _Maildir | OSError], top: int, folder: tuple[str, ...], stack: contextlib.ExitStack
) -> _Maildir | OSError:
    found = known.get(folder)
    if found is None:
        try:
            found = _Maildir(top, folder)
            stack.callback(found.close)
        except OSError as error:
            found = error
        known[folder] = found
    return found


def _begin(item: Item, maildir: _Maildir | OSError) -> None:
    """Write the file in tmp/, unless it is streamed there already or was delivered by an earlier try."""
    if isinstance(maildir, OSError):
        _drop(item, maildir)
        return
    try:
        if item.is_repeat:
            item.is_there = is_there(maildir, item)
        if item.fd < 0 and not item.is_there:
            item.fd = os.open(item.temporary, _NEW_FILE, 0o600, dir_fd=maildir.tmp)
            write_all(item.fd, item.pieces)
    except OSError as error:
        _drop(item, error, maildir)
    item.pieces = ()


def is_there(maildir: _Maildir, item: Item) -> bool:
    """Whether an earlier try wrote it: in new/, or in cur/ with flags behind its name. Its leftovers in tmp/ go."""
    base = item.name.rpartition(",S=")[0]
    for name in os.listdir(maildir.tmp):
        if name.startswith(base + ".") and name != item.temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=maildir.tmp)
    marks = (base + ",", base + ":")
    return any(name.startswith(marks) for fd in (maildir.new, maildir.cur) for name in os.listdir(fd))


def write_all(fd: int, pieces: Iterable[bytes]) -> None:
    """All bytes, however many calls it takes (a full disk writes short first and fails then)."""
    left = [memoryview(piece) for piece in pieces if piece]
    while left:
        count = os.writev(fd, left)
        while left and count >= len(left[0]):
            count -= len(left.pop(0))
        if left and count:
            left[0] = left[0][count:]


def _sync(item: Item) -> None:
    if item.error is not None or item.fd < 0:
        return
    try:
        os.fsync(item.fd)
    except OSError as error:
        item.error = error


def _move(item: Item, maildir: _Maildir | OSError) -> None:
    """Into new/. An item that failed takes its file in tmp/ away."""
    if isinstance(maildir, OSError) or item.fd < 0:
        return
    os.close(item.fd)
    item.fd = -1
    try:
        if item.error is None and not item.is_there:
            os.rename(item.temporary, item.name, src_dir_fd=maildir.tmp, dst_dir_fd=maildir.new)
            return
    except OSError as error:
        item.error = error
    with contextlib.suppress(OSError):
        os.unlink(item.temporary, dir_fd=maildir.tmp)


def _sync_folders(items: Sequence[Item], maildirs: dict[tuple[str, ...], _Maildir | OSError]) -> None:
    """Make the new names durable: one sync for all files of a folder (those of an earlier try too)."""
    for folder, maildir in maildirs.items():
        mine = [item for item in items if item.folder == folder and item.error is None]
        if isinstance(maildir, OSError) or not mine:
            continue
        try:
            os.fsync(maildir.new)
            if any(item.is_there for item in mine):
                os.fsync(maildir.cur)
        except OSError as error:
            _fail(mine, error)


def _fail(items: Iterable[Item], error: OSError) -> None:
    for item in items:
        if item.fd >= 0:
            os.close(item.fd)
            item.fd = -1
        item.pieces = ()
        item.error = error


def _drop(item: Item, error: OSError, maildir: _Maildir | None = None) -> None:
    if item.fd >= 0:
        os.close(item.fd)
        item.fd = -1
        if maildir is not None:
            with contextlib.suppress(OSError):
                os.unlink(item.temporary, dir_fd=maildir.tmp)
    item.pieces = ()
    item.error = error


# -------------------------------------------------------------------- a body that comes in pieces


def begin(root: str, item: Item) -> None:
    """Open the file of an item whose body is streamed, and write its `pieces`: the start. OSError is the caller's."""
    top = open_root(root)
    try:
        maildir = _Maildir(top, item.folder)
        try:
            item.fd = os.open(item.temporary, _NEW_FILE, 0o600, dir_fd=maildir.tmp)
            write_all(item.fd, item.pieces)
        except OSError as error:
            _drop(item, error, maildir)
            raise
        finally:
            maildir.close()
    finally:
        os.close(top)
    item.pieces = ()


def go_on(item: Item, chunk: bytes) -> None:
    """Write on. OSError is the caller's, who then calls `give_up`."""
    write_all(item.fd, (chunk,))


def give_up(root: str, item: Item) -> None:
    """Take away what `begin` made."""
    if item.fd >= 0:
        os.close(item.fd)
        item.fd = -1
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        at = open_root(root)
        stack.callback(os.close, at)
        for part in (*item.folder, "tmp"):
            at = enter(at, part)
            stack.callback(os.close, at)
        os.unlink(item.temporary, dir_fd=at)
