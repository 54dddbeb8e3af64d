"""A pod that speaks before it is known: its address reaches us a second after its first connection.

Rules
- Only a refusal that a rule about pods would turn into a yes waits, once for each address a minute, for at most
  PATIENCE seconds; then it is the refusal it was. Nobody else waits at all.
- Addresses of the world do not wait, but on listeners that the world does not reach (role Internal).
- Memory is bounded: beyond REMEMBERED addresses nobody waits until the oldest are forgotten.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable

from posthof_crds.engine import ListenerRole

PATIENCE = 3.0  # seconds
AGAIN = 60.0  # seconds until an address that waited in vain may wait again
REMEMBERED = 4096


class Newcomers:
    """Who waits, and who has waited. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float], patience: float = PATIENCE) -> None:
        self._clock, self._patience = clock, patience
        self._waited: dict[str, float] = {}  # address -> when it began; oldest first
        self._news: asyncio.Event | None = None

    def may_wait(self, client: str, role: str) -> bool:
        """Whether it is worth waiting for news of this address; it counts as having waited then."""
        if role != ListenerRole.INTERNAL and _is_global(client):
            return False
        now = self._clock()
        while self._waited and now - next(iter(self._waited.values())) > AGAIN:
            del self._waited[next(iter(self._waited))]
        if client in self._waited or len(self._waited) >= REMEMBERED:
            return now - self._waited.get(client, now - AGAIN) < self._patience
        self._waited[client] = now
        return True

    def tell(self) -> None:
        """The list of pods is new."""
        if self._news is not None:
            self._news.set()
            self._news = None

    async def news(self, client: str) -> bool:
        """Wait for a new list; False: this address's patience is at its end."""
        rest = self._waited.get(client, 0.0) + self._patience - self._clock()
        if rest <= 0:
            return False
        if self._news is None:
            self._news = asyncio.Event()
        try:
            await asyncio.wait_for(self._news.wait(), rest)
        except TimeoutError:
            return False
        return True


def _is_global(client: str) -> bool:
    try:
        return ipaddress.ip_address(client).is_global
    except ValueError:
        return True
