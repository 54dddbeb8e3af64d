"""ConfigMaps with the configuration's shards. What does not fit into one goes into the next; pods take a set only
when it is whole."""

from __future__ import annotations

import base64

from posthof_operator.desired import CONFIG_KEY, MTA_KEY, Desired
from posthof_operator.resources import Raw


def build(want: Desired) -> list[Raw]:
    made = [
        want.child("ConfigMap", want.config_name(index))
        | {"binaryData": {CONFIG_KEY: base64.b64encode(shard).decode()}}
        for index, shard in enumerate(want.config)
    ]
    if made:
        made[0]["data"] = {MTA_KEY: want.spec_text}  # what a new leader falls back on when the MTA is wrong by then
    return made
