"""crds/*.yaml are in step with the models, and what the API server is given keeps its own rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from posthof_crds import openapi, render
from posthof_crds.parts import MODELS

FOLDER = Path(__file__).parents[2] / "crds"


def test_the_committed_definitions_are_in_step_with_the_models() -> None:
    committed = {path.name: path.read_text() for path in FOLDER.glob("*.yaml")}
    assert committed == render.files(), "run: python -m posthof_crds.render crds"


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside a schema, with its path."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def all_nodes() -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in MODELS:
        for part in ("spec", "status"):
            yield from nodes(openapi.schema_of_kind(kind)["properties"][part], f"{kind}.{part}")


def test_every_text_list_and_map_is_bounded() -> None:
    unbounded = [
        path
        for path, schema in all_nodes()
        if (schema.get("type") == "string" and "maxLength" not in schema and "enum" not in schema)
        or (schema.get("type") == "array" and "maxItems" not in schema)
        or ("additionalProperties" in schema and "maxProperties" not in schema)
    ]
    assert unbounded == []


def test_every_field_reads_like_documentation() -> None:
    mute = [
        path for path, schema in all_nodes() if not path.endswith("[]") and len(schema.get("description", "")) < 8
    ]
    assert mute == []


def test_a_default_that_the_server_does_not_fill_in_is_told() -> None:
    listener = openapi.schema_of_kind("MTA")["properties"]["spec"]["properties"]["listeners"]["items"]
    limits = listener["properties"]["limits"]["properties"]
    assert limits["timeout"]["description"].endswith("Default: 5m.")
    assert limits["messageSize"]["description"].endswith("Default: 35Mi.")


def test_only_what_columns_and_scaling_read_is_filled_in_by_the_server() -> None:
    filled = {path: schema["default"] for path, schema in all_nodes() if "default" in schema}
    assert filled == {"MTA.spec.replicas": 1, "RelayPolicy.spec.priority": 0, "RelayPolicy.spec.tls": "Best"}


@pytest.mark.parametrize("kind", MODELS)
def test_columns_are_at_most_seven_beside_the_name(kind: str) -> None:
    columns = openapi.COLUMNS[kind]
    assert len([each for each in columns if not each.is_wide]) <= 7
    assert len({each.name for each in columns}) == len(columns)


@pytest.mark.parametrize("kind", MODELS)
def test_columns_and_selectable_fields_lead_to_fields(kind: str) -> None:
    schema = openapi.schema_of_kind(kind)
    paths = [each.path for each in openapi.COLUMNS[kind]] + list(openapi._SELECTABLE[kind])
    for path in paths:
        if path.startswith((".status.conditions[", ".metadata.")):
            continue
        current = schema
        for name in path.replace("[*]", ".[]").replace("[0]", ".[]").split(".")[1:]:
            current = current["items"] if name == "[]" else current["properties"][name]
        assert current["type"] in ("string", "integer", "boolean"), path


def test_the_scale_subresource_reads_fields_that_are_there() -> None:
    definition = yaml.safe_load((FOLDER / "mtas.yaml").read_text())
    scale = definition["spec"]["versions"][0]["subresources"]["scale"]
    assert scale == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }


def test_conditions_and_listeners_are_maps_for_server_side_apply() -> None:
    keys = {
        path.rpartition(".")[2]: schema["x-kubernetes-list-map-keys"]
        for path, schema in all_nodes()
        if schema.get("x-kubernetes-list-type") == "map"
    }
    assert keys == {"listeners": ["name"], "conditions": ["type"]}


def test_every_kind_is_in_the_category_mail() -> None:
    for kind, definition in openapi.definitions().items():
        assert definition["spec"]["names"]["categories"] == ["mail"], kind
    shorts = {kind: each["spec"]["names"].get("shortNames") for kind, each in openapi.definitions().items()}
    assert shorts == {
        "MTA": None,
        "MailDomain": ["md"],
        "RelayPolicy": ["rp"],
        "AccessPolicy": ["acp"],
        "SMTPCredential": ["smtpc"],
        "DKIMKey": ["dkim"],
        "TLSCert": ["tlsc"],
    }
