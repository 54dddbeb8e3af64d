"""What the walks do not reach: a zombie, a long life with many ends, bytes that went bad, content that looks like a
record."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import spools
from kit.crash import IS_ALL, SEED, Driver, folder
from kit.faulty import FaultyVolume
from kit.ledger import Found, Ledger, read_spool
from posthof_pod.spool import Live, Stored, Verdict, Volume, adopt, layout
from posthof_pod.spool.protocol import find, run

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

FENCED = 3  # the exit status of a worker that found its latch shut


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with Driver() as made:
        yield made


@pytest.fixture
def path() -> Iterator[Path]:
    with folder() as made:
        yield made


def wait_until_stopped(pid: int) -> None:
    """A stop is delivered to each thread by itself: wait until none runs."""
    while True:
        states = []
        for thread in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{thread}/stat").read_text()
            states.append(text.rpartition(") ")[2][0])
        if set(states) == {"T"}:
            return


async def take_over(path: Path, dead: str, verdict: Verdict) -> dict[str, Found]:
    """A worker that is told that another one is dead takes its lanes: what it found."""
    liveness = spools.Lying({dead}, verdict)
    async with spools.killed(spools.settings(path), liveness=liveness) as harness:
        await harness.spool.adopt_now()
        assert "fenced_other" in harness.names()
        found = {}
        for live in harness.lives:
            stored = harness.spool.read(live.ref)
            if not isinstance(stored, Stored):
                stored = await stored
            assert isinstance(stored.body, bytes)
            waiting = frozenset(held.recipient for held in live.waiting)
            found[live.envelope.id] = Found(stored.trace + stored.body, waiting)
        return found


@pytest.mark.parametrize("verdict", [Verdict.PROVEN, Verdict.DEAD])
@pytest.mark.parametrize("turn", range(20 if IS_ALL else 5))
def test_a_zombie_promises_nothing_after_it_was_taken_for_dead(
    driver: Driver, path: Path, verdict: Verdict, turn: int
) -> None:
    chance = random.Random(f"{SEED} zombie {verdict} {turn}")
    pid = driver.send({"script": "endless", "path": str(path), "seed": f"zombie {turn}"})
    driver.listen("ack", chance.randrange(1, 25))
    os.kill(pid, signal.SIGSTOP)
    wait_until_stopped(pid)
    said = driver.hush()
    (zombie,) = os.listdir(path / "workers")
    found = asyncio.run(take_over(path, zombie, verdict))
    os.kill(pid, signal.SIGCONT)
    ended = driver.finish()
    assert ended.code == FENCED, ended
    assert ended.lines[-1] == ["fenced"]
    ledger = ended.ledger()
    assert ledger.complaints(found) == []
    assert len(ledger.acked) > 0
    begun = {line[1] for line in said if line[0] == "begin"}
    assert ledger.acked <= begun, "a message that came after the stop was promised"
    assert ledger.complaints(driver.replay(path, "after").found()) == []


def test_done_mail_stays_done_after_every_compaction_and_restart(driver: Driver, path: Path) -> None:
    ledger = Ledger()
    chance = random.Random(f"{SEED} rounds")
    for number in range(40 if IS_ALL else 12):
        is_clean = chance.random() < 0.5
        ended = driver.run("rounds", path, seed=f"round {number}", round=number, is_clean=is_clean)
        assert ended.code == 0, ended.errors
        ended.ledger(ledger)
        assert ledger.complaints(read_spool(Volume(path))) == [], number
    assert len(ledger.done) > 50
    assert len(ledger.acked - ledger.settled) >= 1


def one_segment(path: Path) -> Path:
    (segment,) = (path / "lanes").glob("*/*.seg")
    return segment


def test_a_flipped_bit_in_a_middle_record_costs_that_message_alone_and_is_told(driver: Driver, path: Path) -> None:
    messages = [(f"m{n}", 300) for n in range(5)]
    ledger = driver.run("chosen", path, messages=messages, settings={"segment_bytes": 100_000}).ledger()
    bad = sorted(ledger.acked)[2]
    segment = one_segment(path)
    data = bytearray(segment.read_bytes())
    at = data.index(ledger.contents[bad][-50:])
    data[at] ^= 4
    segment.write_bytes(data)
    ended = driver.replay(path)
    assert ended.events().count("damaged") == 1
    assert ended.found().keys() == ledger.acked - {bad}
    assert ledger.complaints(ended.found()) == [f"{bad} was acknowledged and is lost"]
    assert segment.exists(), "a segment with damage stays for people"


def test_a_body_that_contains_a_copied_record_makes_no_message(path: Path) -> None:
    async def main() -> None:
        async with spools.killed(spools.settings(path)) as harness:
            first = await harness.put(body=b"the first\r\n")
            harness.spool.settle(first.ref, spools.done())
            kept = await harness.put(body=b"kept\r\n")
            copied = one_segment(path).read_bytes()
            outer = await harness.put(body=copied * 3)
            last = await harness.put(body=b"last\r\n")
        async with spools.killed(spools.settings(path)) as after:
            await after.spool.adopt_now()
            assert await after.bodies() == {
                kept.envelope.id: b"kept\r\n",
                outer.envelope.id: copied * 3,
                last.envelope.id: b"last\r\n",
            }
            assert "damaged" not in after.names()

    asyncio.run(main())


def test_mail_of_a_first_slice_that_is_done_at_once_does_not_take_the_rest_with_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A take-over tells of a lane in slices. What is done before the last one was told makes the lane look empty."""
    monkeypatch.setattr(adopt, "SLICE", 4)

    async def main() -> None:
        config = spools.settings(path)
        async with spools.killed(config) as first:
            ids = [(await first.put()).envelope.id for _ in range(10)]
        async with spools.killed(config) as second:
            done: list[str] = []

            def on_live(lives: list[Live]) -> None:
                for live in lives:
                    if len(done) < 4:
                        done.append(live.envelope.id)
                        second.spool.settle(live.ref, spools.done())

            second.spool._core.callbacks.on_live = on_live
            await second.spool.adopt_now()
            for lane in list(second.spool._core.lanes.values()):
                await second.spool._core.settle_down(lane)
        async with spools.killed(config) as third:
            await third.spool.adopt_now()
            assert sorted(await third.bodies()) == sorted(set(ids) - set(done))

    asyncio.run(main())


