"""The charts as data: values, schema, the committed renders, and the objects in them."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "posthof"
CRD_CHART = ROOT / "helm" / "posthof-crds"
GOLDEN = ROOT / "tests" / "helm" / "golden"
CASES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))

Object = dict[str, Any]


@cache
def script(name: str) -> ModuleType:
    """scripts/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(f"posthof_scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def values() -> Object:
    """values.yaml."""
    return dict(yaml.safe_load((CHART / "values.yaml").read_text()))


def values_of(case: str) -> Object:
    """values.yaml with ci/CASE-values.yaml over it, as Helm merges them."""
    return merged(values(), yaml.safe_load((CHART / "ci" / f"{case}-values.yaml").read_text()) or {})


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Object:
    """Maps are merged, everything else is replaced."""
    made = copy.deepcopy(dict(base))
    for key, value in over.items():
        is_map = isinstance(value, Mapping) and isinstance(made.get(key), Mapping)
        made[key] = merged(made[key], value) if is_map else value
    return made


def schema() -> Object:
    """values.schema.json."""
    return dict(json.loads((CHART / "values.schema.json").read_text()))


@cache
def render(case: str) -> tuple[Object, ...]:
    """The objects of the committed render; treat them as read-only."""
    documents = yaml.safe_load_all((GOLDEN / f"{case}.yaml").read_text())
    return tuple(one for one in documents if one)


def renders() -> Iterator[tuple[str, Object]]:
    """(case/Kind/name, object) of every render."""
    for case in CASES:
        for one in render(case):
            yield f"{case}/{one['kind']}/{one['metadata']['name']}", one


def of_kind(case: str, *kinds: str) -> list[Object]:
    """The render's objects of these kinds."""
    return [one for one in render(case) if one["kind"] in kinds]


def pod_specs() -> Iterator[tuple[str, Object]]:
    """(where, pod spec) of every pod the chart makes."""
    for where, one in renders():
        if one["kind"] == "Pod":
            yield where, one["spec"]
        elif "template" in one.get("spec", {}):
            yield where, one["spec"]["template"]["spec"]


def alerts() -> list[Object]:
    """The alerts, as in files/alerts.yaml."""
    groups = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]
