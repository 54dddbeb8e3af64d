#!/usr/bin/env python3
"""scripts/dashboards.yaml -> Grafana's JSON in helm/posthof/files/dashboards.

    scripts/dashboards.py            write it
    scripts/dashboards.py --check    say what is out of step, exit 1

Rules of this file
- What a dashboard shows stands in dashboards.yaml and nowhere else; here is only Grafana's form.
- The data source and the labels of a scrape (`namespace`, `job`) are variables of the dashboard.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_name("dashboards.yaml")
FOLDER = Path(__file__).parents[1] / "helm" / "posthof" / "files" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${source}"}
SELECTOR = '{namespace=~"$namespace", job=~"$job"}'  # what {MTA} stands for in a query
VALUES = {
    "namespace": "label_values(posthof_build_info, namespace)",
    "job": 'label_values(posthof_build_info{namespace=~"$namespace"}, job)',
}
HIDDEN = ("Time", "Value", "__name__", "job", "instance", "container", "endpoint", "pod", "prometheus")

Json = dict[str, Any]


def render(name: str, dashboard: Json) -> Json:
    """The dashboard as Grafana imports it."""
    panels: list[Json] = []
    top = 0
    for row in dashboard["rows"]:
        panels.append(_row(len(panels) + 1, row["title"], top))
        top += 1
        left = height = 0
        for panel in row["panels"]:
            width = panel.get("width", 8)
            if left + width > 24:
                left, top = 0, top + height
            height = 4 if panel.get("kind") == "stat" else 8
            place = {"x": left, "y": top, "w": width, "h": height}
            panels.append(_panel(len(panels) + 1, panel, place))
            left += width
        top += height
    return {
        "uid": f"posthof-{name}",
        "title": dashboard["title"],
        "tags": ["posthof", "mail"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_source(), *(_variable(one) for one in dashboard["choose"])]},
        "panels": panels,
    }


def _row(number: int, title: str, top: int) -> Json:
    place = {"x": 0, "y": top, "w": 24, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(number: int, panel: Json, place: Json) -> Json:
    kind = panel.get("kind", "timeseries")
    targets = enumerate(panel["queries"].items())
    made: Json = {
        "id": number,
        "type": kind,
        "title": panel["title"],
        "description": panel["tells"],
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel["unit"], "min": 0}, "overrides": []},
        "targets": [_target(at, legend, expression, kind) for at, (legend, expression) in targets],
    }
    if kind == "timeseries":
        made["options"] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    if kind == "table":
        options = {"excludeByName": dict.fromkeys(HIDDEN, True)}
        made["transformations"] = [{"id": "organize", "options": options}]
    return made


def _target(at: int, legend: str, expression: str, kind: str) -> Json:
    expression = expression.replace("{MTA}", SELECTOR)
    made: Json = {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expression}
    if kind == "table":
        return {**made, "format": "table", "instant": True}
    return {**made, "legendFormat": legend} if legend else made


def _source() -> Json:
    return {"name": "source", "type": "datasource", "query": "prometheus", "label": "Data source", "hide": 0}


def _variable(name: str) -> Json:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": VALUES[name], "refId": name},
        "definition": VALUES[name],
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def made() -> dict[Path, str]:
    """Every file -> what it shall hold."""
    table = yaml.safe_load(TABLE.read_text())
    return {
        FOLDER / f"{name}.json": json.dumps(render(name, one), indent=1, ensure_ascii=False) + "\n"
        for name, one in table.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the dashboards of the chart.")
    parser.add_argument("--check", action="store_true", help="write nothing, say what is out of step")
    args = parser.parse_args()
    wanted = made()
    old = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    extra = [path for path in FOLDER.glob("*.json") if path not in wanted]
    for path in (*old, *extra):
        print(f"{'out of step: ' if args.check else ''}{path.name}", file=sys.stderr if args.check else sys.stdout)
    if args.check:
        return 1 if old or extra else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in old:
        path.write_text(wanted[path])
    for path in extra:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
