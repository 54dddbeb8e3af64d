"""A volume that fails when told to: the n-th call of a name, calls on a path, once or always."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from posthof_pod.spool.volume import Room, Volume


class FaultyVolume(Volume):
    """`fail("fdatasync", ...)` arms a fault; `calls` counts; `journal` lists the changing calls in order."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.calls: dict[str, int] = {}
        self.journal: list[tuple[str, str]] = []
        self._faults: list[dict[str, object]] = []
        self._paths: dict[int, str] = {}
        self.fake_room: Room | None = None

    def fail(self, name: str, *, times: int = 1, error: int = errno.EIO, part: str = "", short: bool = False) -> None:
        """The next `times` calls of `name` (on paths that hold `part`) fail with `error`, or write only half."""
        self._faults.append({"name": name, "times": times, "error": error, "part": part, "short": short})

    def heal(self) -> None:
        self._faults.clear()

    def _call(self, name: str, path: str) -> bool:
        """Raise if a fault is armed; True: write short."""
        self.calls[name] = self.calls.get(name, 0) + 1
        self.journal.append((name, path))
        for fault in self._faults:
            if fault["name"] == name and str(fault["part"]) in path and int(str(fault["times"])) > 0:
                fault["times"] = int(str(fault["times"])) - 1
                if fault["short"]:
                    return True
                code = int(str(fault["error"]))
                raise OSError(code, os.strerror(code), path)
        return False

    def look(self, path: str) -> bytes:
        self._call("look", path)
        return super().look(path)

    def create(self, path: str) -> int:
        self._call("create", path)
        fd = super().create(path)
        self._paths[fd] = path
        return fd

    def reopen(self, path: str) -> int:
        self._call("reopen", path)
        fd = super().reopen(path)
        self._paths[fd] = path
        return fd

    def overwrite(self, path: str) -> int:
        self._call("overwrite", path)
        fd = super().overwrite(path)
        self._paths[fd] = path
        return fd

    def pwritev(self, fd: int, parts: list[bytes], offset: int) -> int:
        if self._call("pwritev", self._paths.get(fd, "")):
            data = b"".join(parts)
            return super().pwritev(fd, [data[: len(data) // 2]], offset)
        return super().pwritev(fd, parts, offset)

    def fdatasync(self, fd: int) -> None:
        self._call("fdatasync", self._paths.get(fd, ""))
        super().fdatasync(fd)

    def fsync_dir(self, path: str) -> None:
        self._call("fsync_dir", path)
        super().fsync_dir(path)

    def mkdir(self, path: str) -> None:
        self._call("mkdir", path)
        super().mkdir(path)

    def symlink(self, target: str, path: str) -> None:
        self._call("symlink", path)
        super().symlink(target, path)

    def unlink(self, path: str) -> None:
        self._call("unlink", path)
        super().unlink(path)

    def rename(self, old: str, new: str) -> None:
        self._call("rename", old)
        super().rename(old, new)

    def rmdir(self, path: str) -> None:
        self._call("rmdir", path)
        super().rmdir(path)

    def read(self, path: str, size: int, offset: int) -> bytes:
        self._call("read", path)
        return super().read(path, size, offset)

    def open(self, path: str) -> int:
        self._call("open", path)
        return super().open(path)

    def room(self) -> Room:
        return self.fake_room or super().room()
