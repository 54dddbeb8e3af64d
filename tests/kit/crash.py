"""Running the scripted workers of tests/crash/driver.py, under strace or not, and choosing what is walked.

A tracer is attached to the driver, never starts it: strace counts the calls of each thread from the moment it sees
it, and the threads of a worker forked later begin at one. So `when=N` is the N-th call of the worker's I/O thread.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import pytest

from .ledger import Found, Ledger

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
DRIVER = ROOT / "tests" / "crash" / "driver.py"
IS_ALL = os.environ.get("POSTHOF_CRASH") == "all"
SEED = int(os.environ.get("POSTHOF_CRASH_SEED") or random.SystemRandom().randrange(1_000_000))

# Everything a volume does that may fail; names that this machine's kernel does not have are left out ("?").
CALLS = (
    "openat pwritev2 pwritev pwrite64 fdatasync fsync flock ftruncate mkdir mkdirat symlink symlinkat unlink unlinkat"
)
CALLS += " rename renameat renameat2 rmdir"
TRACED = ",".join(f"?{name}" for name in CALLS.split())
LEDGER = ("begin", "ack", "refuse", "settle", "part", "synced")


class Ended(NamedTuple):
    """What one worker said, and how it ended: its exit status, or minus the signal."""

    lines: list[list[Any]]
    code: int
    errors: str

    def ledger(self, before: Ledger | None = None) -> Ledger:
        """Its promises, added to earlier ones."""
        ledger = before or Ledger()
        ledger.end()
        for line in self.lines:
            if line[0] in LEDGER:
                ledger.add(*line)
        return ledger

    def found(self) -> dict[str, Found]:
        """Of a `replay`: the live messages."""
        return {
            line[1]: Found(bytes.fromhex(line[2]), frozenset(line[3])) for line in self.lines if line[0] == "found"
        }

    def events(self) -> list[str]:
        return [line[1] for line in self.lines if line[0] == "event"]


class Driver:
    """The mother of the workers."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the driver
        paths = [str(ROOT / part) for part in ("crds", "mta-pod", "tests")]
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"},
        )
        self._buffer = b""
        assert self.line() == ["ready"]

    def __enter__(self) -> Driver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self, seconds: float | None = None) -> list[Any] | None:
        """The next line; None if there is none within that time."""
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            if seconds is not None and not select.select([self._process.stdout], [], [], seconds)[0]:
                return None
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                raise EOFError(f"the driver ended: {self.complaints()}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        found: list[Any] = json.loads(line)
        return found

    def complaints(self) -> str:
        """What workers wrote to standard error since this was last asked."""
        text = self._errors.seek(0) or self._errors.read().decode(errors="replace")
        self._errors.seek(0)
        self._errors.truncate()
        return text

    def send(self, request: dict[str, Any]) -> int:
        """Start a worker and do not wait for it: its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        self._early: list[list[Any]] = []
        while (line := self.line()) is not None:
            if line[0] == "pid":
                return int(line[1])
            self._early.append(line)
        raise AssertionError("without a time-out there is always a line")

    def listen(self, kind: str, count: int) -> None:
        """Until the worker has said so many lines of this kind."""
        while sum(line[0] == kind for line in self._early) < count:
            line = self.line()
            assert line is not None
            assert line[0] != "ended", f"it ended early: {line} {self.complaints()}"
            self._early.append(line)

    def hush(self) -> list[list[Any]]:
        """All that a stopped worker has said so far."""
        while (line := self.line(0.2)) is not None:
            self._early.append(line)
        return list(self._early)

    def finish(self) -> Ended:
        """Wait for the worker that `send` started."""
        lines, self._early = self._early, []
        while (line := self.line()) is not None:
            if line[0] == "ended":
                return Ended(lines, int(line[1]), self.complaints())
            lines.append(line)
        raise AssertionError("without a time-out there is always a line")

    def run(self, script: str, path: Path, **more: object) -> Ended:
        """One worker from its start to its end."""
        self.send({"script": script, "path": str(path), **more})
        return self.finish()

    def replay(self, path: Path, seed: str = "replay") -> Ended:
        """What a fresh process finds in a spool; it is left as after a kill."""
        ended = self.run("replay", path, seed=seed)
        assert ended.code == 0, f"a start was stopped: {ended}"
        return ended


def require_tracer(driver: Driver) -> None:
    """Skip where nothing can be traced, with the command that mends it; fail in CI."""
    reason = ""
    if shutil.which("strace") is None:
        reason = "strace is not installed; run: apt-get install strace (or scripts/peers)"
    else:
        try:
            with traced(driver, "-o", "/dev/null", "-e", "trace=none"):
                return
        except RuntimeError as error:
            reason = f"{error}; run as root, or: sysctl kernel.yama.ptrace_scope=0"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def traced(driver: Driver, *options: str) -> Iterator[None]:
    """strace attached to the driver and to all it forks meanwhile."""
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(driver.pid), *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert tracer.stderr is not None
    try:
        line = tracer.stderr.readline()
        if b"attached" not in line:
            raise RuntimeError(f"strace cannot attach: {line!r}")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate()


def count_calls(driver: Driver, script: str, path: Path, trace: Path, **more: object) -> dict[str, int]:
    """How often each call is made in a run of the script, by the thread that makes it most."""
    with traced(driver, "-o", str(trace), "-e", f"trace={TRACED}"):
        ended = driver.run(script, path, **more)
    assert ended.code == 0, ended.errors
    counts = Counter(re.findall(r"^(\d+) +(\w+)\(", trace.read_text(), re.MULTILINE))
    most: dict[str, int] = {}
    for (_, call), count in counts.items():
        most[call] = max(most.get(call, 0), count)
    return most


def sample(points: Sequence[T], count: int, what: str) -> list[T]:
    """All of them, or a part that the seed chooses; in their order."""
    if IS_ALL or len(points) <= count:
        return list(points)
    chance = random.Random(f"{SEED} {what}")
    return [points[at] for at in sorted(chance.sample(range(len(points)), count))]


@contextmanager
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: these tests end processes, not power."""
    fast = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="posthof-crash-", dir=fast if os.access(fast, os.W_OK) else None))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


def told(lines: Iterable[list[Any]]) -> Ledger:
    """The ledger of lines that were kept."""
    return Ended(list(lines), 0, "").ledger()
