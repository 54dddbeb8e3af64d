"""What happened today, kept on the spool's volume until it is reported: counted rows, a file for each worker.

    <spool>/reports/<kind>/<UTC day>/<worker>.log     frames: length, CRC-32, msgpack [row, count]
    <spool>/reports/<kind>/<UTC day>/own.<n>          symbolic link: who makes this day's reports (collect.py)
    <spool>/reports/<kind>/<UTC day>/done             they are on their way

Rules
- `note` costs a look-up in memory. Equal rows of a second are one frame, so a flood of equal mail costs nothing.
- `flush` writes and syncs, in a thread, once a second: a crash loses a second of counts, never mail.
- Bounded: MOST_ROWS different rows wait in memory, MOST_BYTES a file and day. More is dropped, and told once a day.
- A frame that does not check ends its file for the reader: what follows a torn write was never synced.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import msgspec

FOLDER = "reports"
MOST_ROWS = 50_000
MOST_BYTES = 32 * 1024 * 1024
_FRAME = struct.Struct(">II")
_LARGEST = 64 * 1024  # octets of one frame
_encode = msgspec.msgpack.Encoder().encode
_pair = msgspec.msgpack.Decoder(tuple[msgspec.Raw, int])


def day_of(now: float) -> str:
    """ "2026-11-24", in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(now))


def folder(spool: Path, kind: str) -> Path:
    return spool / FOLDER / kind


class Journal:
    """One kind of one worker. `worker` is unique for ever: the spool's id of it."""

    def __init__(self, spool: Path, kind: str, worker: str) -> None:
        self._folder = folder(spool, kind)
        self._worker = worker
        self._waiting: dict[str, Counter[bytes]] = {}
        self._rows = 0
        self._sizes: dict[str, int] = {}
        self.dropped = 0

    def note(self, row: object, now: float, count: int = 1) -> None:
        """Something happened. `row` is anything msgspec writes; equal rows are counted together."""
        rows = self._waiting.setdefault(day_of(now), Counter())
        text = _encode(row)
        if text not in rows:
            if self._rows >= MOST_ROWS or len(text) > _LARGEST - 16:
                self.dropped += count
                return
            self._rows += 1
        rows[text] += count

    @property
    def is_due(self) -> bool:
        """Whether `take` has something to write."""
        return bool(self._waiting)

    def take(self) -> dict[str, Counter[bytes]]:
        """What waits, for `write`: it is the caller's now."""
        waiting, self._waiting, self._rows = self._waiting, {}, 0
        return waiting

    def write(self, waiting: dict[str, Counter[bytes]]) -> None:
        """Append and sync. Blocks: called in a thread. Raises OSError."""
        for day, rows in waiting.items():
            data = b"".join(_frame(row, count) for row, count in rows.items())
            if self._sizes.get(day, 0) + len(data) > MOST_BYTES:
                self.dropped += rows.total()
                continue
            place = self._folder / day
            place.mkdir(parents=True, exist_ok=True)
            fd = os.open(place / f"{self._worker}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            try:
                os.write(fd, data)
                os.fdatasync(fd)
            finally:
                os.close(fd)
            self._sizes = {day: self._sizes.get(day, 0) + len(data)}


def _frame(row: bytes, count: int) -> bytes:
    body = _encode((msgspec.Raw(row), count))
    return _FRAME.pack(len(body), crc32(body)) + body


def frames(data: bytes) -> Iterator[tuple[bytes, int]]:
    """(row, count) of a file, up to its end or to what does not check."""
    at = 0
    while at + _FRAME.size <= len(data):
        size, crc = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        body = data[at : at + size]
        if size > _LARGEST or len(body) != size or crc32(body) != crc:
            return
        at += size
        try:
            row, count = _pair.decode(body)
        except msgspec.DecodeError:
            return
        yield bytes(row), count


def read_day(place: Path) -> Counter[bytes]:
    """All rows of a day, of all workers together. Blocks."""
    found: Counter[bytes] = Counter()
    for path in sorted(place.glob("*.log")):
        with contextlib.suppress(FileNotFoundError):  # another took this turn, and has ended it
            for row, count in frames(path.read_bytes()):
                found[row] += count
    return found
