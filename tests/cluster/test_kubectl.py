"""`kubectl posthof`: one answer for all pods of an MTA. The kubectl is ours, the pods are real processes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.pod import Pod, two_pods
from posthof_crds.engine import Action, ActionKind, Match, Rule
from posthof_crds.report import Report, ServedCertificate
from posthof_pod.cli import kubectl

FAR = Match(clients=("127.0.0.0/8",), recipients=("*@far.test",))
HOLD = Rule(name="mail/hold", priority=0, match=FAR, action=Action(kind=ActionKind.HOLD))
KUBECTL = """#!{python}
import json, os, sys
words = [one for one in sys.argv[1:] if one not in ("--namespace", "mail", "-i")]
cluster = json.load(open({cluster!r}))
open({calls!r}, "a").write(" ".join(sys.argv[1:]) + chr(10))
if words[0] == "get":
    key = words[1] + ("/" + words[2] if not words[2].startswith("-") else "")
    if key in cluster["denied"]:
        sys.exit('Error from server (Forbidden): User "eve" cannot list resource "' + words[1] + '"')
    print(json.dumps(cluster[key]))
elif words[0] == "exec":
    pod, command = words[1], words[words.index("--") + 1:]
    if pod not in cluster["environments"]:
        sys.exit("Error from server (NotFound): pods " + json.dumps(pod) + " not found")
    environment = cluster["environments"][pod]
    os.execve(environment["POSTHOF"], command, environment)
