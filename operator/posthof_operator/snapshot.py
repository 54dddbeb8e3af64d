"""What is so, about one MTA: everything its plan and its status are made of, gathered from the store.

Rules of this file
- A `Seen` is a value: nothing in it changes, and looking again makes another one.
- Only what no watch brings is asked for: a claim that is not ours, the word for the reports, whether an API is here.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from posthof_crds.mta import MTASpec
from posthof_operator.assembly import Assembly
from posthof_operator.desired import TOKEN_KEY
from posthof_operator.resources import MANAGED_BY, MANAGER, MTA_LABEL, PAUSED, RESOURCES, Key, Raw
from posthof_operator.store import Held
from posthof_operator.watches import Subject
from posthof_operator.world import World

CHILDREN = (
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "Secret",
    "PersistentVolumeClaim",
    "ConfigMap",
    "Service",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Deployment",
    "PodMonitor",
    "HorizontalPodAutoscaler",
    "ScaledObject",
)
_WHOLE = ("HorizontalPodAutoscaler", "ScaledObject")  # what they say of themselves is told in our status
AGAIN = 30.0  # seconds until an API that is waited for is looked for again
_BY_KOPF = ("PersistentVolumeClaim", "Service", "Deployment")


@dataclass(frozen=True, kw_only=True)
class Seen:
    key: Key
    mta: Raw  # the newest object; what is in force is in `assembly`
    spec: MTASpec | None  # in force; None: there never was a good one
    assembly: Assembly
    children: Mapping[Key, Held]  # ours, by our labels
    deployment: Raw | None = None
    claim: Raw | None = None
    services: tuple[Raw, ...] = ()
    pods: tuple[Raw, ...] = ()
    certificates: Mapping[str, Raw]  # TLSCerts the listeners name and that are there
    token: str = ""
    has_pod_monitors: bool = False
    has_keda: bool = False
    hpa: Raw | None = None
    scaled_object: Raw | None = None

    @property
    def uid(self) -> str:
        return str(self.mta["metadata"]["uid"])

    @property
    def annotations(self) -> Mapping[str, str]:
        return self.mta["metadata"].get("annotations") or {}

    @property
    def is_paused(self) -> bool:
        return PAUSED in self.annotations

    @property
    def is_deleting(self) -> bool:
        return "deletionTimestamp" in self.mta["metadata"]


class Looker:
    """Looks at MTAs. Remembers the words for the reports, and which APIs are here."""

    def __init__(self) -> None:
        self._tokens: dict[Key, str] = {}
        self._has_pod_monitors: bool | None = None
        self._has_keda: bool | None = None
        self._keda_asked = 0.0

    def forget(self, key: Key) -> None:
        self._tokens.pop(key, None)

    async def look(self, world: World, key: Key, mta: Raw, assembly: Assembly) -> Seen:
        """`assembly.is_usable` or not: what is there can be seen without a good configuration too."""
        has_monitors = await self._pod_monitors(world)
        spec = MTASpec.model_validate(assembly.mta["spec"]) if assembly.fleet.config is not None else None
        has_keda = await self._keda(world, spec)
        await world.watches.want(f"mta {key}", watched(key.namespace, has_monitors, has_keda))
        return Seen(
            key=key,
            mta=mta,
            spec=spec,
            assembly=assembly,
            children=_children(world, key),
            deployment=world.store.get(Key("Deployment", key.namespace, key.name)),
            claim=await self._claim(world, key, spec),
            services=tuple(held.raw() for held in _of(world, "Service", key)),
            pods=tuple(held.raw() for held in _of(world, "Pod", key)),
            certificates={
                name: raw
                for name in assembly.fleet.certificates
                if (raw := world.store.get(Key("TLSCert", key.namespace, name))) is not None
            },
            token=await self._token(world, key),
            has_pod_monitors=has_monitors,
            has_keda=has_keda,
            hpa=world.store.get(Key("HorizontalPodAutoscaler", key.namespace, key.name)),
            scaled_object=world.store.get(Key("ScaledObject", key.namespace, key.name)),
        )

    async def _claim(self, world: World, key: Key, spec: MTASpec | None) -> Raw | None:
        name = (spec.spool.existing_claim if spec else None) or f"{key.name}-spool"
        found = world.store.get(Key("PersistentVolumeClaim", key.namespace, name))
        return found or await world.api.get("PersistentVolumeClaim", key.namespace, name)

    async def _token(self, world: World, key: Key) -> str:
        """The word that is in the Secret, or a new one."""
        name = f"{key.name}-report"
        known = self._tokens.get(key)
        if known is None or world.store.held(Key("Secret", key.namespace, name)) is None:
            raw = await world.api.get("Secret", key.namespace, name)
            data = (raw or {}).get("data") or {}
            known = base64.b64decode(data[TOKEN_KEY]).decode() if TOKEN_KEY in data else known
            self._tokens[key] = known = known or secrets.token_urlsafe(32)
        return known

    async def _pod_monitors(self, world: World) -> bool:
        if self._has_pod_monitors is None:
            self._has_pod_monitors = await world.api.has(RESOURCES["PodMonitor"])
        return self._has_pod_monitors

    async def _keda(self, world: World, spec: MTASpec | None) -> bool:
        """Asked again while somebody waits for it: it may be installed meanwhile."""
        is_wanted = spec is not None and spec.autoscaling is not None and spec.autoscaling.mode == "KEDA"
        is_time = is_wanted and time.monotonic() - self._keda_asked >= AGAIN
        if self._has_keda is None or (not self._has_keda and is_time):
            self._has_keda = await world.api.has(RESOURCES["ScaledObject"])
            self._keda_asked = time.monotonic()
        return self._has_keda


def watched(namespace: str, has_monitors: bool, has_keda: bool = False) -> list[Subject]:
    """Children whose hash is enough, and the namespace's Secrets and ConfigMaps."""
    missing = {*(() if has_monitors else ("PodMonitor",)), *(() if has_keda else ("ScaledObject",))}
    kinds = [kind for kind in CHILDREN if kind not in _BY_KOPF and kind not in missing]
    return [Subject(kind, namespace, is_metadata_only=kind not in _WHOLE) for kind in kinds]


def _of(world: World, kind: str, key: Key) -> list[Held]:
    return [held for _, held in world.store.all(kind, key.namespace) if held.labels.get(MTA_LABEL) == key.name]


def _children(world: World, key: Key) -> dict[Key, Held]:
    return {
        child: held
        for kind in CHILDREN
        for child, held in world.store.all(kind, key.namespace)
        if held.labels.get(MTA_LABEL) == key.name and held.labels.get(MANAGED_BY) == MANAGER
    }
