"""Final delivery: messages of one event loop into Maildirs, on a few threads, in batches that share their syncs.

What a file holds: Return-Path, Delivered-To, our trace fields, then the content byte for byte as it came over the
wire, CRLF line ends included (docs/decisions/0002-maildir-content.md).

Rules of this file
- The loop never waits for the disk, and never holds a large body: what is streamed is written as it comes.
- A batch is what gathered while the threads were busy: a quiet house writes one file at once, a busy one 32.
- A disk that does not work is a temporary failure with its reason; a loop is a permanent one.
Sources: RFC 5321 4.4 (Return-Path), RFC 9228 (Delivered-To), RFC 3463 (codes).
"""

from __future__ import annotations

import asyncio
import errno
import functools
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

from posthof_crds.engine import Domain
from posthof_pod import fields
from posthof_pod.deliver import drop
from posthof_pod.deliver.drop import Item
from posthof_pod.model import Envelope, Outcome, Reason, Status

BATCH = 32  # files a thread writes before it syncs them: each holds a descriptor until then
SMALLEST = 8  # files that are not divided among threads: their syncs cost less together

_ERRORS = {
    errno.ENOSPC: (452, "4.3.1", "no space left for mail"),
    errno.EDQUOT: (452, "4.2.2", "the mailbox is over its quota"),
    errno.EROFS: (451, "4.3.0", "the mail root is read-only"),
    errno.EACCES: (451, "4.3.0", "no permission to write the mailbox"),
    errno.EPERM: (451, "4.3.0", "no permission to write the mailbox"),
    errno.ELOOP: (451, "4.3.5", "a symbolic link or a file stands where a folder of the mailbox should be"),
    errno.ENOTDIR: (451, "4.3.5", "a symbolic link or a file stands where a folder of the mailbox should be"),
}


class Reader(Protocol):
    """A body too large to be held."""

    @property
    def size(self) -> int: ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The content from its start, in pieces, none of them empty; the first should hold the header block."""
        ...


class _Mail(NamedTuple):
    """What `deliver` was given."""

    envelope: Envelope
    recipients: Sequence[int]
    trace: bytes
    body: bytes | Reader
    domain: Domain
    is_repeat: bool


class _Work:
    """The files one `deliver` waits for."""

    __slots__ = ("future", "left")

    def __init__(self, future: asyncio.Future[None], left: int) -> None:
        self.future = future
        self.left = left

    def one_done(self) -> None:
        self.left -= 1
        if not self.left and not self.future.done():
            self.future.set_result(None)


class MaildirDelivery:
    """The Maildirs below one root. `root` and `hostname` may be set anew when the configuration changes."""

    def __init__(self, root: str, hostname: str, *, threads: int = 2) -> None:
        self.root = root
        self.hostname = hostname
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="maildir")
        self._waiting: deque[tuple[Item, _Work]] = deque()
        self._running = 0
        self._is_kicked = False

    async def deliver(
        self,
        envelope: Envelope,
        recipients: Sequence[int],
        trace: bytes,
        body: bytes | Reader,
        domain: Domain,
        *,
        is_repeat: bool = True,
    ) -> list[Outcome]:
        """Write the message for these recipients (numbers in the envelope), all of `domain`; one Outcome for each.

        `is_repeat` False: no earlier try can have written it (accepted by this process, first attempt), so the
        folders need not be searched for it. Never raises for what the disk does; what a Reader raises (a damaged
        blob) passes through, with nothing delivered. Cancelled, it leaves the files of a batch to finish on their
        own: a repeated try finds them.
        """
        mail = _Mail(envelope, recipients, trace, body, domain, is_repeat)
        if isinstance(body, bytes):
            items, outcomes = self._divide(mail, fields.block(body))
        else:
            items, outcomes = await self._stream(mail, body)
        begun = [item for item in items.values() if item.error is None]
        if begun:
            await self._write(begun)
        outcomes += [_outcome(n, item) for n, item in items.items()]
        outcomes.sort()
        return outcomes

    def _divide(self, mail: _Mail, head: bytes) -> tuple[dict[int, Item], list[Outcome]]:
        """The files to write by recipient, and the outcomes of those that need none: the message was there before."""
        envelope, body = mail.envelope, mail.body
        top = fields.return_path(envelope.sender)
        items: dict[int, Item] = {}
        outcomes: list[Outcome] = []
        for n in mail.recipients:
            address = envelope.recipients[n].address
            if fields.is_delivered_to(head, address):
                outcomes.append(_looped(n))
                continue
            start = (top, fields.delivered_to(address), mail.trace)
            pieces = (*start, body) if isinstance(body, bytes) else start
            size = sum(map(len, start)) + (len(body) if isinstance(body, bytes) else body.size)
            name = drop.stem(envelope.id, n, envelope.arrived, self.hostname)
            items[n] = Item(drop.folder_of(mail.domain, address), name, pieces, is_repeat=mail.is_repeat, size=size)
        return items, outcomes

    # ------------------------------------------------------------------ batches

    async def _write(self, items: list[Item]) -> None:
        loop = asyncio.get_running_loop()
        work = _Work(loop.create_future(), len(items))
        self._waiting.extend([(item, work) for item in items])
        if not self._is_kicked:
            self._is_kicked = True
            loop.call_soon(self._kick)
        await work.future

    def _kick(self) -> None:
        """Give what waits to threads that are free."""
        self._is_kicked = False
        loop = asyncio.get_running_loop()
        while self._waiting and self._running < self._threads:
            fair = -(-len(self._waiting) // (self._threads - self._running))
            count = min(len(self._waiting), BATCH, max(SMALLEST, fair))
            batch = [self._waiting.popleft() for _ in range(count)]
            self._running += 1
            future = loop.run_in_executor(self._pool, drop.write, self.root, [item for item, _ in batch])
            future.add_done_callback(functools.partial(self._written, batch))

    def _written(self, batch: list[tuple[Item, _Work]], done: asyncio.Future[None]) -> None:
        self._running -= 1
        problem = asyncio.CancelledError() if done.cancelled() else done.exception()
        for item, work in batch:
            if problem is not None and item.error is None:
                item.error = OSError(errno.EIO, f"the thread ended: {problem!r}")
            work.one_done()
        if self._waiting:
            self._kick()

    # ------------------------------------------------------------------ large bodies

    async def _stream(self, mail: _Mail, body: Reader) -> tuple[dict[int, Item], list[Outcome]]:
        """Write the content to all recipients' files in tmp/, chunk by chunk; a loop is looked for in the first."""
        loop = asyncio.get_running_loop()
        chunks = body.chunks()
        chunk = await anext(chunks, b"")
        items, outcomes = self._divide(mail, fields.block(chunk))
        stream = _Stream(self.root, list(items.values()))
        try:
            await loop.run_in_executor(self._pool, stream.begin)
            while chunk:
                await loop.run_in_executor(self._pool, stream.go_on, chunk)
                chunk = await anext(chunks, b"")
        except BaseException:
            loop.run_in_executor(self._pool, stream.give_up)
            raise
        return items, outcomes

    # ------------------------------------------------------------------ the end

    async def close(self) -> None:
        """Wait for the files being written; every `deliver` has returned or was cancelled."""
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)


