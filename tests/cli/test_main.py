"""One command, a file for each of its verbs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from posthof_pod.cli import main


@pytest.mark.parametrize("words", [["version"], ["--version"]])
def test_it_says_its_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(words)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("posthof 0.")


def test_a_question_to_a_house_loads_neither_models_nor_servers() -> None:
    script = (
        "import sys; from posthof_pod.cli.main import main\n"
        "assert main(['queue', '--admin', 'http://127.0.0.1:1', 'list']) == 1\n"
        "heavy = {'pydantic', 'yaml', 'aiohttp', 'uvloop', 'prometheus_client', 'cryptography'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_worker_loads_neither_models_nor_servers() -> None:
    script = (
        "import sys, posthof_pod.worker\n"
        "heavy = {'pydantic', 'yaml', 'aiohttp', 'prometheus_client', 'cryptography'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m posthof_pod.cli.main --help | head -1"
    ended = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 120)
    assert "Traceback" not in ended.stderr
