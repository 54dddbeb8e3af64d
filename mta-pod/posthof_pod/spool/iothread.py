"""The one thread of a worker that changes things on the volume.

Jobs run in the order they were given. A job's `work` runs here; its `done` then runs on the loop. Hops cost more than
most jobs, so they are made per batch, never per message.
"""

from __future__ import annotations

import asyncio
import errno
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

# A busy loop gives the interpreter's lock up and takes it back in every turn. A thread that waits for it is woken
# each time, comes too late, and begins its wait of one switch interval anew: with the default of 5 ms, longer than a
# turn of the loop, it starved for seconds (measured: commits of 1 to 9 s beside a saturated loop; 3 ms with this).
SWITCH_INTERVAL = 0.0001
ASKED = 0.5  # seconds between two looks whether the thread that was asked still lives


class Job(Protocol):
    def work(self) -> None:
        """In the I/O thread. Handles its own OSErrors."""


class IOThread:
    """Started at once; `stop` ends it after the jobs it was given."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
        self.loop = loop
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._is_stopped = False
        self._thread.start()

    def put(self, job: Job) -> None:
        self._jobs.put(job)

    def call(self, act: Callable[[], T]) -> asyncio.Future[T]:
        """Run `act` in the thread; the future (of the loop) has its result or its exception."""
        future: asyncio.Future[T] = self.loop.create_future()
        self._jobs.put(_CallJob(self, act, future))
        return future

    def ask(self, act: Callable[[], T]) -> T:
        """Run `act` in the thread and wait for its result: for other threads, never for the loop's. OSError also when
        the thread has ended meanwhile."""
        asked: Future[T] = Future()
        self._jobs.put(_AskJob(act, asked))
        while True:
            try:
                return asked.result(timeout=ASKED)
            except TimeoutError:
                if asked.done() or not self._thread.is_alive():
                    break
        if asked.done():
            return asked.result()
        raise OSError(errno.ESHUTDOWN, "the spool's I/O thread has ended")

    def tell(self, act: Callable[..., object], *args: object) -> None:
        """From the thread: run `act` on the loop. A loop that is closed has nobody left to tell."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(act, *args)

    def stop(self) -> None:
        """No more jobs; returns when the last one has run."""
        if not self._is_stopped:
            self._is_stopped = True
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job.work()
            except Exception as error:  # our own fault: the thread must go on, or nobody is ever answered
                self.tell(self.loop.call_exception_handler, {"message": f"job {job!r}", "exception": error})


class _CallJob:
    __slots__ = ("act", "future", "thread")

    def __init__(self, thread: IOThread, act: Callable[[], T], future: asyncio.Future[T]) -> None:
        self.thread = thread
        self.act: Callable[[], object] = act
        self.future: asyncio.Future[object] = future  # type: ignore[assignment]  # T is known to `call` only

    def work(self) -> None:
        try:
            result = self.act()
        except Exception as error:  # handed to whoever awaits the future
            self.thread.tell(_fail, self.future, error)
        else:
            self.thread.tell(_finish, self.future, result)


class _AskJob(Generic[T]):
    __slots__ = ("act", "asked")

    def __init__(self, act: Callable[[], T], asked: Future[T]) -> None:
        self.act = act
        self.asked = asked

    def work(self) -> None:
        try:
            self.asked.set_result(self.act())
        except Exception as error:  # handed to whoever waits
            self.asked.set_exception(error)


def _finish(future: asyncio.Future[object], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[object], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
