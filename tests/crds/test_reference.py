"""The reference pages are in step with the models, and every field is documented."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from posthof_crds import reference
from posthof_crds.load import KINDS

PAGES = Path(__file__).parents[2] / "docs" / "reference"


def test_the_committed_pages_are_in_step_with_the_models() -> None:
    assert {path.name: path.read_text() for path in PAGES.glob("*.md")} == reference.pages(), (
        "run: python -m posthof_crds.reference docs/reference"
    )


def objects() -> Iterator[tuple[str, type[BaseModel]]]:
    for kind, model in KINDS.items():
        for path, part in reference._objects(model):
            yield f"{kind}.{path}", part


def test_every_object_and_field_is_documented() -> None:
    missing = [
        f"{path}.{name}"
        for path, part in objects()
        for name, info in part.model_fields.items()
        if not info.description and name != "metadata"
    ]
    assert missing == []
    assert [path for path, part in objects() if not part.__doc__] == []


def test_units_and_bounds_are_printed() -> None:
    page = reference.pages()["mta.md"]
    assert "| `messageSize` | size, 64Ki to 10Gi | `35Mi` |" in page
    assert "| `timeout` | duration, 5s to 1h | `5m` |" in page
    assert "| `recipients` | number, 100 to 1000000 | `1000` |" in page


def test_what_a_cluster_reports_is_documented() -> None:
    for kind, name in (("mta", "ConfigConverged"), ("maildomain", "ProofMissing"), ("tlscert", "NotServed")):
        page = reference.pages()[f"{kind}.md"]
        assert "## Conditions" in page
        assert f"| `{name}` |" in page
    assert "## What another namespace may say\n\n1. A namespace that" in reference.pages()["mta.md"]
