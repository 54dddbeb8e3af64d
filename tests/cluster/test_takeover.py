"""What pods with Leases take from each other, and how fast: real processes, one volume, one set of Leases.

Times are bounded here at several times what the issue asks for; a run prints what they were.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import smtplib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.pod import Pod, descendants, two_pods
from posthof_crds.engine import Action, ActionKind, Match, Rule
from posthof_pod.members import ENDED, WORKERS

FAR = Match(clients=("127.0.0.0/8",), recipients=("*@far.test",))
HOLD = Rule(name="hold", priority=0, match=FAR, action=Action(kind=ActionKind.HOLD))
MAILS = 12


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[list[Pod]]:
    with two_pods(tmp_path) as pods:
        for pod, workers in zip(pods, (2, 1), strict=True):
            pod.configure(pod.config(rules=(HOLD,), workers=workers))
            pod.start()
        for pod in pods:
            pod.until_ready()
        yield pods


def fill(pods: list[Pod]) -> None:
    for n in range(MAILS):
        pods[n % 2].send(f"u{n}@far.test")
    assert sum(map(held, pods)) == MAILS


def held(pod: Pod) -> int:
    return int(pod.report().get("queue", {}).get("held", 0))


def leases(pod: Pod) -> dict[str, dict[str, list[str]]]:
    """Pod -> which workers its Lease names, and which ended."""
    assert pod.api is not None
    return {
        name: {key: json.loads(raw["metadata"]["annotations"].get(key, "[]")) for key in (WORKERS, ENDED)}
        for name, raw in dict(pod.api.leases).items()
    }


def freeze(pod: Pod) -> list[int]:
    """Every process of a pod, as a node that stands still does."""
    assert pod.program is not None
    found = [pod.program.pid, *descendants(pod.program.pid)]
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    return found


def test_a_frozen_pod_s_mail_goes_on_elsewhere_and_awake_it_promises_nothing_and_says_what_happened(
    pods: list[Pod], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = pods
    fill(pods)
    first.until(lambda: all(leases(first).get(one.name, {}).get(WORKERS) for one in pods), "both Leases")
    session = smtplib.SMTP("127.0.0.1", first.smtp, local_hostname="client.test", timeout=60)
    session.ehlo()
    session.docmd("MAIL", "FROM:<a@client.test>")
    session.docmd("RCPT", "TO:<b@ours.test>")
    assert session.docmd("DATA")[0] == 354
    frozen, begun = freeze(first), time.monotonic()
    second.until(lambda: held(second) == MAILS, "the other's mail")
    took = time.monotonic() - begun
    (told,) = second.until(lambda: second.report()["take_overs"], "the report")[-1:]
    assert told["pod"] == first.name
    assert not told.get("freed")
    assert took < 250

    for pid in reversed(frozen):
        os.kill(pid, signal.SIGCONT)
    session.send(b"Subject: late\r\n\r\nlate\r\n.\r\n")
    try:
        code = session.getreply()[0]
    except smtplib.SMTPServerDisconnected:
        code = 421
    assert code != 250, "a promise of a worker that was fenced"
    first.until(lambda: first.events("spool_fenced"), "the word of the fenced workers")
    first.until(lambda: first.events("slept"), "the word of the supervisor")
    first.until_ready()
    first.send("b@ours.test")
    first.until(lambda: first.mails() == 1, "mail goes on there")
    assert sum(map(held, pods)) == MAILS
    with capsys.disabled():
        print(f"\n  a frozen pod's mail was its peer's after {took:.1f} s (within 25 s)")


def test_a_container_that_starts_again_has_its_mail_at_once_and_a_reaped_worker_s_is_anybody_s(
    pods: list[Pod], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = pods
    fill(pods)
    first.kill()
    first.start()
    first.until_ready()
    begun = time.monotonic()
    first.until(lambda: sum(map(held, pods)) == MAILS, "its own mail", timeout=18.0)  # long before any Lease is old
    again = time.monotonic() - begun

    fill_before = {one: set(leases(second)[one.name][WORKERS]) for one in pods}
    victim = next(pid for pid in descendants(second.program.pid) if "worker" in command(pid))  # type: ignore[union-attr]  # it runs
    os.kill(victim, signal.SIGKILL)
    begun = time.monotonic()
    second.until(lambda: leases(second)[second.name][ENDED], "the proof", timeout=18.0)
    second.until(lambda: sum(map(held, pods)) == MAILS, "the reaped worker's mail", timeout=18.0)
    reaped = time.monotonic() - begun
    (ended,) = leases(second)[second.name][ENDED]
    assert ended in fill_before[second]

    os.kill(second.program.pid, signal.SIGTERM)  # type: ignore[union-attr]  # it runs
    assert second.wait() == 0
    assert second.name not in leases(first), "a pod that drained takes its Lease with it"
    begun = time.monotonic()
    first.until(lambda: held(first) == MAILS, "what it freed", timeout=18.0)
    freed = time.monotonic() - begun
    with capsys.disabled():
        print(f"\n  after a restart {again:.1f} s, reaped {reaped:.1f} s, freed {freed:.1f} s (within 2 s each)")


def test_with_the_api_server_away_what_a_pod_frees_is_taken_all_the_same(pods: list[Pod]) -> None:
    first, second = pods
    fill(pods)
    for pod in pods:
        assert pod.api is not None
        pod.api.away()
    assert second.program is not None
    os.kill(second.program.pid, signal.SIGTERM)
    assert second.wait() == 0
    first.until(lambda: held(first) == MAILS, "what it freed", timeout=18.0)
    first.send("b@ours.test")
    first.until(lambda: first.mails() == 1, "mail goes on")
    first.until(lambda: first.events("lease_lost"), "the word that nobody is judged now")


def test_a_restored_snapshot_starts_and_says_how_many_messages_may_repeat(tmp_path: Path) -> None:
    copy = tmp_path / "restored"
    with Pod(tmp_path) as first:
        first.mount(first.config(rules=(HOLD,), workers=1))
        first.start()
        first.until_ready()
        for n in range(MAILS):
            first.send(f"u{n}@far.test")
        shutil.copytree(first.volume, copy, symlinks=True)
        told = first.run("spool", "check", str(copy / "spool"))
    assert told.returncode == 0, told.stdout
    assert f"any of the {MAILS} messages may have been sent since it was taken" in told.stdout
    with Pod(tmp_path, name="edge-r", spool=copy) as restored:
        restored.mount(restored.config(rules=(HOLD,), workers=1))
        restored.start()
        restored.until_ready()
        restored.until(lambda: held(restored) == MAILS, "all of its mail")
        restored.until(lambda: restored.events("taken_over"), "the words")
        words = [one["detail"] for one in restored.events("taken_over")]
        counted = sum(one["count"] for one in restored.events("taken_over"))
        assert counted == MAILS
        assert all("restored snapshot" in one for one in words)


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
