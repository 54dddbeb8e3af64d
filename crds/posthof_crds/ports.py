"""Ports inside a pod. Pods run without privileges, so a listener's own port below 1024 is served on another one.

`listeners[].port` is what clients connect to (the Service's port); `container_port` is what the pod binds. Only the
operator and a pod ask: on one machine a listener binds its own port.
"""

from __future__ import annotations

HEALTH = 8080  # health, metrics and the operator's report, on the pod's address
ADMIN = 8025  # the admin API, on the pod's loopback

_WELL_KNOWN = {25: 2525, 465: 4465, 587: 5587}
_PRIVILEGED = 1024
_SHIFT = 10_000


def container_port(port: int) -> int:
    """25 -> 2525, 465 -> 4465, 587 -> 5587, any other below 1024 -> 10000 more, the rest as they are."""
    if port in _WELL_KNOWN:
        return _WELL_KNOWN[port]
    return port + _SHIFT if port < _PRIVILEGED else port


def is_free(port: int) -> bool:
    """Whether a listener of this port leaves the pod's own ports alone."""
    return container_port(port) not in (HEALTH, ADMIN)
