"""ServiceAccount, Role, RoleBinding of the pods: read the objects made for them, by name; keep a Lease each, and see
the others'. Leases are named after pods, which nobody knows beforehand, so a Role cannot name them: a pod could touch
other Leases of its namespace. They say who may be judged dead, never who owns mail."""

from __future__ import annotations

from posthof_operator.desired import CONFIG_SHARDS, KEY_SHARDS, Desired
from posthof_operator.resources import Raw


def build(want: Desired) -> list[Raw]:
    return [account(want), role(want), binding(want)]


def account(want: Desired) -> Raw:
    return want.child("ServiceAccount") | {"automountServiceAccountToken": False}  # the Deployment asks for it


def role(want: Desired) -> Raw:
    config_maps = [want.config_name(n) for n in range(CONFIG_SHARDS)] + [want.pods_name]
    secrets = [want.keys_name(n) for n in range(KEY_SHARDS)]
    return want.child("Role") | {
        "rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": config_maps, "verbs": ["get", "watch"]},
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": secrets, "verbs": ["get", "watch"]},
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "verbs": ["get", "list", "create", "patch", "delete"],
            },
        ]
    }


def binding(want: Desired) -> Raw:
    return want.child("RoleBinding") | {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": want.name},
        "subjects": [{"kind": "ServiceAccount", "name": want.name, "namespace": want.namespace}],
    }
