"""A real pod says how busy it is: in its report for the operator, and to KEDA without a key."""

from __future__ import annotations

from pathlib import Path

from kit.apiserver import ApiServer
from kit.pod import Pod


def test_a_pod_measures_itself_and_tells_the_operator_and_keda(tmp_path: Path) -> None:
    with ApiServer(tmp_path) as api, Pod(tmp_path, api) as pod:
        pod.start()
        pod.until(lambda: pod.get("/load")[0] == 503, "no load before there is a house")
        pod.configure(pod.config(workers=1))
        pod.until_ready()
        assert pod.report()["load"]["messages_most"] > 0

        def is_measured() -> bool:
            pod.send("b@ours.test")
            load = pod.report()["load"]
            return bool(load["drained_per_second"] and load["accept_seconds"] and load["cpu"])

        pod.until(is_measured, "a minute in numbers")
        load = pod.report()["load"]
        assert 0 < load["accept_seconds"] < 30
        assert 0 < load["cpu"] <= 1
        assert 0 <= load["sessions"] < 0.5
        pod.until(lambda: pod.report()["load"]["ready"] == 0, "nothing waits")
        status, told = pod.get("/load")
        assert status == 200
        assert told.keys() == {"backlogSeconds", "oldestSeconds", "sessions", "acceptSeconds", "cpu"}
        assert told["backlogSeconds"] == 0
        status, text = pod.get("/metrics")
        assert status == 200
        for name in ("posthof_accept_seconds_count", "posthof_queue_begun_total", "posthof_spool_messages_most"):
            assert name in str(text), name
