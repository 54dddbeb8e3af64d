"""Which pods a scale-in takes. Pure.

The ReplicaSet's controller takes pods that are not ready first, then those with the lowest deletion cost. So the pods
with the least to leave behind get a cost below all others' (0), just before there are fewer replicas; and a mark that
is not meant any more is taken away, or it would choose for us another time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from posthof_crds.report import Report
from posthof_operator.pods import is_going, is_ready
from posthof_operator.resources import Raw

COST = "controller.kubernetes.io/pod-deletion-cost"
FIRST = "-1"  # of those that go


class Marks(NamedTuple):
    """Names of pods. `go`: all that leave; `put`, `remove`: what to change about the annotation."""

    go: tuple[str, ...]
    put: tuple[str, ...]
    remove: tuple[str, ...]


def marks(pods: Iterable[Raw], reports: Mapping[str, Report], count: int) -> Marks:
    """Of the pods that stay or go when `count` of them are taken away."""
    staying = [pod for pod in pods if not is_going(pod)]
    order = sorted(staying, key=lambda pod: _rank(pod, reports))
    go = tuple(_name(pod) for pod in order[: max(count, 0)])
    marked = {_name(pod) for pod in staying if _cost(pod) == FIRST}
    return Marks(go, tuple(name for name in go if name not in marked), tuple(sorted(marked - set(go))))


def _rank(pod: Raw, reports: Mapping[str, Report]) -> tuple[bool, int, int, float, str]:
    """Not ready first, as the controller has it; then few messages, few sessions, young."""
    report = reports.get(_name(pod))
    messages = report.load.messages if report is not None and report.load is not None else 0
    sessions = report.sessions if report is not None else 0
    age = report.uptime_seconds if report is not None else 0.0
    return is_ready(pod), messages, sessions, age, _name(pod)


def _cost(pod: Raw) -> str:
    return str((pod["metadata"].get("annotations") or {}).get(COST, ""))


def _name(pod: Raw) -> str:
    return str(pod["metadata"]["name"])
