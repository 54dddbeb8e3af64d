"""What a scenario is given: a namespace of its own, words to say what should be, and waits for conditions.

Rules
- `until` asks again and again; the budget is ten times what is wanted, at least a minute, so that a slow machine
  fails nothing. What was seen last is in the failure's text.
- `measure` prints a time beside what is wanted; only a condition that is not reached fails.
- When a story fails, `evidence` writes what a person needs to see why to build/e2e/<scenario>/.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from kit import manifests
from kit.actors import Sink, Traffic
from kit.api import Api, ApiError, Object
from kit.place import ROOT, Place
from kit.record import Failure, Measured, Told, say

T = TypeVar("T")
SYSTEM = "posthof-system"
RELEASE = "posthof"
CHART = ROOT / "helm" / "posthof"
PATIENCE = float(os.environ.get("E2E_PATIENCE", "10"))  # times what is wanted


class Stage:
    """One scenario's view of the cluster."""

    def __init__(self, place: Place, told: Told) -> None:
        self.place, self.told = place, told
        self.api: Api = place.api
        self.namespace = f"e2e-{told.name.replace('_', '-')}"[:63]
        self._threads = ThreadPoolExecutor(16)

    # ------------------------------------------------------------ words
    def step(self, text: str) -> None:
        say(f"  - {text}")

    def expect(self, is_so: object, text: str) -> None:
        if not is_so:
            raise Failure(text)

    def until(self, what: str, condition: Callable[[], T], *, wanted: float = 10.0) -> T:
        """The condition's first true value. API errors count as "not yet"."""
        began, last = time.monotonic(), ""
        budget = PATIENCE * max(6.0, wanted)
        while True:
            try:
                found = condition()
                if found:
                    return found
                last = repr(found)
            except (ApiError, KeyError, IndexError, TypeError) as error:
                last = f"{type(error).__name__}: {error}"
            if time.monotonic() - began > budget:
                raise Failure(f"waited {budget:.0f} s until {what}; seen last: {last}")
            time.sleep(0.1)

    @contextmanager
    def measure(self, name: str, wanted: float = 0.0) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.told.keep(name, Measured(time.monotonic() - began, wanted))

    def keep(self, name: str, value: float, wanted: float = 0.0, unit: str = "s") -> None:
        self.told.keep(name, Measured(value, wanted, unit))

    def meanwhile(self, work: Callable[[], T]) -> Future[T]:
        """Do it beside the story; `.result()` has its value or its failure."""
        return self._threads.submit(work)

    # ------------------------------------------------------------ objects
    def apply(self, *things: Object | str | Path) -> None:
        """Dicts by server-side apply into the namespace; text and folders of manifests by kubectl."""
        for thing in things:
            if isinstance(thing, dict):
                self.until(f"{thing['kind']} {thing['metadata']['name']} is taken", partial(self._applied, thing))
            elif isinstance(thing, Path):
                self.place.kubectl("apply", "--server-side", "-n", self.namespace, "-f", str(thing))
            else:
                self.place.kubectl("apply", "--server-side", "-n", self.namespace, "-f", "-", given=thing)

    def _applied(self, thing: Object) -> bool:
        try:
            self.api.apply(thing, self.namespace)
        except ApiError as error:
            if error.is_away or error.status in (409, 429):
                raise  # `until` tries again, and tells of it in the end
            raise Failure(f"{thing['kind']} {thing['metadata']['name']} was refused: {error}") from error
        return True

    def refused(self, thing: Object) -> str:
        """What the API server says to an object that it must refuse."""
        try:
            self.api.apply(thing, self.namespace)
        except ApiError as error:
            if not error.is_away:
                return error.message
            raise
        raise Failure(f"{thing['kind']} {thing['metadata']['name']} should have been refused")

    def delete(self, kind: str, name: str, version: str = manifests.VERSION) -> None:
        self.api.delete(version, kind, name, self.namespace)

    def get(self, kind: str, name: str, version: str = manifests.VERSION) -> Object | None:
        return self.api.get(version, kind, name, self.namespace)

    def status(self, kind: str, name: str) -> Object:
        """The status, {} before there is one."""
        found = self.get(kind, name)
        return (found or {}).get("status") or {}

    def condition(self, kind: str, name: str, type_: str) -> Object:
        """One condition of an object, as of its newest generation; {} where there is none yet."""
        found = self.get(kind, name) or {}
        generation = found.get("metadata", {}).get("generation")
        for each in (found.get("status") or {}).get("conditions") or ():
            if each["type"] == type_ and each.get("observedGeneration", generation) == generation:
                return dict(each)
        return {}

    def until_condition(self, kind: str, name: str, *, wanted: float = 10.0, **types: str) -> None:
        """`until_condition("MTA", "edge", Ready="True")`."""
        for type_, status in types.items():
            try:
                self.until(
                    f"{kind} {name} has {type_}={status}",
                    partial(self._has, kind, name, type_, status),
                    wanted=wanted,
                )
            except Failure as failure:
                raise Failure(f"{failure}; {kind} {name} says {json.dumps(self.status(kind, name))}") from None

    def _has(self, kind: str, name: str, type_: str, status: str) -> bool:
        return bool(self.condition(kind, name, type_).get("status") == status)

    def columns(self, kind: str, name: str) -> dict[str, str]:
        """What `kubectl get KIND NAME` prints: header -> cell."""
        lines = self.place.kubectl("get", kind, name, "-n", self.namespace).splitlines()
        starts = [match.start() for match in re.finditer(r"\S+( \S+)*", lines[0])]
        cells = [[line[a:b].strip() for a, b in pairwise([*starts, None])] for line in lines[:2]]
        return dict(zip(*cells, strict=True))

    # ------------------------------------------------------------ pods
    def pods(self, mta: str = "edge", *, ready: bool = True) -> list[Object]:
        """The MTA's pods that are not ending, the ready ones unless told otherwise, by name."""
        found = self.api.list("v1", "Pod", self.namespace, labelSelector=f"posthof.dev/mta={mta}")
        alive = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return sorted(
            (pod for pod in alive if not ready or pod_is_ready(pod)), key=lambda pod: str(pod["metadata"]["name"])
        )

    def addresses(self, mta: str = "edge") -> list[str]:
        return [pod["status"]["podIP"] for pod in self.pods(mta)]

    def is_ready(self, pod: str) -> bool:
        found = self.get("Pod", pod, "v1")
        return found is not None and pod_is_ready(found)

    def running(self, mta: str = "edge", replicas: int = 1, *, wanted: float = 30.0) -> list[Object]:
        """Wait for the MTA: that many pods ready, all with the newest configuration. They are returned."""
        try:
            self.until(f"{replicas} pods of {mta} are ready", lambda: len(self.pods(mta)) == replicas, wanted=wanted)
        except Failure as failure:
            raise Failure(f"{failure}; MTA {mta} says {json.dumps(self.status('MTA', mta))}") from None
        self.until_condition("MTA", mta, ConfigConverged="True", Ready="True")
        return self.pods(mta)

    def exec(self, pod: str, *command: str) -> str:
        return self.place.kubectl("exec", "-n", self.namespace, pod, "--", *command)

    def person(self, script: str) -> str:
        """What a person sees who runs this with kubectl in this namespace, in the checkout."""
        return self.place.person(script, self.namespace)

    @property
    def pod_image(self) -> str:
        return f"{self.place.registry}/posthof-pod:{self.place.tag or chart_version()}"

    # ------------------------------------------------------------ mail
    def world(self, node: str = "") -> tuple[Traffic, Sink]:
        """A sink and a source of mail in the namespace (on that node, where one is named), both ready."""
        sink, traffic = Sink(self, node=node), Traffic(self, node=node)
        sink.ready()
        traffic.ready()
        return traffic, sink

    def relayed(self, domain: str, to: str = "sink", **more: Any) -> Object:
        """A MailDomain that leads to the namespace's sink."""
        return manifests.relayed(domain, to, self.namespace, **more)

    def nothing_lost(self, traffic: Traffic, sink: Sink, run: str = "main", *, wanted: float = 10.0) -> None:
        """Every mail that got its 250 arrives; how many came more than once is kept."""
        sent = set(traffic.accepted(run))

        def missing() -> set[str]:
            return sent - sink.seen()

        try:
            self.until("every accepted mail has arrived", lambda: not missing(), wanted=wanted)
        except Failure as failure:
            lost = missing()
            raise Failure(f"{failure}: {len(lost)} of {len(sent)} are missing, such as {sorted(lost)[:3]}") from None
        self.keep("slowest mail, to its 250", float(traffic.counts(run)["slowest"]))
        again = sum(times for key, times in sink.again().items() if key in sent)
        self.keep("mails accepted and delivered", len(sent), unit="mails")
        self.keep("mails delivered again", again, unit="mails")

    def nobody_disconnected(self, counts: Object) -> None:
        self.expect(counts["accepted"] > 0, f"no mail was accepted: {counts}")
        self.expect(not counts["refused"], f"mail was refused: {counts['refused']}")
        bad = {key: counts[key] for key in ("told", "dropped", "unknown", "unreachable") if counts[key]}
        self.expect(not bad, f"sessions ended before their time: {bad}, {counts['lastWords']}")

    # ------------------------------------------------------------ the release
    def install(self, *more: str) -> None:
        """The chart into posthof-system, or an upgrade of it; waits until the operator leads."""
        install(self.place, *more)
        self.until("the operator is ready", self.operator_is_ready, wanted=30)

    def operator_is_ready(self) -> bool:
        found = self.api.list("apps/v1", "Deployment", SYSTEM)
        return bool(found) and all(
            each["status"].get("readyReplicas", 0) == each["spec"]["replicas"]
            and each["status"].get("updatedReplicas", 0) == each["spec"]["replicas"]
            and each["status"].get("observedGeneration") == each["metadata"]["generation"]
            for each in found
        )

    # ------------------------------------------------------------ beginning and end
    def open(self) -> None:
        """The namespace, empty, with PodSecurity `restricted`."""
        self.clear()
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "posthof.dev/e2e": "true"}
        self.api.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}}
        )
        self.until(
            "the namespace has its service account",
            lambda: self.get("ServiceAccount", "default", "v1"),
        )

    def clear(self) -> None:
        """Delete the namespace and wait until it is gone. MTAs first, as a person would: a namespace that is deleted
        with pods that take their time looks at them again only after half of their grace."""
        self.until("MTAs and actors are being deleted", self._emptied)
        self.until("no pod is left", lambda: not self.api.list("v1", "Pod", self.namespace), wanted=60)
        self.until("the namespace is being deleted", self._deleted)
        self.until(
            f"namespace {self.namespace} is gone", lambda: self.api.get("v1", "Namespace", self.namespace) is None
        )

    def _emptied(self) -> bool:
        for version, kind in ((manifests.VERSION, "MTA"), ("v1", "Pod")):
            try:
                found = self.api.list(version, kind, self.namespace)
            except ApiError as error:
                if error.status == 404:  # no such kind in this cluster yet
                    continue
                raise
            for each in found:
                if kind == "MTA" or "posthof.dev/mta" not in each["metadata"].get("labels", {}):
                    self.api.delete(version, kind, each["metadata"]["name"], self.namespace)
        return True

    def _deleted(self) -> bool:
        self.api.delete("v1", "Namespace", self.namespace)
        return True

    def evidence(self, folder: Path) -> None:
        """Logs, events, objects and what the queue says. Whatever cannot be had is left out."""
        folder.mkdir(parents=True, exist_ok=True)

        def write(name: str, *command: str) -> None:
            try:
                (folder / name).write_text(self.place.kubectl(*command, seconds=60))
            except Failure as failure:
                (folder / name).write_text(f"{failure}\n")

        write("mail.yaml", "get", "mail", "-A", "-o", "yaml")
        write("mail.txt", "get", "mail", "-A", "-o", "wide")
        write("events.txt", "get", "events", "-A", "--sort-by=.lastTimestamp")
        write("pods.txt", "get", "pods,pvc,services,deployments,configmaps,leases", "-A", "-o", "wide")
        for namespace in (self.namespace, SYSTEM):
            write(f"describe-{namespace}.txt", "describe", "mail,pods,deployments,pvc", "-n", namespace)
            try:
                pods = self.api.list("v1", "Pod", namespace)
            except ApiError:
                continue
            for pod in pods:
                self._keep_logs(folder, namespace, pod)

    def _keep_logs(self, folder: Path, namespace: str, pod: Object) -> None:
        name = pod["metadata"]["name"]
        for container in pod["spec"]["containers"]:
            for previous in (False, True):
                try:
                    text = self.api.logs(namespace, name, container["name"], previous)
                except ApiError:
                    continue  # there was no earlier one, or none has started
                (folder / f"{name}{'-before' if previous else ''}.log").write_text(text)
        if "posthof.dev/mta" in pod["metadata"].get("labels", {}):
            try:
                (folder / f"{name}-queue.txt").write_text(
                    self.place.kubectl("exec", "-n", namespace, name, "--", "posthof", "queue", "list")
                )
            except Failure:
                pass  # a pod that does not run has no answer


