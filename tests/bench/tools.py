"""Postfix' smtp-source and smtp-sink as instruments: send N mails, know when N have arrived.

The sink prints its counters at every message (-c) into a file in memory; the file's change time is the moment the
last message arrived. That is one small write a message, the same for every system measured.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import accounting
from kit import peers

SENDER = "from@source.bench"
RECIPIENT = "to@sink.bench"
STALL = 60.0  # seconds without a single new message after which a run is given up
SESSIONS = 20  # of smtp-source, in parallel


class Stalled(RuntimeError):
    """Messages stopped arriving before all were there."""


class Load(NamedTuple):
    """What smtp-source sends: `size` bytes each, over `sessions` parallel sessions, reused or one a message."""

    size: int
    is_reused: bool
    sessions: int = SESSIONS


class Source:
    """A running smtp-source."""

    def __init__(
        self, load: Load, count: int, port: int, *, recipient: str = RECIPIENT, content: Path | None = None
    ) -> None:
        """`content`: a file with the message to send, in place of one that smtp-source makes up."""
        arguments = ["-s", str(min(load.sessions, count)), "-m", str(count)]
        arguments += ["-F", str(content)] if content is not None else ["-l", str(load.size)]
        arguments += ["-f", SENDER, "-t", recipient, "-M", "source.bench"] + (["-d"] if load.is_reused else [])
        self.process = subprocess.Popen(
            [str(peers.find("smtp-source")), *arguments, f"127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def wait(self, timeout: float) -> float:
        """Until it has sent everything; its CPU seconds. Stalled with its words if it fails."""
        until = time.monotonic() + timeout
        while True:
            pid, status, used = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > until:
                self.process.kill()
                self.process.wait()
                raise Stalled(f"smtp-source still sends after {timeout:.0f} s")
            time.sleep(0.002)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        with self.process.stderr or contextlib.nullcontext() as words:
            said = words.read().decode(errors="replace") if words else ""
        if self.process.returncode:
            raise Stalled(f"smtp-source: {said.strip()[-500:]}")
        return used.ru_utime + used.ru_stime


class Sink:
    """A running smtp-sink on `port`, and its counter."""

    def __init__(self, port: int, pid: int, counter: Path) -> None:
        self.port = port
        self.pid = pid
        self._counter = counter

    def count(self) -> int:
        """Messages taken since its start."""
        with self._counter.open("rb") as file:
            file.seek(max(0, self._counter.stat().st_size - 200))
            lines = [line for line in file.read().split(b"\r") if b"mesg=" in line]
        return int(lines[-1].rpartition(b"mesg=")[2]) if lines else 0

    def wait_for(self, total: int, *, stall: float = STALL) -> float:
        """Until it has taken `total` messages; the wall-clock time (time.time) when it took the last of them."""
        last, since = self.count(), time.monotonic()
        while last < total:
            time.sleep(0.005)
            now = self.count()
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > stall:
                raise Stalled(f"{last} of {total} messages arrived, none in the last {stall:.0f} s")
        return self._counter.stat().st_mtime_ns / 1e9

    def cpu_seconds(self) -> float:
        return accounting.own_seconds(self.pid)


@contextlib.contextmanager
def sink(options: Sequence[str] = (), *, port: int = 0) -> Iterator[Sink]:
    """An smtp-sink on loopback, with its counter in memory."""
    port = port or peers.free_port()
    shared = Path("/dev/shm")
    with tempfile.NamedTemporaryFile(prefix="posthof-sink-", dir=shared if shared.is_dir() else None) as counter:
        command = [str(peers.find("smtp-sink")), "-c", "-m", "2000", *options]
        command += (["-u", "nobody"] if os.geteuid() == 0 else []) + [f"127.0.0.1:{port}", "4096"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=counter, stderr=subprocess.DEVNULL)
        try:
            peers.wait_for(lambda: peers.listens(port), f"smtp-sink on port {port}")
            yield Sink(port, process.pid, Path(counter.name))
        finally:
            process.terminate()
            process.wait()
