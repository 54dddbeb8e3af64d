"""PersistentVolumeClaim of the spool. It has an owner only where mail may go with the MTA (deletionPolicy Delete)."""

from __future__ import annotations

from posthof_operator.desired import Desired
from posthof_operator.resources import Raw

SIZE = "10Gi"


def build(want: Desired) -> list[Raw]:
    spool = want.spec.spool
    if spool.existing_claim is not None:
        return []
    spec: Raw = {
        "accessModes": [spool.access_mode],
        "resources": {"requests": {"storage": str(spool.size) if spool.size else SIZE}},
        "volumeMode": "Filesystem",
    }
    if spool.storage_class_name is not None:
        spec["storageClassName"] = spool.storage_class_name
    is_owned = spool.deletion_policy == "Delete"
    return [want.child("PersistentVolumeClaim", want.claim, is_owned=is_owned) | {"spec": spec}]
