"""values.yaml, its schema and its README say the same, and the schema refuses what nothing obeys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from kit import charts

chart = charts.script("chart")

# Objects whose keys are somebody else's: labels, a tenant's lists, what Helm itself puts there.
OPEN = {"global", "extraObjects[]"}


def test_what_is_made_is_in_step() -> None:
    stale = [str(path.relative_to(charts.ROOT)) for path in chart.stale(chart.made())]
    assert stale == [], "run: scripts/chart.py"


def test_the_schema_is_a_schema_that_helm_3_and_4_read() -> None:
    jsonschema.Draft7Validator.check_schema(charts.schema())
    assert charts.schema()["$schema"] == "http://json-schema.org/draft-07/schema#"


def test_the_defaults_are_valid() -> None:
    jsonschema.validate(charts.values(), charts.schema())


@pytest.mark.parametrize("case", charts.CASES)
def test_the_values_of_a_case_are_valid(case: str) -> None:
    jsonschema.validate(charts.values_of(case), charts.schema())


def objects(part: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object, with the path of the value."""
    if not isinstance(part, dict):
        return
    if part.get("type") == "object" or "properties" in part:
        yield path, part
    for name, inside in part.get("properties", {}).items():
        yield from objects(inside, f"{path}.{name}".lstrip("."))
    yield from objects(part.get("items"), f"{path}[]")
    for name, inside in part.get("definitions", {}).items():
        yield from objects(inside, name)


def test_every_object_of_the_schema_is_closed() -> None:
    is_open = [
        path
        for path, part in objects(charts.schema(), "")
        if part.get("additionalProperties") in (None, True) and "anyOf" not in part and path not in OPEN
    ]
    assert is_open == []


def test_every_value_is_documented_or_a_type_of_kubernetes() -> None:
    found = chart.values((charts.CHART / "values.yaml").read_text())
    readme = (charts.CHART / "README.md").read_text()
    for value in chart._leaves(found):
        assert f"| `{value.path}` |" in readme
    undocumented = [
        value.path
        for value in chart._leaves(found)
        if not (value.doc or value.kubernetes or value.schema) and not value.path.endswith(("Name", ".enabled"))
    ]
    assert undocumented == []


REFUSED = {
    "a key that nothing reads": {"operater": {}},
    "a key inside that nothing reads": {"operator": {"replica": 2}},
    "a number that is no number of replicas": {"operator": {"replicas": -1}},
    "a word that is no policy": {"webhook": {"failurePolicy": "Maybe"}},
    "a digest that is none": {"operator": {"image": {"digest": "latest"}}},
    "an unknown field of a toleration": {"operator": {"tolerations": [{"keyy": "a"}]}},
    "a list where a map belongs": {"operator": {"nodeSelector": ["a"]}},
    "an MTA without listeners": {"mta": {"spec": {"hostname": "mx.example.org"}}},
    "an MTA with an unknown field": {"mta": {"spec": {"hostname": "a.b", "listeners": [], "listenrs": []}}},
    "a domain without a name": {"domains": [{"spec": {"domain": "a.b", "inbound": {"mode": "Reject"}}}]},
    "a domain with an unknown mode": {
        "domains": [{"name": "a", "spec": {"domain": "a.b", "inbound": {"mode": "No"}}}]
    },
}


@pytest.mark.parametrize("given", REFUSED.values(), ids=REFUSED.keys())
def test_the_schema_refuses(given: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(charts.merged(charts.values(), given), charts.schema())
