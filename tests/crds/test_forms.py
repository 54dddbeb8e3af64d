"""The schema refuses nothing that the models accept: forms of texts, and every example there is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from kit.celcases import Case, cases
from posthof_crds import cel, fields, maildomain, openapi
from posthof_crds.parts import MODELS
from posthof_crds.units import Unclear, duration, size

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("*.yaml"))
Schema = dict[str, Any]


def faults(schema: Schema, value: Any, path: str = "") -> Iterator[str]:
    """What a structural schema has against a value, CEL aside; fields it does not know are faults."""
    if schema.get("x-kubernetes-int-or-string"):
        is_right = isinstance(value, int | str) and not isinstance(value, bool)
    else:
        kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": int | float}
        is_right = isinstance(value, kinds[schema["type"]]) and (schema["type"] == "boolean") == isinstance(
            value, bool
        )
    if not is_right:
        yield f"{path}: {value!r} has the wrong type"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if isinstance(value, str):
        yield from _of_text(schema, value, path)
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema["maxItems"]:
            yield f"{path}: {len(value)} entries"
        for n, each in enumerate(value):
            yield from faults(schema["items"], each, f"{path}[{n}]")
    elif isinstance(value, dict):
        yield from _of_object(schema, value, path)
    elif not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: {value} is out of bounds"


def _of_text(schema: Schema, value: str, path: str) -> Iterator[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{path}: {len(value)} characters"
    pattern = schema.get("pattern", "")
    if not re.search(pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern, value):  # Go's $ is the very end
        yield f"{path}: {value!r} is not {schema['pattern']}"


def _of_object(schema: Schema, value: Schema, path: str) -> Iterator[str]:
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}.{name} is missing"
    known, other = schema.get("properties", {}), schema.get("additionalProperties")
    for name, each in value.items():
        if name in known:
            yield from faults(known[name], each, f"{path}.{name}")
        elif other is None:
            yield f"{path}.{name} is not known"
        else:
            yield from faults(other, each, f"{path}.{name}")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_example_fits_the_schema(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        if document and document.get("kind") in MODELS:
            spec = openapi.schema_of_kind(document["kind"])["properties"]["spec"]
            assert list(faults(spec, document["spec"])) == []


@pytest.mark.parametrize("case", [case for case in cases() if case.is_accepted], ids=str)
def test_every_accepted_case_fits_the_schema(case: Case) -> None:
    spec = openapi.schema_of_kind(case.raw["kind"])["properties"]["spec"]
    assert list(faults(spec, case.raw["spec"])) == []


ALPHABET = st.sampled_from([*"abzAZ019.-_+@*/:[]{}<>=;!#$%&'\"\\ ~,^|?`()", "ü", "ß", "例", "\n", "\x00", "\t"])
TEXTS = st.text(ALPHABET, max_size=24)


def _accepts(validator: Callable[[str], Any], text: str) -> bool:
    try:
        validator(text)
    except (PydanticCustomError, Unclear):
        return False
    return True


@pytest.mark.parametrize("validator", cel.FORMS, ids=lambda each: each.__name__)
def test_what_a_validator_accepts_the_pattern_accepts(validator: Callable[[str], Any]) -> None:
    form = cel.FORMS[validator]
    schema = {"type": "string", "pattern": form.pattern} if form.pattern else {"type": "string"}

    @given(TEXTS)
    @example("bücher.example")
    @example("first.last@example.org")
    @example('"two words"')
    @example("*@*.example.org")
    @example("{domain}/{local}")
    @example("v=spf1 mx -all")
    @example("v=DMARC1; p=none")
    @example("_submission._tcp.example.org")
    @example("*.{namespace}.svc.cluster.local")
    @example("2001:db8::1@53")
    @example("<>")
    @example("")
    def holds(text: str) -> None:
        if _accepts(validator, text):
            assert list(faults(schema, text)) == []

    holds()


@given(st.text(st.sampled_from(list("0123456789dhms")), max_size=9))
def test_durations_have_one_form(text: str) -> None:
    schema = {"type": "string", "pattern": cel.DURATION.pattern, "minLength": cel.DURATION.min_length}
    assert _accepts(duration, text) == (list(faults(schema, text)) == [])


@given(st.text(st.sampled_from(list("0123456789KMGTik")), max_size=6))
def test_sizes_have_one_form(text: str) -> None:
    schema = {"type": "string", "pattern": cel.SIZE.pattern}
    assert _accepts(size, text) == (list(faults(schema, text)) == [])


@given(TEXTS)
def test_local_parts_and_separators_have_one_form(text: str) -> None:
    """Here the pattern is exact: what it lets through the validator takes, but for its bound in octets."""
    for validator in (maildomain._is_separator, fields.one_line):
        form = cel.FORMS[validator]
        is_taken = list(faults({"type": "string", "pattern": form.pattern, "maxLength": form.max_length}, text)) == []
        assert is_taken == _accepts(validator, text)
