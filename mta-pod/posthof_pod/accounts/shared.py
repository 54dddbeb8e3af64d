"""The counts of all workers, through files beside the spool: `<spool>/accounts/<worker>.use` and `.known`.

Rules
- Each worker writes its own files alone, whole and by rename, and reads those of the others every SYNC seconds. A
  file is no promise: a power loss forgets some counts, nothing else. So nothing here is synced.
- A file whose worker has not written for DEAD seconds is a dead worker's: one takes it over (a rename, which one
  wins), adds it to its own, and removes it. Its counts of today count on.
- Everything slow is in a thread. What cannot be read or written is told once, and counting goes on alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from posthof_pod.accounts.usage import Ledger, Use, packed, unpacked

SYNC = 2.0
ALIVE = 15.0  # seconds since its last word, by its own clock, for which a worker counts as one that takes mail
DEAD = 3600.0
KNOWN_EVERY = 30  # syncs between two writes of whom accounts wrote to


class Page(msgspec.Struct, array_like=True):
    """A `.use` file."""

    written: float
    uses: dict[str, Use]


@dataclass
class Heard:
    """What stood in the files."""

    others: list[dict[str, Use]] = field(default_factory=list)
    known: list[dict[str, bytes]] = field(default_factory=list)
    taken: list[tuple[dict[str, Use], dict[str, set[int]]]] = field(default_factory=list)
    parts: int = 1


class SharedLedger:
    """`wall`: unix seconds. `tell`: once for each trouble."""

    def __init__(
        self, folder: Path, worker: str, ledger: Ledger, wall: Callable[[], float], tell: Callable[[str], object]
    ) -> None:
        self._folder, self._worker, self._ledger, self._wall = folder, worker, ledger, wall
        self._tell = tell
        self._trouble = ""
        self._syncs = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.sync()
            await asyncio.sleep(SYNC)

    async def sync(self) -> None:
        """Tell the others, hear the others."""
        ledger, now = self._ledger, self._wall()
        ledger.forget(now)
        page = msgspec.msgpack.encode(Page(now, ledger.own))
        known = None
        if self._syncs % KNOWN_EVERY == 0:
            known = msgspec.msgpack.encode({name: packed(found) for name, found in ledger.known.items()})
        self._syncs += 1
        try:
            heard = await asyncio.to_thread(self._exchange, page, known, now)
        except OSError as error:
            if str(error) != self._trouble:
                self._tell(f"accounts are counted by each worker alone: {error}")
            self._trouble = str(error)
            return
        self._trouble = ""
        for uses, names in heard.taken:
            ledger.adopt(uses, names)
        ledger.hear(heard.others, heard.known, heard.parts)

    async def close(self) -> None:
        """The last word of a worker that ends."""
        self._syncs = 0
        await self.sync()

    def _exchange(self, page: bytes, known: bytes | None, now: float) -> Heard:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._write(f"{self._worker}.use", page)
        if known is not None:
            self._write(f"{self._worker}.known", known)
        heard = Heard()
        for name in sorted(os.listdir(self._folder)):
            owner, _, kind = name.partition(".")
            if owner == self._worker or kind not in ("use", "known"):
                continue
            found = self._read(name)
            if isinstance(found, Page):
                heard.parts += now - found.written < ALIVE
                if now - found.written <= DEAD:
                    heard.others.append(found.uses)
                elif (taken := self._take_over(owner)) is not None:
                    heard.taken.append(taken)
            elif found is not None and known is not None:
                heard.known.append(found)
        return heard

    def _write(self, name: str, content: bytes) -> None:
        fresh = self._folder / f".{name}"
        fresh.write_bytes(content)
        fresh.rename(self._folder / name)

    def _read(self, name: str) -> Page | dict[str, bytes] | None:
        """None: gone, or written by a version we do not know."""
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            content = (self._folder / name).read_bytes()
            if name.endswith(".use"):
                return msgspec.msgpack.decode(content, type=Page)
            return msgspec.msgpack.decode(content, type=dict[str, bytes])
        return None

    def _take_over(self, owner: str) -> tuple[dict[str, Use], dict[str, set[int]]] | None:
        """Its counts, ours from now on. The next sync writes them; what a crash loses in between is statistics."""
        claim = f"{owner}.taken-{self._worker}"
        try:
            (self._folder / f"{owner}.use").rename(self._folder / claim)
        except FileNotFoundError:
            return None  # another one was quicker
        page = msgspec.msgpack.decode((self._folder / claim).read_bytes(), type=Page)
        known = self._read(f"{owner}.known")
        (self._folder / claim).unlink()
        (self._folder / f"{owner}.known").unlink(missing_ok=True)
        return page.uses, {name: unpacked(text) for name, text in known.items()} if isinstance(known, dict) else {}
