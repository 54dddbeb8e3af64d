"""Who takes which lane: pure rules over loads (live messages of a worker). They are hints, never ownership."""

from __future__ import annotations

from collections.abc import Iterable

LATE = 5.0  # seconds the oldest ready message waits before a worker asks its peers for help
OFFER_LASTS = 5.0  # seconds until an offered lane is claimed back
RUNNING_ENDS = 30.0  # seconds the attempts of a lane that leaves may still take
ASK_AGAIN = 0.2  # seconds
ROUNDS_LEFT = 2  # of taking, in which an offered lane is left to a worker with less load
MOST_OFFERED = 8  # lanes at once
LEAVES = 10**12  # the load a worker names when it stops: everyone has less


def should_wait(mine: int, peers: Iterable[int], step: int) -> bool:
    """Whether a peer with a clearly smaller load should take the next lane of a dead worker before me.

    `step`: messages of one lane; less than two of them apart is no difference.
    """
    least = min(peers, default=mine)
    return mine > least + 2 * step and mine > 1.25 * least


def lanes_to_offer(mine: int, peers: Iterable[int], lanes: dict[str, int], late: float) -> list[str]:
    """Which closed lanes (name -> live messages) to give away: none unless late and a peer has under half my load;
    at most half of the difference, the fullest first."""
    least = min(peers, default=mine)
    if late < LATE or least * 2 >= mine:
        return []
    spare = (mine - least) // 2
    chosen: list[str] = []
    for name, live in sorted(lanes.items(), key=lambda lane: -lane[1]):
        if 0 < live <= spare and len(chosen) < MOST_OFFERED:
            chosen.append(name)
            spare -= live
    return chosen


def should_take(mine: int, offered_by: int) -> bool:
    """Whether an offered lane is for me: the one who offers has more than twice my load."""
    return mine * 2 < offered_by


def read_offer(text: str) -> tuple[str, int]:
    """Worker and load of an offer; load 0 (never taken) for text that is none."""
    worker, _, load = text.rpartition(":")
    return worker, int(load) if load.isdecimal() else 0


def load_text(live: int) -> bytes:
    """Fixed width: it is written in place."""
    return b"%015d\n" % live


def read_load(text: bytes) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else 0
