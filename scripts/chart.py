#!/usr/bin/env python3
"""What of the charts is made, not written: schema and README from values.yaml, CRD templates from crds/, renders.

    scripts/chart.py            write values.schema.json, README.md and the CRD copies of both charts
    scripts/chart.py --check    say what is out of step, exit 1
    scripts/chart.py --render HELM [--check]    the same for tests/helm/golden, with that helm binary

Rules of this file
- values.yaml is the one source of a value's default, type and meaning. A comment above a key documents it; a line
  `# @schema {...}` in it adds JSON schema, `# @kubernetes TYPE` or `# @crd KIND` takes a schema that exists.
- The schema is closed: what it does not name is refused. JSON schema draft 7, which Helm 3 and 4 both read.
- Deterministic: equal input, equal bytes.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "posthof"
CRD_CHART = ROOT / "helm" / "posthof-crds"
CRDS = ROOT / "crds"
GOLDEN = ROOT / "tests" / "helm" / "golden"
KUBERNETES = "v1.37.0-local-strict"  # of kubernetes_validate

Json = dict[str, Any]


# -------------------------------------------------------------------- values.yaml


@dataclass
class Value:
    """One key of values.yaml. `inside` holds the keys below it, where it is a map with keys of its own."""

    path: str
    default: Any
    doc: str = ""
    schema: Json = field(default_factory=dict)
    kubernetes: str = ""
    crd: str = ""
    inside: list[Value] = field(default_factory=list)


def values(text: str) -> list[Value]:
    """The keys of a values.yaml, in order."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    return list(_values(node, text.splitlines(), ""))


def _values(node: yaml.MappingNode, lines: list[str], above: str) -> Iterator[Value]:
    for key, value in node.value:
        path = f"{above}.{key.value}" if above else str(key.value)
        made = Value(path, yaml.safe_load(yaml.serialize(value)))
        for line in _comment(lines, key.start_mark.line, key.start_mark.column):
            word, _, rest = line.partition(" ")
            if word == "@schema":
                made.schema = json.loads(rest)
            elif word == "@kubernetes":
                made.kubernetes = rest
            elif word == "@crd":
                made.crd = rest
            else:
                made.doc = f"{made.doc} {line}".strip()
        if isinstance(value, yaml.MappingNode) and value.value and not (made.schema or made.kubernetes or made.crd):
            made.inside = list(_values(value, lines, path))
        yield made


def _comment(lines: list[str], line: int, column: int) -> list[str]:
    """The comment directly above `line`, without its marks; a blank line ends it."""
    start = " " * column + "# "
    first = line
    while first > 0 and lines[first - 1].startswith(start):
        first -= 1
    return [one[len(start) :] for one in lines[first:line]]


# -------------------------------------------------------------------- values.schema.json


def schema(found: list[Value]) -> Json:
    """The chart's JSON schema."""
    parts: Json = {}
    body = _object(found, parts)
    # What Helm itself may put among the values.
    body["properties"]["global"] = {"type": "object", "description": "Not used."}
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart posthof"}
    return {**head, **body, "definitions": {name: parts[name] for name in sorted(parts)}}


def _object(found: list[Value], parts: Json) -> Json:
    properties = {value.path.rpartition(".")[2]: _schema(value, parts) for value in found}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _schema(value: Value, parts: Json) -> Json:
    made: Json = {"description": value.doc} if value.doc else {}
    if value.kubernetes:
        return {**made, **_listed(value.kubernetes, lambda name: _kubernetes(name, parts))}
    if value.crd:
        return {**made, **_crd(value.crd, parts)}
    if value.inside:
        return {**made, **_object(value.inside, parts)}
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    made["type"] = kinds[type(value.default)]
    if made["type"] in ("array", "object") and not value.schema:
        raise SystemExit(f"values.yaml: {value.path} needs a @schema, @kubernetes or @crd line")
    return {**made, **value.schema}


def _listed(name: str, make: Any) -> Json:
    if name.startswith("[]"):
        return {"type": "array", "items": make(name[2:])}
    made: Json = make(name)
    return made


