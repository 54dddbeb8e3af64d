"""An asyncio loop whose clock jumps: hours of schedule in milliseconds, and the same run every time.

    def test_x():
        run(main)          # main: an async function; inside it loop.time() is virtual, sleep() costs nothing

The clock moves only when nothing is ready to run, and then straight to the next timer. No sockets inside.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


class _NoWaiting(selectors.SelectSelector):
    """Instead of waiting for time-out seconds, lets them pass."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everything waits and no timer is set: a deadlock")
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """time() is virtual and begins at 0."""

    def __init__(self) -> None:
        self._clock = _NoWaiting()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def run(main: Callable[..., Awaitable[Result]], *arguments: Any) -> Result:
    """Run to the end in a loop of its own; tasks left over are cancelled."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:

        async def wrapped() -> Result:
            return await main(*arguments)

        return runner.run(wrapped())
