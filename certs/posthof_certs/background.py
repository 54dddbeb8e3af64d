"""Work that blocks for minutes, in a thread that does not keep the process from ending, as those of an event loop's
own pool do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def background(work: Callable[[], T]) -> Future[T]:
    """What `work` returns or raises; on a loop: `await asyncio.wrap_future(background(work))`. When nobody waits any
    more as it ends, it is thrown away."""
    done: Future[T] = Future()

    def run() -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            result = work()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(result)

    threading.Thread(target=run, name="background", daemon=True).start()
    return done
