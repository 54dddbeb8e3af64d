"""Every state of our objects that the API server told of while a scenario ran, judged as tools judge it (kstatus).

A thread per kind watches the whole cluster. Each state is held against the rules that `helm --wait`, Flux, Argo CD
and `kubectl wait` go by (tests/kit/kstatus.py, written independently of the operator); a state that breaks one fails
the scenario, even if nobody looked at it. One example of each shape goes to build/e2e/states.json.

Rules
- A watch that breaks (the API server is away) begins anew; what was missed meanwhile nobody else saw either.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import socket
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from kit import manifests
from kit.api import Api, ApiError, Object
from kit.place import ROOT

KINDS = ("MTA", "MailDomain", "RelayPolicy", "AccessPolicy", "TLSCert")
Shape = tuple[object, ...]


def _oracle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kstatus", ROOT / "tests" / "kit" / "kstatus.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class States:
    """`with States(api) as states: ...; states.faults` has what was wrong, as sentences."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._kstatus = _oracle()
        self._is_over = threading.Event()
        self._streams: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._follow, args=(kind,), daemon=True) for kind in KINDS]
        self._lock = threading.Lock()
        self.faults: list[str] = []
        self.shapes: dict[Shape, Object] = {}
        self.seen = 0

    def __enter__(self) -> States:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for stream in list(self._streams):
            with contextlib.suppress(OSError):  # closed already; close() would wait for the reader, shutdown ends it
                stream.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _follow(self, kind: str) -> None:
        while not self._is_over.is_set():
            try:
                self._watch(kind)
            except (ApiError, OSError, ValueError, AttributeError, http.client.HTTPException):
                self._is_over.wait(0.5)  # no such kind yet, the API server is away, or this is the end

    def _watch(self, kind: str) -> None:
        path = self._api.path(manifests.VERSION, kind, None, watch="1", timeoutSeconds="300")
        stream = self._api.stream(path)
        line_in = stream.sock
        self._streams.append(line_in)
        try:
            response = stream.getresponse()
            if response.status != 200:
                raise ValueError(response.status)
            while line := response.readline():
                self._judge(json.loads(line))
        finally:
            self._streams.remove(line_in)
            stream.close()

    def _judge(self, event: Any) -> None:
        found = event.get("object") or {}
        if event.get("type") not in ("ADDED", "MODIFIED") or "status" not in found:
            return
        wrong = self._kstatus.faults(found)
        shape = shape_of(found)
        with self._lock:
            self.seen += 1
            name = f"{found['kind']} {found['metadata']['namespace']}/{found['metadata']['name']}"
            self.faults += [f"{name}: {each}" for each in wrong]
            if shape not in self.shapes:
                self.shapes[shape] = {
                    "kstatus": self._kstatus.compute(found).status.value,
                    "kind": found["kind"],
                    "name": name,
                    "status": found["status"],
                }

    def write(self, path: Path) -> None:
        """Add the shapes seen to those of other scenarios of the run."""
        path.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text()) if path.exists() else []
        known = {shape_of(each) for each in before}
        new = [each for shape, each in self.shapes.items() if shape_of(each) not in known]
        path.write_text(json.dumps(before + new, indent=1) + "\n")


def shape_of(found: Object) -> Shape:
    """What tells one state from another: conditions with their reasons, not names and times."""
    conditions = (found.get("status") or {}).get("conditions") or ()
    told = sorted((each["type"], each["status"], each.get("reason", "")) for each in conditions)
    return (found["kind"], *told)
