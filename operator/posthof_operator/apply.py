"""Children: written where they are not as they should be, removed where nobody wants them any more.

Rules of this file
- A child that is as we left it costs no request: its hash (annotation) is the one of what we want, and the fields we
  own are those we owned after our last write. Somebody else's edit takes fields from us, and is undone.
- After a start we do not know what we owned: each child is read once and compared with what we want.
- What has our name and is not ours is left alone, and said.
- An answer goes to the store at once: the next look must not see the time before our own write.
- What the API server refuses for good is not sent again until it changes, or some minutes passed.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from posthof_operator import stamps
from posthof_operator.api import ApiError
from posthof_operator.resources import HASH, MANAGED_BY, MTA_LABEL, Key, Raw, key_of
from posthof_operator.store import owned_fields
from posthof_operator.world import Postponed, World

AGAIN = 300.0  # seconds until something refused is sent again

_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass
class Outcome:
    """What came of a pass. `refused`: "Kind name: the API server's words"."""

    written: list[Key] = field(default_factory=list)
    removed: list[Key] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class Applier:
    """Remembers what it left behind, so that a pass over an unchanged cluster makes no request."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._left: dict[Key, str] = {}  # child -> the fields that were ours after our write
        self._refused: dict[Key, tuple[str, str, float]] = {}  # child -> hash, words, when
        self._now = now

    async def apply(self, world: World, children: Iterable[Raw], *, salt: str) -> Outcome:
        """Make them so, one after another. `salt` keeps a Secret's hash from telling what is in it."""
        outcome = Outcome()
        for child in children:
            key = key_of(child)
            stamped = stamp(child, salt)
            try:
                if not await self._is_there(world, key, stamped):
                    await self._write(world, key, stamped, outcome)
            except Foreign as error:
                outcome.refused.append(str(error))
        return outcome

    async def prune(self, world: World, leftovers: Sequence[Key], outcome: Outcome) -> None:
        """Remove what is ours and not wanted any more."""
        for key in leftovers:
            held = world.store.held(key)
            if held is not None and not held.is_deleting and await world.api.delete(key, uid=held.uid):
                outcome.removed.append(key)
            world.store.remove(key)
            self.forget(key)

    def forget(self, key: Key) -> None:
        self._left.pop(key, None)
        self._refused.pop(key, None)

    # ------------------------------------------------------------------ one child

    async def _is_there(self, world: World, key: Key, child: Raw) -> bool:
        """Nothing to write: it is as it should be."""
        held = world.store.held(key)
        wanted = child["metadata"]["annotations"][HASH]
        if held is not None and key in self._left:
            return held.hash == wanted and held.owned == self._left[key] and not held.is_deleting
        return await self._compare(world, key, child)

    async def _compare(self, world: World, key: Key, child: Raw) -> bool:
        """The first look at it, or it vanished: read it."""
        live = await world.api.get(key.kind, key.namespace, key.name)
        if live is None:
            return False
        if not _is_ours(live, child):
            raise Foreign(key)
        if not _has_owner(live, child):
            raise Postponed("OwnerGone", f"{key.kind} {key.name} goes with the MTA that was deleted")
        world.store.put(key.kind, live)
        if live["metadata"].get("annotations", {}).get(HASH) != child["metadata"]["annotations"][HASH]:
            return False
        if "deletionTimestamp" in live["metadata"] or not is_within(stamps.fresh(child, live, 0.0), live):
            return False
        self._left[key] = owned_fields(live)
        return True

    async def _write(self, world: World, key: Key, child: Raw, outcome: Outcome) -> None:
        digest = child["metadata"]["annotations"][HASH]
        known, words, at = self._refused.get(key, ("", "", 0.0))
        if known == digest and self._now() - at < AGAIN:
            outcome.refused.append(words)
            return
        try:
            if stamps.has_shards(child):
                live = await world.api.get(key.kind, key.namespace, key.name)
                child = stamps.fresh(child, live, time.time())
            answer = await world.api.apply(child)
        except ApiError as error:
            if not error.is_final:
                raise
            words = f"{key.kind} {key.name}: {error.message}"
            self._refused[key] = (digest, words, self._now())
            outcome.refused.append(words)
            return
        self._refused.pop(key, None)
        self._left[key] = owned_fields(answer)
        world.store.put(key.kind, answer)
        world.metrics.applies.labels(key.kind).inc()
        outcome.written.append(key)


class Foreign(Exception):
    """An object with a child's name is somebody else's."""

    def __init__(self, key: Key) -> None:
        self.key = key
        super().__init__(
            f"{key.kind} {key.name} is there already and is not Posthof's: remove or rename it, or rename the MTA."
        )


def stamp(child: Raw, salt: str) -> Raw:
    """The child with the hash of what it says."""
    digest = hmac.new(salt.encode(), _encode(child), hashlib.sha256).hexdigest()[:32]
    metadata = child["metadata"]
    annotations = {**metadata.get("annotations", {}), HASH: digest}
    return {**child, "metadata": {**metadata, "annotations": annotations}}


def is_within(wanted: Any, live: Any) -> bool:
    """Whether `live` says all that `wanted` says, and perhaps more (defaults, other writers)."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            name in live and is_within(value, live[name]) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) >= len(wanted)
            and all(any(is_within(one, other) for other in live) for one in wanted)
        )
    return bool(wanted == live)


def _is_ours(live: Raw, child: Raw) -> bool:
    """Made by us, for an MTA of this name."""
    has = live["metadata"].get("labels") or {}
    wanted = child["metadata"]["labels"]
    return all(has.get(name) == wanted[name] for name in (MANAGED_BY, MTA_LABEL))


def _has_owner(live: Raw, child: Raw) -> bool:
    """Not one of an MTA of the same name that was deleted: the garbage collector takes it, and we wait."""
    uids = {ref["uid"] for ref in child["metadata"].get("ownerReferences", ())}
    owners = {ref["uid"] for ref in live["metadata"].get("ownerReferences", ()) if ref.get("controller")}
    return not owners or not uids or owners == uids
