"""Every rule of the schema has a case it takes and one it refuses, and the models agree with all of them."""

from __future__ import annotations

import re

import pytest

from kit.celcases import Case, cases, names_of_rules
from posthof_crds import cel
from posthof_crds.parts import read


@pytest.mark.parametrize("case", cases(), ids=str)
def test_the_models_give_the_same_verdict(case: Case) -> None:
    _, flaws = read(case.raw["kind"], case.raw)
    assert (flaws == ()) == case.is_accepted, [str(flaw) for flaw in flaws]


def test_every_rule_has_both_kinds_of_case() -> None:
    found = cases()
    assert names_of_rules() <= {case.rule for case in found if case.is_accepted}
    assert names_of_rules() <= {case.rule for case in found if not case.is_accepted}


def test_rules_have_names_of_their_own() -> None:
    names = [rule.name for rules in cel.RULES.values() for rule in rules]
    assert len(names) == len(set(names))


def test_a_message_says_what_is_wrong_and_what_to_write() -> None:
    for rule in (rule for rules in cel.RULES.values() for rule in rules):
        assert re.fullmatch(r"[^.].*[.?] [A-Z].*\.", rule.message.replace("`", "")), rule.name
