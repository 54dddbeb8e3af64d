"""What was never sent does not count as a possible duplicate only because its lane went to a peer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kit.spools import Harness, killed, running, settings, until, waiting
from posthof_pod.model import Held
from posthof_pod.spool import sharing
from posthof_pod.spool.lane import Lane


def closed_lane(harness: Harness) -> Lane:
    return next(lane for lane in harness.spool._core.lanes.values() if lane.state.value == "closed")


async def give_all(harness: Harness) -> None:
    """Give its closed lane away."""
    await harness.spool._keeper._sharer.leave(closed_lane(harness))


async def taken_by(taker: Harness, count: int) -> None:
    await taker.spool._adopter.scan(is_thorough=True)
    await taker.spool._keeper._sharer.take_offers()
    await until(lambda: len(taker.lives) >= count)


def test_a_lane_that_leaves_quietly_brings_no_possible_duplicates(tmp_path: Path):
    async def main() -> None:
        config = settings(tmp_path, lane_messages=5)
        async with killed(config) as giver:
            stored = [await giver.put("b@x.test", "c@x.test") if n == 2 else await giver.put() for n in range(7)]
            giver.spool.settle(stored[0].ref, waiting(Held(0, 70.0, 3)))
            await give_all(giver)
        async with running(config) as taker:
            await taken_by(taker, 7)
            by_id = {live.envelope.id: live for live in taker.lives}
            given = [by_id[one.envelope.id] for one in stored[:5]]
            assert [live.is_tried for live in given] == [False] * 5
            assert given[0].waiting == (Held(0, 70.0, 3),)
            assert [held.recipient for held in given[2].waiting] == [0, 1]
            assert taker.spool.stats()["possible_duplicates"] == 2  # of the open lane, whose owner was killed
            await taker.spool.tried([given[1].ref])
            assert await taker.spool.look()
            assert taker.spool.may_dot(given[1].ref)

    asyncio.run(main())


def test_what_was_in_a_session_to_the_end_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sharing, "RUNNING_ENDS", 0.1)

    async def main() -> None:
        config = settings(tmp_path, lane_messages=5)
        async with killed(config) as giver:
            stored = [await giver.put() for _ in range(6)]
            giver.busy = [stored[0].ref]
            await give_all(giver)
        async with running(config) as taker:
            await taken_by(taker, 6)
            assert taker.spool.stats()["possible_duplicates"] == 6

    asyncio.run(main())


def test_a_worker_that_stops_quietly_leaves_no_possible_duplicates_and_one_that_was_cut_short_does(tmp_path: Path):
    async def main(folder: Path, *, is_quiet: bool) -> float:
        config = settings(folder, lane_messages=5)
        giver = Harness(config)
        await giver.spool.start()
        for _ in range(12):
            await giver.put()
        await giver.spool.stop(is_quiet=is_quiet)
        async with running(config) as taker:
            await taken_by(taker, 12)
            return taker.spool.stats()["possible_duplicates"]

    for is_quiet, count in ((True, 0), (False, 12)):
        folder = tmp_path / str(count)
        folder.mkdir()
        assert asyncio.run(main(folder, is_quiet=is_quiet)) == count


def test_a_lane_that_is_claimed_back_can_send_everything(tmp_path: Path):
    async def main() -> None:
        config = settings(tmp_path, lane_messages=5)
        async with running(config) as giver:
            for _ in range(6):
                await giver.put()
            lane = closed_lane(giver)
            await give_all(giver)
            await giver.spool._keeper._sharer.claim_back(lane)
            assert [live.is_tried for live in giver.lives] == [False] * 5
            refs = [live.ref for live in giver.lives]
            await giver.spool.tried(refs)
            assert await giver.spool.look()
            assert all(giver.spool.may_dot(ref) for ref in refs)

    asyncio.run(main())
