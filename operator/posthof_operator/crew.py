"""The workers: they take a task from the queue, let its room reconcile, and put down how it went.

Rules of this file
- A room that raises is tried again later, with more and more time between; nothing it raises ends a worker.
- One task is never in two workers (the queue sees to that).
"""

from __future__ import annotations

import asyncio
import logging
import time

from posthof_operator.api import ApiError
from posthof_operator.workqueue import LONGEST, Task
from posthof_operator.world import Postponed, World

AWAY = 5.0  # seconds between tries while the API server is away: back again, it must not wait for us

log = logging.getLogger("posthof_operator.crew")


async def work(world: World, workers: int) -> None:
    """Until cancelled."""
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(_worker(world))


async def _worker(world: World) -> None:
    while True:
        task = await world.queue.take()
        await turn(world, task)
        await asyncio.sleep(0)  # a turn that waited for nothing must not keep the loop from everybody else


async def turn(world: World, task: Task) -> None:
    """One reconcile, whatever comes of it."""
    began = time.monotonic()
    try:
        requeue = await world.rooms[task.room].reconcile(task.key, world)
    except asyncio.CancelledError:
        world.queue.done(task)
        raise
    except Exception as error:
        _failed(world, task, error)
    else:
        world.queue.done(task)
        if requeue is not None:
            world.queue.add(task, requeue.after)
        world.metrics.reconciles.labels(task.room, "done").inc()
    finally:
        world.metrics.seconds.labels(task.room).observe(time.monotonic() - began)
        world.metrics.depth.set(world.queue.depth)
        world.metrics.delayed.set(world.queue.delayed)


def _failed(world: World, task: Task, error: Exception) -> None:
    """Known troubles in one line, ours with where it happened."""
    is_away = isinstance(error, ApiError) and error.is_passing
    pause = world.queue.failed(task, AWAY if is_away else LONGEST)
    is_known = isinstance(error, ApiError | Postponed)
    reason = error.reason if isinstance(error, ApiError | Postponed) else type(error).__name__
    world.metrics.reconciles.labels(task.room, "failed").inc()
    world.metrics.errors.labels(task.room, reason).inc()
    log.warning("%s: %s again in %.1f s: %s", task.room, task.key, pause, error, exc_info=None if is_known else error)
