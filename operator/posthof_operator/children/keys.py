"""Secrets with all key material that the configuration names. Their number is fixed, so pods can mount them."""

from __future__ import annotations

import base64

from posthof_operator.desired import KEYS_KEY, Desired
from posthof_operator.resources import Raw


def build(want: Desired) -> list[Raw]:
    return [
        want.child("Secret", want.keys_name(index))
        | {"type": "Opaque", "data": {KEYS_KEY: base64.b64encode(shard).decode()}}
        for index, shard in enumerate(want.keys)
    ]
