"""The worker's end of its mate (mate.py): asks for a sync and a look, hears the answer on the loop.

Rules of this file
- Loop thread only. One request is under way at a time; the journal sees to that.
- A mate that dies with a request under way leaves it unknown whether the sync failed, and a failed one must not be
  repeated: the request ends with EIO. After that there is no mate, and the I/O thread does the work.
- A mate that does not answer for `HUNG` seconds is killed, which ends the request the same way: a process that was
  stopped must not stop a worker. One that waits for a disk dies when the disk answers.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path

from . import mate
from .protocol import Log, Look

PROGRAM = Path(mate.__file__)
PATIENCE = 2.0  # seconds a mate has to end
HUNG = 30.0  # seconds a mate has to answer
_LOOKS = {mate.OPEN: Look.OPEN, mate.FENCED: Look.FENCED, mate.UNKNOWN: Look.UNKNOWN}

Done = Callable[[OSError | None, Look, float], object]
"""The sync's error, what the look said, and the monotonic time just before it."""


class Syncer:
    """`latch`: its path; `text`: what stands in it while this worker may promise."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        latch: str,
        text: bytes,
        *,
        on_lost: Callable[[], None],
        hung: float = HUNG,
    ) -> None:
        """OSError: there is no mate to be had."""
        self._loop = loop
        self._on_lost = on_lost
        self._log: Log | None = None  # whose file the mate holds
        self._done: Done | None = None
        self._asked = 0.0  # when, by the loop's clock
        self._hung = hung
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(PROGRAM), str(theirs.fileno()), latch, os.fsdecode(text)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                )
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        self._socket: socket.socket | None = ours
        loop.add_reader(ours.fileno(), self._hear)
        self._watch = loop.call_later(hung / 4, self._look_after)

    @property
    def is_there(self) -> bool:
        return self._socket is not None

    def sync(self, log: Log, done: Done) -> None:
        """Sync the segment, then look; `done` is called on the loop, once. OSError: the mate was not asked."""
        sock = self._socket
        if sock is None:
            raise BrokenPipeError(errno.EPIPE, "the mate is gone")
        if log is not self._log:
            sock.sendmsg([mate.FILE], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [log.fd]))])
            self._log = log
        sock.send(mate.SYNC)
        self._asked = self._loop.time()
        self._done = done

    def forget(self, log: Log) -> None:
        """Nothing more is synced in this segment: the mate lets go of its file."""
        if log is not self._log:
            return
        self._log = None
        if self._socket is not None:
            try:
                self._socket.send(mate.FORGET)
            except OSError:
                return  # it died, and `_hear` will notice

    def stop(self) -> None:
        """End the mate; a request under way is not answered any more."""
        self._done = None
        self._watch.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # it hangs in a sync; the kernel ends it after that
            self._process.kill()

    def _look_after(self) -> None:
        """A mate that was asked and has not answered for too long is killed: `_hear` then finds it gone."""
        if self._done is not None and self._loop.time() - self._asked > self._hung:
            self._process.kill()
        self._watch = self._loop.call_later(self._hung / 4, self._look_after)

    def _hear(self) -> None:
        assert self._socket is not None
        try:
            answer = self._socket.recv(mate.ANSWER.size)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        done, self._done = self._done, None
        if not answer:
            self.stop()
            if done is not None:
                done(OSError(errno.EIO, "the mate died, whether its sync failed is not known"), Look.UNKNOWN, 0.0)
            self._on_lost()
            return
        failed, look, at = mate.ANSWER.unpack(answer)
        if done is not None:
            done(OSError(failed, os.strerror(failed)) if failed else None, _LOOKS[look], at)
