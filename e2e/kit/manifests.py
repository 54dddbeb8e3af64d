"""The objects scenarios apply, with what every scenario needs filled in: one line each in a story.

Rules
- Small: 20m of CPU, one worker, a spool of 256 MiB. A scenario that is about size says so.
- Plain dicts; what a story wants else it passes as `spec`, which is merged into what is here.
"""

from __future__ import annotations

import os
from typing import Any

from kit.api import Object

VERSION = "posthof.dev/v1alpha1"
SHARED_CLASS = os.environ.get("RWX_CLASS", "" if os.environ.get("KUBECONFIG") else "rwx")


def merged(base: Object, more: Object) -> Object:
    """`more` over `base`, maps merged, lists replaced. Neither is changed."""
    result = dict(base)
    for key, value in more.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return result


def ours(kind: str, name: str, spec: Object, **meta: Any) -> Object:
    return {"apiVersion": VERSION, "kind": kind, "metadata": {"name": name, **meta}, "spec": spec}


def mta(name: str = "edge", spec: Object | None = None, **meta: Any) -> Object:
    """One pod with a listener MX on 25, sure to start anywhere."""
    base: Object = {
        "hostname": f"{name}.mx.test",
        "workers": 1,
        "listeners": [{"name": "mx", "role": "MX", "port": 25}],
        "spool": {"size": "256Mi", "deletionPolicy": "Delete", "reserve": "1Mi", "maxUsage": 0.99},
        "drain": {"settle": "2s"},
        "retry": {"intervals": ["1s", "2s"]},
        "podTemplate": {"resources": {"requests": {"cpu": "20m", "memory": "64Mi"}}},
    }
    return ours("MTA", name, merged(base, spec or {}), **meta)


def on_many_nodes(name: str = "edge", replicas: int = 2, spec: Object | None = None) -> Object:
    """Pods on both nodes, on a volume that both mount: of the class SHARED_CLASS names, else of the default one."""
    shared: Object = {"replicas": replicas, "spool": {"accessMode": "ReadWriteMany"}}
    if SHARED_CLASS:
        shared["spool"]["storageClassName"] = SHARED_CLASS
    return mta(name, merged(shared, spec or {}))


def relayed(domain: str, to: str = "sink", namespace: str = "", name: str = "", **more: Any) -> Object:
    """A MailDomain whose mail goes to the sink of the scenario (or another Service) on 2525. Everybody exists."""
    host = f"{to}.{namespace}.svc.cluster.local" if namespace else to
    inbound = {
        "mode": "Relay",
        "tls": "None",
        "nextHops": [{"host": host, "port": 2525}],
        "recipients": {"any": True},
    }
    return ours("MailDomain", name or domain.replace(".", "-"), merged({"domain": domain, "inbound": inbound}, more))


def certificate(name: str, host: str, **spec: Any) -> Object:
    return ours("TLSCert", name, merged({"dnsNames": [host], "issuer": {"selfSigned": {}}}, spec))
