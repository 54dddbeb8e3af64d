"""What every reconciler is given: the way in (store), the way out (api, records), and the way to be called again.

Rules of this file
- No decision is made here.
- A reconciler is called with a key and reads the newest state itself. It may be called at any time, twice, or after a
  crash in the middle of itself: it must end in the same place.
- What a reconciler raises is logged, counted, and tried again later with the newest state. `Postponed` is the calm
  way of saying so.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from posthof_crds.fleet import PodSelection, Verdict
from posthof_crds.report import Report
from posthof_operator.api import Api
from posthof_operator.desired import Desired
from posthof_operator.metrics import Metrics
from posthof_operator.records import Records
from posthof_operator.resources import Key
from posthof_operator.settings import Settings
from posthof_operator.store import Store
from posthof_operator.watches import Watches
from posthof_operator.workqueue import Task, WorkQueue


class Requeue(NamedTuple):
    """Come again in `after` seconds (float), because of `reason` (a CamelCase word, for the log)."""

    after: float
    reason: str


class Postponed(Exception):
    """Cannot be done now, for a known reason; the queue tries again later."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}: {message}")


class Reconciler(Protocol):
    """One room of the operator: what it does for one object of a kind. Several may care for the same kind."""

    room: str  # a word for metrics and logs: "mta", "bindings", "certificates", "dns"
    kind: str

    async def reconcile(self, key: Key, world: World) -> Requeue | None:
        """Make it so. The object may be gone: then forget it."""


@runtime_checkable
class Prepared(Protocol):
    """A room that has to know something before any object is reconciled, in any room."""

    room: str

    async def prepare(self, world: World) -> None:
        """Called once the store is read. Raises ApiError, Postponed: it is called again."""


class Judged(NamedTuple):
    """What an MTA says about MailDomains and RelayPolicies, and which generations of them it has looked at."""

    verdicts: Mapping[Key, Verdict]
    generations: Mapping[Key, int]


class Selections(NamedTuple):
    want: Desired
    pods: Mapping[str, PodSelection]  # by id


class World:
    """`now` gives UTC, aware."""

    def __init__(
        self,
        *,
        settings: Settings,
        api: Api,
        store: Store,
        queue: WorkQueue,
        watches: Watches,
        records: Records,
        metrics: Metrics,
        clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self.settings = settings
        self.api = api
        self.store = store
        self.queue = queue
        self.watches = watches
        self.records = records
        self.metrics = metrics
        self.now = clock
        self.proven: dict[
            str, frozenset[str]
        ] = {}  # domain -> "namespace/name" of MailDomains whose DNS has the proof
        self.proofs = 0  # grows with every change of `proven`
        self.referred: dict[tuple[Key, str], frozenset[str]] = {}  # MTA, kind -> "namespace/name" it is made of
        self.reports: dict[Key, dict[str, Report]] = {}  # MTA -> pod -> what it said last
        self.judged: dict[Key, Judged] = {}  # MTA -> what it says about the objects
        self.selections: dict[Key, Selections] = {}  # MTA -> the pods that its rules are about
        self.rooms: dict[str, Reconciler] = {}  # by room; filled by app.py
        self._of_kind: dict[str, list[str]] = defaultdict(list)

    def register(self, reconcilers: Sequence[Reconciler]) -> None:
        for reconciler in reconcilers:
            if reconciler.room in self.rooms:
                raise ValueError(f"two rooms are called {reconciler.room}")
            self.rooms[reconciler.room] = reconciler
            self._of_kind[reconciler.kind].append(reconciler.room)

    def enqueue(self, key: Key, after: float = 0.0, *, room: str = "") -> None:
        """Reconcile this object in `after` seconds at the latest, in all rooms of its kind or in one."""
        for name in [room] if room else self._of_kind[key.kind]:
            self.queue.add(Task(name, key), after)

    def enqueue_all(self, kind: str, after: float = 0.0, *, room: str = "") -> None:
        for key in list(self.store.keys(kind)):
            self.enqueue(key, after, room=room)

    def prove(self, domain: str, names: Iterable[str]) -> bool:
        """Which MailDomains ("namespace/name") have their proof in the DNS of `domain` now. A change wakes every MTA:
        who owns the domain may be another. Returns whether it is one."""
        fresh = frozenset(names)
        if fresh == self.proven.get(domain, frozenset()):
            return False
        if fresh:
            self.proven[domain] = fresh
        else:
            del self.proven[domain]
        self.proofs += 1
        self.enqueue_all("MTA")
        return True
