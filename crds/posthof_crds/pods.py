"""Parts of an MTA that say how its pods run in a cluster. On one machine nothing reads them."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StrictInt, StrictStr, model_validator

from posthof_crds.fields import Bool, Duration, Int, ObjectName, Part, seconds_between, wrong
from posthof_crds.selectors import LabelKey, LabelValue, label_key

_QUANTITY = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?(?:[mkMGTPE]|[KMGTPE]i)?")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9./:@_-]{0,499}")


def quantity(value: int | str) -> int | str:
    """A Kubernetes quantity, kept as it is written."""
    if isinstance(value, str) and not _QUANTITY.fullmatch(value):
        raise wrong(f"{value!r} is not a quantity", "Write a number such as 500m, 2, 512Mi or 1Gi.")
    if isinstance(value, int) and value < 0:
        raise wrong("a quantity is not negative", "Write 0 or more.")
    return value


def image(value: str) -> str:
    if not _IMAGE.fullmatch(value):
        raise wrong(f"{value!r} is not the name of an image", "Write registry.example.org/posthof/pod:1.0.")
    return value


Quantity = Annotated[StrictInt | StrictStr, AfterValidator(quantity)]
Quantities = dict[Annotated[str, AfterValidator(label_key)], Quantity]
Image = Annotated[str, AfterValidator(image)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
Annotations = Annotated[dict[LabelKey, Annotated[str, Field(max_length=16384)]], Field(max_length=64)]


class Service(Part):
    """The Service in front of the listeners of roles MX, Submission and Submissions. Internal ones have a ClusterIP
    Service of their own, so that nothing from outside can come in by them."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """How the world reaches them. ClusterIP: not at all, which is the safe beginning. NodePort: by a port of every
    node. LoadBalancer: by an address that the cluster's balancer gives."""

    external_traffic_policy: Literal["Local", "Cluster"] = "Local"
    """Local: clients come with their own addresses; only nodes with a pod answer. Cluster: every node answers and may
    put its own address in the client's place, so no rule about clients, namespaces or pods counts there."""

    load_balancer_class: Annotated[str, AfterValidator(label_key)] | None = None
    """Which balancer takes care of it, where the cluster has several. It cannot be changed later, except by changing
    `type` in between."""

    annotations: Annotations = Field(default_factory=dict)
    """Annotations of the Service: what balancers and ExternalDNS read."""


class Drain(Part):
    """How a pod ends. Every rollout is a drain."""

    settle: Annotated[Duration, seconds_between("0s", "5m")] = 5.0
    """How long an ending pod goes on taking sessions, so that balancers hear of it before it answers 421."""


class Toleration(Part):
    """A taint of nodes that the pods tolerate, as in Kubernetes."""

    key: LabelKey | None = None
    """The taint's key. Default: every key, with operator Exists."""

    operator: Literal["Exists", "Equal"] = "Equal"
    """Exists: any value. Equal: the value below."""

    value: LabelValue = ""
    """The taint's value."""

    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect. Default: all of them."""

    toleration_seconds: Annotated[Int, Field(ge=0, le=31_536_000)] | None = None
    """How long a NoExecute taint is tolerated, in seconds. Default: for ever."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.key is None and self.operator != "Exists":
            raise wrong("a toleration without a key is for all taints", "Write operator: Exists, or a key.")
        if self.operator == "Exists" and self.value:
            raise wrong("value says nothing for Exists", "Remove value, or write operator: Equal.")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise wrong("tolerationSeconds is for NoExecute", "Write effect: NoExecute, or remove it.")
        return self


class Resources(Part):
    """What a pod may use, as in Kubernetes."""

    requests: Annotated[Quantities, Field(max_length=16)] = Field(default_factory=dict)
    """What is kept for the pod: cpu, memory."""

    limits: Annotated[Quantities, Field(max_length=16)] = Field(default_factory=dict)
    """What the pod may use at most. The CPU limit is also the number of workers, where `workers` is 0."""


class PullSecret(Part):
    """A Secret with the credentials of a registry."""

    name: ObjectName
    """The Secret's metadata.name."""


class PodTemplate(Part):
    """What pods have beyond what Posthof itself needs. A change restarts them, one by one."""

    image: Image | None = None
    """The image. Default: the one that the operator was installed with."""

    image_pull_secrets: Annotated[tuple[PullSecret, ...], Field(max_length=16)] = ()
    """Secrets of the MTA's namespace with credentials of a registry."""

    resources: Resources = Resources()
    """What a pod may use. Default: requests of 100m CPU and 256Mi memory, no limits."""

    node_selector: Labels = Field(default_factory=dict)
    """Labels that a node must have to run pods."""

    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Taints of nodes that the pods tolerate."""

    priority_class_name: ObjectName | None = None
    """The PriorityClass of the pods."""

    labels: Labels = Field(default_factory=dict)
    """Further labels of the pods."""

    annotations: Annotations = Field(default_factory=dict)
    """Further annotations of the pods."""


class NetworkPolicy(Part):
    """The NetworkPolicy around the pods."""

    enabled: Bool = True
    """Make one: in come SMTP on the listeners' ports and the operator on the health port, out go DNS, mail and the
    API server."""


class Observability(Part):
    """What makes the pods visible to others."""

    pod_monitor: Bool = True
    """Make a PodMonitor, where the cluster has that API (of the Prometheus operator)."""