def _kubernetes(name: str, parts: Json) -> Json:
    """A reference to a type of the Kubernetes API; it and what it refers to go into `parts`."""
    if name not in parts:
        parts[name] = {}
        parts[name] = _closed(_definitions()[name], parts)
    return {"$ref": f"#/definitions/{name}"}


def _definitions() -> Json:
    found = files("kubernetes_validate").joinpath("kubernetes-json-schema", KUBERNETES, "_definitions.json")
    definitions: Json = json.loads(found.read_text("utf-8"))["$defs"]
    return definitions


def _closed(part: Any, parts: Json) -> Any:
    """A schema of the Kubernetes API without prose, its references carried over."""
    if isinstance(part, list):
        return [_closed(one, parts) for one in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _kubernetes(part["$ref"].rpartition("/")[2], parts)
    made = {k: _closed(v, parts) for k, v in part.items() if _means_something(k)}
    if "properties" in part:
        made["properties"] = {k: _closed(v, parts) for k, v in part["properties"].items()}
        made.setdefault("additionalProperties", False)
    return made


def _means_something(key: str) -> bool:
    return not key.startswith(("x-", "$")) and key not in ("description", "format", "default", "properties")


def _crd(name: str, parts: Json) -> Json:
    """`MTA`: its spec, or nothing. `MTA.spool`: that part of it. `[]MailDomain`: {name, spec} objects."""
    kind, _, rest = name.removeprefix("[]").partition(".")
    spec = custom_resources()[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for step in filter(None, rest.split(".")):
        spec = spec["properties"][step]
    if rest:
        return _structural(spec)  # type: ignore[no-any-return]  # an object's schema is an object
    parts[f"{kind}Spec"] = _structural(spec)
    reference = {"$ref": f"#/definitions/{kind}Spec"}
    if not name.startswith("[]"):
        return {"type": "object", "anyOf": [{"maxProperties": 0}, reference]}
    object_name = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}
    item = {"type": "object", "additionalProperties": False, "required": ["name", "spec"]}
    return {"type": "array", "items": {**item, "properties": {"name": object_name, "spec": reference}}}


def custom_resources() -> dict[str, Json]:
    """Kind -> CustomResourceDefinition, of crds/*.yaml."""
    found = (yaml.safe_load(path.read_text()) for path in sorted(CRDS.glob("*.yaml")))
    return {crd["spec"]["names"]["kind"]: crd for crd in found}


def _structural(part: Any) -> Any:
    """A structural schema of a CRD as JSON schema: closed, without prose, defaults and CEL."""
    if isinstance(part, list):
        return [_structural(one) for one in part]
    if not isinstance(part, dict):
        return part
    made = {k: _structural(v) for k, v in part.items() if _means_something(k) and k != "nullable"}
    if "properties" in part or (part.get("type") == "object" and "additionalProperties" not in part):
        made["properties"] = {k: _structural(v) for k, v in part.get("properties", {}).items()}
        if not part.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    if part.get("x-kubernetes-int-or-string"):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    return made


# -------------------------------------------------------------------- README.md

_HEAD = """<!-- Generated by scripts/chart.py from values.yaml. -->

# The chart posthof

The operator (two replicas, one leads), its admission webhook, the custom resource definitions, and on request
NetworkPolicies, a PodMonitor, alerts, dashboards and an MTA. [docs/kubernetes.md](../../docs/kubernetes.md) says how
it is used.

    helm install posthof helm/posthof --namespace posthof-system --create-namespace
    helm test posthof --namespace posthof-system

Helm 3.14 or newer, Kubernetes 1.31 or newer.

## Values

| key | default | what it is |
|---|---|---|
"""


def readme(found: list[Value]) -> str:
    """The chart's README.md."""
    return _HEAD + "".join(f"| `{v.path}` | {_default(v)} | {_cell(v)} |\n" for v in _leaves(found))


def _leaves(found: list[Value]) -> Iterator[Value]:
    for value in found:
        if value.inside:
            if value.doc:
                yield value
            yield from _leaves(value.inside)
        else:
            yield value


def _default(value: Value) -> str:
    return "" if value.inside else f"`{json.dumps(value.default)}`"


def _cell(value: Value) -> str:
    allowed = ", ".join(f"`{one}`" for one in value.schema.get("enum", ()))
    text = f"{value.doc} One of {allowed}." if allowed else value.doc
    return text.strip().replace("|", "\\|") or "As in a pod's spec."


# -------------------------------------------------------------------- the CRDs in the charts


def crd_template(text: str, condition: str, keep: str) -> str:
    """A CustomResourceDefinition as a Helm template: what stands in it stays text."""
    literal = re.sub(r"[{}]{2,}", lambda braces: f'{{{{ "{braces[0]}" }}}}', text)
    lines = [line for line in literal.splitlines() if not line.startswith("#")]
    at = lines.index("metadata:") + 1
    block = ["  labels:", "    app.kubernetes.io/name: posthof", "    app.kubernetes.io/part-of: posthof"]
    block += [f"  {{{{- if {keep} }}}}", "  annotations:", "    helm.sh/resource-policy: keep", "  {{- end }}"]
    made = lines[:at] + block + lines[at:]
    head = "{{- /* Copied from crds/ by scripts/chart.py. */}}\n"
    body = "\n".join(made)
    return f"{head}{{{{- if {condition} }}}}\n{body}\n{{{{- end }}}}\n" if condition else f"{head}{body}\n"


def made() -> dict[Path, str]:
    """Every file that is made -> what it shall hold."""
    found = values((CHART / "values.yaml").read_text())
    files_made = {
        CHART / "values.schema.json": json.dumps(schema(found), indent=1, ensure_ascii=False) + "\n",
        CHART / "README.md": readme(found),
    }
    for path in sorted(CRDS.glob("*.yaml")):
        text = path.read_text()
        files_made[CHART / "templates" / "crds" / path.name] = crd_template(
            text, ".Values.crds.enabled", ".Values.crds.keep"
        )
        files_made[CRD_CHART / "templates" / path.name] = crd_template(text, "", ".Values.keep")
    return files_made


# -------------------------------------------------------------------- renders


def renders(helm: str) -> dict[Path, str]:
    """tests/helm/golden: the chart with each of ci/*-values.yaml, by this helm, without the CRDs."""
    found = {}
    for path in sorted((CHART / "ci").glob("*-values.yaml")):
        name = path.name.removesuffix("-values.yaml")
        found[GOLDEN / f"{name}.yaml"] = render(helm, path)
    return found


def render(helm: str, with_values: Path, *more: str) -> str:
    """`helm template` with that file of values."""
    command = [
        *shlex.split(helm),
        "template",
        "posthof",
        str(CHART),
        "--namespace",
        "posthof-system",
        "-f",
        str(with_values),
    ]
    command += ["--kube-version", "1.37.0", "--api-versions", "posthof.dev/v1alpha1/MTA", *more]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if ran.returncode:
        raise SystemExit(f"{' '.join(command)}\n{ran.stderr}")
    parts = ran.stdout.split("\n---\n")
    kept = [part for part in parts if "# Source: posthof/templates/crds/" not in part]
    return "\n---\n".join(kept).rstrip() + "\n"


def stale(wanted: dict[Path, str]) -> list[Path]:
    """Files that are missing or differ, and files of the made folders that nothing makes."""
    different = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    folders = {path.parent for path in wanted if path.suffix == ".yaml"}
    extra = [path for folder in folders for path in folder.glob("*.yaml") if path not in wanted]
    return sorted({*different, *extra})


def main() -> int:
    parser = argparse.ArgumentParser(description="Write what of the charts is made.")
    parser.add_argument("--check", action="store_true", help="write nothing, say what is out of step")
    parser.add_argument("--render", metavar="HELM", help="tests/helm/golden, with this helm binary")
    args = parser.parse_args()
    wanted = renders(args.render) if args.render else made()
    old = stale(wanted)
    if args.check:
        for path in old:
            print(f"out of step: {path.relative_to(ROOT)}; run scripts/chart.py", file=sys.stderr)
        return 1 if old else 0
    for path in old:
        if path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
        else:
            path.unlink()
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
