"""kopf as informer: watches the kinds that are known from the start, and fills the store. Nothing else.

Rules of this file (measured in kopf 1.45, each has its test)
- `on.event` handlers only, and they only take note: errors in them are swallowed. No kopf state on any object: no
  annotation, no finalizer, no write.
- An explicit registry and explicit settings: nothing global, several operators in one process are possible.
- kopf takes the finalizer of its settings away wherever no handler of it wants it: its name is never one of ours.
- Selectors are set under tuple keys; the documented `group/plural` text does nothing.
- No scanning (it would list CRDs and namespaces), no peering (it is no leader election), no posting of events.
- What vanished while a watch was down is never told: `relist` finds it.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from typing import Any

import kopf

from posthof_operator.access import Access
from posthof_operator.api import Api
from posthof_operator.metrics import Metrics
from posthof_operator.resources import GROUP, MTA_LABEL, OWNED, RESOURCES, Raw, key_of
from posthof_operator.settings import Settings
from posthof_operator.store import Store
from posthof_operator.watches import Found, Subject, compare, in_namespaces

CANARY = f"{GROUP}/canary"
NOT_OURS = f"{GROUP}/nobodys"  # what kopf would put on objects if a handler of it asked for that; none does

SUBJECTS = (
    Subject("MTA", is_metadata_only=False),
    Subject("MailDomain", is_metadata_only=False),
    Subject("RelayPolicy", is_metadata_only=False),
    Subject("AccessPolicy", is_metadata_only=False),
    Subject("SMTPCredential", is_metadata_only=False),
    Subject("DKIMKey", is_metadata_only=False),
    Subject("TLSCert", is_metadata_only=False),
    Subject("Pod", labels=MTA_LABEL, is_metadata_only=False),
    Subject("Deployment", labels=OWNED, is_metadata_only=False),
    Subject("Service", labels=OWNED, is_metadata_only=False),
    Subject("PersistentVolumeClaim", labels=OWNED, is_metadata_only=False),
)
NAMESPACES = Subject("Namespace", is_metadata_only=False)  # only where ClusterRoles are given

log = logging.getLogger("posthof_operator.informer")


def subjects(settings: Settings) -> list[Subject]:
    """What kopf watches, with the canary left out: each kind in each namespace."""
    found = in_namespaces(settings.watch, SUBJECTS)
    return [*found, NAMESPACES] if settings.is_cluster_wide else found


class Informer:
    """`on_canary(object)` for every event of the canary."""

    def __init__(
        self,
        access: Access,
        settings: Settings,
        *,
        store: Store,
        metrics: Metrics,
        on_canary: Callable[[Raw], None] = lambda raw: None,
    ) -> None:
        self._access, self._settings = access, settings
        self._store, self._metrics, self._on_canary = store, metrics, on_canary

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop`, or until kopf ends by itself (a signal)."""
        await kopf.operator(
            registry=self.registry(),
            settings=kopf_settings(),
            clusterwide=self._settings.is_cluster_wide,
            namespaces=list(self._settings.watch),
            stop_flag=stop,
        )

    def registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        kinds = [subject.kind for subject in SUBJECTS]
        if self._settings.is_cluster_wide:
            kinds.append("Namespace")
        for kind in kinds:
            resource = RESOURCES[kind]
            watch = kopf.on.event(
                resource.group, resource.version, resource.plural, registry=registry, id=resource.plural
            )
            watch(self._handler(kind))
        kopf.on.event("", "v1", "configmaps", registry=registry, id="canary")(self._canary)
        return registry

    def _handler(self, kind: str) -> Callable[..., Any]:
        async def note(event: Any, **_: object) -> None:
            self._metrics.seen(kind)
            raw = event["object"]
            if event["type"] == "DELETED":
                self._store.remove(key_of(raw, kind), raw["metadata"].get("uid", ""))
            else:
                self._store.put(kind, raw)

        return note

    async def _canary(self, event: Any, **_: object) -> None:
        self._metrics.seen("ConfigMap")
        if event["type"] != "DELETED":
            self._on_canary(event["object"])

    async def _login(self, **_: object) -> kopf.ConnectionInfo:
        access = self._access
        return kopf.ConnectionInfo(
            server=access.server,
            ca_data=_text(access.ca),
            token=access.bearer() or None,
            certificate_data=_text(access.certificate),
            private_key_data=_text(access.key),
            insecure=access.insecure or None,
            default_namespace=access.namespace,
        )


def kopf_settings() -> kopf.OperatorSettings:
    """Every setting that is not kopf's default, and why is in the file's head."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 30
    settings.watching.reconnect_backoff = 1
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = [0.5, 1, 2, 5]
    settings.queueing.worker_limit = None
    settings.queueing.idle_timeout = 1.0
    settings.persistence.finalizer = NOT_OURS
    settings.process.ultimate_exiting_timeout = 25
    settings.execution.max_workers = 1
    selectors = settings.watching.label_selectors
    for subject in SUBJECTS:
        if subject.labels:
            resource = RESOURCES[subject.kind]
            selectors[resource.group, resource.plural] = subject.labels
    selectors["", "configmaps"] = CANARY
    return settings


async def relist(api: Api, store: Store, settings: Settings, metrics: Metrics) -> dict[str, Found]:
    """List everything kopf watches and compare. Returns what was new, by kind; the first time that is all."""
    found: dict[str, Found] = {}
    for subject in subjects(settings):
        _, one = await compare(api, store, subject)
        so_far = found.get(subject.kind, Found(0, 0))
        found[subject.kind] = Found(so_far.changed + one.changed, so_far.gone + one.gone)
        metrics.objects.labels(subject.kind).set(store.count(subject.kind))
    return found


def _text(pem: bytes) -> str | None:
    """kopf takes PEM as text, or base64 of it."""
    if not pem:
        return None
    return pem.decode() if pem.startswith(b"-----BEGIN ") else base64.b64encode(pem).decode()
