"""What the pods of an MTA shall run: the pure compiler of posthof_crds.fleet, asked only when something changed.

Rules of this file
- An object that became wrong stays in force in its last good version. We remember it; after a start (or with another
  leader) it is read back from the shards that pods run: a configuration is its own backup. The MTA's own last good
  spec stands beside the first shard.
- Which Secrets matter is known only after assembling, and whether they are there is judged in it: so it is assembled
  again when that answer changed, which is seldom.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from posthof_crds.engine import content_hash
from posthof_crds.fleet import Fleet, assemble
from posthof_crds.parts import Flaw, Part, PartKey, parts_in_force
from posthof_crds.reasons import Condition, Reason
from posthof_crds.shards import Incomplete, TooLarge, Unreadable, config_shards, read_config, revision_of
from posthof_crds.verifiers import HASHED, UNHASHED
from posthof_operator.conditions import is_said
from posthof_operator.contents import Contents
from posthof_operator.desired import CONFIG_KEY, CONFIG_SHARDS, MTA_KEY
from posthof_operator.parts import Parts
from posthof_operator.resources import Key, Raw
from posthof_operator.store import Change, Store
from posthof_operator.world import World

LONGEST_LOGIN = 4096  # bytes of a user name or a password in a Secret of another namespace


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """`mta` is the object whose spec is in force: the newest, or the last good one when `problems` says why not.
    `shards` is empty only while there never was a good one."""

    mta: Raw
    fleet: Fleet
    problems: tuple[Flaw, ...] = ()
    too_large: str = ""
    revision: str = ""
    shards: tuple[bytes, ...] = ()
    keys: Mapping[str, bytes] = field(repr=False)  # "namespace/secret/key" -> value, of all that are there
    generations: Mapping[Key, int] = field(default_factory=dict, repr=False)  # of the objects it is made of

    @property
    def is_usable(self) -> bool:
        return self.fleet.config is not None and bool(self.shards)


class Assemblies:
    """One memory per MTA. `version` counts what changed in the namespaces' labels."""

    def __init__(self, store: Store, parts: Parts) -> None:
        self._store, self._parts = store, parts
        self._last: dict[Key, tuple[Any, Assembly]] = {}
        self._memory: dict[Key, _Memory] = {}
        self._namespaces = 0
        store.listeners.append(self._note)

    def _note(self, key: Key, change: Change) -> None:
        if key.kind == "Namespace" and change is Change.MEANING:
            self._namespaces += 1

    def forget(self, key: Key) -> None:
        self._last.pop(key, None)
        self._memory.pop(key, None)

    async def of(self, world: World, key: Key, raw: Raw) -> Assembly:
        """The newest. Nothing is computed when nothing it is made of changed."""
        memory = self._memory.get(key)
        if memory is None:
            memory = self._memory[key] = await _remember(world, key)
        parts = await self._parts.fresh()
        generations = dict(self._parts.generations)
        are_translated = is_said(raw, Condition.CLIENT_IP_PRESERVED, Reason.NODE_ADDRESSES_SEEN)
        wanted = {part.config_map for part in parts if part.config_map}
        texts = await memory.config_maps.read(world, key, wanted)
        known = self._last.get(key)
        named = {ref.name for ref in known[1].fleet.secrets} if known else set()
        while True:
            secrets = _bounded(await memory.secrets.read(world, key, named), key.namespace)
            inputs = (
                (raw["metadata"]["uid"], raw["metadata"]["generation"]),
                (self._parts.version, self._namespaces, world.proofs),
                texts,
                secrets,
                are_translated,
            )
            if known is not None and known[0] == inputs:
                return known[1]
            more: dict[str, Any] = {
                "namespaces": {name.name: held.labels for name, held in self._store.all("Namespace")},
                "proven": dict(world.proven),
                "config_maps": {name: _texts(data) for name, data in texts.items()},
                "secrets": {name: frozenset(data) for name, data in secrets.items()},
                "are_translated": are_translated,
            }
            made = await asyncio.to_thread(memory.assemble, raw, list(parts), secrets, more)
            made = replace(made, generations=generations)
            self._last[key] = known = (inputs, made)
            needed = {ref.name for ref in made.fleet.secrets}
            if needed == named:
                return made
            named = needed


