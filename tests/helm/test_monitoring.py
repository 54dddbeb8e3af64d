"""Alerts and dashboards speak of metrics that exist, and each alert has a runbook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from kit import charts
from posthof_operator.metrics import Metrics
from posthof_operator.observed import Observed
from posthof_operator.store import Store
from posthof_pod.observe.metrics import METRICS

RUNBOOKS = charts.ROOT / "docs" / "runbooks"
ALERTS = charts.alerts()
NAMES = [alert["alert"] for alert in ALERTS]
dashboards = charts.script("dashboards")


def existing() -> set[str]:
    """Every series that a pod or the operator can show."""
    found: set[str] = set()
    for name, metric in METRICS.items():
        parts = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        found |= {name + part for part in parts}
    for family in [*Metrics().registry.collect(), *Observed(Store()).describe()]:
        parts = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        found |= {family.name + part for part in parts}
    return found


def named(query: str) -> set[str]:
    """The metrics of a query."""
    return set(re.findall(r"\bposthof_\w+", query))


def is_balanced(query: str) -> bool:
    bare = re.sub(r'"[^"]*"', "", query)
    return all(bare.count(opening) == bare.count(closing) for opening, closing in ("()", "[]", "{}"))


def queries() -> Iterator[tuple[str, str]]:
    for path in sorted((charts.CHART / "files" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.stem}/{panel['title']}", target["expr"]


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_asks_for_metrics_that_exist(alert: dict[str, str]) -> None:
    assert named(alert["expr"])
    assert named(alert["expr"]) - existing() == set()
    assert is_balanced(alert["expr"])


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_says_what_is_wrong_and_where_to_read_on(alert: dict[str, dict[str, str]]) -> None:
    assert alert["labels"]["severity"] in ("info", "warning", "critical")
    assert alert["annotations"]["summary"].endswith((".", "}."))
    base, _, file = alert["annotations"]["runbook_url"].partition("/")
    assert base == "RUNBOOKS"
    text = (RUNBOOKS / file).read_text()
    assert text.startswith("# ")
    assert "## Look" in text
    assert "## Do" in text


def test_there_is_no_runbook_without_an_alert() -> None:
    told = {alert["annotations"]["runbook_url"].rpartition("/")[2] for alert in ALERTS}
    assert {path.name for path in RUNBOOKS.glob("*.md")} == told
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize(("where", "query"), list(queries()), ids=lambda v: v if "/" in v and " " not in v else "")
def test_a_panel_asks_for_metrics_that_exist(where: str, query: str) -> None:
    assert named(query), where
    assert named(query) - existing() == set(), where
    assert is_balanced(query), where


def test_the_dashboards_are_in_step_with_their_table() -> None:
    stale = [path.name for path, text in dashboards.made().items() if not path.exists() or path.read_text() != text]
    assert stale == [], "run: scripts/dashboards.py"


def test_every_panel_has_a_place_of_its_own() -> None:
    for path in (charts.CHART / "files" / "dashboards").glob("*.json"):
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text())["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert place["x"] + place["w"] <= 24
            assert not cells & taken, f"{path.name}: {panel['title']}"
            taken |= cells
