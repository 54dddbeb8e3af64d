"""`posthof spool check`: read a whole spool, every record and every blob, and say what is there and what a start
would repair. It changes nothing, and needs no worker to run."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

import msgspec

from . import layout, protocol, replay
from .record import BlobNote
from .replay import Replay, Scan
from .volume import Disk

BLOCK = 1024 * 1024


class Weight(enum.Enum):
    """What a finding means."""

    NOTE = "note"  # as it should be, good to know
    REPAIR = "repair"  # a crash left it; the next worker puts it right
    DAMAGE = "damage"  # bytes are not what was written: mail may be lost, people must look


class Finding(NamedTuple):
    """One sentence about one thing."""

    weight: Weight
    where: str  # path below the root
    text: str


class Summary:
    """What the spool holds."""

    def __init__(self) -> None:
        self.lanes = 0
        self.segments = 0
        self.messages = 0
        self.recipients = 0
        self.bytes = 0
        self.tried = 0
        self.findings: list[Finding] = []

    @property
    def is_damaged(self) -> bool:
        return any(finding.weight is Weight.DAMAGE for finding in self.findings)

    def add(self, weight: Weight, where: str, text: str) -> None:
        self.findings.append(Finding(weight, where, text))


def check(disk: Disk) -> Summary:
    """FileNotFoundError: this is no spool. Other OSErrors: it cannot be read."""
    summary = Summary()
    workers = {name for name in disk.listdir(layout.WORKERS) if not name.startswith(".")}
    named: set[str] = set()
    for name in sorted(disk.listdir(layout.LANES)):
        if name.startswith(layout.GONE):
            summary.add(Weight.REPAIR, layout.lane(name), "the rest of a lane whose mail is done: would be removed")
            continue
        holder = _check_lane(disk, name, summary, workers)
        if holder:
            named.add(holder)
    for worker in sorted(workers):
        _check_worker(disk, worker, summary, is_named=worker in named)
    try:
        aside = sorted(disk.listdir(layout.DAMAGED))
    except FileNotFoundError:
        aside = []  # the folders of a spool that lost power at its first start
    for name in aside:
        summary.add(
            Weight.NOTE, f"{layout.DAMAGED}/{name}", "was set aside because of damage; yours to keep or remove"
        )
    return summary


def _check_worker(disk: Disk, worker: str, summary: Summary, *, is_named: bool) -> None:
    try:
        is_open = disk.look(layout.latch(worker)) == layout.open_text(worker)
    except FileNotFoundError:
        summary.add(
            Weight.REPAIR, layout.worker(worker), "a worker that ended before its first lane: would be removed"
        )
        return
    if not is_named:
        summary.add(Weight.REPAIR, layout.worker(worker), "no lane names this worker: once it is dead it is removed")
    elif is_open:
        summary.add(
            Weight.NOTE, layout.worker(worker), "open: if it does not run, its lanes are taken over at a start"
        )
    else:
        summary.add(Weight.REPAIR, layout.worker(worker), "fenced: its lanes are taken over at a start")


def _check_lane(disk: Disk, name: str, summary: Summary, workers: set[str]) -> str:
    """The worker whose folder this lane needs, "" for none."""
    where = layout.lane(name)
    holding = protocol.run(disk, protocol.find(name))
    if holding is None:
        return ""
    summary.lanes += 1
    if not holding.claim:
        summary.add(Weight.REPAIR, where, "nobody claimed it: would be claimed and removed")
    elif holding.is_poisoned:
        summary.add(
            Weight.DAMAGE,
            where,
            f"three claims in a row never began: set aside. With all workers stopped remove own.{holding.claim}, "
            f"own.{holding.claim - 1} and own.{holding.claim - 2} to try again",
        )
    elif not holding.is_free and holding.holder not in workers:
        summary.add(Weight.REPAIR, where, f"its owner {holding.holder} has no folder: would be taken over")
    for other in holding.files.others:
        if not other.startswith(".nfs"):
            summary.add(
                Weight.NOTE, f"{where}/{other}", "not a name of the spool: it keeps the lane's folder in place"
            )
    scans = [replay.scan(disk, name, *segment, True) for segment in holding.files.segments]
    found = replay.merge(scans, holding.files.blobs)
    for scan in found.scans:
        _check_segment(disk, scan, summary)
    _check_messages(disk, name, found, summary)
    return "" if holding.is_free else holding.holder


def _check_segment(disk: Disk, scan: Scan, summary: Summary) -> None:
    summary.segments += 1
    summary.bytes += scan.size
    for offset, size in scan.gaps:
        summary.add(Weight.DAMAGE, scan.path, f"{size} bytes at {offset} do not check, valid records follow")
    if scan.cut == 0:
        summary.add(Weight.REPAIR, scan.path, "written by a worker after its lane was taken over: never acknowledged")
    elif scan.end > scan.cut:
        text = f"{scan.end - scan.cut} bytes after {scan.cut} came when the lane was taken over: never acknowledged"
        summary.add(Weight.REPAIR, scan.path, text)
    if scan.torn:
        text = f"{scan.torn} bytes at {scan.end} are torn: never acknowledged, they are passed over"
        summary.add(Weight.REPAIR, scan.path, text)
    if scan.unknown:
        summary.add(Weight.NOTE, scan.path, f"{scan.unknown} records of a newer version: the segment stays")
    if scan.is_sealed:
        short = replay.scan(disk, scan.lane, *scan.name)
        if short.is_sealed and [raw[:4] for raw in short.records] != [raw[:4] for raw in scan.records]:
            summary.add(Weight.DAMAGE, scan.path, "its end does not list what is in it")


def _check_messages(disk: Disk, lane: str, found: Replay, summary: Summary) -> None:
    blobs = set(found.blobs)
    for message in found.messages.values():
        summary.messages += 1
        where = found.scans[message.ordinal].path
        try:
            entry = replay.decode(message)
        except msgspec.MsgspecError as error:
            summary.add(Weight.DAMAGE, where, f"message {message.number} is not readable by this version: {error}")
            continue
        summary.recipients += len(entry.waiting)
        summary.tried += entry.tried
        note = entry.accept.blob
        if note is not None:
            blobs.discard(note.number)
            _check_blob(disk, lane, note, summary)
    for number in sorted(blobs):
        summary.add(Weight.REPAIR, layout.blob(lane, number), "no live message has it: would be removed")


def _check_blob(disk: Disk, lane: str, note: BlobNote, summary: Summary) -> None:
    path = layout.blob(lane, note.number)
    crc = size = 0
    try:
        for block in _blocks(disk, path):
            crc = crc32(block, crc)
            size += len(block)
    except FileNotFoundError:
        summary.add(Weight.DAMAGE, path, "the content of a live message is missing")
        return
    if (size, crc) != (note.size, note.crc):
        summary.add(Weight.DAMAGE, path, f"{size} bytes, where {note.size} with another CRC were written")


def _blocks(disk: Disk, path: str) -> Iterator[bytes]:
    at = 0
    while block := disk.read(path, BLOCK, at):
        yield block
        at += len(block)
