"""One worker process, seen from its parent: started by exec, spoken to, pinged, stopped, reaped.

Rules of this file
- It owns the process id until it is reaped; only then may anybody be told that this worker is dead.
- A worker that does not turn its loop for `STUCK` pings in a row is killed. Pings are counted, not seconds: a
  supervisor that was itself suspended must not kill its workers when it wakes.
- Own process group: Ctrl-C in a terminal reaches the supervisor alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from posthof_pod.admin.channel import Channel, ChannelClosed, Refused, Swap, WorkerStart, pair
from posthof_pod.admin.load import UNLIMITED
from posthof_pod.schedule.slices import WHOLE

PING = 5.0  # seconds
STUCK = 6  # pings in a row without an answer
Stats = dict[str, int | float]


class State(enum.StrEnum):
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    DEAD = "dead"


class WorkerProcess:
    """`on_hello(worker)` once its name in the spool is known; `on_ready(worker)` once it listens; `on_dead(worker)`
    once it is reaped, however it ended."""

    def __init__(
        self,
        number: int,
        *,
        module: str,
        output: int,
        log: str,
        level: str,
        pod: str = "",
        proofs: str = "",
        share: tuple[int, int] = WHOLE,
        most: int = UNLIMITED,
        on_hello: Callable[[WorkerProcess], object],
        on_adopted: Callable[[object], object] = lambda told: None,
        on_ready: Callable[[WorkerProcess], object],
        on_dead: Callable[[WorkerProcess], object],
        on_error: Callable[[str, BaseException], object],
    ) -> None:
        self.name = str(number)
        self.number = number
        self.state = State.STARTING
        self.spool_id = ""  # its name in the spool, from `hello`
        self.revision = ""  # the content hash of the configuration it runs
        self.generation = 0  # the crew's number of it and its keys; 0: none yet
        self.edition = 0  # the crew's number of the configuration alone
        self.stats: Stats = {}  # the last it told
        self.started = time.monotonic()
        self.status: int | None = None
        self.missed = 0  # pings in a row
        self.was_stuck = False
        self.is_given_up = False  # killed because it hung; it may take its time to end
        self.looked: float | None = None  # monotonic time of its last good look, as far as it told
        self._on_adopted = on_adopted
        self._on_hello, self._on_ready, self._on_dead = on_hello, on_ready, on_dead
        self._loop = asyncio.get_running_loop()
        self.gone = asyncio.Event()
        ours, theirs = pair()
        with theirs:
            start = WorkerStart(self.name, theirs.fileno(), log, level, pod, proofs, share, most)
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, msgspec.json.encode(start).decode()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output if log else None,
                pass_fds=(theirs.fileno(),),
                process_group=0,
            )
        self.channel = Channel(
            ours,
            {"hello": self._hello, "ready": self._ready, "stats": self._last, "adopted": self._adopted},
            on_error=on_error,
        )
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self.status is None

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def how_it_ended(self) -> str:
        """For people: "killed by SIGKILL", "exit status 1"."""
        if self.status is None:
            return "alive"
        if self.status >= 0:
            return f"exit status {self.status}"
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-self.status).name}"
        return f"killed by signal {-self.status}"

    # ------------------------------------------------------------------ what is asked of it

    async def swap(self, swap: Swap, sockets: Sequence[socket.socket] = (), *, within: float) -> None:
        """Give it a configuration. Raises Refused (the old one stays), ChannelClosed, TimeoutError."""
        await self.channel.ask("config", swap, within=within, fds=[one.fileno() for one in sockets])
        self.revision = swap.revision

    async def refresh(self) -> None:
        """Ask for its counts; what it told last stays where it does not answer."""
        with contextlib.suppress(ChannelClosed, Refused, TimeoutError):
            self.stats = await self.channel.ask("stats", within=2.0)

    async def ping(self) -> None:
        """One ping; kills the process at the last one it misses."""
        try:
            await self.channel.ask("ping", within=PING)
            self.missed = 0
        except TimeoutError:
            self.missed += 1
            if self.missed >= STUCK and self.is_alive:
                self.was_stuck = True
                self.kill()
        except ChannelClosed:
            # It closed the channel and lives on: give it the time of a stop, no more.
            self.missed += 1
            if self.missed >= STUCK:
                self.kill()

    async def quiet(self, seconds: float) -> None:
        """Ask it to end within `seconds`; returns when it no longer listens, or does not answer."""
        if self.state is not State.DEAD:
            self.state = State.STOPPING
        with contextlib.suppress(ChannelClosed, Refused, TimeoutError):
            await self.channel.ask("stop", {"seconds": seconds}, within=min(2.0, seconds))

    def kill(self) -> None:
        """SIGKILL, by its id; it is our child and not reaped yet, so the id is its own."""
        if self.is_alive:
            self._process.kill()

    # ------------------------------------------------------------------ what it says

    async def _hello(self, payload: Mapping[str, Any]) -> None:
        self.spool_id = str(payload["spool"])
        self._on_hello(self)

    async def _ready(self, payload: object) -> None:
        if self.state is State.STARTING:
            self.state = State.READY
            self._on_ready(self)

    async def _adopted(self, payload: object) -> None:
        """It has taken a lane over."""
        self._on_adopted(payload)

    async def _last(self, payload: Stats) -> None:
        """It is about to end: what it counted since it was asked last must not be lost."""
        self.stats = payload

    def _reap(self) -> None:
        status = self._process.poll()
        if status is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.status, self.state = status, State.DEAD
        self.channel.finish()
        self._loop.call_soon(self._bury)

    def _bury(self) -> None:
        """After its last words were heard."""
        self.gone.set()
        self._on_dead(self)
