"""What every instrument that runs a foreign program shares: is it there, where does it live, how does it end.

Rules
- A peer has a folder of its own, made for it and removed after it. Mail servers drop to users of their own, who may
  not enter pytest's tmp_path (mode 0700), so the folder is made here, with mode 0755.
- A missing peer skips the test and names the command that installs it; with CI=true it fails the test.
- Only what was started here is ended, by its process id.
- Waiting is for a condition, with a limit that only a fault reaches.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]
UNPACKED = REPOSITORY / "build" / "peers"  # scripts/unpack-peer puts what conflicts with Postfix here
INSTALL = "sudo scripts/peers"

_given: set[int] = set()  # ports handed out by this process; a peer binds its port later than we look


class NotReady(AssertionError):
    """A condition did not come true in time."""


def require(*programs: str) -> None:
    """Skip the test unless every program (a path, or a name on PATH or in /usr/sbin) exists; in CI fail instead."""
    missing = [program for program in programs if find(program) is None]
    if missing:
        absent(f"{', '.join(missing)} not installed")


def require_root() -> None:
    """Postfix, Dovecot and Exim start as root and drop to users of their own."""
    if os.geteuid() != 0:
        absent("mail servers start as root")


def absent(why: str) -> None:
    """A peer cannot be had: a skip with the mend in it, a failure in CI."""
    reason = f"{why}; run: {INSTALL}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def find(program: str) -> str | None:
    """The program's full path, None if it is not there."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/lib/postfix/sbin")


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A loopback port that nobody listens on, below the range the kernel takes for outgoing connections."""
    for _ in range(200):
        port = random.SystemRandom().randrange(10_240, 32_000)
        if port in _given:
            continue
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise NotReady("no free port below 32000")


@contextlib.contextmanager
def folder(name: str, parent: Path | None = None) -> Iterator[Path]:
    """A folder that any user may enter, removed at the end."""
    path = Path(tempfile.mkdtemp(prefix=f"posthof-{name}-", dir=parent))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def wait_for(condition: Callable[[], T], what: str, *, timeout: float = 30.0, every: float = 0.02) -> T:
    """Ask until the answer is truthy and return it; NotReady after `timeout` seconds of the monotonic clock."""
    until = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > until:
            raise NotReady(f"not within {timeout:g} s: {what}")
        time.sleep(every)


def pair(where: Path, *names: str) -> tuple[Path, Path]:
    """A self-signed certificate and its key, PEM, readable by every user; made by openssl in `where`."""
    require("openssl")
    certificate, key = where / f"{names[0]}.crt", where / f"{names[0]}.key"
    made_for = ",".join(f"DNS:{name}" for name in names)
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
    ]
    command += ["-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={made_for}"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    key.chmod(0o644)
    return certificate, key


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts connections there. (The peer sees a session that says nothing.)"""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


class Maildir:
    """What a server delivered into `new` of a Maildir. `explain` gives what to print when nothing comes."""

    def __init__(self, path: Path, explain: Callable[[], str] = str) -> None:
        self.path = path
        self._explain = explain

    def mails(self) -> list[bytes]:
        """The mails as they lie there, in the order of delivery."""
        arrived = (self.path / "new").glob("*")
        return [path.read_bytes() for path in sorted(arrived, key=lambda path: path.stat().st_mtime_ns)]

    def wait_for(self, count: int, timeout: float = 60.0) -> list[bytes]:
        """The mails, once there are at least `count`."""
        try:
            wait_for(lambda: len(self._names()) >= count, f"{count} mails in {self.path}", timeout=timeout)
        except NotReady as failure:
            raise NotReady(f"{failure} (there are {len(self._names())})\n{self._explain()[-4000:]}") from None
        return self.mails()

    def _names(self) -> list[str]:
        return os.listdir(self.path / "new") if (self.path / "new").is_dir() else []


class Program:
    """A foreign program in the foreground, its output in a file of its folder.

    `stop` sends `ending` (SIGTERM), waits, and kills the process group that was made for it if it does not end.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        ending: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.command = [str(word) for word in command]
        self.log = log
        self._ending = ending
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def until(self, condition: Callable[[], T], what: str, *, timeout: float = 30.0) -> T:
        """wait_for, but it fails at once, with the output, when the program has ended."""

        def ask() -> T:
            answer = condition()
            if not answer and not self.is_running:
                raise NotReady(f"{self.command[0]} ended with {self.process.returncode}: {self.output()}")
            return answer

        try:
            return wait_for(ask, what, timeout=timeout)
        except NotReady as failure:
            raise NotReady(f"{failure}\n{self.output()}") from None

    def output(self) -> str:
        """The last 4,000 bytes of what it printed."""
        return self.log.read_bytes()[-4000:].decode("utf-8", "replace")

    def stop(self, timeout: float = 20.0) -> int:
        """End it and return its exit status."""
        if self.is_running:
            self.process.send_signal(self._ending)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(timeout)
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait(10)
