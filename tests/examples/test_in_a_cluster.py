"""The examples for a cluster: every object is valid, the MTA obeys all that is meant for it, READMEs name files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from posthof_crds.fleet import assemble
from posthof_crds.load import KINDS
from posthof_crds.parts import part_of

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLDERS = {
    "first-mail": ["first-mail"],
    "cluster-relay": ["cluster-relay"],
    "bulk": ["bulk"],
    "submission": ["submission"],
    "inbound-gateway": ["inbound-gateway/domains.yaml", "inbound-gateway/trust.yaml", "inbound-gateway/cluster"],
}


def objects(*paths: str) -> list[dict[str, Any]]:
    """The objects as the API server would have them."""
    files = [one for path in paths for one in _files(EXAMPLES / path)]
    found = [raw for file in files for raw in yaml.safe_load_all(file.read_text())]
    for number, raw in enumerate(found):
        raw["metadata"].setdefault("namespace", "mail")
        raw["metadata"] |= {"uid": str(number), "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return found


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.yaml")) if path.is_dir() else [path]


@pytest.mark.parametrize("paths", FOLDERS.values(), ids=FOLDERS.keys())
def test_every_object_is_valid(paths: list[str]) -> None:
    for raw in objects(*paths):
        KINDS[raw["kind"]].model_validate(yaml.safe_load(yaml.safe_dump(raw)) | {"metadata": _plain(raw)})


def _plain(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw["metadata"].items() if key in ("name", "namespace", "labels")}


@pytest.mark.parametrize("paths", FOLDERS.values(), ids=FOLDERS.keys())
def test_the_mta_obeys_everything(paths: list[str]) -> None:
    found = objects(*paths)
    [mta] = [raw for raw in found if raw["kind"] == "MTA"]
    parts = [part_of(raw["kind"], raw) for raw in found if raw["kind"] in ("MailDomain", "RelayPolicy", "TLSCert")]
    config_maps = {
        f"{raw['metadata']['namespace']}/{raw['metadata']['name']}": raw["data"]
        for raw in found
        if raw["kind"] == "ConfigMap"
    }
    secrets = {
        f"{raw['metadata']['namespace']}/{raw['metadata']['name']}": list(raw["stringData"])
        for raw in found
        if raw["kind"] == "Secret"
    }
    secrets |= {
        f"mail/{raw['metadata']['name']}-tls": ["tls.crt", "tls.key"] for raw in found if raw["kind"] == "TLSCert"
    }
    fleet = assemble(mta, parts, namespaces={"mail": {}}, config_maps=config_maps, secrets=secrets)
    assert fleet.problems == ()
    assert fleet.config is not None
    refused = [(one.name, one.message) for one in fleet.verdicts if not one.accepted]
    assert refused == []
    assert [(one.name, one.resolved_message) for one in fleet.verdicts if one.resolved_message] == []
    assert fleet.domains + fleet.policies == len([r for r in found if r["kind"] in ("MailDomain", "RelayPolicy")])
    assert fleet.missing_certificates == ()


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_readme_names_files_that_exist(folder: str) -> None:
    text = (EXAMPLES / folder / "README.md").read_text()
    for path in re.findall(r"\bexamples/[\w./-]+", text):
        assert (EXAMPLES.parent / path).exists(), path
    for name in re.findall(r"\bin (\w+\.yaml)", text):
        assert (EXAMPLES / folder / name).exists(), name


def test_the_domains_of_the_gateway_are_the_same_on_one_machine() -> None:
    """One file serves both forms, so nothing in it may name a namespace."""
    text = (EXAMPLES / "inbound-gateway" / "domains.yaml").read_text()
    assert "namespace:" not in text
