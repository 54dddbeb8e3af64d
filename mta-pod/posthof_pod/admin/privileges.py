"""From root to a user, for good, after the ports are bound.

Rules of this file
- Groups first, then the group, then the user; afterwards it is tried to become root again, and that must fail.
- What the service writes (spool, mail, state) is made for the user before; what exists is never given away.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from pathlib import Path


class CannotDrop(Exception):
    """The text says what to do."""


def account(user: str) -> pwd.struct_passwd | None:
    """The account to become; None where we are it, or nobody is asked for. Raises CannotDrop."""
    if not user:
        return None
    try:
        found = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        raise CannotDrop(f"user {user!r} does not exist on this machine: useradd --system {user}") from None
    if os.geteuid() == found.pw_uid:
        return None
    if os.geteuid() != 0:
        raise CannotDrop(f"only root can become {user!r}: start as root, or take `user` out of the MTA")
    return found


def make_folders(folders: Iterable[Path], owner: pwd.struct_passwd | None) -> None:
    """Make what is missing, 0750, for `owner`. Raises OSError."""
    for folder in folders:
        missing = [folder, *folder.parents]
        for one in reversed([path for path in missing if not path.exists()]):
            one.mkdir(mode=0o750)
            if owner is not None:
                os.chown(one, owner.pw_uid, owner.pw_gid)


def drop(owner: pwd.struct_passwd) -> None:
    """Become `owner`. Raises CannotDrop where the way back is open."""
    os.initgroups(owner.pw_name, owner.pw_gid)
    os.setgid(owner.pw_gid)
    os.setuid(owner.pw_uid)
    os.environ.update(HOME=owner.pw_dir, USER=owner.pw_name, LOGNAME=owner.pw_name)
    if owner.pw_uid == 0:
        return
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise CannotDrop(f"the way from {owner.pw_name} back to root is open: refusing to go on")


def unusable(folders: Iterable[Path]) -> list[str]:
    """The folders this process cannot write to, each with what to do."""
    return [
        f"{folder} is not writable for user {_name()}: chown -R {_name()} {folder}"
        for folder in folders
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK)
    ]


def _name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
