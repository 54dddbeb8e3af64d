"""How busy a house says it is: rates of the last minute, shares of what it may use; nothing pods would not help."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from posthof_crds.report import Load
from posthof_pod.admin.load import LEAST, UNLIMITED, Meter, allowance, cpu_seconds, for_keda, messages_most
from posthof_pod.observe.events import ACCEPTS
from posthof_pod.observe.metrics import Histogram

QUEUE = {"posthof_queue_free_messages": 600, "posthof_queue_oldest_free_seconds": 40.0}


def test_a_house_that_was_never_measured_says_only_what_it_has_now() -> None:
    load = Meter().load({**QUEUE, "posthof_spool_messages": 7, "posthof_spool_messages_most": 9}, 2.0)
    assert load == Load(ready=600, oldest_seconds=40.0, backlog_seconds=40.0, messages=7, messages_most=9)


def test_rates_are_of_the_last_minute() -> None:
    meter = Meter()
    for second in range(0, 200, 5):
        begun = 0 if second < 100 else (second - 100) * 20
        meter.note(float(second), {"posthof_queue_begun_total": begun}, {1: second * 0.5})
    load = meter.load(QUEUE, 1.0)
    assert load.drained_per_second == 20.0
    assert load.backlog_seconds == 30.0
    assert load.cpu == 0.5


def test_a_worker_that_ended_or_began_does_not_upset_the_share_of_the_cpu() -> None:
    meter = Meter()
    meter.note(0.0, {}, {1: 5000.0, 2: 10.0})
    meter.note(10.0, {}, {2: 14.0, 3: 6.0})
    assert meter.load({}, 2.0).cpu == 0.5
    assert meter.load({}, 0.5).cpu == 1.0


def test_the_accept_time_is_that_of_99_of_100_messages_of_the_last_minute() -> None:
    meter, accepts = Meter(), Histogram("posthof_accept_seconds", ACCEPTS)
    accepts.observe(20.0, 1000)
    meter.note(0.0, accepts.stats(), {})
    assert meter.load({}, 1.0).accept_seconds == 0.0
    accepts.observe(0.02, 990)
    accepts.observe(3.0, 10)
    meter.note(30.0, accepts.stats(), {})
    assert meter.load({}, 1.0).accept_seconds == 0.025
    accepts.observe(3.0, 10)
    meter.note(60.0, accepts.stats(), {})
    assert meter.load({}, 1.0).accept_seconds == 5.0


def test_keda_is_told_of_nothing_that_passes_by_itself_or_that_pods_would_not_mend() -> None:
    young = Load(ready=500, oldest_seconds=4.0, backlog_seconds=90.0, accept_seconds=3.0, cpu=0.1, sessions=0.2)
    assert for_keda(young) == {
        "backlogSeconds": 0.0,
        "oldestSeconds": 0.0,
        "sessions": 0.2,
        "acceptSeconds": 0.0,
        "cpu": 0.1,
    }
    late = Load(ready=500, oldest_seconds=400.0, backlog_seconds=90.0, accept_seconds=3.0, cpu=0.6)
    assert for_keda(late) | {"sessions": 0.0} == {
        "backlogSeconds": 90.0,
        "oldestSeconds": 90.0,
        "sessions": 0.0,
        "acceptSeconds": 3.0,
        "cpu": 0.6,
    }


@pytest.mark.parametrize(
    ("files", "workers", "cpus"),
    [
        ({}, 2, 2.0),
        ({"cpu.max": "50000 100000"}, 2, 0.5),
        ({"cpu.max": "max 100000"}, 1, 1.0),
        ({"cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "100000"}, 4, 0.25),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 1, 1.0),
    ],
)
def test_a_house_may_use_its_limit_and_one_cpu_for_each_worker(
    tmp_path: Path, files: dict[str, str], workers: int, cpus: float
) -> None:
    write(tmp_path, files)
    assert allowance(workers, tmp_path) == min(cpus, float(len(os.sched_getaffinity(0))))


@pytest.mark.parametrize(
    ("files", "workers", "most"),
    [
        ({}, 4, UNLIMITED),
        ({"memory.max": "max"}, 1, UNLIMITED),
        ({"memory.max": str(600 * 1024**2)}, 1, 1_048_576),
        ({"memory.max": str(1130 * 1024**2)}, 2, 1_048_576),
        ({"memory.max": str(128 * 1024**2)}, 1, LEAST),
        ({"memory/memory.limit_in_bytes": str(600 * 1024**2)}, 1, 1_048_576),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, 1, UNLIMITED),
    ],
)
def test_a_worker_takes_over_what_fits_into_its_memory(
    tmp_path: Path, files: dict[str, str], workers: int, most: int
) -> None:
    write(tmp_path, files)
    assert messages_most(workers, cgroup=tmp_path) == most
    assert messages_most(workers, 1 << 30, tmp_path) <= most


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text + "\n")


def test_cpu_is_counted_for_processes_that_are_there() -> None:
    before = cpu_seconds([os.getpid()])[os.getpid()]
    while cpu_seconds([os.getpid()])[os.getpid()] <= before:
        sum(range(10_000))
    assert cpu_seconds([2**30]) == {}
