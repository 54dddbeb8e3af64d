"""Workers with a mate: either of the two ended or failed at the N-th write or sync. Nothing promised is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.crash import TRACED, Driver, folder, require_tracer, sample, traced

pytestmark = [pytest.mark.crash, pytest.mark.timeout(0 if os.environ.get("POSTHOF_CRASH") == "all" else 600)]

SCRIPTS = ("accept", "settle", "roll", "blob")
FAULTS = ("signal=KILL", "error=EIO", "error=ENOSPC")
MOST = 6  # calls of one sort that any thread of these scripts makes
POINTS = 60  # a sample walks


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with Driver() as made:
        require_tracer(made)
        yield made


def test_an_end_or_an_error_at_any_write_or_sync_costs_no_promise(driver: Driver) -> None:
    points = [
        (script, call, fault, n)
        for script in SCRIPTS
        for call in ("fdatasync", "pwritev2")
        for fault in FAULTS
        for n in range(1, MOST + 1)
        if not (call == "fdatasync" and fault.endswith("ENOSPC"))
    ]
    hurt = 0
    with folder() as root:
        for run, (script, call, fault, n) in enumerate(sample(points, POINTS, "mate")):
            path = Path(root) / str(run)
            path.mkdir()
            rule = f"inject={call}:{fault}:when={n}"
            with traced(driver, "-o", "/dev/null", "-e", f"trace={TRACED}", "-e", rule):
                ended = driver.run(script, path, is_failing=True, has_mate=True)
            assert ended.code in (0, -signal.SIGKILL), (script, rule, ended)
            hurt += ended.code != 0 or "mate_lost" in ended.events() or "segment_given_up" in ended.events()
            ledger = ended.ledger()
            for seed in ("first", "second"):
                found = driver.replay(path, seed)
                wrong = ledger.complaints(found.found())
                assert not wrong, (script, rule, wrong, ended.lines)
    assert hurt > 10
