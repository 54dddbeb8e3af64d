"""Which DKIMKeys a MailDomain has: an index over the store, so that ten thousand of both cost no search.

Owns: Owned, one for each store. Notes only; what a key says is read from the store.
"""

from __future__ import annotations

import weakref
from collections import defaultdict

from posthof_operator.resources import Key, Raw
from posthof_operator.store import Change, Store

KIND = "DKIMKey"


class Owned:
    """Kept by the store's listeners from the first question on."""

    def __init__(self, store: Store) -> None:
        self._store = weakref.ref(store)  # the store outlives us; it keeps this listener
        self._names: dict[tuple[str, str], set[str]] = defaultdict(set)  # namespace, MailDomain -> DKIMKeys
        self._domain: dict[Key, str] = {}
        for key in store.keys(KIND):
            self._note(key, Change.MEANING)
        store.listeners.append(self._note)

    def _note(self, key: Key, change: Change) -> None:
        store = self._store()
        if key.kind != KIND or change is not Change.MEANING or store is None:
            return
        raw = store.get(key)
        domain = domain_of(raw) if raw is not None else ""
        before = self._domain.pop(key, "")
        if before:
            self._names[key.namespace, before].discard(key.name)
        if domain:
            self._domain[key] = domain
            self._names[key.namespace, domain].add(key.name)

    def of(self, namespace: str, domain: str) -> list[Key]:
        """The DKIMKeys whose domainRef is this MailDomain, by name."""
        return [Key(KIND, namespace, name) for name in sorted(self._names.get((namespace, domain), ()))]


_known: weakref.WeakKeyDictionary[Store, Owned] = weakref.WeakKeyDictionary()


def owned(store: Store) -> Owned:
    found = _known.get(store)
    if found is None:
        found = _known[store] = Owned(store)
    return found


def domain_of(key: Raw) -> str:
    """The MailDomain of a DKIMKey, as it is written."""
    ref = (key.get("spec") or {}).get("domainRef")
    name = ref.get("name") if isinstance(ref, dict) else None
    return name if isinstance(name, str) else ""
