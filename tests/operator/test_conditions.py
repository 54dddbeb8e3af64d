"""Conditions as Kubernetes wants them, and the Events that follow from them."""

from __future__ import annotations

import datetime

import pytest

from posthof_crds.reasons import CONDITIONS, Condition, Reason
from posthof_operator.conditions import Said, merged, said, transitions

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
LATER = NOON + datetime.timedelta(minutes=5)


def test_the_moment_changes_with_the_status_and_with_nothing_else() -> None:
    first = merged([said(Condition.READY, False, Reason.NO_POD_READY, "none")], [], generation=1, now=NOON)
    second = merged([said(Condition.READY, False, Reason.PODS_NOT_READY, "one")], first, generation=2, now=LATER)
    assert second[0]["lastTransitionTime"] == "2026-01-01T12:00:00Z"
    assert (second[0]["reason"], second[0]["observedGeneration"]) == ("PodsNotReady", 2)
    third = merged([said(Condition.READY, True, Reason.READY, "all")], second, generation=2, now=LATER)
    assert third[0]["lastTransitionTime"] == "2026-01-01T12:05:00Z"


def told(*says: Said) -> list[dict[str, object]]:
    return merged(says, [], generation=1, now=NOON)


READY = said(Condition.READY, True, Reason.READY, "all")
STARTS = said(Condition.READY, False, Reason.ROLLING_OUT, "two")
BROKEN = said(Condition.READY, False, Reason.NO_POD_READY, "none")
WRONG = said(Condition.READY, False, Reason.INVALID, "wrong")
UNKNOWN = Said(Condition.READY, "Unknown", Reason.PAUSED, "paused")
STALLED = said(Condition.STALLED, True, Reason.INVALID, "wrong")
MOVES = said(Condition.RECONCILING, True, Reason.PROGRESSING, "moves")


@pytest.mark.parametrize(
    ("before", "now", "events"),
    [
        ([], [BROKEN], []),  # what it begins with is no transition
        ([READY], [READY], []),
        ([READY], [STARTS, MOVES], []),  # on its way
        ([STARTS, MOVES], [READY], []),
        ([READY], [BROKEN], [("NoPodReady", True)]),
        ([BROKEN], [BROKEN], []),
        ([BROKEN], [WRONG], [("Invalid", True)]),  # for another reason
        ([BROKEN], [READY], [("Ready", False)]),  # right again
        ([BROKEN], [UNKNOWN], []),
        ([READY], [READY, STALLED], [("Invalid", True)]),
        ([READY, STALLED], [READY], []),
    ],
)
def test_an_event_is_told_when_something_went_wrong_or_is_right_again(before, now, events) -> None:
    found = transitions("MTA", now, told(*before))
    assert [(str(one.said.reason), one.is_bad) for one in found] == events


def test_every_kind_says_what_it_says_only_while_true() -> None:
    for kind, texts in CONDITIONS.items():
        abnormal = {text.type for text in texts if text.is_only_while_true}
        assert Condition.STALLED in abnormal, kind
