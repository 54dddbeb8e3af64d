"""Who owns what, as the volume says it: for people who follow a scale-in, a take-over or a lost node. Only reads.

What is shown is a moment. A lane that goes from one to the other while it is read may be counted at both, or at none.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from . import layout, protocol, sharing
from .volume import Disk

FREE = "free"


class Owner(NamedTuple):
    """A worker and its lanes; the last one, with no worker, has the lanes that wait for one."""

    pod: str  # "" on one machine
    worker: str
    state: str  # open: it works; fenced: somebody judged it dead; gone: its folder is removed; free: nobody
    lanes: int
    messages: int  # live ones, as it told within the last second


def owners(disk: Disk) -> list[Owner]:
    """Sorted by pod and worker. OSError: the spool cannot be read."""
    held: Counter[str] = Counter()
    for name in disk.listdir(layout.LANES):
        if name.startswith(layout.GONE):
            continue
        holding = protocol.run(disk, protocol.find(name))
        if holding is not None:
            held["" if holding.is_free else holding.holder] += 1
    workers = {name for name in disk.listdir(layout.WORKERS) if name[0] != "."} | held.keys() - {""}
    found = sorted(_owner(disk, name, held[name]) for name in workers)
    return found + ([Owner("", "", FREE, held[""], 0)] if held[""] else [])


def _owner(disk: Disk, worker: str, lanes: int) -> Owner:
    try:
        is_open = disk.look(layout.latch(worker)) == layout.open_text(worker)
    except FileNotFoundError:
        return Owner("", worker, "gone", lanes, 0)
    messages = sharing.read_load(_text(disk, layout.load(worker)))
    pod = _text(disk, layout.pod(worker)).decode("ascii", "replace").strip()
    return Owner(pod, worker, "open" if is_open else "fenced", lanes, messages)


def _text(disk: Disk, path: str) -> bytes:
    try:
        return disk.read(path, 512, 0)
    except FileNotFoundError:
        return b""
