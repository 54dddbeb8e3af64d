"""From root to a user: for good, with its groups, and nothing given away."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from posthof_pod.admin import privileges
from posthof_pod.admin.privileges import CannotDrop

NOBODY = pwd.getpwnam("nobody")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def in_a_child(act: Callable[[], object]) -> bool:
    """Whether `act` ended well in a forked process: what it does to itself cannot be undone."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@as_root
def test_after_the_drop_user_group_and_groups_are_those_of_the_account() -> None:
    def act() -> None:
        os.setgroups([0, 4])
        privileges.drop(NOBODY)
        assert os.getresuid() == (NOBODY.pw_uid,) * 3
        assert os.getresgid() == (NOBODY.pw_gid,) * 3
        assert set(os.getgroups()) == {NOBODY.pw_gid}
        assert os.environ["HOME"] == NOBODY.pw_dir

    assert in_a_child(act)


@as_root
def test_there_is_no_way_back_to_root_and_no_port_below_1024() -> None:
    def act() -> None:
        privileges.drop(NOBODY)
        with pytest.raises(PermissionError):
            os.setuid(0)
        with pytest.raises(PermissionError):
            os.setgid(0)

    assert in_a_child(act)


def test_nobody_is_dropped_to_where_none_is_named_or_we_are_it_already() -> None:
    assert privileges.account("") is None
    assert privileges.account(str(os.geteuid())) is None


def test_an_account_that_does_not_exist_is_told_with_the_command_that_makes_it() -> None:
    with pytest.raises(CannotDrop, match="useradd --system no-such-user"):
        privileges.account("no-such-user")


@as_root
def test_somebody_who_is_not_root_cannot_become_another_and_is_told() -> None:
    def act() -> None:
        privileges.drop(NOBODY)
        with pytest.raises(CannotDrop, match="only root"):
            privileges.account("root")

    assert in_a_child(act)


@as_root
def test_folders_are_made_for_the_user_and_those_that_exist_keep_their_owner(tmp_path: Path) -> None:
    privileges.make_folders([tmp_path / "a" / "b"], NOBODY)
    assert (tmp_path / "a" / "b").stat().st_uid == NOBODY.pw_uid
    assert (tmp_path / "a").stat().st_uid == NOBODY.pw_uid
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o750
    assert tmp_path.stat().st_uid == os.geteuid()


@as_root
def test_a_folder_the_user_cannot_write_to_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)

    def act() -> None:
        privileges.drop(NOBODY)
        (told,) = privileges.unusable([tmp_path / "theirs"])
        assert told.endswith(f"chown -R nobody {tmp_path / 'theirs'}")

    assert in_a_child(act)
    assert privileges.unusable([tmp_path / "theirs"]) == []
