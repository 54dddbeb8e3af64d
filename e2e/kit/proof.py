"""What a fleet under faults must show: sent, accepted, delivered, lost, duplicated, metered.

Sent and accepted are counted where mail is made, delivered where it ends. Metered, how many duplicates the fleet
itself says there may be, is read from the pods' logs while they are written: counters of pods that are gone tell
nothing.

Rules
- A log that breaks off (its pod froze, the API server is away) is read again from its beginning; the larger count of
  the two holds. Of a container that ended, the kubelet keeps the log while the pod is there.
- A transaction whose reply never came is nobody's promise: it may be delivered or not.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from kit.api import ApiError, Object

if TYPE_CHECKING:
    from kit.actors import Sink, Traffic
    from kit.stage import Stage

LOOKS = 0.3  # seconds between two looks for new containers
SLOW = 30.0  # seconds wanted until every accepted mail has arrived
Told = tuple[str, Object]  # pod, line


class Proof:
    """`with Proof(stage, traffic, sink, "edge") as proof: ...; proof.judge()`."""

    def __init__(self, stage: Stage, traffic: Traffic, sink: Sink, mta: str = "edge") -> None:
        self.stage, self.traffic, self.sink = stage, traffic, sink
        self.path = stage.api.path("v1", "Pod", stage.namespace, labelSelector=f"posthof.dev/mta={mta}")
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._lines: dict[tuple[str, int], list[Object]] = {}  # pod and restart -> its events
        self._streams: dict[tuple[str, int], socket.socket] = {}
        self._threads: list[threading.Thread] = [threading.Thread(target=self._find, daemon=True)]

    def __enter__(self) -> Proof:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for stream in list(self._streams.values()):
            with contextlib.suppress(OSError):  # closed already
                stream.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    # ------------------------------------------------------------ logs
    def _find(self) -> None:
        """Follow every container that there is or comes to be."""
        followed: set[tuple[str, int]] = set()
        while not self._is_over.wait(LOOKS):
            try:
                pods = self.stage.api.json("GET", self.path)["items"]
            except (ApiError, OSError, ValueError):
                continue  # the API server is away: what is written meanwhile is read afterwards
            for pod in pods:
                for state in pod.get("status", {}).get("containerStatuses") or ():
                    key = (str(pod["metadata"]["name"]), int(state["restartCount"]))
                    if key not in followed and state.get("containerID"):
                        followed.add(key)
                        thread = threading.Thread(target=self._follow, args=(key, state["name"]), daemon=True)
                        self._threads.append(thread)
                        thread.start()

    def _follow(self, key: tuple[str, int], container: str) -> None:
        while not self._is_over.is_set():
            try:
                if self._read(key, container):
                    return
            except (ApiError, OSError, ValueError, AttributeError, http.client.HTTPException):
                pass  # it froze, or the API server is away
            self._is_over.wait(1.0)

    def _read(self, key: tuple[str, int], container: str) -> bool:
        """Read one container's log from its beginning to its end. True: there is nothing more to be had."""
        pod, restarts = key
        found = self.stage.get("Pod", pod, "v1")
        if found is None:
            return True
        states = found["status"].get("containerStatuses") or [{"restartCount": restarts}]
        is_previous = states[0]["restartCount"] > restarts
        if states[0]["restartCount"] > restarts + 1:
            return True  # the kubelet keeps one
        words = {"container": container, "follow": "true", "previous": str(is_previous).lower()}
        stream = self.stage.api.stream(f"/api/v1/namespaces/{self.stage.namespace}/pods/{pod}/log?{urlencode(words)}")
        self._streams[key] = stream.sock
        lines: list[Object] = []
        try:
            answer = stream.getresponse()
            if answer.status != 200:
                return answer.status == 404
            while line := answer.readline():
                self._keep(key, lines, line)
        finally:
            self._streams.pop(key, None)
            stream.close()
        return is_previous

    def _keep(self, key: tuple[str, int], lines: list[Object], line: bytes) -> None:
        with contextlib.suppress(ValueError):  # half a line
            told = json.loads(line)
            if told.get("event") in WATCHED:
                lines.append(told)
                with self._lock:
                    if len(lines) >= len(self._lines.get(key, ())):
                        self._lines[key] = lines

    def told(self, event: str) -> list[Told]:
        """What all pods have told of this so far."""
        with self._lock:
            return [
                (pod, line) for (pod, _), lines in self._lines.items() for line in lines if line["event"] == event
            ]

    @property
    def metered(self) -> int:
        """Possible duplicates that were told of."""
        single = sum(len(line.get("to") or (1,)) for _, line in self.told("uncertain"))
        return single + sum(int(line.get("count", 0)) for _, line in self.told("possible_duplicates"))

    # ------------------------------------------------------------ the verdict
    def arrived(self, run: str = "main", *, wanted: float = SLOW) -> None:
        """Wait until all that is accepted by now has been delivered."""
        sent = set(self.traffic.accepted(run))
        self.stage.until(
            f"the {len(sent)} mails accepted so far have arrived", lambda: not sent - self.sink.seen(), wanted=wanted
        )

    def judge(self, run: str = "main", *, wanted: float = SLOW) -> Object:
        """Stop the traffic; nothing accepted may be lost, and nothing come again that was not metered."""
        counts = self.traffic.stop(run)
        accepted = set(self.traffic.accepted(run))
        missing = set(accepted)

        def is_there() -> bool:
            missing.difference_update(self.sink.seen())
            return not missing

        try:
            self.stage.until("every accepted mail has arrived", is_there, wanted=wanted)
        except Exception:
            if not missing:
                raise
        again = sum(self.sink.again().values())
        if again > self.metered:  # a log may be some moments behind
            with contextlib.suppress(Exception):
                self.stage.until("every duplicate is metered", lambda: again <= self.metered, wanted=2)
        row: dict[str, Any] = {
            "sent": counts["sent"],
            "accepted": len(accepted),
            "delivered": len(self.sink.seen()),
            "lost": len(missing),
            "duplicated": again,
            "metered": self.metered,
        }
        for name, value in row.items():
            self.stage.keep(name, value, unit="mails")
        self.stage.expect(accepted, f"no mail was accepted: {counts}")
        self.stage.expect(not missing, f"{len(missing)} accepted mails are lost, such as {sorted(missing)[:3]}")
        self.stage.expect(
            again <= row["metered"],
            f"{again} came again, and only {row['metered']} were metered: {self.sink.again()}",
        )
        return counts


WATCHED = ("uncertain", "possible_duplicates", "taken_over", "lane_adopted", "spool_fenced", "spool_damaged")
