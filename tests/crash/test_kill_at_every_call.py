"""Real workers, ended or failed at the N-th call of each kind: what they promised is there for the next one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kit.crash import (
    TRACED,
    Driver,
    Ended,
    copy,
    count_calls,
    folder,
    require_tracer,
    sample,
    told,
    traced,
)

pytestmark = [pytest.mark.crash, pytest.mark.timeout(0 if os.environ.get("POSTHOF_CRASH") == "all" else 600)]

# Transition -> what the folder is before it.
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
WRITING = {
    "openat",
    "pwritev2",
    "pwritev",
    "pwrite64",
    "mkdir",
    "mkdirat",
    "symlink",
    "symlinkat",
    "fdatasync",
    "fsync",
}
KILLS, ERRORS = 330, 340  # points a sample walks
NEVER = {"damaged", "unreadable", "take_over_failed", "upkeep_failed", "not_removed", "poisoned"}  # at a replay


@dataclass
class Bench:
    """The driver, the folders transitions begin with, and how many calls each makes."""

    driver: Driver
    root: Path
    before: dict[str, list[list[Any]]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    runs: int = 0

    def prepare(self) -> None:
        for name in sorted({base for base in TRANSITIONS.values() if base}):
            ended = self.driver.run(name, self._made(f"base-{name}"))
            assert ended.code == 0, ended.errors
            self.before[name] = ended.lines
        for name in TRANSITIONS:
            self.counts[name] = count_calls(self.driver, name, self.fresh(name), self.root / "trace")

    def _made(self, name: str) -> Path:
        path = self.root / name
        path.mkdir()
        return path

    def fresh(self, transition: str) -> Path:
        """A folder in which the transition can begin."""
        self.runs += 1
        path = self._made(f"run-{self.runs}")
        base = TRANSITIONS[transition]
        if base is not None:
            copy(self.root / f"base-{base}", path)
        return path

    def points(self, calls: set[str] | None = None) -> list[tuple[str, int, str]]:
        """Call, N, transition."""
        return sorted(
            (call, n, transition)
            for transition, counts in self.counts.items()
            for call, count in counts.items()
            if calls is None or call in calls
            for n in range(1, count + 1)
        )

    def inject(self, what: str, point: tuple[str, int, str]) -> tuple[Ended, list[str]]:
        """Run one transition with one fault; what is wrong afterwards."""
        call, n, transition = point
        path = self.fresh(transition)
        with traced(self.driver, "-o", "/dev/null", "-e", f"trace={TRACED}", "-e", f"inject={call}:{what}:when={n}"):
            ended = self.driver.run(transition, path, is_failing=True)
        base = TRANSITIONS[transition]
        ledger = ended.ledger(told(self.before[base]) if base else None)
        wrong = []
        for seed in ("first", "second"):
            found = self.driver.replay(path, seed)
            wrong += [f"{seed} replay: {one}" for one in ledger.complaints(found.found())]
            wrong += [f"{seed} replay: {line}" for line in found.lines if line[0] == "unreadable"]
            bad = NEVER - {"damaged"} if transition == "aside" else NEVER
            wrong += [f"{seed} replay: {line}" for line in found.lines if line[0] == "event" and line[1] in bad]
        return ended, wrong


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Driver() as driver, folder() as root:
        require_tracer(driver)
        made = Bench(driver, root)
        made.prepare()
        yield made


def test_every_transition_makes_the_calls_it_is_walked_by(bench: Bench) -> None:
    for transition, counts in bench.counts.items():
        assert counts.get("fdatasync", 0) >= 1, transition
        assert counts.get("fsync", 0) >= 3, transition
    everywhere = {call for counts in bench.counts.values() for call in counts}
    assert any(call.startswith("pwritev") for call in everywhere)
    assert any(call.startswith("rename") for call in everywhere)
    assert any(call.startswith("unlink") for call in everywhere)


def test_a_worker_killed_at_any_call_loses_nothing_it_promised(bench: Bench) -> None:
    killed = 0
    for point in sample(bench.points(), KILLS, "kill"):
        ended, wrong = bench.inject("signal=KILL", point)
        assert ended.code in (0, -signal.SIGKILL), (point, ended)
        killed += ended.code == -signal.SIGKILL
        assert not wrong, (point, wrong)
    assert killed > 10


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_call_that_fails_costs_no_promise(bench: Bench, error: str) -> None:
    points = bench.points(WRITING if error == "ENOSPC" else None)
    for point in sample(points, ERRORS // 2, error):
        ended, wrong = bench.inject(f"error={error}", point)
        assert ended.code == 0, (point, ended)
        assert not wrong, (point, wrong, ended.lines)
