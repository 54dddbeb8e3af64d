"""One look at an MTA: everything its status is made of, and the questions that several of its parts ask. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from posthof_crds.reasons import Condition
from posthof_crds.report import Report
from posthof_operator.apply import Outcome
from posthof_operator.plan import Plan
from posthof_operator.pods import is_alive, is_going, is_ready
from posthof_operator.resources import Raw
from posthof_operator.scale.decide import Decision
from posthof_operator.snapshot import Seen
from posthof_operator.telling import Voice

PATIENCE = 60.0  # seconds a pod may need to start, or to take a configuration, until something is wrong with it
VOICE = Voice(
    fields=frozenset(
        {
            "observedGeneration",
            "replicas",
            "readyReplicas",
            "selector",
            "ready",
            "phase",
            "queue",
            "configRevision",
            "addresses",
            "provenHosts",
            "domains",
            "policies",
            "certificates",
            "service",
        }
    ),
    types=frozenset(
        {
            Condition.READY,
            Condition.AVAILABLE,
            Condition.CONFIG_CONVERGED,
            Condition.SPOOL_HEALTHY,
            Condition.CERTIFICATES_READY,
            Condition.CLIENT_IP_PRESERVED,
            Condition.SCALING_ACTIVE,
            Condition.RECONCILING,
            Condition.STALLED,
        }
    ),
)


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at an MTA: all that its status is made of. `plan` is None while nothing may be planned."""

    seen: Seen
    plan: Plan | None = None
    outcome: Outcome = field(default_factory=Outcome)
    reports: Mapping[str, Report] = field(default_factory=dict)  # by pod
    scaling: Decision | None = None
    trend: str = ""  # ScalingUp, ScalingDown, or "" where pods neither come nor go for their number's sake
    now: datetime.datetime

    @property
    def wanted(self) -> int:
        return self.plan.placement.replicas if self.plan else 0

    @property
    def ready_pods(self) -> int:
        return sum(is_ready(pod) for pod in self.seen.pods)

    @property
    def living(self) -> list[str]:
        """Names of pods that run and are not ending."""
        return [pod["metadata"]["name"] for pod in self.seen.pods if is_alive(pod)]

    def seconds_of(self, type_: Condition, status: str) -> float:
        """How long the object's status has said so; 0: it says something else."""
        for one in (self.seen.mta.get("status") or {}).get("conditions") or ():
            if one["type"] == type_ and one["status"] == status:
                since = datetime.datetime.fromisoformat(one["lastTransitionTime"])
                return (self.now - since).total_seconds()
        return 0.0

    @property
    def is_starting(self) -> bool:
        """Pods are missing only because they are young."""
        late = [pod for pod in self.seen.pods if not is_ready(pod) and not is_going(pod)]
        return self.ready_pods < self.wanted and all(self._age(pod) < PATIENCE for pod in late)

    def _age(self, pod: Raw) -> float:
        born = datetime.datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
        return (self.now - born).total_seconds()

    @property
    def is_rolling(self) -> bool:
        """The Deployment's controller has not done all that was asked of it."""
        deployment = self.seen.deployment
        if deployment is None:
            return self.plan is not None
        status, wanted = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
        is_seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
        is_done = status.get("updatedReplicas", 0) >= wanted >= status.get("replicas", 0)
        return not (is_seen and is_done)


def queue(reports: Iterable[Report]) -> Raw:
    known = [one.queue for one in reports]
    ready, deferred, held = (sum(getattr(one, name) for one in known) for name in ("ready", "deferred", "held"))
    oldest = int(max((one.oldest_ready_seconds for one in known), default=0))
    return {
        "total": ready + deferred + held,
        "ready": ready,
        "deferred": deferred,
        "held": held,
        "oldestReadySeconds": oldest,
        "oldest": age(oldest),
    }


def queued(reports: Mapping[str, Report]) -> int:
    """Messages of all pods together."""
    return int(queue(reports.values())["total"])


def age(seconds: int) -> str:
    """As kubectl writes ages: 41s, 12m, 5h, 3d."""
    for size, unit, until in ((86400, "d", 2 * 86400), (3600, "h", 2 * 3600), (60, "m", 120)):
        if seconds >= until:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
