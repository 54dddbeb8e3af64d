"""PersistentVolumeClaim of the spool. It has no owner: mail never goes by itself (deletion.py)."""

from __future__ import annotations

from posthof_crds.fleet import CLAIM_SIZE
from posthof_operator.desired import Desired
from posthof_operator.resources import Raw


def build(want: Desired) -> list[Raw]:
    spool = want.spec.spool
    if spool.existing_claim is not None:
        return []
    spec: Raw = {
        "accessModes": [spool.access_mode],
        "resources": {"requests": {"storage": quantity(spool.size or CLAIM_SIZE)}},
        "volumeMode": "Filesystem",
    }
    if spool.storage_class_name is not None:
        spec["storageClassName"] = spool.storage_class_name
    return [want.child("PersistentVolumeClaim", want.claim, is_owned=False) | {"spec": spec}]


def quantity(size: int) -> str:
    """Bytes in the form the API server gives back."""
    for power, unit in ((4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")):
        if size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return str(size)