class _Stream:
    """The files in tmp/ one large body goes to. Its methods run in threads, one at a time."""

    def __init__(self, root: str, items: list[Item]) -> None:
        self._root = root
        self._items = items
        self._lock = threading.Lock()  # a cancelled caller gives up while a step may still run

    def begin(self) -> None:
        with self._lock:
            for item in self._items:
                if item.error is None:
                    try:
                        drop.begin(self._root, item)
                    except OSError as error:
                        item.error = error

    def go_on(self, chunk: bytes) -> None:
        with self._lock:
            for item in self._items:
                if item.error is None:
                    try:
                        drop.go_on(item, chunk)
                    except OSError as error:
                        item.error = error
                        drop.give_up(self._root, item)

    def give_up(self) -> None:
        with self._lock:
            for item in self._items:
                if item.error is None:
                    item.error = OSError(errno.ECANCELED, "given up")
                    drop.give_up(self._root, item)


def _outcome(n: int, item: Item) -> Outcome:
    error = item.error
    if error is None:
        where = "/".join(item.folder)
        text = f"delivered to {where}" + (", by an earlier try" if item.is_there else "")
        return Outcome(n, Status.DELIVERED, Reason.RECEIVED, 250, "2.0.0", text)
    number = error.errno or errno.EIO
    code, enhanced, text = _ERRORS.get(number, (451, "4.3.0", "the mailbox cannot be written"))
    detail = f"{text} ({errno.errorcode.get(number, str(number))}: {error.strerror or 'error'})"
    return Outcome(n, Status.DEFERRED, Reason.LOCAL_FAILED, code, enhanced, detail)


def _looped(n: int) -> Outcome:
    text = "this message was delivered to this address before: it is going round in a loop"
    return Outcome(n, Status.FAILED, Reason.LOCAL_FAILED, 554, "5.4.6", text)
