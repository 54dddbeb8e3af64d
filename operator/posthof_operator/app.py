"""The operator put together: the only file that names every room.

A replica that holds the Lease lives so: read everything (informer), then let the workers reconcile, until it is told
to stop or loses the Lease. A replica that does not hold it answers health and metrics, and waits.
"""

from __future__ import annotations

from posthof_operator.api import Api
from posthof_operator.metrics import Metrics
from posthof_operator.records import Records
from posthof_operator.settings import Settings
from posthof_operator.store import Store
from posthof_operator.workqueue import WorkQueue
from posthof_operator.world import Reconciler, World


def rooms() -> list[Reconciler]:
    """Every reconciler. Their order says nothing."""
    return []


def world(settings: Settings, api: Api, metrics: Metrics) -> World:
    """A world that knows nothing yet."""
    records = Records(api, settings.identity)
    made = World(settings=settings, api=api, store=Store(), queue=WorkQueue(), records=records, metrics=metrics)
    made.register(rooms())
    return made
