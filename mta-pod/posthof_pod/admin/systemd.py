"""What systemd is told (sd_notify(3), Type=notify): a datagram to the socket it names. Nothing without it."""

from __future__ import annotations

import os
import socket
import time


def notify(*lines: str) -> None:
    """For example `notify("READY=1", "STATUS=2 workers")`. A systemd that does not listen is no error of ours."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name:
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as end:
            end.sendto("\n".join(lines).encode(), address)
    except OSError:
        return


def reloading() -> None:
    """The start of a reload (Type=notify-reload wants the time with it); `notify("READY=1")` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
