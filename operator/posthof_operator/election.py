"""Who reconciles: the replica that holds the Lease. The other one waits.

Rules of this file
- A holder renews every `RENEW` seconds; one that could not for `DEADLINE` seconds of its own clock has lost, and
  ends (`Lost`): it must end before another may begin, `DURATION` seconds after the last renewal *as the other saw
  it*. Times in the Lease are never compared with our clock, only seen to change.
- Every write is a replace with the version read: of two that take the Lease at once, one gets a conflict.
- A clean stop gives the Lease back, so the other begins at once.
- A Lease is no fence (a paused process wakes up late): everything the holder writes is level-triggered and could be
  written twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import Callable

from posthof_operator.api import Api, ApiError
from posthof_operator.metrics import Metrics
from posthof_operator.resources import MANAGER, RESOURCES, Raw

NAME = MANAGER
DURATION = 15.0
DEADLINE = 10.0
RENEW = 2.0

log = logging.getLogger("posthof_operator.election")


class Lost(Exception):
    """Another may reconcile now."""


class Election:
    def __init__(
        self,
        api: Api,
        namespace: str,
        identity: str,
        metrics: Metrics,
        *,
        duration: float = DURATION,
        deadline: float = DEADLINE,
        renew: float = RENEW,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._namespace, self.identity, self._metrics = api, namespace, identity, metrics
        self._duration, self._deadline, self._renew, self._now = duration, deadline, renew, now
        self._seen = ""  # resourceVersion of the Lease as last seen
        self._seen_at = 0.0
        self._holder = ""
        self.is_leader = False

    async def win(self) -> None:
        """Returns when this replica holds the Lease."""
        self._metrics.leader.set(0)
        while True:
            if await self._try():
                break
            await asyncio.sleep(self._renew)
        self.is_leader = True
        self._metrics.leader.set(1)
        log.info("%s holds the Lease", self.identity)

    async def keep(self) -> None:
        """Renew for ever. Raises Lost."""
        renewed = self._now()
        while True:
            await asyncio.sleep(self._renew)
            is_ours = False
            with contextlib.suppress(TimeoutError):  # no answer is no renewal
                async with asyncio.timeout(max(0.1, renewed + self._deadline - self._now())):
                    is_ours = await self._try()
            if is_ours:
                renewed = self._now()
            elif self._holder != self.identity:
                self._lose(f"{self._holder or 'nobody'} holds the Lease")
            if self._now() - renewed >= self._deadline:
                self._lose(f"the Lease could not be renewed for {self._deadline:g} s")

    async def release(self) -> None:
        """Give it back, if it is ours. Nothing is raised: at worst the other waits for its time."""
        if not self.is_leader:
            return
        self.is_leader = False
        self._metrics.leader.set(0)
        try:
            lease = await self._api.get("Lease", self._namespace, NAME)
            if lease is not None and lease["spec"].get("holderIdentity") == self.identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._api.replace(lease)
        except ApiError as error:
            log.warning("the Lease was not given back: %s", error)

    def _lose(self, why: str) -> None:
        self.is_leader = False
        self._metrics.leader.set(0)
        raise Lost(why)

    async def _try(self) -> bool:
        """Take or renew it. False: it is another's, or there was no answer."""
        try:
            lease = await self._api.get("Lease", self._namespace, NAME)
            if lease is None:
                await self._api.create(self._lease(None))
            else:
                self._look(lease)
                if self._holder and self._holder != self.identity and not self._is_over(lease):
                    return False
                await self._api.replace(self._lease(lease))
        except ApiError as error:
            if not error.is_conflict:
                log.warning("the Lease could not be asked or written: %s", error)
            return False
        self._holder = self.identity
        return True

    def _look(self, lease: Raw) -> None:
        self._holder = lease.get("spec", {}).get("holderIdentity") or ""
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen:
            self._seen, self._seen_at = version, self._now()

    def _is_over(self, lease: Raw) -> bool:
        duration = float(lease["spec"].get("leaseDurationSeconds") or self._duration)
        return self._now() - self._seen_at >= duration

    def _lease(self, old: Raw | None) -> Raw:
        """The Lease in our hands, from now on."""
        at = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict(old.get("spec") or {}) if old else {}
        if spec.get("holderIdentity") != self.identity:
            changes = int(spec.get("leaseTransitions") or 0) + 1 if old else 0
            spec |= {"acquireTime": at, "leaseTransitions": changes}
        spec |= {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, int(self._duration)),
            "renewTime": at,
        }
        metadata = old["metadata"] if old else {"name": NAME, "namespace": self._namespace}
        return {
            "apiVersion": RESOURCES["Lease"].api_version,
            "kind": "Lease",
            "metadata": metadata,
            "spec": spec,
        }
