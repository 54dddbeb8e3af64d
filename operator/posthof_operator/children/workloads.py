"""ConfigMap that says which pods of the cluster are in which selections of RelayPolicies, by their IP."""

from __future__ import annotations

import base64

from posthof_operator.desired import PODS_KEY, Desired
from posthof_operator.resources import Raw


def build(want: Desired, shard: bytes) -> list[Raw]:
    data = {PODS_KEY: base64.b64encode(shard).decode()}
    return [want.child("ConfigMap", want.pods_name) | {"binaryData": data}]
