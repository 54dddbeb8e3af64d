"""Drives a coroutine on the running loop without a Task of its own.

A Task costs 3.4 us to make and run (hotpath.md); a message needs none: it waits for one commit. So the coroutine is
sent None by hand, and each future it yields gets a callback that goes on.

Rules
- What is awaited here may await asyncio futures (and Tasks) and nothing that asks for the current task:
  `asyncio.timeout`, `wait_for`, `TaskGroup` need a Task. Whoever needs those makes one and hands that over: a Future
  or Task is taken as it is.
- The result is what the coroutine returned, or a Reply: that of a `replies.Failure`, else 451 4.3.0, told to `fault`.
- Nobody cancels: what was begun for a client that went away ends by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import CoroutineType
from typing import Any, Final

from posthof_pod.replies import Failure, Reply

INTERNAL = Reply(451, "4.3.0", "Something failed here, try again later")
STOPPING = Reply(451, "4.3.2", "The system is stopping, try again later")


class _Pending:
    """The result will come by callback."""

    def __repr__(self) -> str:
        return "PENDING"


PENDING: Final = _Pending()

Done = Callable[[object], None]
Fault = Callable[[str, BaseException], None]


def run(work: Awaitable[object], done: Done, fault: Fault) -> object:
    """Runs `work` as far as it goes. Returns its result if that is there at once (then `done` is never called), else
    PENDING, and calls done(result) from the loop."""
    if type(work) is CoroutineType:  # the usual case; a coroutine needs no iterator around it
        return _Steps(work, done, fault).step()
    if asyncio.isfuture(work):
        future: asyncio.Future[object] = work
        if future.done():
            return _result_of(future, fault)
        future.add_done_callback(lambda future: done(_result_of(future, fault)))
        return PENDING
    return _Steps(work.__await__(), done, fault).step()


def _result_of(future: asyncio.Future[object], fault: Fault) -> object:
    try:
        return future.result()
    except BaseException as error:
        return reply_for(error, fault)


def reply_for(error: BaseException, fault: Fault) -> Reply:
    """What a client is told of `error`. What ends the process is raised again."""
    if isinstance(error, Failure):
        return error.reply
    if isinstance(error, asyncio.CancelledError):
        return STOPPING
    if not isinstance(error, Exception):
        raise error
    fault("accept", error)
    return INTERNAL


class _Steps:
    """One coroutine on its way."""

    __slots__ = ("_done", "_fault", "_send")

    def __init__(
        self, work: Generator[Any, Any, object] | Coroutine[Any, Any, object], done: Done, fault: Fault
    ) -> None:
        self._send = work.send
        self._done = done
        self._fault = fault

    def step(self) -> object:
        """Up to the next future, or the end."""
        try:
            awaited = self._send(None)
        except StopIteration as stop:
            return stop.value
        except BaseException as error:
            return reply_for(error, self._fault)
        if awaited is None:  # a bare yield: asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(self._go_on)
        else:
            awaited._asyncio_future_blocking = False  # the hand-shake of Future.__await__ with its Task
            awaited.add_done_callback(self._go_on)
        return PENDING

    def _go_on(self, _: object = None) -> None:
        result = self.step()
        if result is not PENDING:
            self._done(result)
