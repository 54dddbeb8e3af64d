"""Folders of instruments that live as long as the process: removed when it ends, whoever made them."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def lasting(name: str) -> Path:
    """A folder of its own, gone when this process ends. One forked off it does not take it away."""
    folder = Path(tempfile.mkdtemp(prefix=f"posthof-{name}-"))
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, maker: int) -> None:
    if os.getpid() == maker:
        shutil.rmtree(folder, ignore_errors=True)
