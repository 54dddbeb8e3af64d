"""What pods took over from others, as Kubernetes Events about their MTA: once each.

Rules of this file
- A pod tells of a take-over in every report for some minutes; it is posted when it is first seen. Its id makes the
  Event's words differ from any other's, and Records posts the same words once.
- What was taken over before this operator looked for the first time may be posted again; nothing older than AGE.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from posthof_crds.report import Report, TakeOver
from posthof_operator.resources import Key
from posthof_operator.world import World

AGE = 300.0  # seconds
REMEMBERED = 5000
TAKEN, FREED = "LanesTakenOver", "LanesHandedOver"


class TakeOvers:
    """Remembers what was told."""

    def __init__(self) -> None:
        self._told: dict[str, None] = {}

    async def tell(self, world: World, key: Key, uid: str, reports: Iterable[Report]) -> None:
        """Post what is new."""
        now = world.now().timestamp()
        for report in reports:
            for one in report.take_overs:
                if one.id in self._told or now - one.at > AGE:
                    continue
                self._told[one.id] = None
                post = world.records.normal if one.freed else world.records.warning
                await post(key, uid, FREED if one.freed else TAKEN, words(report.pod, one))
        while len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]


def words(pod: str, one: TakeOver) -> str:
    """For people: who took what from whom, how long it took, and what may come twice."""
    lanes = f"{one.count} lane{'s' if one.count != 1 else ''}"
    names = ", ".join(one.lanes) + (", ..." if one.count > len(one.lanes) else "")
    whose = f"worker {one.worker}" + (f" of pod {one.pod}" if one.pod else "")
    at = datetime.datetime.fromtimestamp(one.at, datetime.UTC).strftime("%H:%M:%S")
    text = f"Pod {pod} took over {lanes} ({names}) with {one.messages} messages in {one.seconds:.1f} s from {whose}"
    if one.freed:
        return f"{text}, which handed them over at {at} UTC."
    text += f", which ended without freeing them, at {at} UTC."
    if one.possible_duplicates:
        text += f" {one.possible_duplicates} recipients were being sent theirs and may get it twice."
    return f"{text} If the volume is a restored snapshot, all {one.messages} may be sent again."
