"""The power goes between any two calls: whatever a disk may legally hold then, every promise is kept.

A real worker writes down its calls; each legal state after each of them is built in memory and read by the project's
own replay, and a sample by a real start in a real folder.
"""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kit.crash import IS_ALL, SEED, Driver, copy, folder, told
from kit.disk import Entry, MemoryDisk, Recording, read_in
from kit.ledger import Found, Ledger, read_spool
from posthof_pod.spool.check import check

pytestmark = [pytest.mark.crash, pytest.mark.timeout(0 if os.environ.get("POSTHOF_CRASH") == "all" else 600)]

TRANSITIONS = {
    "accept": None,
    "settle": None,
    "blob": None,
    "roll": None,
    "compaction": None,
    "remove_lane": None,
    "reserve": None,
    "release": None,
    "stop": None,
    "stop_empty": None,
    "take_over": "left",
    "take_freed": "left_free",
    "stop_again": "left",
    "aside": "left_bad",
}
STARTS = 12  # real starts of each transition in a sample; ten times as many where all is walked
AGAIN = 4  # of these, how many lose power once more while they repair; likewise


class Recorded(NamedTuple):
    """A run, and the folder it began with."""

    before: MemoryDisk
    log: list[Entry]
    ledger: Ledger  # of what was before


class Bench:
    """Records runs."""

    def __init__(self, driver: Driver, root: Path) -> None:
        self.driver = driver
        self.root = root
        self._count = 0
        self._bases: dict[str, tuple[Path, list[list[Any]]]] = {}

    def fresh(self) -> Path:
        self._count += 1
        path = self.root / f"run-{self._count}"
        path.mkdir()
        return path

    def record(self, transition: str, base: str | None, **more: object) -> Recorded:
        path = self.fresh()
        ledger = Ledger()
        if base is not None:
            if base not in self._bases:
                made = self.fresh()
                self._bases[base] = (made, self.driver.run(base, made).lines)
            source, before = self._bases[base]
            copy(source, path)
            ledger = told(before)
        return self.record_in(path, transition, ledger, **more)

    def record_in(self, path: Path, transition: str, ledger: Ledger, **more: object) -> Recorded:
        """Run a transition in a folder that has seen what the ledger tells."""
        ledger.end()
        disk = read_in(path)
        log = path.with_suffix(".log")
        ended = self.driver.run(transition, path, record=str(log), **more)
        assert ended.code == 0, ended.errors
        return Recorded(disk, _tight(pickle.loads(log.read_bytes())), ledger)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Driver() as driver, folder() as root:
        yield Bench(driver, root)


def _tight(log: list[Entry]) -> list[Entry]:
    """Promises moved back to the look that allowed them: between it and the mark the worker only tidied up."""
    tight: list[Entry] = []
    look = 0
    for entry in log:
        if entry[:2] in (("mark", "ack"), ("mark", "synced")) and look:
            begun = max((at for at, one in enumerate(tight) if one[:1] == ("mark",)), default=-1)
            look = max(look, begun + 1)
            tight.insert(look, entry)
            look += 1
        else:
            tight.append(entry)
            if entry[0] == "look":
                look = len(tight)
    return tight


class Walk:
    """All legal states of one run, read and compared."""

    def __init__(self, run: Recorded, name: str) -> None:
        self.run = run
        self.name = name
        self.states = 0
        self.kept: list[tuple[MemoryDisk, Ledger]] = []  # for real starts
        self._wanted = STARTS * 10 if IS_ALL else STARTS
        self._read: dict[int, dict[str, Found]] = {}
        self._chance = random.Random(f"{SEED} {name}")

    def complaints(self) -> Iterator[str]:
        recording = Recording(self.run.before, self.run.log, seed=SEED)
        ledger = _copy(self.run.ledger)
        for at, entry in recording.points():
            if entry[0] == "mark":
                ledger.add(*entry[1:])
            for disk in recording.states():
                self.states += 1
                mark = disk.fingerprint()
                if mark not in self._read:
                    self._read[mark] = read_spool(disk)
                for wrong in ledger.complaints(self._read[mark]):
                    yield f"{self.name} after call {at} {entry[:2]}: {wrong}"
                self._keep(disk, ledger)

    def _keep(self, disk: MemoryDisk, ledger: Ledger) -> None:
        """Each state has the same chance to be started for real."""
        if len(self.kept) < self._wanted:
            self.kept.append((disk, _copy(ledger)))
        elif (place := self._chance.randrange(self.states)) < self._wanted:
            self.kept[place] = (disk, _copy(ledger))


def _copy(ledger: Ledger) -> Ledger:
    copied: Ledger = pickle.loads(pickle.dumps(ledger))
    return copied


@pytest.mark.parametrize("transition", TRANSITIONS)
def test_whatever_a_loss_of_power_leaves_every_promise_is_kept(bench: Bench, transition: str) -> None:
    walk = Walk(bench.record(transition, TRANSITIONS[transition]), transition)
    assert next(walk.complaints(), None) is None
    assert walk.states > 100
    assert transition != "aside" or any(call[0] == "rename" and "damaged/" in call[2] for call in walk.run.log)
    for disk, ledger in walk.kept:
        path = bench.fresh()
        disk.write_out(path)
        if {"workers", "lanes"} <= set(disk.listdir("")):
            check(disk)  # the offline tool reads what a start reads
        for seed in ("first", "second"):
            found = bench.driver.replay(path, seed)
            assert not ledger.complaints(found.found()), (transition, path)
            assert "unreadable" not in found.events()
            assert "take_over_failed" not in found.events()


@pytest.mark.parametrize("transition", ["settle", "compaction", "blob", "stop"])
def test_power_that_goes_again_during_the_repair_costs_nothing_either(bench: Bench, transition: str) -> None:
    first = Walk(bench.record(transition, None), f"{transition}, then again")
    assert next(first.complaints(), None) is None
    for at, (disk, ledger) in enumerate(first.kept[: AGAIN * 10 if IS_ALL else AGAIN]):
        path = bench.fresh()
        disk.write_out(path)
        again = bench.record_in(path, "stop_again", ledger, seed=f"again {at}")
        assert next(Walk(again, f"{transition}, then again {at}").complaints(), None) is None


@pytest.mark.parametrize("transition", ["accept", "settle", "compaction", "blob"])
def test_with_sync_switched_off_the_harness_finds_the_loss(bench: Bench, transition: str) -> None:
    walk = Walk(bench.record(transition, None, settings={"sync": False}), transition)
    assert any("acknowledged and is lost" in wrong for wrong in walk.complaints())


@pytest.mark.parametrize("forgets", ["fdatasync", "fsync_dir"])
@pytest.mark.parametrize("transition", ["accept", "blob", "take_over"])
def test_with_one_kind_of_sync_left_out_the_harness_finds_the_loss(
    bench: Bench, transition: str, forgets: str
) -> None:
    walk = Walk(bench.record(transition, TRANSITIONS[transition], forgets=forgets), transition)
    assert next(walk.complaints(), None) is not None


@pytest.mark.parametrize("failing", range(2, 9))
def test_an_fsync_that_fails_once_and_then_succeeds_is_not_believed(bench: Bench, failing: int) -> None:
    run = bench.record("settle", None, fail_sync=failing)
    assert any(entry[0] == "drop" for entry in run.log)
    walk = Walk(run, f"settle, failing sync {failing}")
    assert next(walk.complaints(), None) is None
