"""Label selectors as Kubernetes has them: the model of a manifest, and the question whether labels match.

A selector without any part selects everything (a missing one does so too wherever the field's doc says so).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from posthof_crds.fields import Part, wrong

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}")
_VALUE = re.compile(rf"(?:{_NAME})?")


def label_key(value: str) -> str:
    if not _KEY.fullmatch(value):
        raise wrong(f"{value!r} is not the key of a label", "Write a key such as app or example.org/team.")
    return value


def label_value(value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise wrong(f"{value!r} is not the value of a label", "Use letters, digits, -, _ and . (at most 63).")
    return value


LabelKey = Annotated[str, AfterValidator(label_key), Field(max_length=317)]
LabelValue = Annotated[str, AfterValidator(label_value), Field(max_length=63)]


class Requirement(Part):
    """One condition on a label."""

    key: LabelKey
    """The label's key."""

    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """In: the label has one of the values. NotIn: it has none of them, or is not there. Exists: it is there.
    DoesNotExist: it is not there."""

    values: Annotated[tuple[LabelValue, ...], Field(max_length=64)] = ()
    """The values of In and NotIn."""

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        if self.operator in ("In", "NotIn") and not self.values:
            raise wrong(f"{self.operator} needs values", "Write values: [a, b].")
        if self.operator in ("Exists", "DoesNotExist") and self.values:
            raise wrong(f"values say nothing for {self.operator}", "Remove values, or use In or NotIn.")
        return self


class LabelSelector(Part):
    """Selects by labels: every part that is given must hold. `{}` selects everything."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] = Field(default_factory=dict)
    """Labels that must have exactly these values."""

    match_expressions: Annotated[tuple[Requirement, ...], Field(max_length=64)] = ()
    """Further conditions, all of which must hold."""


EVERYTHING = LabelSelector()


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether the selector selects something with these labels."""
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    return all(_holds(each, labels) for each in selector.match_expressions)


def _holds(each: Requirement, labels: Mapping[str, str]) -> bool:
    is_there = each.key in labels
    if each.operator == "Exists":
        return is_there
    if each.operator == "DoesNotExist":
        return not is_there
    is_one_of_them = is_there and labels[each.key] in each.values
    return is_one_of_them if each.operator == "In" else not is_one_of_them


def text(selector: LabelSelector) -> str:
    """As `kubectl -l` writes it, the parts sorted: equal selectors have equal texts. "" selects everything."""
    parts = [f"{key}={value}" for key, value in selector.match_labels.items()]
    for each in selector.match_expressions:
        values = ",".join(sorted(set(each.values)))
        words = {
            "In": f"{each.key} in ({values})",
            "NotIn": f"{each.key} notin ({values})",
            "Exists": each.key,
            "DoesNotExist": f"!{each.key}",
        }
        parts.append(words[each.operator])
    return ",".join(sorted(parts))
