"""The wire between the supervisor and a worker: a unix socketpair, length-prefixed msgpack, both ends async.

A frame: 4 bytes of length (big endian), then msgpack `[kind, number, name, payload, descriptors]`. Kinds: TELL (no
answer), ASK (an answer with the same number follows), ANSWER, FAILED (payload: why). Open files travel beside a frame
(SCM_RIGHTS); `descriptors` says how many belong to it, the handler finds them as `payload["fds"]`.

What is said
  to the worker   ask  config   Swap           -> {"revision": ...}; FAILED: the old configuration stays
                  ask  stats                   -> dict[str, number] (observe/metrics.py)
                  ask  look                    -> seconds since its last good look at its latch; None: not begun
                  ask  clients                 -> dict[IP address, sessions lately] of public listeners
                  ask  stop     {"seconds": n} -> None, once nothing listens; the process ends when it is drained
                  tell adopt    {"dead": [spool worker ids]}: their supervisor reaped them
                  tell reopen                  : the log file was rotated
                  tell leases   Heard (members.py): who may be judged dead
                  ask  share    [low, high] (schedule/slices.py): its part of the limits -> None, once it keeps to it
                  tell pods     dict[IP address, ids of selections]: which pod is where, beside the configuration
                  ask  queue.list QueueFilter  -> QueuePage       (waiting.py)
                  ask  queue.show {"id"}       -> QueueItem | None
                  ask  queue.content {"id"}    -> bytes | None
                  ask  queue.flush, queue.hold, queue.release, queue.delete  QueueFilter -> {"count": messages}
                  ask  trace.search {"wanted", "limit"} -> list[bytes], JSON lines
  to the supervisor
                  tell hello    {"spool": worker id in the spool}
                  tell adopted  Adopted (takeovers.py): a lane that was another's is this worker's
                  tell ready    {}: it listens and delivers
                tell stats    dict[str, number]: its last, before it ends

Rules of this file
- `ping` is answered here, without a task: it shows that the event loop turns.
- Handlers start in the order of arrival and run at the same time; what must not overlap takes a lock of its own.
- When the other end is gone, every question fails with ChannelClosed and `on_close` is called once.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

TELL, ASK, ANSWER, FAILED = range(4)
PIECE = 256 * 1024
MAX_FRAME = 512 * 1024 * 1024  # 10,000 domains with lists of recipients are some 10 MiB
MAX_FDS = 250  # the kernel's SCM_MAX_FD is 253
LENGTH = struct.Struct(">I")

Handler = Callable[[Any], Awaitable[Any]]


class ChannelClosed(Exception):
    """The other end is gone."""


class Refused(Exception):
    """The other end answered that it could not. The text says why."""


class SocketInfo(msgspec.Struct, frozen=True):
    """A bound socket that comes with a Swap; the worker listens on it for this listener."""

    listener: str
    host: str
    port: int


class Swap(msgspec.Struct, frozen=True):
    """A configuration to take into use. `config`: EngineConfig as msgpack, b"" for the one that runs already: only
    keys are new. `secrets`: "name/key" -> bytes. `certificates`: TLSCert -> chain and key, PEM. `pods`: IP address ->
    ids of the selections that pod is in.

    `added`: sockets whose descriptors come with this frame, in this order. `removed`: addresses not to listen on any
    more; open sessions there go on.
    """

    config: bytes
    secrets: dict[str, bytes]
    certificates: dict[str, tuple[bytes, bytes]]
    revision: str
    added: tuple[SocketInfo, ...] = ()
    removed: tuple[SocketInfo, ...] = ()
    pods: dict[str, tuple[str, ...]] = {}
    fds: tuple[int, ...] = ()


class WorkerStart(msgspec.Struct, frozen=True):
    """The one argument of `python -m posthof_pod.worker`, as JSON. The configuration comes as the first Swap."""

    name: str  # "1", "2" ...: for the log
    channel: int  # descriptor of the socketpair's end
    log: str = ""  # the file that stdout is, "" where it is none of ours
    level: str = "info"
    pod: str = ""  # whose Lease speaks for it; "" on one machine
    proofs: str = ""  # in a pod: the folder with the lock files of its workers
    share: tuple[int, int] = (0, 1 << 40)  # of the limits, until it is told another (schedule/slices.py); all of them
    most: int = 1_500_000  # live messages that fit into its memory: it takes over no more

    @classmethod
    def from_argv(cls) -> WorkerStart:
        """Raises msgspec.DecodeError, IndexError."""
        return msgspec.json.decode(sys.argv[1], type=cls)


class Channel:
    """One end. Make it inside a running loop; it reads from then on.

    `handlers`: name -> coroutine function of the payload; its result answers an ask, its exception fails it.
    """

    def __init__(
        self,
        end: socket.socket,
        handlers: Mapping[str, Handler],
        *,
        on_close: Callable[[], object] | None = None,
        on_error: Callable[[str, BaseException], object] | None = None,
    ) -> None:
        end.setblocking(False)
        self._end = end
        self._handlers = dict(handlers)
        self._on_close, self._on_error = on_close, on_error
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._descriptors: deque[int] = deque()
        self._outgoing: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._last = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_open = True
        self._loop.add_reader(end.fileno(), self._readable)

    def serve(self, handlers: Mapping[str, Handler]) -> None:
        """Answer these too."""
        self._handlers.update(handlers)

    def tell(self, name: str, payload: object = None) -> None:
        """Say something that wants no answer. Silent where the channel is closed."""
        if self.is_open:
            self._put(TELL, 0, name, payload, ())

    async def ask(self, name: str, payload: object = None, *, within: float = 30.0, fds: Sequence[int] = ()) -> Any:
        """Ask and wait. `fds` are duplicated for the other end; ours stay open.

        Raises Refused (the handler failed), ChannelClosed, TimeoutError.
        """
        if not self.is_open:
            raise ChannelClosed(name)
        self._last += 1
        number = self._last
        self._asked[number] = future = self._loop.create_future()
        try:
            self._put(ASK, number, name, payload, tuple(fds))
            async with asyncio.timeout(within):
                return await future
        finally:
            self._asked.pop(number, None)

    def finish(self) -> None:
        """The other end has died: hear what it said last, then close."""
        while self.is_open and self._readable():
            pass
        self.close()

    def close(self) -> None:
        """End it: what was asked fails; handlers that run go on, their answers go nowhere."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._end.fileno())
        self._loop.remove_writer(self._end.fileno())
        self._end.close()
        self._outgoing.clear()
        for descriptor in self._descriptors:
            os.close(descriptor)
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ChannelClosed("the other end is gone"))
        if self._on_close is not None:
            self._on_close()

    # ------------------------------------------------------------------ writing

    def _put(self, kind: int, number: int, name: str, payload: object, fds: tuple[int, ...]) -> None:
        if len(fds) > MAX_FDS:
            raise ValueError(f"{len(fds)} descriptors in one frame: at most {MAX_FDS}")
        body = msgspec.msgpack.encode((kind, number, name, payload, len(fds)))
        idle = not self._outgoing
        self._outgoing.append((memoryview(LENGTH.pack(len(body)) + body), fds))
        if idle:
            self._writable()

    def _writable(self) -> None:
        while self._outgoing:
            data, fds = self._outgoing[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._end.sendmsg([data[:PIECE]], rights)
            except BlockingIOError:
                self._loop.add_writer(self._end.fileno(), self._writable)
                return
            except OSError:
                self._loop.call_soon(self.close)
                return
            if sent == len(data):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = (data[sent:], ())
        self._loop.remove_writer(self._end.fileno())

    # ------------------------------------------------------------------ reading

    def _readable(self) -> bool:
        """Read once; False: there was nothing."""
        try:
            data, ancillary, _, _ = self._end.recvmsg(PIECE, socket.CMSG_SPACE(MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError:
            data, ancillary = b"", []
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(content[: len(content) - len(content) % received.itemsize])
                self._descriptors.extend(received)
        if not data:
            self.close()
            return False
        self._received += data
        self._frames()
        return True

    def _frames(self) -> None:
        start, received = 0, self._received
        while len(received) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(received, start)
            if length > MAX_FRAME:
                self._report("a frame", ValueError(f"{length} bytes announced"))
                self.close()
                return
            end = start + LENGTH.size + length
            if len(received) < end:
                break
            frame = bytes(memoryview(received)[start + LENGTH.size : end])
            start = end
            self._frame(*msgspec.msgpack.decode(frame))
            if not self.is_open:
                return
        if start:
            del received[:start]

    def _frame(self, kind: int, number: int, name: str, payload: Any, descriptors: int) -> None:
        if descriptors:
            payload = dict(payload or {})
            payload["fds"] = [self._descriptors.popleft() for _ in range(descriptors)]
        if kind in (TELL, ASK):
            if name == "ping":
                self._put(ANSWER, number, name, None, ())
                return
            task = self._loop.create_task(self._handle(kind, number, name, payload))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        future = self._asked.get(number)
        if future is None or future.done():
            return  # asked too long ago
        if kind == ANSWER:
            future.set_result(payload)
        else:
            future.set_exception(Refused(str(payload)))

    async def _handle(self, kind: int, number: int, name: str, payload: Any) -> None:
        try:
            handler = self._handlers.get(name)
            if handler is None:
                raise Refused(f"nobody here answers {name!r}")
            answer = await handler(payload)
            if kind == ASK and self.is_open:
                self._put(ANSWER, number, name, answer, ())
        except Exception as error:
            if not isinstance(error, Refused):
                self._report(name, error)
            if kind == ASK and self.is_open:
                told = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
                self._put(FAILED, number, name, told, ())

    def _report(self, name: str, error: BaseException) -> None:
        if self._on_error is not None:
            self._on_error(f"channel: {name}", error)


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends, with room for a configuration in flight."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return ours, theirs


def worker_channel(
    start: WorkerStart,
    handlers: Mapping[str, Handler],
    *,
    on_close: Callable[[], object],
    on_error: Callable[[str, BaseException], object] | None = None,
) -> Channel:
    """The worker's end. `on_close`: the supervisor is gone, so is the reason to live: drain and leave."""
    end = socket.socket(fileno=start.channel)
    end.set_inheritable(False)
    return Channel(end, handlers, on_close=on_close, on_error=on_error)
