"""Who owns a lane, and in which order the volume is asked: the protocol, step by step.

Each function is a generator: it yields one `Call` for the volume, gets its result (or its OSError thrown in), and
goes on. Nothing else happens inside: no clock, no thread, no other I/O. So the engine runs them over the real volume
(`run`), a model checker runs them one call at a time against a modelled disk, every interleaving, and a crash harness
stops them anywhere. A process that stops for ever, or for long, between two calls is the only kind of crash.

Why nothing is lost: the owner writes its log, then reads its latch (`turn`); an adopter writes the latch (`fence`),
then reads the log (`read_lower`). Whichever comes second at the volume sees the other. Why nothing done comes back:
segments leave oldest first, each only after a sync and a look, and an adopter's `cut` says how much of the older ones
counts.

docs/spool.md has the table of states, one row per call made here.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, NamedTuple, TypeVar

from . import layout, record, replay
from .layout import LaneFiles, SegmentName
from .record import Start
from .replay import Replay, Scan
from .volume import IOV_MAX, Disk, ShortWrite

T = TypeVar("T")

FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)
STAYS = (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY)  # a folder with `.nfs*` names in it
LOOKS = 3  # times a look is repeated when it fails with an error
READS = frozenset(("listdir", "readlink", "size", "read", "look", "open", "length", "pread", "room"))
LISTINGS = 100  # times a take-over begins its reading again because a segment vanished


class Call(NamedTuple):
    """One step: the name of a method of the volume, or a function that only reads and takes the volume first."""

    act: str | Callable[..., Any]
    args: tuple[Any, ...] = ()


Steps = Generator[Call, Any, T]


def run(disk: Disk, steps: Steps[T]) -> T:
    """Make all calls of `steps`, in this thread. OSErrors that the steps do not handle go up."""
    try:
        call = next(steps)
        while True:
            try:
                result = perform(disk, call)
            except OSError as error:
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # the generator's own type says T


def run_split(disk: Disk, steps: Steps[T], ask: Callable[[Callable[[], object]], object]) -> T:
    """As `run`, with what changes something made where `ask` has things done; what only reads is done here."""
    walk = _Walk(disk, steps)
    while walk.call is not None:
        if walk.is_reading:
            walk.go(is_reading=True)
        else:
            ask(partial(walk.go, is_reading=False))
    return walk.result  # type: ignore[no-any-return]  # the generator's own type says T


class _Walk:
    """Steps on their way, and the call they wait for; None: they have ended."""

    def __init__(self, disk: Disk, steps: Steps[Any]) -> None:
        self._disk = disk
        self._steps = steps
        self.call: Call | None = None
        self.result: Any = None
        self._go_on(lambda: next(steps))

    @property
    def is_reading(self) -> bool:
        return self.call is not None and (not isinstance(self.call.act, str) or self.call.act in READS)

    def go(self, *, is_reading: bool) -> None:
        """Make the calls of one kind until one of the other comes."""
        while self.call is not None and self.is_reading is is_reading:
            try:
                result = perform(self._disk, self.call)
            except OSError as error:
                self._go_on(partial(self._steps.throw, error))
            else:
                self._go_on(partial(self._steps.send, result))

    def _go_on(self, on: Callable[[], Call]) -> None:
        try:
            self.call = on()
        except StopIteration as stop:
            self.call, self.result = None, stop.value


def perform(disk: Disk, call: Call) -> Any:
    """Make one call."""
    if isinstance(call.act, str):
        return getattr(disk, call.act)(*call.args)
    return call.act(disk, *call.args)


# -- the latch: may this worker promise anything? --------------------------------------------------------------------


class Look(enum.Enum):
    OPEN = "open"
    FENCED = "fenced"
    UNKNOWN = "unknown"  # the volume gave an error: no promise until a look succeeds


def look(worker: str) -> Steps[Look]:
    """Read one's latch afresh. Only the exact text is open; no file is fenced; an error is neither."""
    for _ in range(LOOKS):
        try:
            text = yield Call("look", (layout.latch(worker),))
        except FileNotFoundError:
            return Look.FENCED
        except OSError:
            continue
        return Look.OPEN if text == layout.open_text(worker) else Look.FENCED
    return Look.UNKNOWN


