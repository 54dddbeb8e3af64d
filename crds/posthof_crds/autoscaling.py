"""The part of an MTA that says how the number of its pods follows the work. On one machine nothing reads it.

Rules of this file
- A field that the chosen mode does not obey is refused, never ignored.
- Deferred mail, and mail that waits for its destination, never ask for pods: no target speaks of them.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from posthof_crds.fields import Duration, Int, Part, Share, seconds_between, wrong

BY_CPU_ALONE = ("oldest_ready", "backlog", "sessions", "accept_latency")  # what an HPA does not see
ZERO = "nobody would receive mail, try deferred mail again or send reports"


def not_zero(value: int) -> int:
    """A number of pods."""
    if value == 0:
        raise wrong(f"0 pods are no scale for a mail server: {ZERO}", "Write 1, or more.")
    return value


class Targets(Part):
    """How busy pods may be. The largest answer of them counts."""

    oldest_ready: Annotated[Duration, seconds_between("5s", "1d")] = 300.0
    """Age of the oldest mail that waits for nothing but a worker. Mail that was put off, and mail whose destination
    takes no more just now, are not counted: more pods would not help them."""

    backlog: Annotated[Duration, seconds_between("5s", "1d")] = 300.0
    """How long it may take to work off that mail: its number over the rate of the last minute."""

    sessions: Annotated[Share, Field(ge=0.05)] = 0.7
    """Share of the sessions that pods may have, with clients or with other hosts, whichever is more."""

    accept_latency: Annotated[Duration, seconds_between("10ms", "5m")] = 1.0
    """From the last dot to the 250, for 99 of 100 messages. It asks for pods only where these are busy too (half of
    the target of cpu or sessions): with idle pods it is the volume that is slow, and they would not help."""

    cpu: Annotated[Share, Field(ge=0.05)] = 0.75
    """Share of the CPU that pods may use: their limit, or one CPU for each worker. For an HPA it is the share of
    their request."""


class ScaleUp(Part):
    """How pods are added."""

    stabilization: Annotated[Duration, seconds_between("0s", "1h")] = 15.0
    """How long the need must last."""

    pods: Annotated[Int, Field(ge=1, le=100)] = 4
    """How many at once, at most; or as many as there are, if these are more. Again after 15 s."""


class ScaleDown(Part):
    """How pods are taken away: one at a time."""

    stabilization: Annotated[Duration, seconds_between("0s", "1h")] = 300.0
    """How long fewer pods must have been enough. Why so long: taking a pod away ends sessions, and traffic that went
    comes back."""

    period: Annotated[Duration, seconds_between("1s", "30m")] = 60.0
    """Time from one pod to the next."""


class Behavior(Part):
    """How fast."""

    scale_up: ScaleUp = ScaleUp()
    """How pods are added."""

    scale_down: ScaleDown = ScaleDown()
    """How pods are taken away."""


class Autoscaling(Part):
    """How the number of pods follows the work. Left out: `replicas` says it."""

    mode: Literal["Builtin", "HPA", "KEDA", "External"] = "Builtin"
    """Who decides. Builtin: the operator, from what the pods report; nothing else is needed, and `replicas` says
    nothing. HPA: a HorizontalPodAutoscaler that is made, by CPU alone; it needs metrics-server. KEDA: a ScaledObject
    that is made; it needs KEDA 2.20. External: somebody else writes `replicas`, by the scale subresource."""

    min: Annotated[Int, Field(ge=0, le=100), AfterValidator(not_zero)] = 1
    """Pods at least. Never 0: nobody would receive mail, try deferred mail again or send reports."""

    max: Annotated[Int, Field(ge=1, le=100)] | None = None
    """Pods at most. Needed, except for External: every pod is a burden for the volume."""

    targets: Targets = Targets()
    """How busy pods may be."""

    behavior: Behavior = Behavior()
    """How fast pods come and go."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.mode == "External":
            given = [name for name in ("min", "max", "targets", "behavior") if name in self.model_fields_set]
            if given:
                raise wrong(
                    f"{', '.join(given)}: somebody else decides with mode External, so this says nothing",
                    "Remove it, or choose another mode.",
                )
            return self
        if self.max is None:
            raise wrong("max is missing: how many pods at most?", "Write max: 10, or another number.")
        if self.max < self.min:
            raise wrong("max is below min", "Raise max or lower min.")
        if self.mode == "HPA" and self.targets.model_fields_set.intersection(BY_CPU_ALONE):
            raise wrong("an HPA sees cpu alone", "Keep targets.cpu, or use mode Builtin or KEDA for the others.")
        return self
