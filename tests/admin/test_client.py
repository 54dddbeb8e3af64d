"""Where a command finds the house, and with which token."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from kit.supervised import MTA
from posthof_pod.admin import client, token
from posthof_pod.cli import main


@pytest.fixture(autouse=True)
def _a_clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("POSTHOF_ADMIN", "POSTHOF_TOKEN", "POSTHOF_STATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def options(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    client.add_arguments(parser)
    return parser.parse_args(given)


def manifests(folder: Path) -> str:
    folder.mkdir()
    listeners = "    - {name: mx, role: MX, address: 127.0.0.1, port: 2525}"
    (folder / "mta.yaml").write_text(MTA.format(hostname="h.test", listeners=listeners, http=18025))
    return str(folder)


def test_without_a_word_it_is_the_default_address_and_the_token_below_var(tmp_path: Path) -> None:
    (tmp_path / "var" / "state").mkdir(parents=True)
    made = token.make(tmp_path / "var" / "state")
    house = client.connect(options())
    assert (house.url, house.secret) == (client.DEFAULT, made)


def test_the_manifests_name_address_and_token(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    made = token.make(tmp_path / "state")
    house = client.connect(options("-f", manifests(tmp_path / "manifests")))
    assert (house.url, house.secret) == ("http://127.0.0.1:18025", made)


def test_an_option_comes_before_the_environment_and_that_before_the_manifests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTHOF_ADMIN", "http://127.0.0.1:2")
    monkeypatch.setenv("POSTHOF_TOKEN", "t")
    folder = manifests(tmp_path / "manifests")
    assert client.connect(options("-f", folder)).url == "http://127.0.0.1:2"
    house = client.connect(options("-f", folder, "--admin", "127.0.0.1:1"))
    assert (house.url, house.secret) == ("127.0.0.1:1", "t")


def test_what_is_no_address_is_told_with_an_example() -> None:
    with pytest.raises(client.AdminError, match="it looks like http://127"):
        client.AdminClient("https://example.org")


def test_manifests_with_errors_are_told_as_check_tells_them(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "mta.yaml").write_text("kind: Nonsense\n")
    with pytest.raises(client.AdminError, match="Nonsense"):
        client.connect(options("-f", str(tmp_path / "manifests")))


@pytest.mark.parametrize("words", [["queue", "-f", "DIR", "list"], ["queue", "list", "-f", "DIR"]])
def test_the_folder_may_stand_before_or_behind_the_action(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = manifests(tmp_path / "manifests")
    assert main.main([folder if word == "DIR" else word for word in words]) == 1
    assert "http://127.0.0.1:18025" in capsys.readouterr().err


def test_a_token_stays_the_same_and_is_for_its_owner_alone_whatever_it_was(tmp_path: Path) -> None:
    made = token.make(tmp_path)
    (tmp_path / token.NAME).chmod(0o644)
    assert token.make(tmp_path) == made
    assert (tmp_path / token.NAME).stat().st_mode & 0o777 == 0o600
    (tmp_path / token.NAME).write_text("short")
    assert len(token.make(tmp_path)) >= 32


def test_a_token_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x" * 40)
    (tmp_path / token.NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        token.make(tmp_path)


def test_no_token_is_the_same_as_no_token() -> None:
    assert not token.is_same("", "")
    assert token.is_same("abc", "abc")
    assert not token.is_same("abd", "abc")
