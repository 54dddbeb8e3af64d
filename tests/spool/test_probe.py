"""The volume probe: a real folder passes with numbers; a volume that breaks one promise is refused and says which."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest

from posthof_pod.cli.main import main
from posthof_pod.spool import Volume, probe
from posthof_pod.spool.probe import Findings, measure
from posthof_pod.spool.volume import file_system, mount_options


def lying(folder: Path, what: type[Volume]) -> Findings:
    """A probe whose second client is of this kind."""
    return measure(str(folder), Volume(folder / "p"), what(folder / "p"))


class Stale(Volume):
    """It shows a latch as it was first seen: what nocto does, or a file system without close-to-open."""

    def look(self, path: str) -> bytes:
        if not hasattr(self, "first"):
            self.first = super().look(path)
        return self.first


class ShortSighted(Volume):
    """It does not show what was appended."""

    def size(self, path: str) -> int:
        return min(super().size(path), 4096)


class Forgetful(Volume):
    """It does not list new names."""

    def listdir(self, path: str) -> list[str]:
        return [name for name in super().listdir(path) if not name.startswith("folder")]


class Generous(Volume):
    """Everybody makes the name."""

    def symlink(self, target: str, path: str) -> None:
        with contextlib.suppress(FileExistsError):
            super().symlink(target, path)


class Twice(Volume):
    """Everybody creates the file."""

    def create(self, path: str) -> int:
        return self.overwrite(path)


class Garbled(Volume):
    """It shows other bytes."""

    def read(self, path: str, size: int, offset: int) -> bytes:
        return b"\0" * size


def test_a_folder_of_this_machine_passes_and_the_numbers_are_there(tmp_path: Path) -> None:
    found = probe.probe(tmp_path / "spool")
    assert found.broken == ()
    assert found.visible is None
    assert 0 < found.sync_median <= found.sync_p99 < 10
    assert 0 < found.folder_p99 < 10
    assert abs(found.clock_offset) < 5
    assert found.free_bytes > 0
    assert list((tmp_path / "spool").iterdir()) == []


def test_two_clients_of_one_volume_are_measured_against_each_other(tmp_path: Path) -> None:
    found = probe.probe(tmp_path, tmp_path)
    assert found.broken == ()
    assert found.visible is not None
    assert 0 <= found.visible < 10


def test_two_folders_that_are_not_one_volume_are_no_two_clients(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="does not appear in the second"):
        probe.probe(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (Stale, "a text changed in place"),
        (ShortSighted, "appended and synced"),
        (Garbled, "appended and synced"),
        (Forgetful, "a folder can be synced"),
        (Generous, "a name is made once"),
        (Twice, "a file is created once"),
    ],
)
def test_a_broken_promise_is_named(tmp_path: Path, what: type[Volume], words: str) -> None:
    found = lying(tmp_path, what)
    assert any(words in one for one in found.broken), found.broken
    assert len(found.broken) <= 2
    assert list(found.lines())[-1].startswith("refused")


def test_a_sync_that_fails_breaks_a_promise_and_a_full_volume_breaks_none(tmp_path: Path) -> None:
    class Failing(Volume):
        error = errno.EIO

        def fdatasync(self, fd: int) -> None:
            raise OSError(self.error, os.strerror(self.error))

    assert measure(str(tmp_path), Failing(tmp_path / "p")).broken
    Failing.error = errno.ENOSPC
    found = measure(str(tmp_path), Failing(tmp_path / "q"))
    assert found.broken == ()
    assert any("full" in one for one in found.warnings)


def test_how_it_is_mounted_is_read_and_nocto_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"2 1 0:50 / {tmp_path}/nfs rw,noatime - nfs4 server:/mail rw,vers=4.1,nocto,hard\n"
    )
    assert file_system(str(tmp_path / "nfs" / "x"), str(table)) == "nfs4"
    assert mount_options(str(tmp_path / "nfs" / "x"), str(table)) == "rw,noatime,vers=4.1,nocto,hard"
    assert mount_options(str(tmp_path / "other"), str(table)) == "rw,relatime"
    monkeypatch.setattr(probe, "mount_options", lambda path: "rw,vers=4.1,nocto")
    monkeypatch.setattr(probe, "file_system", lambda path: "nfs4")
    found = probe.probe(tmp_path / "spool")
    assert any("nocto" in one for one in found.broken)
    assert any("exports with sync" in one for one in found.warnings)


def test_the_command_prints_it_and_its_exit_status_says_whether_it_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["spool", "probe", str(tmp_path / "spool"), str(tmp_path / "spool")]) == 0
    told = capsys.readouterr().out
    assert "sync         median" in told
    assert "visible" in told
    monkeypatch.setattr(probe, "mount_options", lambda path: "ro")
    assert main(["spool", "probe", str(tmp_path / "spool")]) == 1
    assert "read-only" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    assert main(["spool", "probe", str(tmp_path / "file")]) == 2