"""


class Cluster:
    """Two pods on one spool, and a kubectl that knows them."""

    def __init__(self, folder: Path, pods: list[Pod]) -> None:
        self.folder, self.pods = folder, pods
        self.calls = folder / "calls"
        self.denied: list[str] = []
        self.program = folder / "kubectl"
        text = KUBECTL.format(python=sys.executable, cluster=str(folder / "cluster.json"), calls=str(self.calls))
        self.program.write_text(text)
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)
        self.known = list(pods)
        self.certificates: list[Any] = []

    def write(self) -> None:
        mta = {
            "metadata": {"name": "edge"},
            "status": {
                "phase": "Degraded",
                "ready": "1/2",
                "conditions": [
                    {"type": "SpoolHealthy", "status": "False", "reason": "Full", "message": "it is full"}
                ],
            },
        }
        told = {
            "mtas.posthof.dev": {"items": [mta]},
            "mtas.posthof.dev/edge": mta,
            "tlscerts.posthof.dev": {"items": self.certificates},
            "pods": {"items": [self._pod(pod.name) for pod in self.pods]},
            "denied": self.denied,
            "environments": {pod.name: self._environment(pod) for pod in self.known},
        }
        (self.folder / "cluster.json").write_text(json.dumps(told))

    def _pod(self, name: str) -> Any:
        ready = [{"type": "Ready", "status": "True"}]
        return {
            "metadata": {"name": name},
            "spec": {"nodeName": "node-a"},
            "status": {"phase": "Running", "conditions": ready},
        }

    def _environment(self, pod: Pod) -> dict[str, str]:
        return {
            **pod.variables,
            "POSTHOF_ADMIN": f"http://127.0.0.1:{pod.admin}",
            "POSTHOF_STATE": str(pod.state),
            "POSTHOF": str(Path(sys.executable).with_name("posthof")),
        }

    def run(self, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[str]:
        self.write()
        command = [sys.executable, "-m", "posthof_pod.cli.kubectl", *arguments]
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            timeout=110,
            check=False,
            env={**os.environ, "KUBECTL": str(self.program)},
        )
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Pod]]:
    """Two on one spool, with a mail held in each."""
    with two_pods(tmp_path_factory.mktemp("kubectl")) as pods:
        for pod in pods:
            pod.configure(pod.config(rules=(HOLD,), workers=1))
            pod.start()
        for pod in pods:
            pod.until_ready()
            pod.send(f"{pod.name}@far.test")
        yield pods


@pytest.fixture
def cluster(tmp_path: Path, pods: list[Pod]) -> Cluster:
    return Cluster(tmp_path, pods)


def test_the_queue_of_all_pods_is_one(cluster: Cluster) -> None:
    done = cluster.run("queue", "list", "-n", "mail")
    assert done.returncode == 0, done.stderr
    assert "edge-a@far.test" in done.stdout
    assert "edge-b@far.test" in done.stdout
    page = json.loads(cluster.run("queue", "list", "--json", "--to", "edge-b@far.test").stdout)
    assert page["total"] == 1
    (item,) = page["items"]
    assert item["worker"] == "edge-b/1"
    shown = cluster.run("queue", "show", item["id"])
    assert "PolicyHold" in shown.stdout
    assert "Subject: x" in cluster.run("queue", "show", item["id"], "--content").stdout
    missing = cluster.run("queue", "show", "nothing-1")
    assert missing.returncode == 1
    assert "no message nothing-1" in missing.stderr


def test_a_change_reaches_every_pod_and_is_counted_once(cluster: Cluster) -> None:
    done = cluster.run("queue", "hold", "--to", "*@far.test")
    assert "held 0 messages" in done.stdout  # they are held already
    done = cluster.run("--mta", "edge", "queue", "flush", "--all")
    assert done.returncode == 1
    assert cluster.run("queue", "flush").returncode == 2


def test_a_life_is_found_whichever_pod_had_it(cluster: Cluster) -> None:
    done = cluster.run("trace", "edge-b@far.test")
    assert done.returncode == 0, done.stderr
    assert "accepted" in done.stdout
    assert "edge-a@far.test" not in done.stdout
    told = json.loads(cluster.run("trace", "@far.test", "--json").stdout)
    assert {event["worker"].partition("/")[0] for event in told["events"]} == {"edge-a", "edge-b"}
    times = [event["time"] for event in told["events"]]
    assert times == sorted(times)
    assert cluster.run("trace", "nobody@nowhere.test").returncode == 1


def test_the_status_has_a_line_for_each_pod_and_says_what_is_wrong(cluster: Cluster) -> None:
    done = cluster.run("status")
    assert done.returncode == 0, done.stderr
    assert "SpoolHealthy False: Full: it is full" in done.stdout
    lines = done.stdout.splitlines()
    assert any(line.startswith("edge-a") and "node-a" in line and "yes" in line for line in lines)
    assert any(line.startswith("all") and "2/2" in line for line in lines)


def test_a_pod_that_does_not_answer_is_named_and_the_others_answer_stands(cluster: Cluster) -> None:
    cluster.known = cluster.pods[:1]
    done = cluster.run("queue", "list")
    assert done.returncode == 0
    assert "edge-a@far.test" in done.stdout
    assert "no answer from pod edge-b" in done.stdout
    status = cluster.run("status")
    assert status.returncode == 1
    assert "edge-b: no answer: Error from server (NotFound)" in status.stdout
    cluster.known = []
    done = cluster.run("queue", "list")
    assert done.returncode == 1
    assert "pod edge-a" in done.stderr


def test_what_the_user_may_not_do_is_said_in_kubectls_words(cluster: Cluster) -> None:
    cluster.denied = ["mtas.posthof.dev"]
    done = cluster.run("status")
    assert (done.returncode, done.stdout) == (1, "")
    assert 'User "eve" cannot list' in done.stderr
    missing = subprocess.run(
        [sys.executable, "-m", "posthof_pod.cli.kubectl", "status"],
        env={**os.environ, "KUBECTL": "/nonexistent/kubectl"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "is not installed" in missing.stderr


def test_an_explanation_is_of_what_runs(cluster: Cluster) -> None:
    done = cluster.run("explain", "--from", "a@b.test", "--to", "c@far.test", "--client", "127.0.0.1", "--no-dns")
    assert done.returncode == 0, done.stderr
    assert "mail/hold" in done.stdout
    refused = cluster.run("explain", "--to", "c@far.test", "--client", "192.0.2.1", "--no-dns")
    assert refused.returncode == 1
    assert "550" in refused.stdout
    assert cluster.run("explain").returncode == 2


def test_a_mail_is_sent_into_the_mta_from_a_file_here(cluster: Cluster, tmp_path: Path) -> None:
    message = tmp_path / "mail"
    message.write_bytes(b"Subject: from my desk\n\nhello\n")
    done = cluster.run("send", "--from", "me@far.test", "--to", "desk@ours.test", "-f", str(message))
    assert done.returncode == 0, done.stderr
    assert "queue id" in done.stdout
    folder = cluster.pods[0].volume / "mail" / "ours.test" / "desk" / "new"
    cluster.pods[0].until(lambda: folder.exists() and list(folder.iterdir()), "the mail")
    assert b"from my desk" in next(folder.iterdir()).read_bytes()
    assert cluster.run("send", "--to", "x@ours.test", "--listener", "other").returncode == 1


def test_certificates_are_compared_with_what_was_issued(cluster: Cluster) -> None:
    assert "No pod serves a certificate" in cluster.run("certs").stdout


def test_the_namespace_and_the_context_are_kubectls(cluster: Cluster) -> None:
    cluster.run("status", "-n", "mail")
    first = cluster.calls.read_text().splitlines()[0]
    assert first == "get --namespace mail mtas.posthof.dev -o json"


def test_certificates_for_people() -> None:
    pods = [kubectl.Pod("edge-a", "n", True), kubectl.Pod("edge-b", "n", True), kubectl.Pod("edge-c", "n", False)]
    new, old = (
        ServedCertificate(serial="b2", not_after=90 * 86400.0),
        ServedCertificate(serial="a1", not_after=86400.0),
    )
    reports = [
        (pods[0], Report(pod="edge-a", certificates={"mx": new})),
        (pods[1], Report(pod="edge-b", certificates={"mx": old})),
        (pods[2], "gone"),
    ]
    lines = list(kubectl.cert_lines({"mx": {"serial": "B2", "renewalTime": "soon"}}, reports, 0.0))
    assert lines[1].split()[:3] == ["mx", "1/3", "b2"]
    assert lines[1].endswith("soon")
    assert "edge-b serves mx a1" in lines[2]
    assert "edge-c: no answer: gone" in lines[3]
