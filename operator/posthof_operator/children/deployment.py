"""The Deployment: pods that any may go (identity is in the spool's lanes), replaced one by one, never fewer.

Rules of this file
- PodSecurity `restricted`, no shell needed, nothing written but the claim and two emptyDirs.
- Only what needs a restart is in the template. Listeners, domains, rules, certificates and keys come by the mounts
  and by watching, so they are not here: no port of a listener, no hash of the configuration.
- One node where the claim can be mounted on one only (Desired.is_one_node).
"""

from __future__ import annotations

from posthof_crds.ports import HEALTH
from posthof_operator.desired import (
    CONFIG_KEY,
    CONFIG_SHARDS,
    ETC,
    HOME,
    KEY_SHARDS,
    KEYS_KEY,
    PODS_KEY,
    RUN,
    TOKEN_KEY,
    USER,
    Desired,
)
from posthof_operator.resources import GROUP, Raw

RESTART = f"{GROUP}/restart"  # annotation of the template
REQUESTS = {"cpu": "100m", "memory": "256Mi"}


def build(want: Desired) -> list[Raw]:
    if not want.config:
        return []
    return [
        want.child("Deployment")
        | {
            "spec": {
                "replicas": want.replicas,
                "revisionHistoryLimit": 3,
                "minReadySeconds": 1,
                "progressDeadlineSeconds": 600,
                "selector": {"matchLabels": want.selector},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": template(want),
            }
        }
    ]


def template(want: Desired) -> Raw:
    extra = want.spec.pod_template
    return {
        "metadata": {
            "labels": {**extra.labels, **want.labels},
            "annotations": {**extra.annotations, RESTART: want.restart},
        },
        "spec": pod(want),
    }


def pod(want: Desired) -> Raw:
    extra = want.spec.pod_template
    spec: Raw = {
        "serviceAccountName": want.name,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": want.grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(want)],
        "volumes": volumes(want),
    } | placement(want)
    if extra.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": one.name} for one in extra.image_pull_secrets]
    if extra.node_selector:
        spec["nodeSelector"] = dict(extra.node_selector)
    if extra.tolerations:
        spec["tolerations"] = [
            one.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True) for one in extra.tolerations
        ]
    if extra.priority_class_name is not None:
        spec["priorityClassName"] = extra.priority_class_name
    return spec


def placement(want: Desired) -> Raw:
    """All on one node, or spread over nodes and zones. Zones by a wish, not by a second constraint: the scheduler
    weighs constraints only on nodes that have the labels of all of them, and many clusters have no zones."""
    selector = {"matchLabels": want.selector}
    if want.is_one_node:
        term = {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}
        return {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    zone = {"labelSelector": selector, "topologyKey": "topology.kubernetes.io/zone"}
    wish = {"weight": 100, "podAffinityTerm": zone}
    return {
        "topologySpreadConstraints": [spread | {"labelSelector": selector}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}},
    }


def container(want: Desired) -> Raw:
    extra = want.spec.pod_template
    requests, limits = dict(extra.resources.requests), dict(extra.resources.limits)
    resources: Raw = {"requests": requests or {name: REQUESTS[name] for name in REQUESTS if name not in limits}}
    if limits:
        resources["limits"] = limits
    return {
        "name": "mta",
        "image": want.image,
        "command": ["posthof", "pod"],
        "env": [
            {"name": "POSTHOF_MTA", "value": want.name},
            {"name": "POSTHOF_NAMESPACE", "value": want.namespace},
            _from_field("POSTHOF_POD", "metadata.name"),
            _from_field("POSTHOF_POD_UID", "metadata.uid"),
            _from_field("POSTHOF_NODE", "spec.nodeName"),
            _from_field("POD_IP", "status.podIP"),
        ],
        "ports": [{"name": "health", "containerPort": HEALTH, "protocol": "TCP"}],
        "startupProbe": _probe("/healthz", every=2, failures=300),
        "livenessProbe": _probe("/healthz", every=10, failures=6),
        "readinessProbe": _probe("/readyz", every=2, failures=2),
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "spool", "mountPath": HOME},
            {"name": "run", "mountPath": RUN},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "config", "mountPath": f"{ETC}/config", "readOnly": True},
            {"name": "keys", "mountPath": f"{ETC}/keys", "readOnly": True},
            {"name": "pods", "mountPath": f"{ETC}/pods", "readOnly": True},
            {"name": "report", "mountPath": f"{ETC}/report", "readOnly": True},
        ],
    }


def volumes(want: Desired) -> list[Raw]:
    """Shards are optional: a set has as many as it needs, and pods start with what the mount has."""
    config = [_shard("configMap", want.config_name(n), CONFIG_KEY, str(n)) for n in range(CONFIG_SHARDS)]
    keys = [_shard("secret", want.keys_name(n), KEYS_KEY, str(n)) for n in range(KEY_SHARDS)]
    return [
        {"name": "spool", "persistentVolumeClaim": {"claimName": want.claim}},
        {"name": "run", "emptyDir": {"sizeLimit": "64Mi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
        {"name": "config", "projected": {"defaultMode": 0o444, "sources": config}},
        {"name": "keys", "projected": {"defaultMode": 0o440, "sources": keys}},
        {
            "name": "pods",
            "projected": {
                "defaultMode": 0o444,
                "sources": [_shard("configMap", want.pods_name, PODS_KEY, PODS_KEY)],
            },
        },
        {
            "name": "report",
            "secret": {
                "secretName": want.report_name,
                "defaultMode": 0o440,
                "items": [{"key": TOKEN_KEY, "path": TOKEN_KEY}],
            },
        },
    ]


def _shard(source: str, name: str, key: str, path: str) -> Raw:
    return {source: {"name": name, "optional": True, "items": [{"key": key, "path": path}]}}


def _from_field(name: str, path: str) -> Raw:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _probe(path: str, *, every: int, failures: int) -> Raw:
    return {
        "httpGet": {"path": path, "port": "health"},
        "periodSeconds": every,
        "failureThreshold": failures,
        "timeoutSeconds": 5,
    }
