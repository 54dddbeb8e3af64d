"""Who may talk to whom: the chart's NetworkPolicies, evaluated over a table of flows.

The evaluation is the standard's: a pod that no policy of a direction selects is open in it; else one rule must allow
the flow. Ports are those of the pods, as they are behind a Service.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from kit import charts

Policy = dict[str, Any]


class Pod(NamedTuple):
    namespace: str
    labels: dict[str, str]


def component(name: str, namespace: str = "posthof-system") -> Pod:
    labels = {"app.kubernetes.io/name": "posthof", "app.kubernetes.io/instance": "posthof"}
    return Pod(namespace, {**labels, "app.kubernetes.io/component": name})


OPERATOR, WEBHOOK = component("operator"), component("webhook")
MTA = Pod("mail", {"app.kubernetes.io/managed-by": "posthof-operator", "app.kubernetes.io/component": "mta"})
SHOP, PROMETHEUS = Pod("shop", {"app": "shop"}), Pod("monitoring", {"app": "prometheus"})
NAMESPACES = {
    name: {"kubernetes.io/metadata.name": name} for name in ("posthof-system", "mail", "shop", "monitoring", "dns")
}
DNS = Pod("dns", {"app": "dns"})


def selects(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    """matchLabels only: the charts use nothing else."""
    assert selector is None or selector.keys() <= {"matchLabels"}
    return all(labels.get(key) == value for key, value in (selector or {}).get("matchLabels", {}).items())


def is_peer(peer: dict[str, Any], pod: Pod, home: str) -> bool:
    if "ipBlock" in peer:
        return False  # addresses of pods are in no block of this table
    if "namespaceSelector" in peer:
        is_there = selects(peer["namespaceSelector"], NAMESPACES[pod.namespace])
    else:
        is_there = pod.namespace == home
    return is_there and selects(peer.get("podSelector"), pod.labels)


def is_open(policies: list[Policy], pod: Pod, other: Pod, port: int, direction: str) -> bool:
    """Whether `pod` may send (Egress) to or receive (Ingress) from `other` on the TCP port."""
    chosen = [
        one
        for one in policies
        if one["metadata"]["namespace"] == pod.namespace
        and direction in one["spec"]["policyTypes"]
        and selects(one["spec"]["podSelector"], pod.labels)
    ]
    word = {"Ingress": "from", "Egress": "to"}[direction]
    return not chosen or any(
        any(entry["port"] == port and entry.get("protocol", "TCP") == "TCP" for entry in rule["ports"])
        and (word not in rule or any(is_peer(peer, other, pod.namespace) for peer in rule[word]))
        for one in chosen
        for rule in one["spec"].get(direction.lower(), ())
    )


def may(case: str, source: Pod, target: Pod, port: int) -> bool:
    policies = charts.of_kind(case, "NetworkPolicy")
    return is_open(policies, source, target, port, "Egress") and is_open(policies, target, source, port, "Ingress")


# case, from, to, port, may
FLOWS = [
    ("default", PROMETHEUS, OPERATOR, 8080, True),
    ("default", PROMETHEUS, WEBHOOK, 8080, True),
    ("default", SHOP, WEBHOOK, 9443, True),  # the API server's address is not known
    ("default", SHOP, OPERATOR, 9443, False),
    ("default", SHOP, OPERATOR, 22, False),
    ("default", OPERATOR, MTA, 8080, True),
    ("default", OPERATOR, DNS, 53, True),
    ("default", OPERATOR, SHOP, 80, True),  # egress is not limited
    ("full", PROMETHEUS, OPERATOR, 8080, True),
    ("full", SHOP, OPERATOR, 8080, False),
    ("full", SHOP, WEBHOOK, 9443, False),  # a block of addresses is named
    ("full", OPERATOR, MTA, 8080, True),
    ("full", OPERATOR, SHOP, 8080, False),
    ("full", OPERATOR, SHOP, 80, False),
    ("full", OPERATOR, DNS, 53, True),
    ("full", WEBHOOK, MTA, 8080, False),
    ("minimal", SHOP, OPERATOR, 8080, True),  # no policies
    ("namespaced", SHOP, OPERATOR, 22, False),
]


@pytest.mark.parametrize(("case", "source", "target", "port", "expected"), FLOWS)
def test_a_flow(case: str, source: Pod, target: Pod, port: int, expected: bool) -> None:
    assert may(case, source, target, port) is expected
