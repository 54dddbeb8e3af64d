"""`posthof reports show`: reports of other houses, from files, Maildirs and standard input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from posthof_pod.cli.main import main

VECTORS = Path(__file__).parents[1] / "vectors" / "dmarc-reports"


def test_a_report_is_shown_with_what_is_not_aligned_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reports", "show", str(VECTORS / "rfc9990-sample.xml"), str(VECTORS / "empty_reason.xml")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "example.com: 125 messages, 125 proven to be its own, 0 not"
    assert shown[1].endswith("Sample Reporter  p=quarantine")
    assert "192.0.2.123" in shown[2]
    assert "dkim=pass example.com/abc123" in shown[2]


def test_a_folder_is_searched_and_what_is_no_report_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "Maildir" / "new"
    new.mkdir(parents=True)
    for path in VECTORS.iterdir():
        shutil.copy(path, new)
    assert main(["reports", "show", "--json", str(tmp_path / "Maildir")]) == 0
    told = capsys.readouterr()
    assert len(json.loads(told.out)) == 4
    assert told.err == ""


def test_a_file_that_is_none_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reports", "show", str(VECTORS / "invalid_xml.xml"), "/nowhere/at/all"]) == 1
    told = capsys.readouterr().err
    assert "invalid_xml.xml: it is no XML" in told
    assert "/nowhere/at/all: No such file" in told
