"""Reading one message back: in a reader thread, a fresh open each time, length and CRC checked.

Damaged: the bytes are not what was written. FileNotFoundError: the segment went (its message was copied or is done):
the caller asks the index again. Other OSErrors: the volume does not answer.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from . import record, replay
from .record import HEADER_BYTES, Accept, Damaged
from .volume import Disk


class Place(NamedTuple):
    """Where a record lies."""

    path: str
    nonce: bytes
    offset: int


class Found(NamedTuple):
    """An accept read back."""

    accept: Accept
    trace: bytes
    body: bytes | None  # None: in a blob


def read_record(disk: Disk, place: Place, length: int) -> tuple[int, bytes, bytes]:
    """Type, meta and content of the record at a place; `length` is its payload's, or 0: its header tells."""
    where = f"{place.path}@{place.offset}"
    data = disk.read(place.path, HEADER_BYTES + (length or 4096), place.offset)
    found = replay.check(data, 0, place.nonce)
    if found == -2 and not length and len(data) >= HEADER_BYTES:
        wanted = HEADER_BYTES + int(record.HEADER.unpack_from(data)[4])
        data = disk.read(place.path, wanted, place.offset)
        found = replay.check(data, 0, place.nonce)
    if found < 0 or (length and found != length):
        raise Damaged(where, "the record does not check")
    _, _, kind, _, size, meta, _ = record.HEADER.unpack_from(data)
    body = HEADER_BYTES + meta
    return kind, data[HEADER_BYTES:body], data[body : HEADER_BYTES + size]


def read_message(disk: Disk, place: Place, length: int, number: int) -> Found:
    """The accept of message `number`, whether plain or inside a settle."""
    kind, meta, content = read_record(disk, place, length)
    where = f"{place.path}@{place.offset}"
    try:
        if kind == record.ACCEPT:
            found, accept = record.NUMBER.unpack_from(meta)[0], record.read_accept(meta)
        else:
            settle = record.read_settle(meta)
            if settle.report is None:
                raise Damaged(where, "holds no report")
            found, accept = settle.report_number, settle.report
    except msgspec.MsgspecError as error:
        raise Damaged(where, f"not readable by this version: {error}") from error
    if found != number:
        raise Damaged(where, f"holds message {found}, not {number}")
    body = content[accept.trace :] if accept.blob is None else None
    return Found(accept, content[: accept.trace], body)


def read_settle(disk: Disk, place: Place, number: int) -> record.Settle:
    """The settle at a place."""
    kind, meta, _ = read_record(disk, place, 0)
    where = f"{place.path}@{place.offset}"
    if kind != record.SETTLE or record.NUMBER.unpack_from(meta)[0] != number:
        raise Damaged(where, f"no settle of {number}")
    try:
        return record.read_settle(meta)
    except msgspec.MsgspecError as error:
        raise Damaged(where, f"not readable by this version: {error}") from error
