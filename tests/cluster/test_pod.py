"""`posthof pod` as a real process: it waits, begins, follows, survives without the API server, settles at the end."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kit.apiserver import ApiServer
from kit.pod import KEY, Pod, replaced
from posthof_crds import shards
from posthof_crds.engine import EngineConfig, RecipientCheck, content_hash


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(tmp_path) as api:
        yield api


@pytest.fixture
def pod(tmp_path: Path, api: ApiServer) -> Iterator[Pod]:
    with Pod(tmp_path, api) as pod:
        yield pod


def test_a_pod_without_a_configuration_is_alive_says_what_it_waits_for_and_begins_when_it_comes(pod: Pod) -> None:
    pod.start()
    pod.until(lambda: "does not exist" in str(pod.get("/readyz")[1]), "the reason")
    assert pod.get("/readyz")[0] == 503
    assert pod.get("/healthz")[0] == 200
    assert pod.get("/metrics")[0] == 503
    assert "edge-config-0" in pod.report()["refused"][0]
    revision = pod.configure(pod.config())
    pod.until_ready()
    pod.send("b@ours.test")
    pod.until(lambda: pod.mails() == 1, "the mail")
    told = pod.report()
    assert (told["pod"], told["node"], told["workers"]) == ("edge-a", "node-a", 2)
    assert told["revision"] == told["desired"] == revision
    assert told["spool"]["healthy"]
    assert told["clients"] == {"total": 0, "private": 0, "addresses": []}  # they came to a listener of role Internal
    assert told["spool"]["free_bytes"] > 0
    pod.signal()
    assert pod.wait() == 0


def test_reports_need_the_key_which_is_read_anew(pod: Pod) -> None:
    pod.configure(pod.config(workers=1))
    pod.start()
    pod.until_ready()
    assert pod.get("/report")[0] == 401
    assert pod.get("/report", KEY + "x")[0] == 401
    assert pod.get("/report", KEY)[0] == 200
    (pod.mounts / "report" / "token").write_text("another-key\n")
    assert pod.get("/report", KEY)[0] == 401
    assert pod.get("/report", "another-key")[0] == 200
    (pod.mounts / "report" / "token").unlink()
    assert pod.get("/report", "")[0] == 401
    assert pod.get("/api/v1/queue")[0] == 404
    assert "posthof_uptime_seconds" in pod.get("/metrics")[1]


def test_a_change_is_in_force_within_two_seconds_and_nobody_is_disconnected(pod: Pod) -> None:
    pod.configure(pod.config())
    pod.start()
    pod.until_ready()
    with pod.session() as session:
        assert session.docmd("MAIL", "FROM:<a@client.test>")[0] == 250
        assert session.docmd("RCPT", "TO:<b@new.test>")[0] == 550
        revision = pod.configure(pod.config(domains=("ours.test", "new.test")))
        assert pod.until_running(revision) < 2.0
        session.docmd("RSET")
        session.docmd("MAIL", "FROM:<a@client.test>")
        assert session.docmd("RCPT", "TO:<b@new.test>")[0] == 250
    revision = pod.configure(pod.config(domains=("new.test",)))
    pod.until_running(revision)
    with pod.session() as session:
        session.docmd("MAIL", "FROM:<a@client.test>")
        assert session.docmd("RCPT", "TO:<b@ours.test>")[0] == 550


def test_what_cannot_be_read_is_refused_with_its_reason_and_the_old_one_stays(pod: Pod, api: ApiServer) -> None:
    revision = pod.configure(pod.config())
    pod.start()
    pod.until_ready()
    api.put("configmaps", "edge-config-0", {"config": b"nonsense"})
    pod.until(lambda: "cannot be" in str(pod.report().get("refused")), "the refusal")
    assert pod.report()["revision"] == revision
    pod.send("b@ours.test")
    again = pod.configure(pod.config(domains=("new.test",)))
    pod.until_running(again)
    assert not pod.report().get("refused")


def test_without_the_api_server_a_pod_starts_from_its_mounts_and_follows_again_when_it_is_back(
    pod: Pod, api: ApiServer
) -> None:
    api.away()
    revision = pod.mount(pod.config(), stamp=100.0)
    pod.start()
    pod.until_ready()
    assert pod.report()["revision"] == revision
    assert "cluster_away" in {event["event"] for event in pod.events()}
    pod.send("b@ours.test")
    newer = pod.mount(pod.config(domains=("ours.test", "mounted.test")), stamp=200.0)
    pod.until_running(newer)
    api.back()
    newest = pod.configure(pod.config(domains=("ours.test", "live.test")), stamp=300.0)
    pod.until_running(newest)
    pod.until(lambda: "cluster_back" in {event["event"] for event in pod.events()}, "the word")


def test_a_pod_never_goes_back_to_an_older_configuration(pod: Pod, api: ApiServer) -> None:
    pod.mount(pod.config(), stamp=100.0)
    newer = pod.configure(pod.config(domains=("ours.test", "new.test")), stamp=200.0)
    pod.start()
    pod.until_ready()
    assert pod.report()["revision"] == newer
    api.away()
    pod.mount(pod.config(domains=("other.test",)), stamp=150.0)
    time.sleep(5)  # two looks at the mounts: what must not happen has no condition to wait for
    assert pod.report()["revision"] == newer
    api.back()
    pod.configure(pod.config(), stamp=120.0)
    pod.until(lambda: "restored" in str(pod.report().get("refused")), "the complaint")
    assert pod.report()["revision"] == newer


def test_a_new_token_and_a_new_ca_are_taken_up(pod: Pod, api: ApiServer) -> None:
    pod.configure(pod.config())
    pod.start()
    pod.until_ready()
    api.away()
    api.renew()
    api.back()
    revision = pod.configure(pod.config(domains=("renewed.test",)))
    pod.until_running(revision)


def test_a_stop_is_not_ready_at_once_serves_on_while_it_settles_and_then_ends(pod: Pod) -> None:
    pod.configure(pod.config(drain_settle=3.0))
    pod.start()
    pod.until_ready()
    begun = time.monotonic()
    pod.signal()
    pod.until(lambda: pod.get("/readyz")[0] == 503, "not ready")
    assert time.monotonic() - begun < 2.0
    assert pod.report()["draining"]
    pod.send("b@ours.test")
    with pod.session() as session:
        assert pod.wait() == 0
        assert session.noop()[0] == 421
    assert time.monotonic() - begun >= 3.0
    assert pod.mails() == 1


def test_a_second_signal_does_not_wait(pod: Pod) -> None:
    pod.configure(pod.config(drain_settle=300.0))
    pod.start()
    pod.until_ready()
    pod.signal()
    pod.until(lambda: pod.get("/readyz")[0] == 503, "not ready")
    pod.signal()
    assert pod.wait(30) in (0, 1)


def test_a_stop_before_there_is_a_configuration_is_quick(pod: Pod) -> None:
    pod.start()
    pod.until(lambda: pod.get("/healthz")[0] == 200, "alive")
    pod.signal(signal.SIGTERM)
    assert pod.wait(20) == 0


def test_what_cannot_begin_is_tried_again(pod: Pod) -> None:
    config = pod.config()
    blocked = pod.folder / "file"
    blocked.write_text("")
    pod.configure(replaced(config, mail_root=str(blocked / "mail")))
    pod.start()
    pod.until(lambda: "file" in str(pod.get("/readyz")[1]), "the reason")
    pod.configure(config)
    pod.until_ready()


def test_shards_of_two_revisions_are_never_mixed(pod: Pod, api: ApiServer) -> None:
    def large(*domains: str) -> EngineConfig:
        """One that needs several shards: random names do not compress."""
        config = pod.config(domains=domains)
        listed = frozenset(secrets.token_hex(20) for _ in range(45_000))
        one = msgspec.structs.replace(config.domains["ours.test"], check=RecipientCheck.LIST, recipients=listed)
        return replaced(config, domains={**config.domains, "ours.test": one})

    first = pod.configure(large("ours.test"))
    pod.start()
    pod.until_ready()
    assert pod.report()["revision"] == first
    second = large("ours.test", "new.test")
    parts = shards.config_shards(second)
    assert len(parts) > 1
    api.put("configmaps", "edge-config-0", {"config": pod.stamped(parts[0])})
    pod.until(lambda: api.requests.count("get configmaps/edge-config-1") > 4, "the other shards asked for")
    assert pod.report()["revision"] == first
    for n, part in enumerate(parts[1:], 1):
        api.put("configmaps", f"edge-config-{n}", {"config": pod.stamped(part)})
    pod.until_running(content_hash(second))
    small = pod.configure(pod.config())  # the second shard stays where it is and does not matter
    pod.until_running(small)


def test_what_the_role_forbids_is_said(pod: Pod, api: ApiServer) -> None:
    api.denied.add("configmaps/edge-config-0")
    pod.start()
    pod.until(lambda: "is forbidden" in str(pod.get("/readyz")[1]), "the reason")
    api.denied.clear()
    pod.configure(pod.config(workers=1))
    pod.until_ready()


def test_a_change_that_needs_another_start_is_not_called_in_force(pod: Pod) -> None:
    config = pod.config()
    pod.configure(config)
    pod.start()
    pod.until_ready()
    size = msgspec.structs.replace(config.spool, max_usage=0.5)
    desired = pod.configure(replaced(config, spool=size, domains={}))
    pod.until(lambda: pod.report()["desired"] == desired, "it is known")
    assert pod.report()["revision"] not in (desired, content_hash(config))
    assert "spool" in str(pod.report()["refused"])
