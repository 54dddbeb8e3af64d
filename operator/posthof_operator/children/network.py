"""NetworkPolicy: what may come in. SMTP from anywhere on the listeners' ports; health, metrics and reports from pods.

What goes out is not limited: next hops, MX hosts, resolvers and the API server have any address and any port, and a
policy that guesses them wrongly stops mail. `restricted` networks add a policy of their own.
"""

from __future__ import annotations

from posthof_crds.ports import HEALTH, container_port
from posthof_operator.desired import Desired
from posthof_operator.resources import Raw


def build(want: Desired) -> list[Raw]:
    if not want.spec.network_policy.enabled:
        return []
    ingress: list[Raw] = []
    if want.public:
        ingress.append({"ports": _ports([*(one.port for one in want.public), *want.web])})
    if want.internal:
        ingress.append(
            {"from": [{"namespaceSelector": {}}], "ports": _ports([one.port for one in want.internal])},
        )
    ingress.append(
        {"from": [{"namespaceSelector": {}}], "ports": [{"port": HEALTH, "protocol": "TCP"}]},
    )
    return [
        want.child("NetworkPolicy")
        | {
            "spec": {
                "podSelector": {"matchLabels": want.selector},
                "policyTypes": ["Ingress"],
                "ingress": ingress,
            }
        }
    ]


def _ports(ports: list[int]) -> list[Raw]:
    return [{"port": container_port(port), "protocol": "TCP"} for port in ports]
