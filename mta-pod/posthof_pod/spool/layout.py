"""Names of the files of a spool. Text in, text out; the only place that puts them together or takes them apart.

    workers/<id>/latch  lock  reserve  load  pod
    lanes/<lane>/own.<n>  free.<n>  <n>-<k>.seg  <number>.blob
    lanes/.gone-<lane>        a lane whose mail is done, on its way out
    offers/<lane>             -> "<worker>:<load>"
    pods/<pod>                what a pod wrote last, for the others to see (admin/visibility.py)
    damaged/<lane>.<n>-<k>.seg  or the whole folder of a lane

A message's id is `<lane>-<number>`. Numbers of claim n start at (n - 1) * 10^9 + 1, so no two claims share one, and a
worker that was cut off cannot make an id that its successor makes too.
"""

from __future__ import annotations

import os
from typing import NamedTuple

LANES = "lanes"
WORKERS = "workers"
OFFERS = "offers"
DAMAGED = "damaged"
FOLDERS = (WORKERS, LANES, OFFERS, DAMAGED)

NUMBERS_PER_CLAIM = 1_000_000_000
GONE = ".gone-"

_DIGITS = "0123456789abcdefghijklmnopqrstuv"


class SegmentName(NamedTuple):
    """Segments order by this: first by claim, then by count."""

    claim: int
    k: int

    def __str__(self) -> str:
        return f"{self.claim}-{self.k}.seg"


def new_lane(now: float, random: bytes | None = None) -> str:
    """A lane's name: 7 characters of the second, 5 of chance; base 32, lower case, no hyphen."""
    chance = int.from_bytes(os.urandom(4) if random is None else random[:4], "big") & 0x1FFFFFF
    return _base32(int(now) & 0x7FFFFFFFF, 7) + _base32(chance, 5)


def new_worker(random: bytes | None = None) -> str:
    """A worker's id: random at every start."""
    return "w" + _base32(int.from_bytes(os.urandom(10) if random is None else random[:10], "big"), 16)


def _base32(number: int, digits: int) -> str:
    return "".join(_DIGITS[number >> (5 * place) & 31] for place in reversed(range(digits)))


def lane(name: str) -> str:
    return f"lanes/{name}"


def own(name: str, claim: int) -> str:
    return f"lanes/{name}/own.{claim}"


def free(name: str, claim: int) -> str:
    return f"lanes/{name}/free.{claim}"


def segment(name: str, claim: int, k: int) -> str:
    return f"lanes/{name}/{claim}-{k}.seg"


def blob(name: str, number: int) -> str:
    return f"lanes/{name}/{number}.blob"


def gone(name: str) -> str:
    return f"lanes/{GONE}{name}"


def damaged(name: str, claim: int, k: int) -> str:
    return f"damaged/{name}.{claim}-{k}.seg"


def aside(name: str) -> str:
    return f"damaged/{name}"


def worker(name: str) -> str:
    return f"workers/{name}"


def latch(name: str) -> str:
    return f"workers/{name}/latch"


def lock(name: str) -> str:
    return f"workers/{name}/lock"


def reserve(name: str) -> str:
    return f"workers/{name}/reserve"


def load(name: str) -> str:
    return f"workers/{name}/load"


def pod(name: str) -> str:
    """Of a worker in a cluster: which pod's Lease speaks for it."""
    return f"workers/{name}/pod"


def offer(name: str) -> str:
    return f"offers/{name}"


def open_text(name: str) -> bytes:
    """What a latch must say, to the byte, for its worker to promise anything."""
    return f"open {name}".encode()


def fenced_text(by: str) -> bytes:
    """Longer than any open text, so that it covers it whole."""
    return f"fenced by {by}, who judged this worker dead and took its lanes\n".encode()


class LaneFiles(NamedTuple):
    """A listing of a lane's folder, sorted out."""

    claims: tuple[int, ...]  # ascending
    frees: frozenset[int]
    segments: tuple[SegmentName, ...]  # in the order of replay
    blobs: tuple[int, ...]
    others: tuple[str, ...]

    @property
    def claim(self) -> int:
        """The highest claim: its holder owns the lane. 0: nobody ever did."""
        return self.claims[-1] if self.claims else 0

    def next_k(self, claim: int) -> int:
        """The count after the last listed segment of a claim."""
        return max((name.k for name in self.segments if name.claim == claim), default=0) + 1


def sort_out(names: list[str]) -> LaneFiles:
    """What each name of a lane's folder is."""
    claims: list[int] = []
    frees: set[int] = set()
    segments: list[SegmentName] = []
    blobs: list[int] = []
    others: list[str] = []
    for name in names:
        stem, _, end = name.rpartition(".")
        if stem == "own" and end.isdecimal():
            claims.append(int(end))
        elif stem == "free" and end.isdecimal():
            frees.add(int(end))
        elif end == "blob" and stem.isdecimal():
            blobs.append(int(stem))
        elif end == "seg" and (found := segment_name(name)) is not None:
            segments.append(found)
        else:
            others.append(name)
    return LaneFiles(
        tuple(sorted(claims)), frozenset(frees), tuple(sorted(segments)), tuple(sorted(blobs)), tuple(sorted(others))
    )


def segment_name(name: str) -> SegmentName | None:
    """`3-12.seg` taken apart."""
    stem, dot, end = name.partition(".")
    claim, hyphen, k = stem.partition("-")
    if not (dot and hyphen and end == "seg" and claim.isdecimal() and k.isdecimal()):
        return None
    return SegmentName(int(claim), int(k))


def message_id(name: str, number: int) -> str:
    return f"{name}-{number}"


def take_apart(message: str) -> tuple[str, int]:
    """Lane and number of a message's id; ValueError for other text."""
    name, _, number = message.rpartition("-")
    return name, int(number)


def first_number(claim: int) -> int:
    return (claim - 1) * NUMBERS_PER_CLAIM + 1