class _Memory:
    """What one MTA had, so that what became wrong stays in force."""

    def __init__(self) -> None:
        self.mta: Raw | None = None  # the last good spec
        self.good: Mapping[PartKey, Part] = {}
        self.config_maps = Contents("ConfigMap")
        self.secrets = Contents("Secret")
        self.revision = ""
        self.shards: tuple[bytes, ...] = ()

    def assemble(
        self, raw: Raw, parts: list[Part], secrets: Mapping[str, Mapping[str, bytes]], more: dict[str, Any]
    ) -> Assembly:
        """Seconds of work for ten thousand domains: called in a thread, on values nobody changes."""
        fleet = assemble(raw, parts, good=self.good, **more)
        problems = fleet.problems
        if problems and self.mta is not None:
            raw = {**raw, "spec": self.mta}
            fleet = assemble(raw, parts, good=self.good, **more)
        elif not problems:
            self.mta = raw["spec"]
        if fleet.config is None:
            return Assembly(mta=raw, fleet=fleet, problems=problems, keys={})
        self.good = fleet.good
        return self.shard(Assembly(mta=raw, fleet=fleet, problems=problems, keys=_keys(fleet, secrets)))

    def shard(self, made: Assembly) -> Assembly:
        """With the shards of its configuration; those before, where it is too large."""
        assert made.fleet.config is not None
        revision = content_hash(made.fleet.config)
        too_large = ""
        if revision != self.revision:
            try:
                self.shards = tuple(config_shards(made.fleet.config, revision))
                self.revision = revision
            except TooLarge as error:
                too_large = str(error)
        return replace(made, too_large=too_large, revision=self.revision, shards=self.shards)


async def _remember(world: World, key: Key) -> _Memory:
    """What pods run, read back from the cluster. What cannot be read is no memory: good shards replace it."""
    memory = _Memory()
    names = [f"{key.name}-config-{index}" for index in range(CONFIG_SHARDS)]
    found = await asyncio.gather(*(world.api.get("ConfigMap", key.namespace, name) for name in names))
    shards = {
        index: base64.b64decode(raw["binaryData"][CONFIG_KEY])
        for index, raw in enumerate(found)
        if raw is not None and CONFIG_KEY in (raw.get("binaryData") or {})
    }
    if found[0] is not None and MTA_KEY in (found[0].get("data") or {}):
        with contextlib.suppress(msgspec.DecodeError):  # somebody else wrote there
            memory.mta = msgspec.json.decode(found[0]["data"][MTA_KEY])
    try:
        config = read_config(shards)
        memory.good = parts_in_force(config)
    except (Incomplete, Unreadable, ValueError):
        return memory  # a first start, a writer that died between two shards, or somebody else's text
    memory.revision = revision_of(shards)
    memory.shards = tuple(config_shards(config, memory.revision))
    return memory


def _texts(data: Mapping[str, bytes]) -> dict[str, str]:
    return {key: value.decode() for key, value in data.items()}


def _bounded(secrets: Mapping[str, Mapping[str, bytes]], own: str) -> dict[str, Mapping[str, bytes]]:
    """Without what of other namespaces is too long for a login: one tenant's must not fill the shards of all."""
    return {
        name: data
        if name.partition("/")[0] == own
        else {key: value for key, value in data.items() if len(value) <= LONGEST_LOGIN}
        for name, data in secrets.items()
    }


def _keys(fleet: Fleet, secrets: Mapping[str, Mapping[str, bytes]]) -> dict[str, bytes]:
    """The key material that pods need and that is there."""
    return {
        f"{ref.name}/{ref.key}": value
        for ref in fleet.secrets
        if (value := _value(secrets.get(ref.name, {}), ref.key)) is not None
    }


def _value(secret: Mapping[str, bytes], key: str) -> bytes | None:
    """A password of an account stands marked in the place of its verifier, until `hashed` has made that."""
    plain = key.removesuffix(HASHED)
    if key not in secret and key != plain and plain in secret:
        return UNHASHED + secret[plain]
    return secret.get(key)
