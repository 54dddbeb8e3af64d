"""pydantic's errors -> Problems: at a line, in our words, with the mend.

Values are repeated only where the field's own type does so (`fields.wrong`); a Secret's never are.
"""

from __future__ import annotations

import enum
import re
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from posthof_crds.documents import Document, Path
from posthof_crds.problems import Problem, did_you_mean, sentence

_QUOTED = re.compile(r"'([^']*)'")

# Fields that the design has and this version has not: saying so helps more than "unknown field".
_LATER = {
    "credentials": "there is no server-side AUTH yet, so there are no credentials to match",
    "auth": "there is no server-side AUTH yet",
    "outbound": "signing and publishing are not in this version",
    "egressPoolRef": "egress pools are not in this version; use egress",
    "status": "status is what a cluster reports, not what a manifest says",
}

_EXPECTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "is_instance_of": "an object",
}


def explain(error: ValidationError, model: type[BaseModel], document: Document) -> list[Problem]:
    """Every mistake of one object."""
    details = error.errors(include_url=False)
    # An entry that is wrong is not counted by pydantic: its list then seems too short as well.
    inside = {detail["loc"][:n] for detail in details for n in range(len(detail["loc"]))}
    real = (each for each in details if not (each["type"] == "too_short" and each["loc"] in inside))
    return [_explain(detail, model, document) for detail in real]


def _explain(detail: ErrorDetails, model: type[BaseModel], document: Document) -> Problem:
    path: Path = tuple(part for part in detail["loc"] if part != "[key]")
    kind = detail["type"]
    context = detail.get("ctx") or {}
    if kind == "wrong":
        return document.problem(path, str(context["what"]), str(context["instead"]))
    if kind == "extra_forbidden":
        return _unknown_field(path, model, document)
    if kind == "missing":
        return document.problem(path, "is missing", _how_to_write(path, model))
    if kind in ("enum", "literal_error"):
        known = _QUOTED.findall(str(context.get("expected", "")))
        given = detail["input"]
        what = f'"{given}" is not known here' if isinstance(given, str) else "this is not one of the known words"
        return document.problem(path, what, sentence(did_you_mean(str(given), known)))
    if kind in _EXPECTED:
        return document.problem(path, *_wrong_type(_EXPECTED[kind], detail["input"]))
    return document.problem(path, *_out_of_bounds(detail, context))


def _unknown_field(path: Path, model: type[BaseModel], document: Document) -> Problem:
    name = str(path[-1])
    if name in _LATER:
        return document.problem(path, "unknown field", sentence(f"Remove it: {_LATER[name]}"))
    known = sorted(field_names(_type_at(model, path[:-1])))
    return document.problem(path, "unknown field", sentence(did_you_mean(name, known)))


def _how_to_write(path: Path, model: type[BaseModel]) -> str:
    owner = _type_at(model, path[:-1])
    for name, info in getattr(owner, "model_fields", {}).items():
        if (info.alias or name) == path[-1] and info.description:
            return f"Write {path[-1]}: {' '.join(info.description.split())}"
    return f"Write {path[-1]}."


def _wrong_type(expected: str, given: Any) -> tuple[str, str]:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    found = "nothing" if given is None else names.get(type(given), "something else")
    what = f"this is {found}, and {expected} is wanted"
    if given is None:
        return what, "Write a value, or remove the field to take its default."
    if expected == "a text" and isinstance(given, bool | int | float):
        return what, "Put the value in quotation marks."
    if expected == "a list":
        return what, "Write it as a list: [ ... ], or one line each that begins with a hyphen."
    if expected == "true or false":
        return what, "Write true or false, without quotation marks."
    if expected in ("a whole number", "a number") and isinstance(given, str):
        return what, "Write the number without quotation marks and without a unit."
    return what, f"Write {expected}."


def _out_of_bounds(detail: ErrorDetails, context: dict[str, Any]) -> tuple[str, str]:
    context = {key: f"{value:g}" if isinstance(value, float) else value for key, value in context.items()}
    bounds = {
        "greater_than_equal": ("is too small", f"Write {context.get('ge')} or more."),
        "greater_than": ("is too small", f"Write more than {context.get('gt')}."),
        "less_than_equal": ("is too large", f"Write {context.get('le')} or less."),
        "less_than": ("is too large", f"Write less than {context.get('lt')}."),
        "too_short": ("has too few entries", f"Write at least {context.get('min_length')}."),
        "too_long": ("has too many entries", f"Write at most {context.get('max_length')}."),
        "string_too_long": ("is too long", f"Write at most {context.get('max_length')} characters."),
        "string_too_short": ("is too short", f"Write at least {context.get('min_length')} characters."),
    }
    return bounds.get(detail["type"], (detail["msg"], ""))


def field_names(annotation: Any) -> list[str]:
    """The fields a manifest may write in an object of this type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [info.alias or name for name, info in annotation.model_fields.items()]
    return []


def _type_at(model: type[BaseModel], path: Path) -> Any:
    """The type a path leads to, None where it leads nowhere."""
    current: Any = model
    for part in path:
        current = bare(current)
        if isinstance(current, type) and issubclass(current, BaseModel):
            fields = {info.alias or name: info.annotation for name, info in current.model_fields.items()}
            current = fields.get(str(part))
        elif get_args(current):
            current = get_args(current)[0 if isinstance(part, int) else -1]
        else:
            return None
    return bare(current)


def bare(annotation: Any) -> Any:
    """The type without Annotated and without the None of an optional field."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, UnionType):
            annotation = next(part for part in get_args(annotation) if part is not NoneType)
        else:
            return annotation


def words(annotation: Any) -> list[str]:
    """The words of an enum or Literal."""
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return [str(member.value) for member in annotation]
    return [str(word) for word in get_args(annotation)] if get_origin(annotation) is Literal else []
