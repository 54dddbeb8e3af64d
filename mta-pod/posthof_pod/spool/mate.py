"""The mate of a worker: a process that syncs a segment and looks at the latch, so that the worker's loop never waits.

Why a process: a thread that waits for the disk gives the interpreter's lock up and asks for it back at each call, and
beside a busy loop every such hand-over costs more than the call (docs/decisions/0005).

Rules
- It holds one thing of the spool: the segment that is written at present, as a descriptor the worker sent. It opens
  nothing but the latch, writes nothing, and has no lock of the worker's.
- One request at a time, answered once: FILE (a descriptor comes along, the one before is closed), SYNC (answered by
  ANSWER), FORGET. The sync comes before the look, and the time is taken between them.
- It ends when its socket does: with its worker, however that ended.
- Standard library only: it is run as a file, by an interpreter that reads no site-packages.
"""

import array
import errno
import os
import signal
import socket
import struct
import sys
import time

FILE, SYNC, FORGET = b"f", b"s", b"x"
ANSWER = struct.Struct(
    "<iid"
)  # errno of the sync (0: it is on the volume), what the look said, when (CLOCK_MONOTONIC)
OPEN, FENCED, UNKNOWN = range(3)
LOOKS = 3  # as protocol.look
LATCH_BYTES = 512  # as volume.LOOK_BYTES
REQUEST_BYTES = 16
ONE_DESCRIPTOR = socket.CMSG_SPACE(array.array("i").itemsize)


def look(latch: str, text: bytes) -> int:
    """As protocol.look: only the exact text is open, no file is fenced, an error is neither."""
    for _ in range(LOOKS):
        try:
            fd = os.open(latch, os.O_RDONLY | os.O_CLOEXEC)
            try:
                found = os.read(fd, LATCH_BYTES)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return FENCED
        except OSError:
            continue
        return OPEN if found == text else FENCED
    return UNKNOWN


def sync(fd: int) -> int:
    """0, or the errno. Never repeated: the second fdatasync after a failed one may say yes."""
    try:
        os.fdatasync(fd)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def serve(sock: socket.socket, latch: str, text: bytes) -> None:
    """Until the worker is gone."""
    held = -1
    while True:
        request, extra, _, _ = sock.recvmsg(REQUEST_BYTES, ONE_DESCRIPTOR)
        if request == SYNC:
            failed = sync(held)
            at = time.monotonic()
            sock.send(ANSWER.pack(failed, look(latch, text), at))
        elif request in (FILE, FORGET):
            if held >= 0:
                os.close(held)
            held = array.array("i", extra[0][2])[0] if extra else -1
        else:
            return


def main() -> None:
    """Arguments: the socket's descriptor, the latch's path, its text while it is open."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        try:
            serve(sock, sys.argv[2], os.fsencode(sys.argv[3]))
        except (BrokenPipeError, ConnectionResetError):
            return  # the worker ended while we were at work


if __name__ == "__main__":
    main()
