"""Workers on two JuiceFS mounts of one volume, one fault after the other under load: nothing promised is lost.

`make chaos MINUTES=n` does the same for longer; docs/reliability.md tells of runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from kit import juicefs
from kit.chaos import FAULTS, Fleet, verdict

SEED = int(os.environ.get("POSTHOF_CHAOS_SEED", "1"))

pytestmark = [pytest.mark.interop, pytest.mark.crash, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    juicefs.require()
    with juicefs.shared() as shared, Fleet(shared, seed=SEED) as made:
        yield made


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_nothing_is_lost_when(fleet: Fleet, fault: object) -> None:
    row = fleet.round(fault)  # type: ignore[arg-type]  # one of FAULTS
    assert row.accepted > 0
    assert not verdict([row])


def test_what_was_delivered_is_gone_from_the_volume(fleet: Fleet) -> None:
    fleet.end()
    assert fleet.counts.totals()[1] > 0
