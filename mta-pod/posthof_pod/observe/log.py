"""The log's end of the pipe: whole lines to a file descriptor, never waiting for it, never raising.

Rules of this file
- A reader that does not read must not stop the mail: what does not fit waits in memory (bounded), then is counted
  as lost, and the next line that gets through says so.
- Several workers share one pipe: a write of at most PIPE_BUF bytes is not torn, so blocks are cut between lines.
- The descriptor is inherited and shared, so O_NONBLOCK is never set on it: it is opened anew, or polled.
"""

from __future__ import annotations

import os
import select
import stat
from collections import deque

PIPE_BUF = select.PIPE_BUF
KEPT = 4 * 1024 * 1024


class Log:
    """Where lines go. `path`: the file's name where it is one of ours, so that `reopen` can follow a rotation."""

    def __init__(self, fd: int, path: str = "") -> None:
        self.fd, self.path = fd, path
        self.lost = 0  # lines that found no reader
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._adopt(fd)

    def _adopt(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        self._is_file = stat.S_ISREG(mode)
        self._piece = KEPT if self._is_file else PIPE_BUF
        self._owned = -1
        if self._is_file or not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            return
        try:
            self._owned = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            self._owned = -1  # not ours to open (dropped privileges): polled instead

    def write(self, lines: bytes) -> None:
        """Write whole lines, or keep them for the next call."""
        if self._waiting:
            self._keep(lines)
            self.retry()
        elif len(lines) <= self._piece:
            self._put(lines)
        else:
            for piece in pieces(lines, self._piece):
                self._keep(piece)
            self.retry()

    @property
    def is_behind(self) -> bool:
        return bool(self._waiting)

    def retry(self) -> bool:
        """Write what waits, as far as the reader takes it. True: all of it."""
        while self._waiting:
            piece = self._waiting.popleft()
            self._waiting_bytes -= len(piece)
            if not self._put(piece):
                return False
        return True

    def _put(self, piece: bytes) -> bool:
        written = self._write(piece)
        if written == len(piece):
            return True
        if written < 0:  # the disk is full, the reader is gone: nothing to wait for
            self.lost += piece.count(b"\n")
            return True
        rest = piece[written:]
        self._waiting.appendleft(rest)
        self._waiting_bytes += len(rest)
        return False

    def _write(self, piece: bytes) -> int:
        """Bytes written; -1 where the descriptor is broken."""
        try:
            if self._is_file:
                return os.write(self.fd, piece)
            if self._owned >= 0:
                return os.write(self._owned, piece)
            poll = select.poll()
            poll.register(self.fd, select.POLLOUT)
            return os.write(self.fd, piece) if poll.poll(0) else 0
        except BlockingIOError:
            return 0
        except OSError:
            return -1

    def _keep(self, lines: bytes) -> None:
        for piece in pieces(lines, self._piece):
            if self._waiting_bytes + len(piece) > KEPT:
                self.lost += piece.count(b"\n")
            else:
                self._waiting.append(piece)
                self._waiting_bytes += len(piece)

    def reopen(self) -> str:
        """Follow a rotation: open `path` again. Returns what went wrong; "" where nothing did or there is no path."""
        if not self.path:
            return ""
        try:
            fresh = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            return f"{self.path}: {error.strerror}; the log goes on in the old file"
        errors_too = self.fd != 2 and os.path.samestat(os.fstat(self.fd), os.fstat(2))
        os.dup2(fresh, self.fd)
        if errors_too:
            os.dup2(fresh, 2)
        os.close(fresh)
        return ""

    def close(self) -> None:
        """Give the last lines a last chance, and the descriptor of our own back."""
        self.retry()
        if self._owned >= 0:
            os.close(self._owned)
            self._owned = -1


def pieces(lines: bytes, size: int) -> list[bytes]:
    """`lines` cut behind newlines into pieces of at most `size` bytes; a longer line is a piece of its own."""
    if len(lines) <= size:
        return [lines]
    cut, start = [], 0
    while start < len(lines):
        end = len(lines) if len(lines) - start <= size else lines.rfind(b"\n", start, start + size) + 1
        if end <= start:
            end = lines.find(b"\n", start) + 1 or len(lines)
        cut.append(lines[start:end])
        start = end
    return cut
