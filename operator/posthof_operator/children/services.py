"""Services: one for the world's listeners, and one with a ClusterIP for those of role Internal, so that nothing from
outside can come in by them."""

from __future__ import annotations

from collections.abc import Sequence

from posthof_crds.mta import Listener
from posthof_crds.ports import container_port
from posthof_operator.desired import Desired
from posthof_operator.resources import Raw


def build(want: Desired) -> list[Raw]:
    """None for an MTA that is being deleted: its pods deliver what they have and take nothing new."""
    if want.is_draining:
        return []
    return ([public(want)] if want.public else []) + ([internal(want)] if want.internal else [])


def public(want: Desired) -> Raw:
    service = want.spec.service
    child = want.child("Service")
    if service.annotations:
        child["metadata"]["annotations"] = dict(service.annotations)
    is_outside = service.type != "ClusterIP"
    ports = _ports(want.public, is_outside) + _web_ports(want)
    spec: Raw = {"type": service.type, "selector": want.selector, "ports": ports}
    if is_outside:
        spec["externalTrafficPolicy"] = service.external_traffic_policy
    if service.type == "LoadBalancer" and service.load_balancer_class is not None:
        spec["loadBalancerClass"] = service.load_balancer_class
    return child | {"spec": spec}


def internal(want: Desired) -> Raw:
    spec = {"type": "ClusterIP", "selector": want.selector, "ports": _ports(want.internal, False)}
    return want.child("Service", f"{want.name}-internal") | {"spec": spec}


def _web_ports(want: Desired) -> list[Raw]:
    """Where pods answer over HTTP. A listener of the same port goes before."""
    taken = {one.port for one in want.public}
    return [
        {"name": f"web-{port}", "port": port, "protocol": "TCP", "targetPort": container_port(port)}
        for port in want.web
        if port not in taken
    ]


def _ports(listeners: Sequence[Listener], is_outside: bool) -> list[Raw]:
    ports = []
    for one in listeners:
        port: Raw = {
            "name": one.name,
            "port": one.port,
            "protocol": "TCP",
            "targetPort": container_port(one.port),
        }
        if is_outside and one.node_port is not None:
            port["nodePort"] = one.node_port
        ports.append(port)
    return ports
