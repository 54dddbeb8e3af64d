"""One moment -> how many pods each target asks for. Pure.

Rules of this file
- A need is a number of pods for all of the work there is, not a difference: so it stays the same while pods that were
  asked for still start.
- Mail that is put off or held, and mail that waits for what its destination takes, is in none of these numbers (the
  pods leave it out of `ready`); it counts only as memory, and memory never adds pods: it keeps them.
- Age alone adds no pods to a queue that is worked off in time; where nothing at all is worked off it adds one.
"""

from __future__ import annotations

from typing import NamedTuple

from posthof_crds.autoscaling import Targets
from posthof_operator.scale.history import Sample

LASTING = 10.0  # seconds the oldest mail has waited: what is younger passes by itself
MOST = 2.0  # an age or a latency asks for so many times the pods there are, at most
BUSY = 0.5  # of the target of cpu or sessions: from here on a slow answer may be for want of pods
FULL = 0.8  # of what fits into the pods' memory: a scale-in leaves at most so much


class Need(NamedTuple):
    """`pods` is a fraction; `text` says what there is, beside its target."""

    pods: float
    name: str  # of the target
    text: str


def needs(now: Sample, targets: Targets) -> list[Need]:
    """What each target asks for, the greatest first; none without pods that report."""
    if not now.pods:
        return []
    found = [
        Need(now.pods * now.cpu / targets.cpu, "cpu", f"CPU is at {now.cpu:.0%} (target {targets.cpu:.0%})"),
        Need(
            now.pods * now.sessions / targets.sessions,
            "sessions",
            f"{now.sessions:.0%} of the sessions are taken (target {targets.sessions:.0%})",
        ),
        *_of_queue(now, targets),
        *_of_latency(now, targets),
    ]
    if now.unowned:
        found.append(Need(now.pods + 1.0, "memory", f"{now.unowned} lanes wait for a worker with room"))
    return sorted(found, key=lambda need: -need.pods)


def _of_queue(now: Sample, targets: Targets) -> list[Need]:
    if not now.ready or now.oldest < LASTING:
        return []
    if now.drained <= 0.0:
        text = f"{now.ready} messages wait, the oldest for {short(now.oldest)}, and none was tried for a minute"
        return [Need(now.pods + 1.0, "oldestReady", text)] if now.oldest > targets.oldest_ready else []
    seconds = now.ready / now.drained
    text = f"{now.ready} messages wait, which takes {short(seconds)} (target {short(targets.backlog)})"
    found = [Need(now.pods * seconds / targets.backlog, "backlog", text)]
    if now.oldest > targets.oldest_ready and seconds > targets.oldest_ready:
        times = min(now.oldest / targets.oldest_ready, seconds / targets.oldest_ready, MOST)
        text = f"the oldest mail waits for {short(now.oldest)} (target {short(targets.oldest_ready)})"
        found.append(Need(now.pods * times, "oldestReady", text))
    return found


def _of_latency(now: Sample, targets: Targets) -> list[Need]:
    """Half of the target keeps pods, all of it adds some; where pods have little to do it says nothing of them."""
    is_busy = now.cpu >= BUSY * targets.cpu or now.sessions >= BUSY * targets.sessions
    times = now.latency / targets.accept_latency
    if not is_busy or times < 0.5:
        return []
    text = f"a message is accepted after {short(now.latency)} (target {short(targets.accept_latency)})"
    return [Need(now.pods * (min(times, MOST) if times > 1.0 else 1.0), "acceptLatency", text)]


def fits(pods: int, now: Sample) -> bool:
    """Whether so few pods hold all mail in memory, with room to spare. Unknown: it is not refused for that."""
    return not now.room or now.messages <= FULL * now.room * pods


def short(seconds: float) -> str:
    """For people: 0.3s, 12s, 15m, 3h, 2d."""
    if seconds < 10:
        return f"{seconds:.1f}s".replace(".0s", "s")
    for size, unit, until in ((86400, "d", 2 * 86400), (3600, "h", 2 * 3600), (60, "m", 120)):
        if seconds >= until:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
