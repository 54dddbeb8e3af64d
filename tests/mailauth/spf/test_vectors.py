"""The SPF test suite of openspf.org for RFC 7208 (tests/vectors/spf): every case, none left out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.zones import Zones
from posthof_pod.mailauth.spf import Identity, check

FILE = Path(__file__).parents[2] / "vectors" / "spf" / "rfc7208-tests.yml"
DEFAULT = "DEFAULT"  # the suite's word for an explanation that is not the domain owner's


def cases() -> list[Any]:
    return [
        pytest.param(case, document["zonedata"], id=f"{document['description']}: {name}")
        for document in yaml.safe_load_all(FILE.read_text())
        for name, case in document["tests"].items()
    ]


CASES = cases()


def test_all_cases_are_there() -> None:
    assert len(CASES) == 203


@pytest.mark.parametrize(("case", "zones"), CASES)
def test_case(case: dict[str, Any], zones: dict[str, list[Any]]) -> None:
    identity = Identity(case["host"], case["helo"], case["mailfrom"])
    verdict = asyncio.run(check(identity, Zones(zones), explain=True, receiver="receiver.example.net"))
    allowed = case["result"] if isinstance(case["result"], list) else [case["result"]]
    assert verdict.result in allowed, verdict.reason
    if "explanation" in case:
        expected = case["explanation"]
        assert verdict.explanation == ("" if expected == DEFAULT else expected)
