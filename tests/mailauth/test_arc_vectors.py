"""ARC chains of the ARC test suite (tests/vectors/arc), each with the outcome that the suite's runner wants.

The runner compares what a verifier prints: none, pass or fail, and nothing at all for a chain that somebody gave up
on the way (a seal says cv=fail).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.dkim import Table
from posthof_pod.mailauth.arc.verify import verify_chain
from posthof_pod.mailauth.canon import fields, parted

FILE = Path(__file__).parents[1] / "vectors/arc/arc-draft-validation-tests.yml"


def _cases() -> list[Any]:
    found = []
    for scenario in yaml.safe_load_all(FILE.read_text(encoding="utf-8")):
        for name, case in scenario["tests"].items():
            found.append(pytest.param(case, scenario["txt-records"] or {}, id=name))
    return found


CASES = _cases()


def test_all_of_them_are_here() -> None:
    assert len(CASES) == 171


@pytest.mark.parametrize(("case", "records"), CASES)
def test_a_chain_is_judged_as_the_suite_wants(case: dict[str, Any], records: dict[str, str]) -> None:
    message = (case["message"] or "").encode().replace(b"\n", b"\r\n")
    head, body = parted(message)
    found = asyncio.run(verify_chain(fields(head), body, Table(records), 0.0))
    assert ("" if found.is_ended else found.cv) == case["cv"].strip().lower(), found.reason
