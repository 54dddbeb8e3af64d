"""The field docs of the models -> docs/reference/*.md: meaning, type and unit, default, why.

`python -m posthof_crds.reference docs/reference` writes the pages; a test asserts that those committed are in step.
The models are the only source: nothing about a field is written by hand anywhere else.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from posthof_crds import core, fields, patterns
from posthof_crds.load import KINDS
from posthof_crds.mistakes import bare, words
from posthof_crds.units import duration_text, size_text

_HEAD = (
    "<!-- Generated from crds/posthof_crds by `python -m posthof_crds.reference docs/reference`. Do not edit. -->\n"
)

_TEXTS = {
    "fqdn": "domain name",
    "host_or_address": "host name or IP address",
    "srv_name": "SRV name",
    "ip_address": "IP address",
    "listen_address": 'IP address or ""',
    "resolver_address": "address[@port]",
    "network": "network",
    "local_part": "local part",
    "address": "mail address",
    "address_or_local": "mail address or local part",
    "pattern": "address pattern",
    "one_line": "text, one line",
    "file_path": "path",
}


def pages() -> dict[str, str]:
    """File name -> content."""
    found = {f"{kind.lower()}.md": page(kind, model) for kind, model in KINDS.items()}
    return {"README.md": _index(), **found}


def _index() -> str:
    rows = []
    for kind, model in KINDS.items():
        short = getattr(model, "short", "") or "-"
        rows.append(f"| [{kind}]({kind.lower()}.md) | {short} | {_one_line(_first(model.__doc__))} |")
    return "\n".join(
        [
            _HEAD,
            "# Reference",
            "",
            "What `posthof up -f DIR` reads: every `.yaml` and `.yml` file directly in the folder. One folder holds",
            "one MTA and any number of the others. `posthof check -f DIR` tells every mistake at once.",
            "",
            "| kind | short | what it is |",
            "|---|---|---|",
            *rows,
            "",
            "Durations are written `30s`, `5m`, `1h30m`, `5d`; sizes in bytes or as `64Ki`, `35Mi`, `2Gi`. A field that",
            "is not listed is an error. Address patterns know one wildcard, `*`:",
            "",
            *_after(patterns, 2),
            "",
        ]
    )


def page(kind: str, model: type[BaseModel]) -> str:
    """The page of one kind: a table for the object and one for each object inside it."""
    version = "v1" if kind in ("Secret", "ConfigMap") else core.API_VERSION
    lines = [
        _HEAD,
        f"# {kind}",
        "",
        _paragraph(model.__doc__),
        "",
        f"    apiVersion: {version}",
        f"    kind: {kind}",
        "",
    ]
    lines += _notes(model)
    for path, part in _objects(model):
        if path:
            lines += [f"## {path}", "", _paragraph(part.__doc__), ""]
        lines += _table(part)
    if kind in _MORE:
        title, module = _MORE[kind]
        lines += [f"## {title}", "", *_after(module, 2)]
    return "\n".join(lines)


def _after(module: ModuleType, paragraphs: int) -> list[str]:
    """A module's head without its first paragraphs."""
    return [*"\n\n".join((module.__doc__ or "").strip().split("\n\n")[paragraphs:]).splitlines(), ""]


def _notes(model: type[BaseModel]) -> list[str]:
    """The head of the file that holds the kind, without its first paragraph."""
    source = sys.modules[model.__module__].__doc__ or ""
    if model.__module__ == core.__name__:
        return []
    return _after(sys.modules[model.__module__], 1) if "\n\n" in source.strip() else []


def _objects(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every object of a kind by its path; `[]` marks the items of a list."""
    yield path, model
    for name, info in model.model_fields.items():
        inner, mark = _inside(info.annotation)
        if inner is not None and inner is not core.Metadata:
            written = info.alias or name
            yield from _objects(inner, f"{path}.{written}{mark}" if path else f"{written}{mark}")


def _inside(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The object a field holds, and "[]" for a list of them."""
    current, mark = bare(annotation), ""
    if get_origin(current) is tuple:
        current, mark = bare(get_args(current)[0]), "[]"
    is_object = isinstance(current, type) and issubclass(current, BaseModel)
    return (current, mark) if is_object else (None, "")


def _table(model: type[BaseModel]) -> list[str]:
    if not model.model_fields:
        return ["It has no fields: write `{}`.", ""]
    rows = [
        f"| `{info.alias or name}` | {type_text(info)} | {default_text(info)} | {_one_line(info.description)} |"
        for name, info in model.model_fields.items()
    ]
    return ["| field | type | default | meaning |", "|---|---|---|---|", *rows, ""]


def type_text(info: FieldInfo) -> str:
    """The type as a person names it, with its bounds."""
    return _named(info.annotation, list(info.metadata)).replace("|", "\\|")


def _named(annotation: Any, metadata: list[Any]) -> str:
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        metadata = [*metadata, *more]
    stripped = bare(annotation)
    if stripped is not annotation:
        inner = next(part for part in get_args(annotation) if part is not type(None))
        return _named(inner, metadata)
    if known := words(stripped):
        return ", ".join(f"`{word}`" for word in known)
    for each in metadata:
        if isinstance(each, fields.Unit):
            return each.name + _bounds(metadata)
        text = _TEXTS.get(getattr(getattr(each, "func", None), "__name__", ""))
        if text:
            return text
    return _plain(stripped, metadata)


def _plain(annotation: Any, metadata: list[Any]) -> str:
    if get_origin(annotation) is tuple:
        return f"list of {_named(get_args(annotation)[0], [])}"
    if get_origin(annotation) is dict:
        key, value = (_named(part, []) for part in get_args(annotation))
        return f"map: {key} -> {value}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "object"
    return {str: "text", int: "number", float: "number", bool: "true or false"}[annotation] + _bounds(metadata)


def _bounds(metadata: list[Any]) -> str:
    low, high = None, None
    for each in metadata:
        low = getattr(each, "ge", low)
        high = getattr(each, "le", high)
    if low is None and high is None:
        return ""
    return (
        f", {low} to {high}" if None not in (low, high) else f", at least {low}" if high is None else f", to {high}"
    )


def default_text(info: FieldInfo) -> str:
    """The default, or that the field is required."""
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    units = {each.name for each in info.metadata if isinstance(each, fields.Unit)}
    if value is None or value is PydanticUndefined:
        return "-"
    if isinstance(value, BaseModel):
        return "its defaults"
    if "duration" in units:
        return f"`{duration_text(value)}`"
    if "size" in units:
        return f"`{size_text(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, enum.Enum):
        return f"`{value.value}`"
    if value in ((), {}, ""):
        return '`""`' if value == "" else "none"
    return f"`{value}`"


def _first(text: str | None) -> str:
    return (text or "").strip().partition("\n\n")[0]


def _paragraph(text: str | None) -> str:
    return " ".join(_first(text).split())


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
