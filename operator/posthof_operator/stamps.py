"""What pods read bears the moment it was new in front, so that a pod never goes back from what it watched to an older
mounted copy (posthof_crds.shards.stamped). Pure.

Only the shards are stamped, only when they are written, and never earlier than what stands there: builders, hashes
and a second pass know nothing of it.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from posthof_crds.shards import stamped
from posthof_operator.desired import CONFIG_KEY, KEYS_KEY, PODS_KEY
from posthof_operator.resources import Raw

_PLACES = {"ConfigMap": ("binaryData", (CONFIG_KEY, PODS_KEY)), "Secret": ("data", (KEYS_KEY,))}


def has_shards(child: Raw) -> bool:
    """Whether pods read it."""
    field, keys = _PLACES.get(child["kind"], ("", ()))
    return any(key in child.get(field, {}) for key in keys)


def fresh(child: Raw, live: Raw | None, now: float) -> Raw:
    """The child as it is to be written over `live`: what is the same keeps its stamp, what is new gets `now`."""
    field, keys = _PLACES.get(child["kind"], ("", ()))
    contents: dict[str, Any] = dict(child.get(field, {}))
    for key in keys:
        if key in contents:
            previous = _decoded((live or {}).get(field, {}).get(key))
            written = stamped(base64.b64decode(contents[key]), now, previous)
            contents[key] = base64.b64encode(written).decode()
    return {**child, field: contents} if contents else child


def _decoded(text: str | None) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) if text is not None else None
    except (binascii.Error, ValueError):
        return None
