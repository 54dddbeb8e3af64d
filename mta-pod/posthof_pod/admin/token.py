"""The admin token: who can read `<state_dir>/admin.token` may change the queue and read mail.

Rules of this file
- Made once, 0600, kept over restarts; compared in constant time; never logged.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

NAME = "admin.token"


def make(state_dir: Path) -> str:
    """The token; made where there is none, the mode mended where it is wider than 0600. Raises OSError."""
    path = state_dir / NAME
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return _write(path)
    with open(descriptor, encoding="ascii", errors="replace") as file:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
        text = file.read().strip()
    return text if len(text) >= 32 else _write(path)


def _write(path: Path) -> str:
    text = secrets.token_urlsafe(32)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
    fresh.rename(path)
    return text


def read(state_dir: Path) -> str:
    """The token, "" where there is none or it is not ours to read."""
    try:
        return (state_dir / NAME).read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        return ""


def is_same(given: str, wanted: str) -> bool:
    return bool(wanted) and secrets.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
