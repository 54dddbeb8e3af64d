"""Labels of the watched namespaces where the operator has Roles alone.

Rules of this file
- A Role gives no right to list or watch namespaces, but the one to get its own. So each is asked, every `EVERY`
  seconds: `allowedNamespaces` and `match.namespaces` select by their labels.
- With rights for the whole cluster nothing here runs: then namespaces are watched like other kinds.
"""

from __future__ import annotations

import asyncio
import logging

from posthof_operator.api import Api, ApiError
from posthof_operator.resources import Key
from posthof_operator.settings import Settings
from posthof_operator.store import Store

KIND = "Namespace"
EVERY = 15.0

log = logging.getLogger("posthof_operator.namespaces")


async def look(api: Api, store: Store, settings: Settings) -> None:
    """Ask for each once. Raises ApiError."""
    for name in settings.watch:
        raw = await api.get(KIND, "", name)
        if raw is not None:
            store.put(KIND, raw)
        else:
            store.remove(Key(KIND, "", name))


async def follow(api: Api, store: Store, settings: Settings) -> None:
    """Ask for ever, unless they are watched."""
    while not settings.is_cluster_wide:
        await asyncio.sleep(EVERY)
        try:
            await look(api, store, settings)
        except ApiError as error:
            log.warning("the labels of the namespaces: %s", error)
