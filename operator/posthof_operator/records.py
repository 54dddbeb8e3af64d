"""Kubernetes Events: what `kubectl describe` shows below an object. One per transition.

Rules of this file
- An Event tells of something that became so, never of something that still is: the same words about the same object
  are posted once in `SILENCE` seconds.
- Posting never fails a reconcile: what cannot be posted is logged and forgotten.
- Never an Event per message.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import time
from collections.abc import Callable
from typing import Protocol

from posthof_operator.resources import MANAGER, RESOURCES, Key, Raw

SILENCE = 3600.0
REMEMBERED = 20_000  # texts; more are forgotten, oldest first
LONGEST = 1000  # characters of a message; the API server takes 1024

log = logging.getLogger("posthof_operator.events")


class Poster(Protocol):
    async def create_event(self, event: Raw) -> None: ...


class Records:
    def __init__(
        self,
        poster: Poster,
        identity: str,
        *,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._poster, self._identity, self._now, self._clock = poster, identity, now, clock
        self._told: dict[tuple[Key, str, str], float] = {}

    async def normal(self, key: Key, uid: str, reason: str, message: str) -> None:
        await self._post(key, uid, "Normal", reason, message)

    async def warning(self, key: Key, uid: str, reason: str, message: str) -> None:
        await self._post(key, uid, "Warning", reason, message)

    async def _post(self, key: Key, uid: str, type_: str, reason: str, message: str) -> None:
        said = (key, reason, message)
        at = self._now()
        if at - self._told.get(said, -SILENCE) < SILENCE:
            return
        self._told.pop(said, None)  # so that it is the youngest again
        self._told[said] = at
        while len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]
        event = self._event(key, uid, type_, reason, message)
        try:
            await self._poster.create_event(event)
        except Exception as error:  # whatever it is: an Event is not worth a failed reconcile
            log.warning("event about %s not posted: %s", key, error)

    def _event(self, key: Key, uid: str, type_: str, reason: str, message: str) -> Raw:
        at = self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        namespace = key.namespace or "default"
        digest = hashlib.sha256(f"{uid}{reason}{message}{at}".encode()).hexdigest()[:16]
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{key.name[:200]}.{digest}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": RESOURCES[key.kind].api_version,
                "kind": key.kind,
                "namespace": key.namespace,
                "name": key.name,
                "uid": uid,
            },
            "type": type_,
            "reason": reason,
            "message": message[:LONGEST],
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "reportingInstance": self._identity,
        }
