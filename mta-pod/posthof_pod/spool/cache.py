"""Bodies just accepted, so that the usual first attempt reads nothing. Bounded in bytes, the oldest goes first."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ..model import Envelope, Held
from .blob import BlobReader

OVERHEAD = 700  # bytes: the envelope and the entry itself, roughly


class Stored(msgspec.Struct, frozen=True):
    """A message on the volume."""

    ref: int
    envelope: Envelope
    trace: bytes  # headers this house added, before the body
    body: bytes | BlobReader


class Live(NamedTuple):
    """A message read back at a start or a take-over: to be scheduled."""

    ref: int
    envelope: Envelope
    waiting: tuple[Held, ...]  # every recipient that is not done
    is_tried: bool  # a synced record says it may be tried: it may have been, without an outcome


class Cache:
    """ref -> Stored."""

    __slots__ = ("_limit", "_stored", "used")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._stored: dict[int, tuple[Stored, int]] = {}
        self.used = 0

    def __len__(self) -> int:
        return len(self._stored)

    def add(self, stored: Stored) -> None:
        body = stored.body
        size = OVERHEAD + len(stored.trace) + (len(body) if isinstance(body, bytes) else 0)
        if size > self._limit:
            return
        self._stored[stored.ref] = (stored, size)
        self.used += size
        while self.used > self._limit:
            self.drop(next(iter(self._stored)))

    def get(self, ref: int) -> Stored | None:
        entry = self._stored.get(ref)
        return entry[0] if entry is not None else None

    def drop(self, ref: int) -> None:
        entry = self._stored.pop(ref, None)
        if entry is not None:
            self.used -= entry[1]
