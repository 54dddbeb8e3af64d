"""Do the MX hosts of our own policies present certificates that the world believes? Asked as a sender would.

Before a policy may say `enforce` (RFC 8461), every MX host in it must have been seen with a certificate that is valid
for its name: else senders that obey it deliver nothing.

Rules of this file
- Each host's addresses are looked up in DNS, and one session by STARTTLS is opened with the first that answers, as
  level Verify does. No mail is begun.
- A host that was proven stays so while it does not answer: that says nothing of its certificate. A session without
  TLS, or a certificate that does not hold, ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable

from posthof_crds.engine import EngineConfig, HopKind, NextHop, TLSLevel
from posthof_pod.deliver.connection import Connection, Unreachable
from posthof_pod.deliver.tls import ClientTLS
from posthof_pod.model import Destination, DestinationKind, Reason
from posthof_pod.replies import Failure
from posthof_pod.resolve.assembly import assemble

EVERY = 3600.0  # seconds between looks at hosts that are proven
SOON = 60.0  # and at others
NOT_YET = "it has not been asked yet"
_TLS = frozenset({Reason.TLS_FAILED, Reason.TLS_REQUIRED})

Ask = Callable[[str], Awaitable[str | None]]
"""Opens a session with an MX host: "" it is proven, a text why not, None: nobody answered."""


class Proof:
    """What is known of the hosts. `unproven`: MX host -> why; `hosts` gives those that stand in policies now."""

    def __init__(self, hosts: Callable[[], Iterable[str]], told: Callable[[str], object]) -> None:
        self._hosts = hosts
        self._told = told
        self._poked = asyncio.Event()
        self._proven: set[str] = set()
        self.unproven: dict[str, str] = dict.fromkeys(hosts(), NOT_YET)

    def poke(self) -> None:
        """Other hosts may stand in policies now. What is new counts as not proven at once."""
        for host in self._hosts():
            if host not in self._proven:
                self.unproven.setdefault(host, NOT_YET)
        self._poked.set()

    async def look(self, ask: Ask) -> None:
        """Ask all of them once."""
        hosts = set(self._hosts())
        for host in sorted(hosts):
            why = await ask(host)
            if why == "":
                self._proven.add(host)
                self.unproven.pop(host, None)
            elif why is not None or host not in self._proven:
                self._doubt(host, why or "it does not answer")
        self.unproven = {host: why for host, why in self.unproven.items() if host in hosts}
        self._proven &= hosts

    async def run(self, ask: Callable[[], Ask]) -> None:
        """Ask again and again. `ask()`: by the configuration in force."""
        while True:
            await self.look(ask())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), SOON if self.unproven else EVERY)
            self._poked.clear()

    def _doubt(self, host: str, why: str) -> None:
        self._proven.discard(host)
        if self.unproven.get(host) != why:
            self._told(f"MTA-STS: policies that name {host} stay in testing: {why}")
        self.unproven[host] = why


def asker(config: EngineConfig, tls: ClientTLS) -> Ask:
    """Asks in the network, by the port where the world's MX hosts listen."""

    async def ask(host: str) -> str | None:
        hop = NextHop(kind=HopKind.HOST, name=host, port=config.direct_port)
        to = Destination(
            f"proof:{host}", DestinationKind.SMARTHOST, host, hops=(hop,), tls=TLSLevel.VERIFY, egress=config.egress
        )
        resolver = assemble(config, rng=random.random, listeners=()).resolver
        try:
            route = await resolver.route(to, time.time())
        except Failure as failure:
            return f"its address is not known: {failure.reason}"
        for place in route.hosts:
            try:
                session = await Connection.open(
                    place, to, hostname=config.hostname, timeouts=config.timeouts, tls=tls
                )
            except Unreachable as error:
                if error.reason in _TLS:
                    return error.reply
                continue
            await session.quit()
            return ""
        return None

    return ask
