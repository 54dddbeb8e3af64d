"""What a worker told its clients, line by line, and whether a spool found later keeps it.

A line is a JSON list, its first item the kind:

    begin ID LABEL SIZE    the message is about to be committed
    ack ID                 its 250
    refuse ID              its 451
    settle ID              all its recipients are done: told to the spool
    part ID RECIPIENT      one of its recipients is done: told to the spool
    synced                 all that was told before is on the volume
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import NamedTuple

from posthof_pod.spool import Damaged, layout, protocol, reading, replay
from posthof_pod.spool.volume import Disk

TRACE = b"Received: from a by b; now\r\n"


def body_of(label: str, size: int) -> bytes:
    """The content of a message, made from its label alone."""
    head = f"Subject: {label}\r\n\r\n".encode()
    return head + random.Random(label).randbytes(size)


class Found(NamedTuple):
    """A live message of a spool."""

    content: bytes
    waiting: frozenset[int]  # recipients


class Ledger:
    """Lines added up."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self.contents: dict[str, bytes] = {}
        self.acked: set[str] = set()
        self.refused: set[str] = set()
        self.settled: set[str] = set()
        self.done: set[str] = set()
        self.parts: set[tuple[str, int]] = set()  # synced
        self._parts: set[tuple[str, int]] = set()
        self._unsure: set[str] = set()  # settled by a worker that ended before the sync
        for line in lines:
            self.add(*json.loads(line))

    def add(self, kind: str, *fields: object) -> None:
        message = str(fields[0]) if fields else ""
        match kind:
            case "begin":
                self.contents[message] = TRACE + body_of(str(fields[1]), int(str(fields[2])))
            case "ack":
                self.acked.add(message)
            case "refuse":
                self.refused.add(message)
            case "settle":
                self.settled.add(message)
                self._unsure.discard(message)
            case "part":
                self._parts.add((message, int(str(fields[1]))))
            case "synced":
                self.done = self.settled - self._unsure
                self.parts = set(self._parts)

    def end(self) -> None:
        """The worker ended: what it settled and did not sync may be done or not."""
        self._unsure |= self.settled - self.done
        self._parts = set(self.parts)

    def complaints(self, found: dict[str, Found]) -> list[str]:
        """What the spool does not keep of what was told."""
        wrong = [f"{message} was acknowledged and is lost" for message in self.acked - self.settled - found.keys()]
        wrong += [f"{message} was done and is back" for message in self.done & found.keys()]
        for message, one in found.items():
            if message not in self.contents:
                wrong.append(f"{message} was never sent")
            elif one.content != self.contents[message]:
                wrong.append(f"{message} has other content")
            for recipient in one.waiting:
                if (message, recipient) in self.parts:
                    wrong.append(f"{message}: recipient {recipient} was done and waits again")
        return sorted(wrong)


def read_spool(disk: Disk) -> dict[str, Found]:
    """All live messages, by the project's own replay, without changing anything."""
    found: dict[str, Found] = {}
    try:
        names = disk.listdir(layout.LANES)
    except FileNotFoundError:
        return found
    for name in names:
        if not name.startswith(layout.GONE):
            read_lane(disk, name, found)
    return found


def read_lane(disk: Disk, name: str, found: dict[str, Found]) -> None:
    holding = protocol.run(disk, protocol.find(name))
    if holding is None:
        return
    added = protocol.run(disk, protocol.read_lower(name, holding.claim + 1))
    for message in added.messages.values():
        entry = replay.decode(message)
        scan = added.scans[message.ordinal]
        place = reading.Place(scan.path, scan.nonce, message.offset)
        content = _content(disk, name, place, message)
        waiting = frozenset(held.recipient for held in entry.waiting)
        assert entry.envelope.id not in found, "a message lies in two lanes"
        found[entry.envelope.id] = Found(content, waiting)


def _content(disk: Disk, lane: str, place: reading.Place, message: replay.Message) -> bytes:
    """What can be read of a message; b"" where nothing can."""
    try:
        read = reading.read_message(disk, place, message.length, message.number)
        if read.accept.blob is None:
            return read.trace + (read.body or b"")
        path = layout.blob(lane, read.accept.blob.number)
        return read.trace + disk.read(path, disk.size(path), 0)
    except (Damaged, FileNotFoundError):
        return b""
