"""The hand of autoscaling: remembers what was reported and decided, marks the pods that go, tells events.

Rules of this file
- What is decided stands in decide.py; this keeps its past. A decision becomes the past only when it was applied.
- The Deployment's replicas are the memory across leaders: the first look takes them for what was decided before.
- `spec.replicas` of the MTA is never written. With an HPA, KEDA or anybody else behind the scale subresource it is
  obeyed, but for pods that hold mail the others have no memory for.
- Pods that go are marked before there are fewer replicas; that they have left is an event too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from posthof_crds.autoscaling import Autoscaling
from posthof_crds.reasons import Reason
from posthof_crds.report import Report
from posthof_operator.api import ApiError
from posthof_operator.plan import Plan
from posthof_operator.pods import is_alive, is_going, is_ready
from posthof_operator.resources import Key, Raw
from posthof_operator.scale import cost
from posthof_operator.scale.decide import Decision, Past, decide, held, memory, too_few
from posthof_operator.scale.history import History, sample
from posthof_operator.scale.needs import short
from posthof_operator.snapshot import Seen
from posthof_operator.world import World

EVERY = 5.0  # seconds between two looks at an MTA that scales
KEEPS = 60.0  # seconds of history beyond the longest window
log = logging.getLogger("posthof_operator.scale")

SAYS = {
    "HPA": "its HorizontalPodAutoscaler says so",
    "KEDA": "its ScaledObject says so",
    "External": "spec.replicas, which somebody else writes, says so",
}


class Change(NamedTuple):
    """What the Deployment has and what it shall have; `go` are the pods that leave."""

    before: int
    after: int
    go: tuple[str, ...] = ()


class _Known:
    """What is remembered of one MTA."""

    def __init__(self) -> None:
        self.uid = ""
        self.history = History()
        self.past: Past | None = None
        self.reports: Mapping[str, Report] = {}
        self.leaving: dict[str, tuple[float, int]] = {}  # pod -> since when, messages it held
        self.is_growing = False  # pods were asked for, and have not all been ready since
        self.bound: Reason | None = None  # what kept it from more or fewer pods when it was looked at last


class Scaler:
    """Of all MTAs."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._known: dict[Key, _Known] = {}

    def forget(self, key: Key) -> None:
        self._known.pop(key, None)

    # ------------------------------------------------------------------ decide

    def decide(self, seen: Seen) -> Decision | None:
        """How many pods there shall be; None: nothing runs yet, or is to change."""
        if seen.spec is None:
            return None
        known = self._of(seen)
        wish, asked = seen.spec.autoscaling, seen.spec.replicas
        present = known.past.pods if known.past is not None else _replicas(seen)
        if seen.is_deleting and present is not None:
            return Decision(present, Reason.DELETING, "it is being deleted")
        if wish is not None and wish.mode == "Builtin":
            first = min(max(asked, wish.min), wish.max or asked)
            past = known.past or Past(first if present is None else present)
            return decide(known.history.samples, wish, past, self._now())
        if wish is not None and wish.mode == "KEDA" and not seen.has_keda and present is not None:
            return Decision(present, Reason.KEDA_MISSING, "nobody decides")
        if wish is not None and wish.max is not None:
            asked = min(max(asked, wish.min), wish.max)
        samples = known.history.samples
        newest = samples[-1] if samples else None
        if newest is None and present is not None and asked < present:
            return Decision(present, Reason.NO_REPORTS, "pods are asked first how much mail they hold")
        count = asked if present is None else held(asked, present, newest)
        if count != asked and newest is not None:
            return Decision(count, Reason.HELD_BY_MEMORY, too_few(asked), memory(asked, newest))
        text = SAYS[wish.mode] if wish is not None else "spec.replicas says so"
        return Decision(count, Reason.DELEGATED, text)

    # ------------------------------------------------------------------ act

    async def prepare(self, world: World, seen: Seen, plan: Plan) -> Change | None:
        """Before the Deployment is written: mark who goes. None: the number of pods stays."""
        known = self._of(seen)
        await self._tell_of_leaving(world, seen, known)
        before, after = _replicas(seen), plan.placement.replicas
        if before is None or before == after:
            return None
        found = cost.marks(seen.pods, known.reports, before - after)
        for name in found.put:
            await self._mark(world, seen, name, cost.FIRST)
        for name in found.remove:
            await self._mark(world, seen, name, None)
        return Change(before, after, found.go)

    async def did(self, world: World, seen: Seen, plan: Plan, decision: Decision, change: Change | None) -> None:
        """The Deployment has been written."""
        known, now, after = self._of(seen), self._now(), plan.placement.replicas
        past = known.past or Past(after)
        if after > past.pods or (change is not None and change.after > change.before):
            past, known.is_growing = past._replace(up_at=now), True
        if after < past.pods or (change is not None and change.after < change.before):
            past, known.is_growing = past._replace(down_at=now), False
        known.past = past._replace(pods=after)
        is_bound = decision.reason in (Reason.AT_MAXIMUM, Reason.HELD_BY_MEMORY)
        if is_bound and decision.reason is not known.bound:
            await world.records.warning(seen.key, seen.uid, str(decision.reason), f"{decision.message}.")
        known.bound = decision.reason if is_bound else None
        if change is None:
            return
        for name in change.go:
            report = known.reports.get(name)
            known.leaving[name] = (now, report.load.messages if report and report.load else 0)
        await world.records.normal(seen.key, seen.uid, *_told(change, decision, known))

    def note(self, seen: Seen, reports: Mapping[str, Report]) -> None:
        """What the pods said just now."""
        known = self._of(seen)
        known.reports = reports
        takes_part = [pod["metadata"]["name"] for pod in seen.pods if is_ready(pod) and not is_going(pod)]
        loads = [
            one.load
            for name in takes_part
            if (one := reports.get(name)) is not None and one.load is not None and one.ready and not one.draining
        ]
        keeps = _window(seen.spec.autoscaling if seen.spec is not None else None)
        missing, unready = len(takes_part) - len(loads), sum(is_alive(pod) and not is_ready(pod) for pod in seen.pods)
        known.history.add(sample(self._now(), loads, missing, unready), keeps)

    def phase(self, seen: Seen) -> str:
        """ScalingUp until the pods asked for are ready, ScalingDown until those that go have left; else ""."""
        known = self._of(seen)
        if known.is_growing and known.past is not None:
            known.is_growing = sum(is_ready(pod) for pod in seen.pods) < known.past.pods
            if known.is_growing:
                return "ScalingUp"
        return "ScalingDown" if any(pod["metadata"]["name"] in known.leaving for pod in seen.pods) else ""

    # ------------------------------------------------------------------ inside

    def _of(self, seen: Seen) -> _Known:
        """An MTA of the same name that was made anew begins anew."""
        known = self._known.get(seen.key)
        if known is None or known.uid != seen.uid:
            known = self._known[seen.key] = _Known()
            known.uid = seen.uid
        return known

    async def _mark(self, world: World, seen: Seen, pod: str, value: str | None) -> None:
        key = Key("Pod", seen.key.namespace, pod)
        try:
            answer = await world.api.patch(key, {"metadata": {"annotations": {cost.COST: value}}})
        except ApiError as error:
            if error.is_passing:
                raise
            log.warning("pod %s is not marked: %s", pod, error)  # it has gone, or may not be: another one goes
            return
        world.store.put("Pod", answer)

    async def _tell_of_leaving(self, world: World, seen: Seen, known: _Known) -> None:
        there = {pod["metadata"]["name"] for pod in seen.pods}
        for name in [name for name in known.leaving if name not in there]:
            since, messages = known.leaving.pop(name)
            text = (
                f"Pod {name} has left after {short(self._now() - since)}; {_count(messages)} it held have new owners"
            )
            await world.records.normal(seen.key, seen.uid, "PodLeft", f"{text}.")


def _told(change: Change, decision: Decision, known: _Known) -> tuple[str, str]:
    """Reason and words of the event."""
    why = f"{change.before} -> {change.after} pods: {decision.message or decision.state}."
    if change.after > change.before:
        return "ScalingUp", why
    held_by = [f"{name} ({_count(known.leaving[name][1])})" for name in change.go if name in known.leaving]
    return "ScalingDown", f"{why} These go: {', '.join(held_by)}." if held_by else why


def _count(messages: int) -> str:
    return "1 message" if messages == 1 else f"{messages} messages"


def _window(wish: Autoscaling | None) -> float:
    """Seconds of history that a decision may look at."""
    if wish is None:
        return KEEPS
    return KEEPS + max(wish.behavior.scale_up.stabilization, wish.behavior.scale_down.stabilization)


def _replicas(seen: Seen) -> int | None:
    """Of the Deployment that is there."""
    deployment: Raw | None = seen.deployment
    return None if deployment is None else int(deployment["spec"].get("replicas", 1))
