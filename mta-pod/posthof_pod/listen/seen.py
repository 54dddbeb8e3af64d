"""Whose addresses the sessions of a public listener came with, lately: so that somebody notices address translation.

Bounded: MOST addresses in each of two windows of WINDOW seconds; the sessions of further ones are counted as others.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable

WINDOW = 600.0  # seconds
MOST = 1024
SHOWN = 16


class Seen:
    """Sessions by address, of this window and the one before."""

    def __init__(self) -> None:
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._begun = 0.0

    def add(self, client: str) -> None:
        counts = self._now
        if client not in counts and len(counts) >= MOST:
            client = ""
        counts[client] = counts.get(client, 0) + 1

    def counts(self, now: float) -> dict[str, int]:
        """Address -> sessions; "": addresses beyond the bound. `now`: monotonic seconds."""
        if now - self._begun >= WINDOW:
            self._now, self._before, self._begun = {}, self._now, now
        return dict(Counter(self._now) + Counter(self._before))


def summed(all_counts: Iterable[dict[str, int]]) -> tuple[int, int, tuple[str, ...]]:
    """Of several listeners: sessions, those from addresses that are not the world's, the addresses seen most."""
    counts: Counter[str] = Counter()
    for one in all_counts:
        counts.update(one)
    private = sum(count for address, count in counts.items() if address and _is_private(address))
    return counts.total(), private, tuple(address for address, _ in counts.most_common(SHOWN) if address)


def _is_private(address: str) -> bool:
    try:
        return not ipaddress.ip_address(address).is_global
    except ValueError:
        return False
