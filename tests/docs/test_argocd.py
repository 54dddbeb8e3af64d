"""The health scripts for Argo CD say of every fixture what its health_test.yaml says, and agree with kstatus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.kstatus import Status, compute
from kit.lua import LUA_MISSING, find_lua, health

FOLDER = Path(__file__).parents[2] / "docs/gitops/argocd/posthof.dev"
KINDS = ("MTA", "MailDomain", "RelayPolicy", "AccessPolicy", "SMTPCredential", "TLSCert")

AGREES = {
    Status.CURRENT: {"Healthy", "Suspended"},
    Status.FAILED: {"Degraded"},
    Status.IN_PROGRESS: {"Progressing", "Degraded", "Suspended"},  # kstatus has one word for not yet and not well
    Status.TERMINATING: {"Progressing"},
}


def cases() -> list[tuple[str, str, dict[str, str]]]:
    return [
        (kind, test["inputPath"], test["healthStatus"])
        for kind in KINDS
        for test in yaml.safe_load((FOLDER / kind / "health_test.yaml").read_text())["tests"]
    ]


def fixture(kind: str, path: str) -> dict[str, Any]:
    raw = yaml.safe_load((FOLDER / kind / path).read_text())
    assert raw["kind"] == kind
    return dict(raw)


@pytest.mark.interop
@pytest.mark.skipif(find_lua() is None, reason=LUA_MISSING)
@pytest.mark.parametrize(("kind", "path", "expected"), cases())
def test_health_is_as_the_fixture_says(kind: str, path: str, expected: dict[str, str]) -> None:
    script = (FOLDER / kind / "health.lua").read_text()
    assert health(script, fixture(kind, path)) == expected


@pytest.mark.parametrize(("kind", "path", "expected"), cases())
def test_kstatus_agrees(kind: str, path: str, expected: dict[str, str]) -> None:
    raw = fixture(kind, path)
    if path == "testdata/new.yaml" or "stale_condition" in path:
        return  # without a status kstatus calls everything current, and it does not look at a condition's generation
    assert expected["status"] in AGREES[compute(raw).status]


def test_every_fixture_is_in_a_test() -> None:
    for kind in KINDS:
        named = {path for known, path, _ in cases() if known == kind}
        assert named == {f"testdata/{file.name}" for file in (FOLDER / kind / "testdata").iterdir()}


def test_the_scripts_differ_in_their_first_line_alone() -> None:
    bodies = {(FOLDER / kind / "health.lua").read_text().partition("\n")[2] for kind in KINDS}
    assert len(bodies) == 1
