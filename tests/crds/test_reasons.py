"""Conditions and reasons are a closed list, and all of it is documented."""

from __future__ import annotations

import re

from posthof_crds.reasons import CONDITIONS, MEANINGS, Condition, Reason
from posthof_crds.status import STATUSES


def test_every_reason_has_a_meaning_and_a_condition() -> None:
    assert set(MEANINGS) == set(Reason)
    given = {reason for kinds in CONDITIONS.values() for each in kinds for reason in each.reasons}
    assert given == set(Reason)


def test_every_condition_is_one_of_a_kind() -> None:
    assert set(CONDITIONS) == set(STATUSES)
    assert {each.type for kinds in CONDITIONS.values() for each in kinds} == set(Condition)


def test_words_are_camel_case_and_sentences_are_sentences() -> None:
    for word in (*Reason, *Condition):
        assert re.fullmatch(r"[A-Z][A-Za-z]+", word)
    for meaning in MEANINGS.values():
        assert re.fullmatch(r"[A-Z].*\.", meaning)


def test_conditions_that_warn_exist_only_while_they_are_true() -> None:
    warning = {each.type for kinds in CONDITIONS.values() for each in kinds if each.is_only_while_true}
    assert warning == {Condition.RECONCILING, Condition.STALLED, Condition.ISSUING, Condition.CONFLICTED}
