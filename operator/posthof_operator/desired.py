"""What one MTA shall have in the cluster, as values: what the builders in children/ are given.

Rules of this file
- Values only, no I/O and no clock. Two equal `Desired` give equal children, byte by byte.
- Names, paths, labels and times that pods and operator agree about stand here and nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from posthof_crds.engine import EngineConfig, ListenerRole
from posthof_crds.mta import Listener, MTASpec
from posthof_operator.resources import MANAGED_BY, MANAGER, MTA_LABEL, RESOURCES, Raw

HOME = "/var/lib/posthof"  # the claim: spool/ and mail/ below it
RUN = "/run/posthof"
ETC = "/etc/posthof"
USER = 65532
DRAIN = 45  # seconds a pod has after `settle` until it is killed
CONFIG_SHARDS = 8
KEY_SHARDS = 4
CONFIG_KEY, KEYS_KEY, PODS_KEY, TOKEN_KEY = "config", "keys", "pods", "token"
MTA_KEY = "mta"  # beside the first shard: the spec it was made of, JSON


@dataclass(frozen=True, kw_only=True)
class Desired:
    """`replicas` and `is_one_node` are what may be, not only what was asked for (placement.py)."""

    namespace: str
    name: str
    uid: str
    spec: MTASpec
    image: str
    spec_text: str = ""  # `spec` as JSON
    replicas: int = 1
    is_one_node: bool = True
    restart: str = ""  # hash of what only a start of the engine can change
    config: tuple[bytes, ...] = ()  # shards; empty: none yet, and no pods either
    keys: tuple[bytes, ...] = ()
    token: str = ""
    has_pod_monitors: bool = False
    has_keda: bool = False
    web: tuple[int, ...] = ()  # ports of the public Service where pods answer over HTTP: an ACME server's questions
    is_draining: bool = False  # it is being deleted, and pods deliver what is left

    @property
    def labels(self) -> dict[str, str]:
        return {**self.selector, "app.kubernetes.io/name": "posthof", MANAGED_BY: MANAGER}

    @property
    def selector(self) -> dict[str, str]:
        """What finds the pods. A Deployment's selector cannot change, so neither may this."""
        return {
            "app.kubernetes.io/component": "mta",
            "app.kubernetes.io/instance": self.name,
            MTA_LABEL: self.name,
        }

    @property
    def owner(self) -> Raw:
        return {
            "apiVersion": RESOURCES["MTA"].api_version,
            "kind": "MTA",
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }

    def child(self, kind: str, name: str = "", *, is_owned: bool = True) -> Raw:
        """The head of a child: kind, name, labels, owner."""
        metadata: Raw = {"name": name or self.name, "namespace": self.namespace, "labels": self.labels}
        if is_owned:
            metadata["ownerReferences"] = [self.owner]
        return {"apiVersion": RESOURCES[kind].api_version, "kind": kind, "metadata": metadata}

    @property
    def claim(self) -> str:
        return self.spec.spool.existing_claim or f"{self.name}-spool"

    @property
    def grace(self) -> int:
        """Seconds from SIGTERM to SIGKILL."""
        return math.ceil(self.spec.drain.settle) + DRAIN

    @property
    def public(self) -> list[Listener]:
        return [one for one in self.spec.listeners if one.role is not ListenerRole.INTERNAL]

    @property
    def internal(self) -> list[Listener]:
        return [one for one in self.spec.listeners if one.role is ListenerRole.INTERNAL]

    def config_name(self, index: int) -> str:
        return f"{self.name}-config-{index}"

    def keys_name(self, index: int) -> str:
        return f"{self.name}-keys-{index}"

    @property
    def pods_name(self) -> str:
        return f"{self.name}-pods"

    @property
    def load_name(self) -> str:
        """The Service by which KEDA finds the pods."""
        return f"{self.name}-load"

    @property
    def report_name(self) -> str:
        return f"{self.name}-report"


def needs_restart(config: EngineConfig) -> tuple[object, ...]:
    """The parts of a configuration that running workers cannot take: a change of these is a rollout."""
    return (
        config.spool,
        config.state_dir,
        config.workers,
        config.http,
        config.public_http,
        config.policy_server,
        config.user,
    )