def test_an_offer_that_cannot_be_taken_away_costs_the_lane_nothing(path: Path) -> None:
    """The offer is a hint: a take-over that fails to remove it has taken the lane all the same."""

    async def main() -> None:
        config = spools.settings(path)
        async with spools.running(config) as first:
            ids = [(await first.put()).envelope.id for _ in range(3)]
        volume = FaultyVolume(path)
        async with spools.killed(config, volume=volume) as second:
            volume.fail("unlink", part="offers/")
            await second.spool.adopt_now()
            assert sorted(await second.bodies()) == sorted(ids)
            for lane in list(second.spool._core.lanes.values()):
                second.spool._core.tidy(lane)
                await second.spool._core.settle_down(lane)
        async with spools.killed(config) as third:
            await third.spool.adopt_now()
            assert sorted(await third.bodies()) == sorted(ids)

    asyncio.run(main())


def test_three_claims_that_never_began_set_a_lane_aside(driver: Driver, path: Path) -> None:
    """A worker that dies while it reads a lane leaves a claim; the third in a row makes the fleet leave it alone."""
    driver.run("chosen", path, messages=[("only", 100)])
    (lane,) = os.listdir(path / "lanes")
    for number in (2, 3, 4):
        (path / "lanes" / lane / f"own.{number}").symlink_to(f"wdead{number}")
    ended = driver.replay(path)
    assert ended.found() == {}
    assert "poisoned" in ended.events()
    holding = run(Volume(path), find(lane))
    assert holding is not None
    assert holding.claim == 4, "nobody claimed it again"
    assert (path / layout.lane(lane) / "1-1.seg").exists()