def make_latch(worker: str) -> Steps[None]:
    """Before the first lane, in the folder that the lock file made. FileExistsError: someone fenced it already."""
    fd = yield Call("create", (layout.latch(worker),))
    yield from _write_text(fd, layout.latch(worker), layout.open_text(worker))
    yield Call("fsync_dir", (layout.worker(worker),))
    yield Call("fsync_dir", (layout.WORKERS,))


def fence(holder: str, by: str) -> Steps[None]:
    """Shut the holder's latch for ever: from the end of this, no look of its finds it open.

    In place, not by a new name: a network client may remember a name or its absence, while a changed file is always
    seen at open. A latch that cannot be found is made: the absence may be what our own client remembers.
    """
    try:
        yield Call("mkdir", (layout.worker(holder),))
    except FileExistsError:
        pass  # the usual case
    path = layout.latch(holder)
    fd = yield Call("overwrite", (path,))
    yield from _write_text(fd, path, layout.fenced_text(by))
    yield Call("fsync_dir", (layout.worker(holder),))
    yield Call("fsync_dir", (layout.WORKERS,))


def _write_text(fd: int, path: str, text: bytes) -> Steps[None]:
    try:
        count = yield Call("pwritev", (fd, [text], 0))
        if count != len(text):
            raise ShortWrite(path, count, len(text))
        yield Call("fdatasync", (fd,))
    except OSError:
        yield Call("close", (fd,))
        raise
    yield Call("close", (fd,))


# -- the log: write, sync, look, tell, unlink ------------------------------------------------------------------------


class Folder:
    """A lane's folder as its writer sees it."""

    __slots__ = ("is_linked", "is_made", "lane", "worker")

    def __init__(self, lane: str, worker: str, *, is_made: bool) -> None:
        self.lane = lane
        self.worker = worker
        self.is_made = is_made
        self.is_linked = is_made  # its name is on stable storage


class Log:
    """A segment being written: only its writer holds one, so only one thread does."""

    __slots__ = ("fd", "folder", "is_linked", "is_made", "is_near", "name", "path")

    def __init__(
        self, folder: Folder, name: SegmentName, *, fd: int = -1, is_made: bool = False, is_near: bool = False
    ) -> None:
        self.is_near = is_near  # the loop writes it too (journal.py): it stays open until it is sealed
        self.folder = folder
        self.name = name
        self.path = layout.segment(folder.lane, name.claim, name.k)
        self.fd = fd
        self.is_made = is_made
        self.is_linked = is_made


class Write(NamedTuple):
    """What a turn appends to one segment."""

    log: Log
    offset: int
    parts: list[bytes]
    is_synced: bool
    is_last: bool = False  # nothing follows: its descriptor may be closed


class BlobFile:
    """A blob being written, by the same thread as the logs."""

    __slots__ = ("error", "fd", "folder", "path", "size")

    def __init__(self, folder: Folder, number: int) -> None:
        self.folder = folder
        self.path = layout.blob(folder.lane, number)
        self.fd = -1
        self.size = 0  # bytes written
        self.error: OSError | None = None


class Removal(NamedTuple):
    """Something that may go once all the lane wrote is synced and a look was good."""

    lane: str
    steps: Callable[[], Steps[None]]
    tell: Callable[[OSError | None], None]  # None: it is gone


class Turned(NamedTuple):
    """How a turn went. What is not in `failures` was written, and synced where that was asked for."""

    look: Look | None  # None: nothing was to be promised, so nobody looked
    at: float  # `now()` just before the look
    failures: dict[Log | BlobFile, OSError]


def make_lane(folder: Folder) -> Steps[None]:
    """A new lane with our first claim. FileExistsError: the name is taken."""
    yield Call("mkdir", (layout.lane(folder.lane),))
    yield Call("symlink", (folder.worker, layout.own(folder.lane, 1)))
    folder.is_made = True


