"""The cases of tests/crds/cel_cases.yaml as objects: what the models say to them, and what an API server should."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from posthof_crds import cel

FILE = Path(__file__).parents[1] / "crds" / "cel_cases.yaml"
_MESSAGES = {rule.name: rule.message for rules in cel.RULES.values() for rule in rules}
_MESSAGES |= {rule.name: rule.message for form in cel.FORMS.values() for rule in form.rules}
_BOUNDS = "this is out of range"


class Case(NamedTuple):
    """One object. `message`: what a refusal must say, "" where a pattern or bound of the schema refuses."""

    rule: str
    is_accepted: bool
    raw: dict[str, Any]
    message: str

    def __str__(self) -> str:
        return f"{self.rule}, {'accepted' if self.is_accepted else 'refused'}: {self.raw['spec']}"


def cases() -> list[Case]:
    """In the order of the file; every object has a name of its own, unless the case is about names."""
    found: list[Case] = []
    for entry in yaml.safe_load(FILE.read_text()):
        rule = entry["rule"]
        message = _BOUNDS if rule.endswith("-bounds") else _MESSAGES.get(rule, "")
        for verdict in ("accepted", "refused"):
            for spec in entry.get(verdict, ()):
                raw = {
                    "apiVersion": "posthof.dev/v1alpha1",
                    "kind": entry["kind"],
                    "metadata": {"name": entry.get("name", f"case-{len(found)}")},
                    "spec": spec,
                }
                found.append(Case(rule, verdict == "accepted", raw, message))
    return found


def names_of_rules() -> set[str]:
    """Every rule that some schema has."""
    return {*_MESSAGES, "duration-bounds", "size-bounds"}
