"""Conditions: said by rooms as (type, status, reason, message), kept as Kubernetes wants them. Pure.

Rules of this file
- `lastTransitionTime` changes with `status` and with nothing else.
- A condition that exists only while True (reasons.py) is left out otherwise; so kstatus reads "current".
- What became so is an event, once: `transitions`.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple

from posthof_crds.reasons import CONDITIONS, Condition, Reason
from posthof_operator.resources import Raw

Truth = Literal["True", "False", "Unknown"]
_ON_THE_WAY = (Reason.ROLLING_OUT, Reason.CONVERGING, Reason.DELETING, Reason.CLAIM_PENDING, Reason.ISSUING)
LONGEST = 2000  # characters of a message: a person reads it


class Said(NamedTuple):
    """One condition, as a room says it."""

    type: Condition
    status: Truth
    reason: Reason
    message: str

    @property
    def is_true(self) -> bool:
        return self.status == "True"


def truth(value: bool) -> Truth:
    return "True" if value else "False"


def said(type_: Condition, value: bool, reason: Reason, message: str) -> Said:
    return Said(type_, truth(value), reason, message)


def moment(now: datetime.datetime) -> str:
    """As Kubernetes writes moments, in UTC, to the second."""
    return now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def merged(says: Iterable[Said], old: Sequence[Raw], *, generation: int, now: datetime.datetime) -> list[Raw]:
    """The conditions for a status, sorted by type; `old` are those there now, of any writer."""
    before = {one["type"]: one for one in old}
    found = []
    for one in sorted(says, key=lambda said: said.type):
        known = before.get(one.type, {})
        is_same = known.get("status") == one.status
        found.append(
            {
                "type": str(one.type),
                "status": one.status,
                "reason": str(one.reason),
                "message": shortened(one.message),
                "observedGeneration": generation,
                "lastTransitionTime": known["lastTransitionTime"] if is_same else moment(now),
            }
        )
    return found


def shortened(message: str) -> str:
    return message if len(message) <= LONGEST else message[: LONGEST - 4] + " ..."


class Transition(NamedTuple):
    """What became so, worth an Event. `is_bad`: somebody should look."""

    said: Said
    is_bad: bool


def transitions(kind: str, says: Iterable[Said], old: Sequence[Raw]) -> list[Transition]:
    """What went wrong, for a reason of its own; and what is all right again. A change on its way, and what an object
    begins with, is neither."""
    before = {one["type"]: Said(one["type"], one["status"], one["reason"], "") for one in old}
    found = []
    for one in says:
        known = before.get(one.type)
        was_bad, is_bad = known is not None and is_wrong(kind, known), is_wrong(kind, one)
        if is_bad and (known is None or not was_bad or known.reason != one.reason):
            found.append(Transition(one, True))
        elif was_bad and not is_bad and is_right(kind, one):
            found.append(Transition(one, False))
    return found if before else []


def is_right(kind: str, one: Said) -> bool:
    return one.status != "Unknown" and one.is_true != _is_abnormal(kind, one)


def is_wrong(kind: str, one: Said) -> bool:
    """Whether somebody should look: not while a change is on its way, and not for what nobody knows yet."""
    if one.status == "Unknown" or one.type == Condition.RECONCILING or one.reason in _ON_THE_WAY:
        return False
    return one.is_true == _is_abnormal(kind, one)


def _is_abnormal(kind: str, one: Said) -> bool:
    return any(text.type == one.type and text.is_only_while_true for text in CONDITIONS[kind])


def is_said(raw: Raw, type_: Condition, reason: Reason) -> bool:
    """Whether the object's status says so, of its present generation."""
    generation = raw["metadata"].get("generation", 0)
    return any(
        (one["type"], one.get("reason"), one.get("observedGeneration", 0)) == (type_, reason, generation)
        for one in (raw.get("status") or {}).get("conditions") or ()
    )


def of_types(conditions: Iterable[Raw], types: Collection[str]) -> list[Raw]:
    """Those of some types, sorted by type."""
    return sorted((one for one in conditions if one["type"] in types), key=lambda one: str(one["type"]))
