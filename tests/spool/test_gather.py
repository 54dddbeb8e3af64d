"""A turn waits for messages on their way in while there are many; a sender that is alone waits for nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kit.spools import BODY, Harness, killed, settings
from posthof_pod.spool import journal


class Coming:
    """How many messages are on their way in, as a test says."""

    def __init__(self, harness: Harness) -> None:
        self.count = 0
        harness.spool.expect(lambda: self.count)


def turns(harness: Harness) -> float:
    return harness.spool.stats()["turns"]


async def put_many(harness: Harness, count: int) -> None:
    await asyncio.gather(*[harness.put(body=BODY + b"%d" % n) for n in range(count)])


def test_it_waits_for_what_comes_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path, settle_delay=60.0)) as harness:
            coming = Coming(harness)
            await put_many(harness, 3)
            before = turns(harness)
            coming.count = 1
            first = asyncio.ensure_future(harness.put())
            await asyncio.sleep(0.05)
            assert turns(harness) == before
            coming.count = 0
            await asyncio.gather(first, harness.put())
            assert turns(harness) == before + 1

    monkeypatch.setattr(journal, "GATHER", 30.0)
    asyncio.run(main())


def test_what_never_comes_is_waited_for_a_moment_only(tmp_path: Path) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as harness:
            coming = Coming(harness)
            await put_many(harness, 3)
            coming.count = 7
            await harness.put()

    asyncio.run(main())


def test_a_sender_that_is_alone_does_not_wait_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with killed(settings(tmp_path)) as harness:
            coming = Coming(harness)
            await harness.put()
            coming.count = 7
            await asyncio.wait_for(harness.put(), 20.0)

    monkeypatch.setattr(journal, "GATHER", 30.0)
    asyncio.run(main())
