"""What one pod writes, does another see? Each pod writes a word into `pods/<pod>` on the volume, in place and synced
as a fence is, and only then says in its Lease which word that is; whoever reads the Lease opens the file afresh.

Rules of this file
- The promise behind every take-over is tried out where it has to hold: between the clients that really run. A probe
  of one pod cannot see it.
- A word is written at the start, soon again (an old text must be seen to change), then every so often.
- A word that was followed by another before it was seen is forgotten: the Lease names the newer one within a second.
- A word that a fresh open does not show is told of after LATE seconds, and ends the house after BLIND: a worker here
  would not see that it was fenced. An error is no evidence: it is tried again with the next word.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from posthof_pod.spool import Volume

FOLDER = "pods"
FIRST, EVERY = 15.0, 600.0  # seconds from the first word to the second, and between later ones
LATE = 10.0  # seconds
BLIND = 30.0
LOOKS = 0.02  # seconds between two opens, growing to
MOST = 0.5
SLOW = 5.0  # seconds that one look may take and still be a look, and no sleep of this process
GONE = 86400.0  # seconds without a new word until a pod's file is removed


class Visibility:
    """`worst`: the longest it took until a word was seen, None before the first. `unseen`: what is not, for people.
    `on_late(why)` is called once per word, `on_blind(why)` at last."""

    def __init__(
        self,
        spool: Path,
        pod: str,
        *,
        say: Callable[[str], object],
        on_late: Callable[[str], object],
        on_blind: Callable[[str], object],
        volume: Callable[[Path], Volume] = Volume,
        patience: tuple[float, float] = (LATE, BLIND),
    ) -> None:
        self.worst: float | None = None
        self.unseen = ""
        self._spool, self._pod, self._say = spool, pod, say
        self._on_late, self._on_blind, self._volume = on_late, on_blind, volume
        self._late, self._blind = patience
        self._known: dict[str, str] = {}  # pod -> its last word that was looked for
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._count = 0

    async def run(self) -> None:
        """Write words, until cancelled."""
        pause = FIRST
        while True:
            self._count += 1
            word = f"{self._count:010d} {os.urandom(6).hex()}"
            with contextlib.suppress(OSError):  # the volume says no: workers notice that better
                await asyncio.to_thread(self._write, word)
                self._say(word)
            await asyncio.sleep(pause)
            pause = EVERY

    def hear(self, words: Mapping[str, str]) -> None:
        """What the Leases of the other pods say they wrote. Who is not named here is gone, and so may be its file."""
        for pod in [pod for pod in self._known if pod not in words]:
            del self._known[pod]
            if (task := self._looking.pop(pod, None)) is not None and not task.done():
                task.cancel()
                self.unseen = ""
        for pod, word in words.items():
            if pod == self._pod or not word or self._known.get(pod) == word:
                continue
            self._known[pod] = word
            if (old := self._looking.pop(pod, None)) is not None:
                old.cancel()
            self._looking[pod] = asyncio.ensure_future(self._look(pod, word))

    async def leave(self) -> None:
        """Nobody needs our word any more."""
        for task in self._looking.values():
            task.cancel()
        with contextlib.suppress(OSError):
            await asyncio.to_thread(os.unlink, self._spool / FOLDER / self._pod)

    # ------------------------------------------------------------------ how

    def _write(self, word: str) -> None:
        """In place, as a fence is."""
        volume = self._volume(self._spool)
        with contextlib.suppress(FileExistsError):
            volume.mkdir(FOLDER)
        fd = volume.overwrite(f"{FOLDER}/{self._pod}")
        try:
            volume.pwritev(fd, [word.encode()], 0)
            volume.fdatasync(fd)
        finally:
            volume.close(fd)
        volume.fsync_dir(FOLDER)
        now = (self._spool / FOLDER / self._pod).stat().st_mtime  # as the volume counts, whatever our clock says
        for path in (self._spool / FOLDER).iterdir():
            if now - path.stat().st_mtime > GONE:
                path.unlink(missing_ok=True)

    async def _look(self, pod: str, word: str) -> None:
        volume = self._volume(self._spool)
        begun, waited, pause, is_told = time.monotonic(), 0.0, LOOKS, False
        while True:
            try:
                text = await asyncio.to_thread(volume.look, f"{FOLDER}/{pod}")
            except FileNotFoundError:
                text = b""
            except OSError:
                return
            if text == word.encode():
                self.worst = max(self.worst or 0.0, min(time.monotonic() - begun, waited + SLOW))
                self.unseen = ""
                return
            if waited > self._blind:
                self._on_blind(self.unseen)
                return
            if waited > self._late and not is_told:
                is_told = True
                self.unseen = (
                    f"what pod {pod} wrote and synced is not seen here {waited:.0f} s later: a worker that was "
                    "fenced would not notice. Mount the volume with close-to-open consistency"
                )
                self._on_late(self.unseen)
            await asyncio.sleep(pause)
            waited += pause  # a process that was stopped meanwhile has not waited
            pause = min(pause * 1.5, MOST)
