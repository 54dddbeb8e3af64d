"""Watches of our own, for what kopf cannot be told at run time: Secrets and ConfigMaps of the namespaces that matter
just now, pods that a RelayPolicy selects, and the children nobody needs more of than their hash.

Rules of this file
- A list first, then a watch from the list's version. After anything odd: a list again, which also finds what
  vanished.
- `metadata_only`: the API server sends no data, so no Secret's value comes here.
- What a watch sees goes to the store and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import NamedTuple

from posthof_operator.api import Api, ApiError, Page
from posthof_operator.metrics import Metrics
from posthof_operator.resources import MTA_LABEL, Key, key_of
from posthof_operator.store import Change, Store

FIRST_LIST = 10.0  # seconds that whoever wishes waits for the first list
SHORT = 0.5  # seconds; a stream that ends sooner is not asked for again at once
BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds after the first, second ... failure in a row

log = logging.getLogger("posthof_operator.watches")


class Subject(NamedTuple):
    """What is watched: a kind in a namespace ("": all), by labels, whole or only its metadata."""

    kind: str
    namespace: str = ""
    labels: str = ""
    is_metadata_only: bool = True


class Watches:
    """`want` says what shall be watched from now on, per wisher; what nobody wishes any more ends."""

    def __init__(self, api: Api, store: Store, metrics: Metrics) -> None:
        self._api, self._store, self._metrics = api, store, metrics
        self._wishes: dict[str, frozenset[Subject]] = {}
        self._running: dict[Subject, asyncio.Task[None]] = {}
        self._synced: dict[Subject, asyncio.Event] = {}

    async def want(self, wisher: str, subjects: Iterable[Subject], *, is_waiting: bool = True) -> None:
        """Returns when each of them has been listed once. `wisher` replaces what it wished before. ApiError: one of
        them cannot be listed now; the watch goes on trying."""
        wished = frozenset(subjects)
        if wished:
            self._wishes[wisher] = wished
        else:
            self._wishes.pop(wisher, None)
        self._adjust()
        for subject in wished if is_waiting else ():
            try:
                async with asyncio.timeout(FIRST_LIST):
                    await self._synced[subject].wait()
            except TimeoutError:
                where = subject.namespace or "the cluster"
                raise ApiError(0, "NotListed", f"{subject.kind} of {where} cannot be listed") from None

    async def withdraw(self, wisher: str) -> None:
        """Everything `wisher`, or `wisher` and a word more, wished."""
        for name in [name for name in self._wishes if name == wisher or name.startswith(f"{wisher} ")]:
            await self.want(name, ())

    def has(self, kind: str, namespace: str) -> bool:
        """Is this namespace's kind known (listed at least once)?"""
        return any(
            event.is_set() and subject.kind == kind and subject.namespace in ("", namespace)
            for subject, event in self._synced.items()
        )

    async def close(self) -> None:
        self._wishes.clear()
        tasks = list(self._running.values())
        self._adjust()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _adjust(self) -> None:
        wanted: set[Subject] = set().union(*self._wishes.values())
        for subject in wanted - self._running.keys():
            self._synced[subject] = asyncio.Event()
            self._running[subject] = asyncio.create_task(self._follow(subject), name=f"watch {subject}")
        for subject in self._running.keys() - wanted:
            self._running.pop(subject).cancel()
            del self._synced[subject]
            if not any(other.kind == subject.kind and other.namespace == subject.namespace for other in wanted):
                self._forget(subject)

    def _forget(self, subject: Subject) -> None:
        """What nobody watches any more is not known any more. Pods of our own are watched by kopf besides."""
        for key, held in list(self._store.all(subject.kind, subject.namespace)):
            if _selected(held.labels, subject.labels) and not (subject.kind == "Pod" and MTA_LABEL in held.labels):
                self._store.remove(key)

    # ------------------------------------------------------------------ one subject

    async def _follow(self, subject: Subject) -> None:
        failures = 0
        synced = self._synced[subject]
        while True:
            try:
                version = await relist(self._api, self._store, subject)
                synced.set()
                failures = 0
                while True:
                    began = time.monotonic()
                    version = await self._watch(subject, version)
                    if time.monotonic() - began < SHORT:
                        await asyncio.sleep(SHORT)
            except ApiError as error:
                if error.is_gone:
                    continue
                pause = BACKOFF[min(failures, len(BACKOFF) - 1)]
                failures += 1
                log.warning("watch of %s in %s: %s", subject.kind, subject.namespace or "the cluster", error)
                await asyncio.sleep(pause)
            except Exception:  # ours: a watch that ended in silence would be worse
                log.exception("watch of %s in %s", subject.kind, subject.namespace or "the cluster")
                await asyncio.sleep(BACKOFF[-1])

    async def _watch(self, subject: Subject, version: str) -> str:
        """One stream, until the server ends it. Returns the version to go on from."""
        stream = self._api.watch(
            subject.kind,
            subject.namespace,
            version,
            labels=subject.labels,
            metadata_only=subject.is_metadata_only,
        )
        async for event in stream:
            version = event.object["metadata"].get("resourceVersion", version)
            self._metrics.seen(subject.kind)
            if event.type == "DELETED":
                self._store.remove(key_of(event.object, subject.kind), event.object["metadata"].get("uid", ""))
            elif event.type != "BOOKMARK":
                self._store.put(subject.kind, event.object)
        return version


class Found(NamedTuple):
    """What a list told that was not known: changed or new, and gone."""

    changed: int
    gone: int


async def relist(api: Api, store: Store, subject: Subject) -> str:
    """List and compare. Returns the version of the list."""
    return (await compare(api, store, subject))[0]


async def compare(api: Api, store: Store, subject: Subject) -> tuple[str, Found]:
    """Put what the list has, remove what it has not: only what was known before the list began, or is older."""
    before = {
        key: held.version
        for key, held in store.all(subject.kind, subject.namespace)
        if _selected(held.labels, subject.labels)
    }
    version, changed = "", 0
    pages = api.pages(subject.kind, subject.namespace, labels=subject.labels, metadata_only=subject.is_metadata_only)
    async for page in pages:
        version = page.version
        changed += _put(store, subject.kind, page, before)
    gone = 0
    for key, known in before.items():
        held = store.held(key)
        if held is not None and held.version == known:  # nothing came by watch meanwhile
            gone += store.remove(key, held.uid)
    return version, Found(changed, gone)


def _put(store: Store, kind: str, page: Page, before: dict[Key, str]) -> int:
    changed = 0
    for raw in page.items:
        before.pop(key_of(raw, kind), None)
        changed += store.put(kind, raw) is not Change.NONE
    return changed


def _selected(labels: dict[str, str], selector: str) -> bool:
    """`a=b` and `a` (it is there), with commas; nothing else is used here."""
    parts = (part.partition("=") for part in selector.split(",") if part)
    return all(name in labels and (not equals or labels[name] == value) for name, equals, value in parts)


def in_namespaces(namespaces: Iterable[str], subjects: Iterable[Subject]) -> list[Subject]:
    """Each subject in each namespace; of the whole cluster when there are none."""
    spaces = list(namespaces)
    return [subject._replace(namespace=space) for subject in subjects for space in (spaces or [""])]
