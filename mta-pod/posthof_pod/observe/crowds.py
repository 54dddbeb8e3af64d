"""Connections that a limit turned away, gathered: a flood costs lines by the minute, not by the connection.

Rules of this file
- Pure: no clock, no I/O. Whoever owns it calls `take` once a PERIOD while it is not empty.
- Memory is bounded: MANY crowds are told apart; those who come beyond them are counted as one of no network.
"""

from __future__ import annotations

from typing import NamedTuple

from posthof_pod.replies import Reply

PERIOD = 60.0  # seconds
MANY = 1000


class Crowd(NamedTuple):
    """Those who are told in one line. `network`: an IPv4 address or an IPv6 /64; "": any."""

    network: str
    listener: str
    role: str
    reply: Reply


class Crowds:
    def __init__(self, many: int = MANY) -> None:
        self._many = many
        self._came: dict[Crowd, tuple[int, str]] = {}  # how many are untold, and the newest client

    def __bool__(self) -> bool:
        return bool(self._came)

    def comes(self, crowd: Crowd, client: str) -> bool:
        """One more. True: the first for a while, to be told at once; False: it is counted for `take`."""
        came = self._came.get(crowd)
        if came is None and len(self._came) >= self._many:
            crowd = crowd._replace(network="")
            came = self._came.get(crowd)
        self._came[crowd] = (0, client) if came is None else (came[0] + 1, client)
        return came is None

    def take(self) -> list[tuple[Crowd, int, str]]:
        """Crowd, how many came untold, the newest client's address. A crowd of which none came is forgotten."""
        taken = [(crowd, count, client) for crowd, (count, client) in self._came.items() if count]
        self._came = {crowd: (0, client) for crowd, _, client in taken}
        return taken