def append(log: Log, offset: int, parts: list[bytes]) -> Steps[None]:
    """Write at our own offset, making the lane and the segment where they are new. After an error: give it up."""
    if not log.folder.is_made:
        yield from make_lane(log.folder)
    if log.fd < 0:
        log.fd = yield Call("reopen" if log.is_made else "create", (log.path,))
        log.is_made = True
    for first in range(0, len(parts), IOV_MAX):
        some = parts[first : first + IOV_MAX]
        wanted = sum(map(len, some))
        count = yield Call("pwritev", (log.fd, some, offset))
        if count != wanted:
            raise ShortWrite(log.path, count, wanted)
        offset += wanted


def append_blob(blob: BlobFile, parts: list[bytes]) -> Steps[None]:
    """Write on at a blob's end, making lane and file where they are new."""
    if not blob.folder.is_made:
        yield from make_lane(blob.folder)
    if blob.fd < 0:
        blob.fd = yield Call("create", (blob.path,))
    for first in range(0, len(parts), IOV_MAX):
        some = parts[first : first + IOV_MAX]
        wanted = sum(map(len, some))
        count = yield Call("pwritev", (blob.fd, some, blob.size))
        if count != wanted:
            raise ShortWrite(blob.path, count, wanted)
        blob.size += wanted


def sync(log: Log) -> Steps[None]:
    """Make a segment durable, and before the first promise in it its name and its lane's name."""
    yield Call("fdatasync", (log.fd,))
    if not log.is_linked:
        yield from sync_names(log.folder)
        log.is_linked = True


def sync_blob(blob: BlobFile) -> Steps[None]:
    """Make a blob durable, its name too."""
    if blob.error is not None:
        raise blob.error
    yield Call("fdatasync", (blob.fd,))
    yield from sync_names(blob.folder)


def sync_names(folder: Folder) -> Steps[None]:
    yield Call("fsync_dir", (layout.lane(folder.lane),))
    if not folder.is_linked:
        yield Call("fsync_dir", (layout.LANES,))
        folder.is_linked = True


def turn(
    worker: str,
    writes: list[Write],
    blobs: list[BlobFile],
    removals: list[Removal],
    *,
    tell: Callable[[Turned], None],
    now: Callable[[], float],
) -> Steps[Turned]:
    """One group commit: append, sync, look, tell who waits; then remove what may go.

    The order is the promise: a 250 follows a look that follows the sync, and so does every unlink. One look serves
    all lanes of the worker. Nothing is repeated: a segment with an error is given up by the caller. Blobs are durable
    before a record names them: else lost power could leave a message, never promised, that looks like damage.
    """
    failures: dict[Log | BlobFile, OSError] = {}
    for blob in blobs:
        try:
            yield from sync_blob(blob)
        except OSError as error:
            failures[blob] = error
    for write in writes:
        try:
            yield from append(write.log, write.offset, write.parts)
        except OSError as error:
            failures[write.log] = error
    is_promising = bool(removals or blobs)
    for write in writes:
        if write.is_synced and write.log not in failures:
            is_promising = True
            try:
                yield from sync(write.log)
            except OSError as error:
                failures[write.log] = error
    at = now()
    looked = (yield from look(worker)) if is_promising else None
    turned = Turned(looked, at, failures)
    tell(turned)
    failed = {log.folder.lane: error for log, error in failures.items()}
    for removal in removals:
        if looked is not Look.OPEN:
            removal.tell(OSError("no good look before an unlink"))
        elif removal.lane in failed:
            removal.tell(failed[removal.lane])
        else:
            yield from _remove(removal)
    return turned


def _remove(removal: Removal) -> Steps[None]:
    try:
        yield from removal.steps()
    except OSError as error:
        removal.tell(error)
    else:
        removal.tell(None)


def remove_segment(lane: str, name: SegmentName, *, is_kept: bool) -> Steps[None]:
    """Unlink the oldest segment of a lane; one with damage is moved aside instead. Durable before the next goes:
    else lost power could bring back an older one without the settles in this one."""
    path = layout.segment(lane, *name)
    try:
        if is_kept:
            yield Call("rename", (path, layout.damaged(lane, *name)))
            yield Call("fsync_dir", (layout.DAMAGED,))
        else:
            yield Call("unlink", (path,))
    except FileNotFoundError:
        pass  # a cut-off owner removed it: that it might, every replay has seen
    yield Call("fsync_dir", (layout.lane(lane),))


