"""Several pods on one spool and one kernel: process ids repeat, identities do not, and a dead pod's mail goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import peers
from kit.pod import Pod, two_pods
from posthof_crds.engine import Action, ActionKind, Match, Rule

# As containers have it: each supervisor is process 1 of a namespace of its own, and worker ids repeat.
NAMESPACE = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
NAMESPACE += ["--pid", "--fork", "--kill-child", "--mount-proc"]
FAR = Match(clients=("127.0.0.0/8",), recipients=("*@far.test",))
HOLD = Rule(name="hold", priority=0, match=FAR, action=Action(kind=ActionKind.HOLD))
MAILS = 40


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[list[Pod]]:
    peers.require("unshare")
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        peers.absent("this kernel lets nobody here make a PID namespace (unshare --pid)")
    with two_pods(tmp_path) as pods:
        for pod in pods:
            pod.wrap = NAMESPACE
        yield pods


def supervisor(pod: Pod) -> int:
    """Its process id as we see it; in its own namespace it is 1."""
    assert pod.program is not None
    found = subprocess.run(["pgrep", "-P", str(pod.program.pid)], capture_output=True, text=True, check=True).stdout
    return int(found.split()[0])


def inner_id(pod: Pod) -> str:
    """The supervisor's process id inside."""
    status = Path(f"/proc/{supervisor(pod)}/status").read_text()
    return next(line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:"))


def begin(pods: list[Pod], *, rules: tuple[Rule, ...] = ()) -> None:
    for pod in pods:
        pod.configure(pod.config(rules=rules))
        pod.start()
    for pod in pods:
        pod.until_ready()


def test_two_pods_with_the_same_process_ids_deliver_everything(pods: list[Pod]) -> None:
    begin(pods)
    assert [inner_id(pod) for pod in pods] == ["1", "1"]
    assert len(list((pods[0].volume / "spool" / "workers").iterdir())) == 4
    for n in range(MAILS):
        pods[n % 2].send(f"u{n}@ours.test")
    pods[0].until(lambda: pods[0].mails() == MAILS, "every mail")
    for pod in pods:
        os.kill(supervisor(pod), signal.SIGTERM)
        assert pod.wait() == 0
    assert pods[0].mails() == MAILS
    assert not list((pods[0].volume / "spool" / "lanes").iterdir())


def test_what_a_killed_pod_left_is_taken_over_by_the_other_one(pods: list[Pod]) -> None:
    begin(pods, rules=(HOLD,))
    for n in range(MAILS):
        pods[n % 2].send(f"u{n}@far.test")
    first, second = pods
    assert sum(pod.report()["queue"]["held"] for pod in pods) == MAILS
    mine = second.report()["queue"]["held"]
    assert 0 < mine < MAILS
    first.kill()
    second.until(lambda: second.report()["queue"]["held"] == MAILS, "the other's mail")
    second.send("late@ours.test")
    second.until(lambda: second.mails() == 1, "mail goes on")
    first.start()
    first.until_ready()
    assert sum(pod.report()["queue"]["held"] for pod in pods) == MAILS


def test_what_a_stopped_pod_had_is_the_others_at_once(pods: list[Pod]) -> None:
    begin(pods, rules=(HOLD,))
    for n in range(MAILS):
        pods[n % 2].send(f"u{n}@far.test")
    os.kill(supervisor(pods[0]), signal.SIGTERM)
    assert pods[0].wait() == 0
    pods[1].until(lambda: pods[1].report()["queue"]["held"] == MAILS, "the other's mail")
