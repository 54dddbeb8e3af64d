"""What the operator is told from outside: its environment.

Every name is POSTHOF_*; the chart sets them. A wrong value ends the start with one sentence.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field


class WrongSetting(Exception):
    """The text names the variable and what to write."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    namespace: str = "default"
    """POSTHOF_NAMESPACE: where the operator itself lives: its Lease, its canary."""

    watch: tuple[str, ...] = ()
    """POSTHOF_WATCH_NAMESPACES: a list with commas; empty: the whole cluster (needs ClusterRoles)."""

    pod_image: str = "posthof:latest"
    """POSTHOF_POD_IMAGE: of MTA pods, where podTemplate.image says nothing."""

    resolver: tuple[str, ...] = ()
    """POSTHOF_RESOLVER: address or address@port, a list with commas; empty: the system's."""

    dns_port: int = 53
    """POSTHOF_DNS_PORT: where authoritative servers are asked whether they show a record; another one for tests."""

    webhook_service: str = ""
    """POSTHOF_WEBHOOK_SERVICE: the Service in front of the webhook's pods; empty: there is no webhook."""

    webhook_registration: str = ""
    """POSTHOF_WEBHOOK_CONFIGURATION: the ValidatingWebhookConfiguration; empty: as the chart calls it."""

    metrics_port: int = 8080
    """POSTHOF_METRICS_PORT: health and metrics; 0: any free port, for tests."""

    webhook_port: int = 9443
    """POSTHOF_WEBHOOK_PORT."""

    identity: str = field(default_factory=lambda: f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}")
    """Who holds the Lease: the pod's name and a word of chance, so that a restarted container is another holder."""

    workers: int = 8
    """POSTHOF_WORKERS: reconciles at one time."""

    relist: float = 180.0
    """POSTHOF_RELIST: seconds between lists that find what no watch told of."""

    @property
    def webhook_configuration(self) -> str:
        """The ValidatingWebhookConfiguration whose certificate we keep. The chart's name for what is of the whole
        cluster: namespace and release, at most 60 characters."""
        release = self.webhook_service.removesuffix("-webhook")
        return self.webhook_registration or f"{self.namespace}-{release}"[:60].removesuffix("-")

    @property
    def is_cluster_wide(self) -> bool:
        return not self.watch


def from_environment(environment: Mapping[str, str] = os.environ, *, namespace: str = "default") -> Settings:
    """`namespace` is the one of the service account, for POSTHOF_NAMESPACE's default."""
    base = Settings()
    return Settings(
        namespace=environment.get("POSTHOF_NAMESPACE", "") or namespace,
        watch=_list(environment.get("POSTHOF_WATCH_NAMESPACES", "")),
        pod_image=environment.get("POSTHOF_POD_IMAGE", "") or base.pod_image,
        resolver=_list(environment.get("POSTHOF_RESOLVER", "")),
        dns_port=int(_number(environment, "POSTHOF_DNS_PORT", base.dns_port, 1, 65535)),
        webhook_service=environment.get("POSTHOF_WEBHOOK_SERVICE", ""),
        webhook_registration=environment.get("POSTHOF_WEBHOOK_CONFIGURATION", ""),
        metrics_port=int(_number(environment, "POSTHOF_METRICS_PORT", base.metrics_port, 0, 65535)),
        webhook_port=int(_number(environment, "POSTHOF_WEBHOOK_PORT", base.webhook_port, 0, 65535)),
        workers=int(_number(environment, "POSTHOF_WORKERS", base.workers, 1, 64)),
        relist=_number(environment, "POSTHOF_RELIST", base.relist, 1, 86400),
    )


def _list(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _number(environment: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    text = environment.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise WrongSetting(f"{name} is {text!r}: write a number") from None
    if not least <= value <= most:
        raise WrongSetting(f"{name} is {text}: write a number from {least:g} to {most:g}")
    return value
