"""What the operator counts. One object per process, one registry of its own, so that tests can have several.

Names are a promise (docs and alerts use them): `posthof_operator_*`.
"""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

WRITES = ("apply", "apply_status", "patch", "create", "replace", "delete")


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"namespace": "posthof_operator", "registry": self.registry}
        self.reconciles = Counter("reconciles", "Reconciles, by room and how they ended.", ["room", "result"], **made)
        self.seconds = Histogram(
            "reconcile_seconds",
            "How long a reconcile took.",
            ["room"],
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 30),
            **made,
        )
        self.errors = Counter("errors", "Reconciles that will be tried again, by reason.", ["room", "reason"], **made)
        self.requests = Counter("api_requests", "Requests to the API server.", ["verb", "kind", "status"], **made)
        self.applies = Counter("applies", "Children applied, by kind.", ["kind"], **made)
        self.reviews = Counter("reviews", "Objects the webhook was asked about.", ["kind", "result"], **made)
        self.depth = Gauge("queue_depth", "Objects that wait for a reconcile now.", **made)
        self.delayed = Gauge("queue_delayed", "Objects with a reconcile planned for later.", **made)
        self.objects = Gauge("objects", "Objects known, by kind.", ["kind"], **made)
        self.events = Counter("watch_events", "Events seen, by kind.", ["kind"], **made)
        self.missed = Counter("watch_missed", "Changes a list found that no watch had told of.", ["kind"], **made)
        self.canary = Gauge("canary_age_seconds", "Since the canary object last came back through the watch.", **made)
        self.leader = Gauge("leader", "1 while this replica reconciles.", **made)
        self._watched: dict[str, float] = {}
        age = Gauge("watch_age_seconds", "Since the last event of a kind.", ["kind"], **made)
        self._age = age

    def request(self, verb: str, kind: str, status: int) -> None:
        self.requests.labels(verb, kind, str(status)).inc()

    def seen(self, kind: str) -> None:
        """An event came through a watch."""
        self.events.labels(kind).inc()
        self._watched[kind] = time.monotonic()

    def writes(self) -> int:
        """Requests that write, since the start."""
        samples = (sample for metric in self.requests.collect() for sample in metric.samples)
        return int(sum(s.value for s in samples if s.name.endswith("_total") and s.labels.get("verb", "") in WRITES))

    def text(self) -> bytes:
        """Prometheus' text format."""
        now = time.monotonic()
        for kind, at in self._watched.items():
            self._age.labels(kind).set(now - at)
        return generate_latest(self.registry)
