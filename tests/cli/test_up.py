"""`posthof up` before there is a house: the log it opens, the numbers it takes, what it says when it cannot start."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

import pytest

from kit.supervised import MTA, free_port
from posthof_pod.cli import main, up


def manifests(folder: Path, port: int, *, host: str = "127.0.0.1", more: str = "") -> str:
    folder.mkdir()
    listeners = f"    - {{name: mx, role: MX, address: {host}, port: {port}}}"
    (folder / "mta.yaml").write_text(MTA.format(hostname="h.test", listeners=listeners, http=free_port()) + more)
    return str(folder)


def test_a_port_in_use_ends_the_start_with_its_name_and_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main.main(["up", "-f", manifests(tmp_path / "m", port)]) == 1
    told = capsys.readouterr().err
    assert f"posthof cannot start: listener mx: 127.0.0.1:{port} is in use" in told
    assert "Traceback" not in told


def test_a_user_that_does_not_exist_ends_the_start_with_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = manifests(tmp_path / "m", free_port(), more="  user: no-such-user\n")
    assert main.main(["up", "-f", folder]) == 1
    assert "useradd --system no-such-user" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "-1", "many", "257"])
def test_a_number_of_workers_that_makes_no_sense_is_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["up", "-f", "nowhere", "--workers", count])
    assert "a number from 1 to 256" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_a_new_log_belongs_to_the_user_of_the_house_and_an_old_one_to_whom_it_did(tmp_path: Path) -> None:
    os.close(up._open_log(str(tmp_path / "new"), "nobody"))
    assert (tmp_path / "new").stat().st_uid == pwd.getpwnam("nobody").pw_uid
    (tmp_path / "old").write_text("before\n")
    descriptor = up._open_log(str(tmp_path / "old"), "nobody")
    os.write(descriptor, b"after\n")
    os.close(descriptor)
    assert (tmp_path / "old").stat().st_uid == 0
    assert (tmp_path / "old").read_text() == "before\nafter\n"
