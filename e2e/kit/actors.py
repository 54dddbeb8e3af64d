"""The pods that play the world around an MTA: a sink where mail ends, and traffic that keeps coming.

Both run kit/pods/*.py in the engine's own image (it has Python), as restricted pods in the scenario's namespace, and
are asked through the API server, so they are the same on any cluster.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from kit.api import ApiError, Object
from kit.record import Failure

if TYPE_CHECKING:
    from kit.stage import Stage

SCRIPTS = Path(__file__).parent / "pods"


def scripts() -> Object:
    """The ConfigMap all actors of a namespace mount."""
    files = {path.name: path.read_text() for path in sorted(SCRIPTS.glob("*.py"))}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "actors"}, "data": files}


def pod(
    name: str, script: str, image: str, *words: str, labels: dict[str, str] | None = None, node: str = ""
) -> Object:
    """A restricted pod that runs one of the scripts, with `words` as its arguments; on `node`, where one is named."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"actor": name, **(labels or {})}},
        "spec": {
            "automountServiceAccountToken": False,
            **({"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}),
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": name,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python3", f"/actors/{script}", *words],
                    "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                    "resources": {"requests": {"cpu": "20m", "memory": "48Mi"}},
                    "securityContext": {
                        "readOnlyRootFilesystem": True,
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "actors", "mountPath": "/actors"}],
                }
            ],
            "volumes": [{"name": "actors", "configMap": {"name": "actors"}}],
        },
    }


def service(name: str, port: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"actor": name}, "ports": [{"port": port, "targetPort": port}]},
    }


class Actor:
    """A pod that is asked by path and query, and answers JSON."""

    def __init__(
        self,
        stage: Stage,
        name: str,
        script: str,
        *words: str,
        labels: dict[str, str] | None = None,
        node: str = "",
    ) -> None:
        self.stage, self.name = stage, name
        stage.apply(scripts(), pod(name, script, stage.pod_image, *words, labels=labels, node=node))

    def ready(self) -> None:
        self.stage.until(f"{self.name} runs", lambda: self.stage.is_ready(self.name), wanted=20)

    def ask(self, path: str, **query: Any) -> Any:
        words = urlencode({key: value for key, value in query.items() if value != ""}, doseq=True)
        return json.loads(self.stage.api.ask_pod(self.stage.namespace, self.name, 8080, f"{path}?{words}"))


class Sink(Actor):
    """Where mail ends: `sink:2525`."""

    def __init__(self, stage: Stage, name: str = "sink", node: str = "") -> None:
        stage.apply(service(name, 2525))
        super().__init__(stage, name, "sink.py", node=node)

    def seen(self) -> set[str]:
        return set(self.ask("seen")["ids"])

    def again(self) -> dict[str, int]:
        """Mails that came more than once: id -> times beyond the first."""
        found: dict[str, int] = self.ask("seen")["again"]
        return found

    def mails(self, key: str) -> list[Object]:
        found: list[Object] = self.ask("mails", id=key)
        return found

    def has(self, key: str) -> bool:
        return bool(self.mails(key))

    def answers(self, reply: str = "", connect: str = "", wait: float = 0.0) -> None:
        """From now on, to the end of data (after `wait` seconds) or to connections. "" is a yes."""
        self.ask("set", reply=reply, connect=connect, wait=wait)


class Traffic(Actor):
    """Mail that keeps coming from a pod of the namespace."""

    def __init__(
        self, stage: Stage, name: str = "traffic", labels: dict[str, str] | None = None, node: str = ""
    ) -> None:
        super().__init__(stage, name, "traffic.py", labels=labels, node=node)

    def start(self, host: str, to: str | list[str], port: int = 25, **how: Any) -> None:
        """rate (mails/s), sessions, tls, size, run: see kit/pods/traffic.py."""
        self.ask("start", host=host, to=to, port=port, **how)

    def counts(self, run: str = "main") -> Object:
        found: Object = self.ask("counts", run=run)
        return found

    def change(self, run: str = "main", **how: Any) -> None:
        self.ask("set", run=run, **how)

    def stop(self, run: str = "main") -> Object:
        found: Object = self.ask("stop", run=run)
        return found

    def accepted(self, run: str = "main") -> list[str]:
        found: list[str] = self.ask("accepted", run=run)
        return found

    def grows(self, by: int = 20, run: str = "main") -> None:
        """Wait until that many more mails are accepted: it is under way, or goes on."""
        before = int(self.counts(run)["accepted"])
        self.stage.until(
            f"{by} more mails are accepted", lambda: int(self.counts(run)["accepted"]) >= before + by, wanted=15
        )

    def send(self, host: str, to: str, port: int = 25, **how: Any) -> tuple[str, str]:
        """One mail: its id, and the reply that decided."""
        done = self.ask("once", host=host, to=to, port=port, **how)
        return done["id"], done["reply"]

    def rcpt(self, host: str, to: str, port: int = 25) -> str:
        reply: str = self.ask("rcpt", host=host, to=to, port=port)["reply"]
        return reply

    def until_answer(self, hosts: list[str], to: str, reply: str, seconds: float = 20.0) -> float:
        """Seconds until RCPT gets this reply at all hosts (pod addresses)."""
        done = self.ask("until", hosts=",".join(hosts), to=to, reply=reply, seconds=seconds)
        if not done["reached"]:
            raise Failure(
                f"RCPT TO:<{to}> should get {reply} at {hosts}; after {done['seconds']:.0f} s: {done['answers']}"
            )
        return float(done["seconds"])

    def serial(self, host: str, port: int = 2525) -> tuple[str, str]:
        """Serial number (hex) and key type that a pod presents at STARTTLS; ("", "") where there is none."""
        number, _, kind = self.ask("serial", host=host, port=port)["serial"].partition(" ")
        return number, kind

    def until_serial(self, hosts: list[str], serial: str, seconds: float = 20.0) -> float:
        done = self.ask("serials", hosts=",".join(hosts), serial=serial, seconds=seconds)
        if not done["reached"]:
            raise Failure(f"all of {hosts} should present {serial}; after {done['seconds']:.0f} s: {done['answers']}")
        return float(done["seconds"])


def is_away(error: ApiError) -> bool:
    """A pod that is asked may be ending, or the API server restarting: no answer to the question."""
    return error.is_away or error.status == 404
