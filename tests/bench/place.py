"""Where the benchmark's spools lie: on a real disk, in a folder that the mail servers' own users may enter."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kit import peers

MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs"}


def file_system(path: Path) -> str:
    """The type of the file system that holds `path`, from /proc/mounts."""
    best, kind = "", ""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, fstype, *_ = line.split()
        if len(mount) > len(best) and (str(path) + "/").startswith(mount.rstrip("/") + "/"):
            best, kind = mount, fstype
    return kind


@contextlib.contextmanager
def folder(chosen: Path | None) -> Iterator[Path]:
    """A folder for one run, removed after it: below `chosen`, else build/bench, else /var/tmp.

    build/ is not taken where other users cannot enter it (a clone in /root), because Postfix drops to a user of its
    own. SystemExit where syncing would cost nothing.
    """
    parent = chosen or peers.REPOSITORY / "build" / "bench"
    parent.mkdir(parents=True, exist_ok=True)
    if chosen is None and not all(above.stat().st_mode & 0o001 for above in (parent, *parent.parents)):
        parent = Path("/var/tmp")
    kind = file_system(parent.resolve())
    if kind in MEMORY_FILE_SYSTEMS:
        raise SystemExit(f"{parent} is {kind}: syncing costs nothing there; choose a disk with --dir")
    path = Path(tempfile.mkdtemp(prefix="run-", dir=parent)).resolve()
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def below(parent: Path, name: str) -> Iterator[Path]:
    """A fresh folder of one system's one run."""
    path = parent / name
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.sync()  # what one system leaves to be written must not slow the next one