def remove_blob(lane: str, number: int) -> Steps[None]:
    """A blob whose message is done, or that no record names."""
    try:
        yield Call("unlink", (layout.blob(lane, number),))
    except FileNotFoundError:
        pass  # success: it is gone


def remove_lane(lane: str) -> Steps[None]:
    """A lane in which nothing is live. One rename takes it from the sight of all, so no claim can be made in what is
    left of it; durable before its files go, else lost power could leave it with some of its segments."""
    try:
        yield Call("rename", (layout.lane(lane), layout.gone(lane)))
    except FileNotFoundError:
        return
    yield Call("fsync_dir", (layout.LANES,))
    yield from sweep_lane(lane)


def sweep_lane(lane: str) -> Steps[None]:
    """Empty and remove the folder of a lane on its way out. OSError: a name stays (`.nfs*`), it goes later."""
    try:
        names = yield Call("listdir", (layout.gone(lane),))
    except FileNotFoundError:
        return
    for name in sorted(names):
        try:
            yield Call("unlink", (f"{layout.gone(lane)}/{name}",))
        except FileNotFoundError:
            continue  # another one sweeps too
    try:
        yield Call("rmdir", (layout.gone(lane),))
    except FileNotFoundError:
        pass  # and was quicker


def set_lane_aside(lane: str) -> Steps[None]:
    """A lane in which nothing is live, but damage was found: all of it is kept for people, by one rename."""
    try:
        yield Call("rename", (layout.lane(lane), layout.aside(lane)))
    except FileNotFoundError:
        return
    yield Call("fsync_dir", (layout.DAMAGED,))
    yield Call("fsync_dir", (layout.LANES,))


# -- take-over -------------------------------------------------------------------------------------------------------


class Holding(NamedTuple):
    """Whose a lane is."""

    files: LaneFiles
    claim: int  # the highest, 0: none
    holder: str  # "": nobody
    is_free: bool  # its holder gave it away

    @property
    def is_begun(self) -> bool:
        """Whether the maker of the last claim came to open a segment, or gave the lane back."""
        return self.is_free or any(name.claim == self.claim for name in self.files.segments)

    @property
    def is_poisoned(self) -> bool:
        """Three claims in a row whose makers never came to open a segment nor gave the lane back: it kills who
        takes it, so nobody does any more."""
        last = [n for n in self.files.claims if n > self.claim - 3]
        begun = {name.claim for name in self.files.segments}
        return len(last) == 3 and not any(n in begun or n in self.files.frees for n in last)


def find(lane: str) -> Steps[Holding | None]:
    """Whose is it? None: there is no such lane (any more)."""
    try:
        files = layout.sort_out((yield Call("listdir", (layout.lane(lane),))))
        holder = ""
        if files.claim:
            holder = yield Call("readlink", (layout.own(lane, files.claim),))
    except FileNotFoundError:
        return None
    return Holding(files, files.claim, holder, files.claim in files.frees or not files.claim)


def claim(lane: str, number: int, worker: str) -> Steps[bool]:
    """Make claim `number`, which may be done only when the one below it is free or its holder fenced.

    False: someone else has it, or the lane is gone: begin again. The link is name and content in one call, so one
    caller wins; a network client may repeat a call, so after EEXIST the link is read.
    """
    path = layout.own(lane, number)
    try:
        yield Call("symlink", (worker, path))
    except FileExistsError:
        if (yield Call("readlink", (path,))) != worker:
            return False
    except FileNotFoundError:
        return False
    yield Call("fsync_dir", (layout.lane(lane),))
    return True


class Vanished(Exception):
    """Segments kept vanishing while they were read: somebody removes them who should not."""