def pod_is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def chart_version() -> str:
    found = re.search(r"^appVersion:\s*[\"']?([^\s\"']+)", (CHART / "Chart.yaml").read_text(), re.MULTILINE)
    if found is None:
        raise Failure("the chart has no appVersion")
    return found[1]


def settings(place: Place) -> list[str]:
    """`--set` words of every install: one replica of everything, the run's images."""
    values = ["operator.replicas=1", "webhook.replicas=1", "operator.logLevel=debug", "podMonitor.enabled=false"]
    if place.tag:
        for image, name in (("operator.image", "posthof-operator"), ("podImage", "posthof-pod")):
            values += [f"{image}.tag={place.tag}", f"{image}.repository={place.registry}/{name}"]
    return values + os.environ.get("E2E_SET", "").split()  # the last is for the person who tries something


def install(place: Place, *more: str) -> None:
    """`helm upgrade --install`, with `more` as further `--set` words; what environments hold is text."""
    words = [
        word
        for value in (*settings(place), *more)
        for word in ("--set-string" if ".env[" in value else "--set", value)
    ]
    place.helm("upgrade", "--install", RELEASE, str(CHART), "-n", SYSTEM, "--create-namespace", *words)


def uninstall(place: Place) -> None:
    place.helm("uninstall", RELEASE, "-n", SYSTEM, "--ignore-not-found", "--wait")
