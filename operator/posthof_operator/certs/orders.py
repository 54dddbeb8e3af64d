"""Orders at ACME servers: in threads, one at a time for each TLSCert, remembered until it is asked what came of them.

Rules of this file
- An order blocks for seconds to minutes, so no reconcile waits for it: it is begun, and its end wakes the TLSCert.
- Nothing is written here but DNS records: what comes out is a value.
- What was begun by a process that is gone is begun anew; the server knows the account, and gives it its order again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple

from posthof_certs import acme, zone
from posthof_certs.acme import Account, Advice, Proof, Refused
from posthof_certs.background import background
from posthof_certs.pair import Pair
from posthof_certs.solvers import records
from posthof_certs.zone import Record, Unpublished
from posthof_operator.resources import Key

AT_ONCE = 4  # orders that run at one time
ADVICE_AGAIN = 6 * 3600.0  # seconds until an authority that did not answer is asked for advice again

log = logging.getLogger("posthof_operator.certificates")


class Ended(NamedTuple):
    """What came of an order: a pair, or why there is none."""

    pair: Pair | None = None
    refused: Refused | None = None


class Advised(NamedTuple):
    serial: str
    advice: Advice


class Orders:
    """`wake` is called with the key of a TLSCert whose order has ended. Loop thread only."""

    def __init__(self) -> None:
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._ended: dict[Key, Ended] = {}
        self._advised: dict[Key, Advised] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    def is_running(self, key: Key) -> bool:
        return key in self._running

    def take(self, key: Key) -> Ended | None:
        """What came of the last order, once."""
        return self._ended.pop(key, None)

    def begin(
        self,
        key: Key,
        account: Account,
        *,
        names: Sequence[str],
        private: bytes,
        solver: acme.Solver,
        wake: Callable[[Key], None],
    ) -> None:
        """Order it for `names` with the key `private` (PEM); nothing happens while one runs."""
        if key in self._running:
            return

        async def work() -> None:
            try:
                async with self._slots:
                    ended = await asyncio.wrap_future(background(partial(_order, account, names, private, solver)))
            except Exception as error:
                log.exception("an order for %s broke", key)
                ended = Ended(refused=Refused(f"the order broke: {type(error).__name__}: {error}"))
            finally:
                del self._running[key]
            self._ended[key] = ended
            wake(key)

        self._running[key] = asyncio.get_running_loop().create_task(work(), name=f"order {key}")

    async def advice(self, key: Key, account: Account, serial: str, chain: bytes, now: float) -> float | None:
        """When the authority would like the certificate to be renewed, asked when it wants to be asked."""
        known = self._advised.get(key)
        if known is None or known.serial != serial or now >= known.advice.ask_again:
            try:
                found = await asyncio.to_thread(acme.advice, account, chain)
            except Refused as error:
                log.warning("%s: no advice when to renew: %s", key, error)
                found = Advice(known.advice.renew if known and known.serial == serial else None, now + ADVICE_AGAIN)
            self._advised[key] = known = Advised(serial, found)
        return known.advice.renew

    def forget(self, key: Key) -> None:
        """It is gone. An order that runs ends by itself, and is forgotten with the next."""
        self._ended.pop(key, None)
        self._advised.pop(key, None)

    async def close(self) -> None:
        """Wait for no one: threads end with their time-outs, what they bring is thrown away."""
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)


def _order(account: Account, names: Sequence[str], private: bytes, solver: acme.Solver) -> Ended:
    try:
        return Ended(pair=acme.obtain(account, names, private, solver))
    except Refused as error:
        return Ended(refused=error)


# -- how names are proven --------------------------------------------------------------------------------------------


class ByEndpoint:
    """A DNSEndpoint object for ExternalDNS. `put` and `take` write and delete it, on the loop."""

    type = "dns-01"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        put: Callable[[list[Record]], Coroutine[Any, Any, None]],
        take: Callable[[], Coroutine[Any, Any, None]],
        resolver: Sequence[str],
        port: int,
    ) -> None:
        self._loop, self._put, self._take = loop, put, take
        self._resolver, self._port = resolver, port

    def present(self, proofs: Sequence[Proof]) -> None:
        shown = records(proofs)
        self._run(self._put(shown))
        try:
            zone.await_seen(shown, self._resolver, port=self._port, patience=300.0)
        except Unpublished as error:
            raise Refused(f"ExternalDNS has not published the proof: {error}") from None

    def remove(self, proofs: Sequence[Proof]) -> None:
        if proofs:
            self._run(self._take())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            asyncio.run_coroutine_threadsafe(work, self._loop).result(30.0)
        except Exception as error:
            raise Refused(f"the DNSEndpoint object cannot be written: {error}") from None
