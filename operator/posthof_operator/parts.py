"""The parts of all objects of ours but MTAs: each object judged by itself once per change.

Rules of this file
- No pydantic object is kept, and an object that did not change is not looked at again.
- A paused object says nothing new: its last good version stays in force until the annotation goes.
- Reading ten thousand takes seconds: the loop turns in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from posthof_crds.parts import Flaw, Part, part_of
from posthof_crds.reasons import Reason
from posthof_operator.resources import PAUSED, Key, Raw
from posthof_operator.store import Change, Store

KINDS = ("MailDomain", "RelayPolicy", "AccessPolicy", "SMTPCredential", "DKIMKey", "TLSCert")
SLICE = 50  # objects between two turns of the loop
_PAUSE = Flaw("metadata.annotations", "it is paused", f"Remove the annotation {PAUSED}.", Reason.PAUSED)


class Parts:
    """`version` grows with every change of what `fresh` gives."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parts: dict[Key, Part] = {}
        self._stale: dict[Key, None] = {}
        self._reading = asyncio.Lock()
        self.generations: dict[Key, int] = {}  # of the objects the parts were made of
        self.version = 0
        store.listeners.append(self._note)

    def _note(self, key: Key, change: Change) -> None:
        is_told = key.kind == "DKIMKey" and change is Change.STATUS  # its phase says whether it may sign
        if key.kind in KINDS and (change is Change.MEANING or is_told):
            self._stale[key] = None

    async def fresh(self) -> Collection[Part]:
        """All of them, as the store is now."""
        async with self._reading:
            count = 0
            while self._stale:
                key = next(iter(self._stale))
                del self._stale[key]
                self._read(key)
                count += 1
                if count % SLICE == 0:
                    await asyncio.sleep(0)
        return self._parts.values()

    def get(self, key: Key) -> Part | None:
        return self._parts.get(key)

    def _read(self, key: Key) -> None:
        raw = self._store.get(key)
        if raw is None:
            self.generations.pop(key, None)
            self.version += self._parts.pop(key, None) is not None
            return
        generation = raw["metadata"].get("generation", 0)
        part = part_of(key.kind, raw)
        if PAUSED in (raw["metadata"].get("annotations") or {}):
            part = paused(key, raw)
        if part != self._parts.get(key) or generation != self.generations.get(key):
            self._parts[key] = part
            self.generations[key] = generation
            self.version += 1


def paused(key: Key, raw: Raw) -> Part:
    """A part that asks for its last good version."""
    part = part_of(key.kind, raw)
    return Part(
        kind=part.kind,
        namespace=part.namespace,
        name=part.name,
        created=part.created,
        labels=part.labels,
        mta=part.mta,
        flaws=(_PAUSE,),
        named_secret=part.named_secret,
    )
