"""The same objects as files: the pod's optional volumes, which a kubelet refreshes every minute or so.

Rules
- What is not there is left out; what cannot be read is not there.
- A look costs a stat for each file: names, times and inodes say whether anything changed. A kubelet replaces a
  whole volume by turning one symbolic link, so a state is never half written; two reads may still meet two states,
  which the shards themselves tell apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from posthof_crds.shards import KEY_SHARDS, MAX_CONFIG_SHARDS


class Folders(NamedTuple):
    """Where the volumes are mounted."""

    config: Path = Path("/etc/posthof/config")  # <i>
    keys: Path = Path("/etc/posthof/keys")  # <i>
    pods: Path = Path("/etc/posthof/pods")  # pods


class Mounted:
    """`config` and `keys`: shard -> content; `pods`: the list, or None."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._files = {
            **{("config", n): folders.config / str(n) for n in range(MAX_CONFIG_SHARDS)},
            **{("keys", n): folders.keys / str(n) for n in range(KEY_SHARDS)},
            ("pods", 0): folders.pods / "pods",
        }
        self._seen: dict[tuple[str, int], tuple[int, int, int]] = {}
        self.contents: dict[tuple[str, int], bytes] = {}

    def look(self) -> bool:
        """Read what changed since the last look; whether anything did. Slow: call it in a thread."""
        seen = {}
        for place, path in self._files.items():
            with contextlib.suppress(OSError):
                status = path.stat()
                seen[place] = (status.st_mtime_ns, status.st_ino, status.st_size)
        if seen == self._seen:
            return False
        self._seen = seen
        contents = {}
        for place in seen:
            with contextlib.suppress(OSError):
                contents[place] = self._files[place].read_bytes()
        is_new = contents != self.contents
        self.contents = contents
        return is_new

    def group(self, name: str) -> Mapping[int, bytes]:
        """Shard -> content of "config", "keys" or "pods"."""
        return {n: content for (group, n), content in self.contents.items() if group == name}
