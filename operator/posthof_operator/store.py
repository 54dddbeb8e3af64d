"""What the operator knows of the cluster: one entry per object, fed by watches and lists, compact.

Rules of this file
- An object is kept as its bytes (msgpack) without managedFields; `raw` decodes a copy that is the caller's own.
  10,000 MailDomains are some ten megabytes so.
- Newest wins: an entry is replaced only by one of another uid or a resourceVersion that is not older.
- A status alone is no change of what is wanted: `put` says which of both changed.
"""

from __future__ import annotations

import enum
import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator

import msgspec

from posthof_operator.resources import HASH, MANAGER, Key, Raw

_json = msgspec.json.Encoder(order="deterministic").encode
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Change(enum.Enum):
    NONE = "none"  # known already, or older than what is known
    STATUS = "status"  # only status, or metadata nobody asks for
    MEANING = "meaning"  # new, or its spec, data, labels, annotations or deletion changed


class Held(msgspec.Struct, frozen=True, gc=False):
    """An object's metadata at hand, and the rest packed."""

    uid: str
    version: str  # resourceVersion
    generation: int
    is_deleting: bool
    labels: dict[str, str]
    hash: str  # the annotation of a child of ours
    owner: str  # uid of the controller, ""
    owned: str  # digest of the fields that are ours (server-side apply), ""
    packed: bytes  # without status
    status: bytes

    def raw(self) -> Raw:
        """The object, without managedFields."""
        raw: Raw = _decode(self.packed)
        raw["status"] = _decode(self.status)
        return raw


class Store:
    """`listeners` are called with every change: `(key, change)`, in the loop, and must only take note."""

    def __init__(self) -> None:
        self._kinds: dict[str, dict[tuple[str, str], Held]] = defaultdict(dict)
        self.listeners: list[Callable[[Key, Change], None]] = []

    # ------------------------------------------------------------------ asking

    def get(self, key: Key) -> Raw | None:
        held = self.held(key)
        return None if held is None else held.raw()

    def held(self, key: Key) -> Held | None:
        return self._kinds[key.kind].get((key.namespace, key.name))

    def keys(self, kind: str, namespace: str = "") -> Iterator[Key]:
        """In the order of (namespace, name)."""
        for where, name in sorted(self._kinds[kind]):
            if not namespace or where == namespace:
                yield Key(kind, where, name)

    def all(self, kind: str, namespace: str = "") -> Iterator[tuple[Key, Held]]:
        for key in self.keys(kind, namespace):
            held = self.held(key)
            if held is not None:
                yield key, held

    def count(self, kind: str) -> int:
        return len(self._kinds[kind])

    # ------------------------------------------------------------------ being told

    def put(self, kind: str, raw: Raw) -> Change:
        """A watch, a list or an answer to a write brought this object."""
        metadata = raw["metadata"]
        key = Key(sys.intern(kind), sys.intern(metadata.get("namespace", "")), metadata["name"])
        old = self.held(key)
        if old is not None and old.uid == metadata.get("uid", "") and _is_older(raw, old):
            return Change.NONE
        fresh = _held(raw, key.kind)
        if old is not None and fresh.version == old.version and fresh.uid == old.uid:
            return Change.NONE
        self._kinds[kind][key.namespace, key.name] = fresh
        change = Change.STATUS if old is not None and _means_the_same(old, fresh) else Change.MEANING
        self._tell(key, change)
        return change

    def remove(self, key: Key, uid: str = "") -> bool:
        """It is gone. With `uid`: only if that very object is what is known. Returns whether it was known."""
        held = self.held(key)
        if held is None or (uid and held.uid != uid):
            return False
        del self._kinds[key.kind][key.namespace, key.name]
        self._tell(key, Change.MEANING)
        return True

    def _tell(self, key: Key, change: Change) -> None:
        for listener in self.listeners:
            listener(key, change)


def _held(raw: Raw, kind: str) -> Held:
    metadata = {name: value for name, value in raw["metadata"].items() if name not in ("managedFields", "selfLink")}
    body = {name: value for name, value in raw.items() if name not in ("status", "metadata")}
    body = {"kind": kind} | body | {"metadata": metadata}
    owner = next((ref["uid"] for ref in metadata.get("ownerReferences", ()) if ref.get("controller")), "")
    return Held(
        uid=metadata.get("uid", ""),
        version=metadata.get("resourceVersion", ""),
        generation=metadata.get("generation", 0),
        is_deleting="deletionTimestamp" in metadata,
        labels=metadata.get("labels") or {},
        hash=(metadata.get("annotations") or {}).get(HASH, ""),
        owner=owner,
        owned=owned_fields(raw),
        packed=_encode(body),
        status=_encode(raw.get("status") or {}),
    )


def owned_fields(raw: Raw) -> str:
    """A digest of the fields that our last apply of this object owns now; "" without one. Whoever changes one of them
    takes it from us, so the digest changes."""
    for entry in raw["metadata"].get("managedFields") or ():
        if entry.get("manager") == MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource"):
            return hashlib.sha256(_json(entry.get("fieldsV1") or {})).hexdigest()[:16]
    return ""


def _is_older(raw: Raw, old: Held) -> bool:
    """Versions are numbers that grow, except in servers nobody has seen: then what comes later is newer."""
    version = raw["metadata"].get("resourceVersion", "")
    return version.isdecimal() and old.version.isdecimal() and int(version) < int(old.version)


def _means_the_same(old: Held, new: Held) -> bool:
    return old.uid == new.uid and _meaning(old) == _meaning(new)


def _meaning(held: Held) -> Raw:
    raw: Raw = _decode(held.packed)
    metadata = raw["metadata"]
    kept = ("labels", "annotations", "deletionTimestamp", "finalizers", "ownerReferences")
    raw["metadata"] = {name: metadata[name] for name in kept if name in metadata}
    return raw
