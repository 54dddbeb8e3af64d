"""Label selectors as Kubernetes has them: the model of a manifest, and the question whether labels match.

A selector without any part selects everything (a missing one does so too wherever the field's doc says so).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, Self

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


Need = tuple[str, str, tuple[str, ...]]  # key, operator, values


class Selector(NamedTuple):
    """A LabelSelector as a value: `(key, operator, values)` each, sorted. Equal selectors are equal values."""

    needs: tuple[Need, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it selects something with these labels."""
        return all(_holds(key, operator, values, labels) for key, operator, values in self.needs)

    def __str__(self) -> str:
        """As `kubectl -l` writes it; "" selects everything. `parse` reads it back."""
        return ",".join(_text(*need) for need in self.needs)


def selector(given: LabelSelector) -> Selector:
    needs: set[Need] = {(key, "In", (value,)) for key, value in given.match_labels.items()}
    needs |= {(each.key, str(each.operator), tuple(sorted(set(each.values)))) for each in given.match_expressions}
    return Selector(tuple(sorted(needs)))


def _holds(key: str, operator: str, values: tuple[str, ...], labels: Mapping[str, str]) -> bool:
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    return (labels.get(key) in values) == (operator == "In")


def _text(key: str, operator: str, values: tuple[str, ...]) -> str:
    if operator == "Exists":
        return key
    if operator == "DoesNotExist":
        return f"!{key}"
    if operator == "In" and len(values) == 1:
        return f"{key}={values[0]}"
    return f"{key} {'in' if operator == 'In' else 'notin'} ({','.join(values)})"


_NEED = re.compile(r"(!?)([^ ,=()!]+)(?:=([^,()= ]*)| (in|notin) \(([^()]*)\))?(?:,|$)")


def parse(text: str) -> Selector:
    """What `str` of a Selector wrote. ValueError: it did not."""
    needs: list[Need] = []
    at = 0
    while at < len(text):
        found = _NEED.match(text, at)
        if found is None:
            raise ValueError(f"{text!r} is not a selector")
        absent, key, value, word, values = found.groups()
        if absent:
            needs.append((key, "DoesNotExist", ()))
        elif word:
            needs.append((key, "In" if word == "in" else "NotIn", tuple(values.split(","))))
        elif value is not None:
            needs.append((key, "In", (value,)))
        else:
            needs.append((key, "Exists", ()))
        at = found.end()
    return Selector(tuple(needs))


class Selection(NamedTuple):
    """Pods that a RelayPolicy is about. `str` of it is its id in engine.Match.workloads, which people read too."""

    namespace: str  # the one namespace, or "" for those that `namespaces` selects
    namespaces: Selector
    pods: Selector

    def __str__(self) -> str:
        where = f"namespace {self.namespace}" if self.namespace else f"namespaces ({self.namespaces})"
        return f"{where}: pods ({self.pods})"


_SELECTION = re.compile(r"(?:namespace (\S+)|namespaces \((.*)\)): pods \((.*)\)")


def parse_selection(text: str) -> Selection:
    """What `str` of a Selection wrote. ValueError: it did not."""
    found = _SELECTION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a selection of pods")
    return Selection(found[1] or "", parse(found[2] or ""), parse(found[3]))