def list_lower(lane: str, number: int) -> Steps[tuple[tuple[SegmentName, ...], tuple[int, ...]]]:
    """Segments of the claims below `number`, and the blobs. A listing may be old: each claim is asked by name for one
    more than it shows."""
    files = layout.sort_out((yield Call("listdir", (layout.lane(lane),))))
    names = [name for name in files.segments if name.claim < number]
    for lower in files.claims:
        k = files.next_k(lower)
        while lower < number:
            try:
                yield Call("size", (layout.segment(lane, lower, k),))
            except FileNotFoundError:
                break
            names.append(SegmentName(lower, k))
            k += 1
    return tuple(sorted(names)), files.blobs


def read_lower(lane: str, number: int) -> Steps[Replay]:
    """What the holders of the lower claims left: read afresh, in order; if one vanished meanwhile, all again (its
    owner wrote what was live in it elsewhere first)."""
    for _ in range(LISTINGS):
        names, blobs = yield from list_lower(lane, number)
        scans: list[Scan] = []
        try:
            for name in names:
                found: Scan = yield Call(replay.scan, (lane, *name))
                scans.append(found)
        except FileNotFoundError:
            continue
        return replay.merge(scans, blobs)
    raise Vanished(lane)


def cut(lane: str, start: Start, nonce: bytes) -> Steps[tuple[int, int]]:
    """Open our first segment with what we read of the lower ones: nothing beyond these lengths counts from now on.

    Descriptor and length of the segment `<claim>-<k>.seg`. FileExistsError: that name was used, take the next k.
    """
    path = layout.segment(lane, start.claim, start.k)
    parts = open_parts(start, nonce)
    wanted = sum(map(len, parts))
    fd = yield Call("create", (path,))
    try:
        count = yield Call("pwritev", (fd, parts, 0))
        if count != wanted:
            raise ShortWrite(path, count, wanted)
        yield Call("fdatasync", (fd,))
        yield Call("fsync_dir", (layout.lane(lane),))
    except OSError:
        yield Call("close", (fd,))
        raise
    return fd, wanted


def open_parts(start: Start, nonce: bytes) -> list[bytes]:
    """The first bytes of a segment."""
    return [nonce, *record.frame(nonce, record.START, 0, record.start_meta(start))]


# -- release and claim back ------------------------------------------------------------------------------------------


def release(lane: str, number: int, worker: str, last: tuple[SegmentName, int] | None, load: int) -> Steps[None]:
    """Give the lane away, after its last sync: whoever claims `number + 1` owns it. The link names the last segment
    and its length, so the taker knows whether it sees all. The name in offers/ is only a hint."""
    text = f"{last[0]}:{last[1]}" if last else "-"
    try:
        yield Call("symlink", (text, layout.free(lane, number)))
    except FileExistsError:
        pass  # our own call, repeated by a network client: nobody else frees our claim
    yield Call("fsync_dir", (layout.lane(lane),))
    try:
        yield Call("symlink", (f"{worker}:{load}", layout.offer(lane)))
    except OSError:
        pass  # lanes are also found without the hint


def is_complete(lane: str, number: int) -> Steps[bool]:
    """Whether we see all that the one who freed claim `number` left."""
    text: str = yield Call("readlink", (layout.free(lane, number),))
    stem, _, length = text.rpartition(":")
    if not stem:
        return True
    try:
        size: int = yield Call("size", (f"{layout.lane(lane)}/{stem}",))
    except FileNotFoundError:
        return False
    return size >= int(length)


def withdraw(lane: str) -> Steps[None]:
    """Take the hint away."""
    try:
        yield Call("unlink", (layout.offer(lane),))
    except FileNotFoundError:
        pass  # the usual case: another taker was quicker


def remove_worker(worker: str) -> Steps[None]:
    """The folder of a worker that no lane names any more: of a fenced one, or one's own at a clean stop."""
    try:
        names = yield Call("listdir", (layout.worker(worker),))
    except FileNotFoundError:
        return
    for name in sorted(names, key=lambda one: one == "latch"):  # the latch last: no file is fenced, too
        try:
            yield Call("unlink", (f"{layout.worker(worker)}/{name}",))
        except FileNotFoundError:
            continue
    try:
        yield Call("rmdir", (layout.worker(worker),))
    except FileNotFoundError:
        pass  # another janitor was quicker
