"""Limits hold for all workers together, at the receivers: of two pods, and of one machine. Real processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from bench.scale_out import Setting, run
from bench.slowsink import SlowSink
from kit import peers
from kit.pod import two_pods
from kit.posthof import Posthof, to_host

SMALL = Setting(
    messages=400, destinations=2, connections=4, sessions=4, lane=50, per_connection=10_000, is_shared_first=True
)


def test_a_backlog_is_shared_with_a_pod_that_comes_and_a_destination_sees_no_more_than_its_limit(tmp_path: Path):
    row = run(2, SMALL, tmp_path)
    assert row.most <= SMALL.connections
    assert row.lanes >= 1
    assert row.delivered_by["edge-1"] >= 25
    assert sum(row.delivered_by.values()) == SMALL.messages  # nothing twice


def test_pods_divide_the_limits_and_one_that_begins_again_has_its_part_at_once(tmp_path: Path):
    with two_pods(tmp_path) as pods:
        for pod in pods:
            pod.configure(pod.config(workers=1))
            pod.start()
        shares = [lambda pod=pod: _share(pod.get("/metrics")[1]) for pod in pods]
        peers.wait_for(lambda: [share() for share in shares] == [0.5, 0.5], "both have half of the limits")
        assert pods[1].program is not None
        pods[1].kill()
        pods[1].start()
        pods[1].until_ready()
        changes = [event["detail"] for event in pods[1].events("share_changed")]
        assert len(changes) == len(set(changes)), changes  # it did not begin with nothing again
        assert shares[1]() == 0.5


def _share(metrics: str) -> float:
    found = [line for line in str(metrics).splitlines() if line.startswith("posthof_limits_share")]
    return float(found[0].split()[-1]) if found else -1.0


def test_the_workers_of_one_machine_divide_the_limits_also_when_one_dies(tmp_path: Path):
    port = peers.free_port()
    limits = {"connections": 4, "connectionsStart": 4, "messagesPerConnection": 10_000}
    with SlowSink(0.02, [port]) as sink:
        house = Posthof(tmp_path, [to_host("out", "127.0.0.1", port, limits=limits)], mta={"workers": 2})
        house.start()
        try:
            sink.open()
            for n in range(40):
                house.send("a@client.test", f"b{n}@far.test", b"Subject: x\r\n\r\nx\r\n")
            os.kill(house.workers()[0], signal.SIGKILL)
            for n in range(40):
                house.send("a@client.test", f"c{n}@far.test", b"Subject: x\r\n\r\nx\r\n")
            peers.wait_for(lambda: sink.state()["messages"] >= 80, "all mail at the receiver", timeout=60)
            assert sink.state()["most"][str(port)] <= 4
            assert _share(house.get("/metrics")[1].decode()) == 1.0
        finally:
            house.stop()
