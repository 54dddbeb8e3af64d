"""`posthof spool dump`: the records of a spool as values that print, and the content of one message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from . import layout, reading, record, replay
from .reading import Place
from .record import Raw
from .replay import Message, Replay, Scan
from .volume import Disk

FLAGS = {
    record.AT_ONCE: "at_once",
    record.DONE: "done",
    record.REFUSED: "refused",
    record.COPY: "copy",
    record.REPORT: "report",
    record.CRITICAL: "critical",
}


def lanes(disk: Disk) -> list[str]:
    return sorted(name for name in disk.listdir(layout.LANES) if not name.startswith("."))


def read_lane(disk: Disk, lane: str) -> Replay:
    """All records of a lane, each one checked. FileNotFoundError: there is no such lane."""
    files = layout.sort_out(disk.listdir(layout.lane(lane)))
    return replay.merge([replay.scan(disk, lane, *name, True) for name in files.segments], files.blobs)


def records(disk: Disk, lane: str) -> Iterator[dict[str, Any]]:
    """Each record as it lies there, oldest first; `counts` is false beyond a cut."""
    for scan in read_lane(disk, lane).scans:
        if scan.start is not None:
            yield {
                "lane": lane,
                "segment": str(scan.name),
                "type": "start",
                **msgspec.to_builtins(_named(scan.start)),
            }
        for raw in scan.records:
            yield _record(lane, scan, raw)
        for offset, size in scan.gaps:
            yield {"lane": lane, "segment": str(scan.name), "type": "gap", "offset": offset, "length": size}
        if scan.torn:
            where = {"lane": lane, "segment": str(scan.name), "offset": scan.end, "length": scan.torn}
            yield {**where, "type": "torn"}


def _named(start: record.Start) -> dict[str, Any]:
    return {"claim": start.claim, "k": start.k, "worker": start.worker, "lower": start.lower}


def _record(lane: str, scan: Scan, raw: Raw) -> dict[str, Any]:
    row: dict[str, Any] = {
        "lane": lane,
        "segment": str(scan.name),
        "offset": raw.offset,
        "length": raw.length,
        "type": record.NAMES.get(raw.kind, str(raw.kind)),
        "flags": [name for bit, name in FLAGS.items() if raw.flags & bit],
        "counts": raw.end <= scan.cut,
    }
    if raw.kind == record.TRY:
        return row | {"ids": [layout.message_id(lane, number) for number in record.read_try(raw.meta)]}
    row["id"] = layout.message_id(lane, raw.number)
    try:
        if raw.kind == record.ACCEPT:
            row |= _accept(record.read_accept(raw.meta))
        elif len(raw.meta) > record.NUMBER.size:
            row |= _settle(lane, record.read_settle(raw.meta))
    except msgspec.MsgspecError as error:
        row["unreadable"] = str(error)
    return row


def _accept(accept: record.Accept) -> dict[str, Any]:
    envelope = {name: getattr(accept.envelope, name) for name in accept.envelope.__struct_fields__}
    envelope["recipients"] = [recipient.address for recipient in accept.envelope.recipients]
    found: dict[str, Any] = {"envelope": envelope, "trace_bytes": accept.trace}
    if accept.blob is not None:
        found["blob"] = {"number": accept.blob.number, "size": accept.blob.size, "crc": accept.blob.crc}
    if accept.states:
        found["state"] = record.read_states(accept.states, accept.reason, accept.detail)._asdict()
    return found


def _settle(lane: str, settle: record.Settle) -> dict[str, Any]:
    found: dict[str, Any] = {
        "state": record.read_states(settle.states, settle.reason, settle.detail)._asdict(),
    }
    if settle.report is not None:
        found["report"] = {"id": layout.message_id(lane, settle.report_number), **_accept(settle.report)}
    return found


def live(disk: Disk, lane: str) -> Iterator[dict[str, Any]]:
    """The messages a replay would bring back."""
    found = read_lane(disk, lane)
    for message in found.messages.values():
        entry = replay.decode(message)
        yield {
            "id": entry.envelope.id,
            "sender": entry.envelope.sender,
            "segment": str(found.scans[message.ordinal].name),
            "offset": message.offset,
            "size": entry.envelope.size,
            "waiting": [
                {
                    "to": entry.envelope.recipients[held.recipient].address,
                    "due": held.due,
                    "attempts": held.attempts,
                    "notified": held.notified,
                }
                for held in entry.waiting
            ],
            "tried": entry.tried,
        }


def content(disk: Disk, message_id: str) -> Iterator[bytes]:
    """A live message as it is sent: trace headers, then the body. LookupError: there is no such message; Damaged."""
    lane, number = layout.take_apart(message_id)
    found = read_lane(disk, lane)
    message: Message | None = found.messages.get(number)
    if message is None:
        raise LookupError(message_id)
    scan = found.scans[message.ordinal]
    place = Place(scan.path, scan.nonce, message.offset)
    whole = reading.read_message(disk, place, message.length, number)
    yield whole.trace
    note = whole.accept.blob
    if note is None:
        yield whole.body or b""
        return
    path, at = layout.blob(lane, note.number), 0
    while block := disk.read(path, 1 << 20, at):
        yield block
        at += len(block)
