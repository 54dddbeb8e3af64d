"""What an MTA's status says besides its conditions: counts, addresses, the columns of `kubectl get`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from posthof_crds import policytext
from posthof_crds.reasons import Condition, Reason
from posthof_operator.conditions import Said
from posthof_operator.look import VOICE, Look, queue
from posthof_operator.pods import has_ended
from posthof_operator.resources import Raw


def fields(look: Look, says: Iterable[Said]) -> Raw:
    """Everything of the status but conditions; None is left out."""
    seen, old = look.seen, look.seen.mta.get("status") or {}
    if seen.is_paused:
        kept = {name: old.get(name) for name in VOICE.fields}
        return {**kept, "observedGeneration": seen.mta["metadata"].get("generation", 0), "phase": "Paused"}
    fleet, assembly = seen.assembly.fleet, seen.assembly
    reports = [look.reports[pod] for pod in look.living if pod in look.reports]
    loaded = {one.revision for one in reports} - {assembly.revision, ""}
    oldest = min(loaded) if loaded else (assembly.revision if reports else None)
    wanted = look.wanted or old.get("replicas", 0)
    return {
        "replicas": sum(not has_ended(pod) for pod in seen.pods),
        "readyReplicas": look.ready_pods,
        "selector": ",".join(f"{name}={value}" for name, value in sorted(_selector(look).items())) or None,
        "ready": f"{min(look.ready_pods, wanted)}/{wanted}",
        "phase": phase(look, says),
        "queue": queue(look.reports.values()) if look.reports else None,
        "configRevision": _given({"desired": assembly.revision or None, "oldestLoaded": oldest}) or None,
        "addresses": addresses(look) or None,
        "provenHosts": proven_hosts(look, old.get("provenHosts")),
        "domains": fleet.domains,
        "policies": fleet.policies,
        "certificates": len(fleet.certificates),
        "service": service(look) or None,
    }


def proven_hosts(look: Look, before: list[str] | None) -> list[str] | None:
    """MX hosts of MTA-STS policies that every pod has seen with a certificate that the world believes. Without a
    report what was known stays."""
    config = look.seen.assembly.fleet.config
    wanted = policytext.mx_hosts(config) if config is not None else ()
    if not wanted:
        return None
    reports = [look.reports[pod] for pod in look.living if pod in look.reports and look.reports[pod].ready]
    if not reports:
        return before
    return [host for host in wanted if all(host not in one.unproven for one in reports)] or None


def phase(look: Look, says: Iterable[Said]) -> str:
    by_type = {one.type: one for one in says}
    if look.seen.is_deleting:
        return "Draining"
    if look.seen.assembly.problems:
        return "Invalid"
    if by_type[Condition.READY].is_true:
        return look.trend or "Healthy"
    is_starting = (
        look.is_rolling
        or look.is_starting
        or by_type[Condition.CONFIG_CONVERGED].reason
        in (
            Reason.CONVERGING,
            Reason.NO_REPORTS,
        )
    )
    return (look.trend or "Progressing") if is_starting and Condition.STALLED not in by_type else "Degraded"


def addresses(look: Look) -> list[str]:
    """Where the world reaches the listeners."""
    for one in look.seen.services:
        if one["metadata"]["name"] != look.seen.key.name:
            continue
        if one["spec"].get("type") == "LoadBalancer":
            ingress = ((one.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
            return sorted(entry.get("ip") or entry.get("hostname", "") for entry in ingress)
        if one["spec"].get("type") == "NodePort":
            return sorted({pod["status"]["hostIP"] for pod in look.seen.pods if pod["status"].get("hostIP")})
    return []


def service(look: Look) -> Raw:
    found: Raw = {}
    ports: list[Raw] = []
    for one in look.seen.services:
        spec = one["spec"]
        if one["metadata"]["name"] == look.seen.key.name:
            found |= {"name": look.seen.key.name, "type": spec.get("type"), "clusterIP": spec.get("clusterIP")}
        elif one["metadata"]["name"] == f"{look.seen.key.name}-load":
            continue  # KEDA's way to the pods, no listener's
        else:
            found |= {"internalName": one["metadata"]["name"], "internalClusterIP": spec.get("clusterIP")}
        ports += [
            _given({"name": port.get("name"), "port": port["port"], "nodePort": port.get("nodePort")})
            for port in spec.get("ports", ())
        ]
    found = _given(found)
    return found | ({"ports": ports} if ports else {})


def _given(values: Raw) -> Raw:
    return {name: value for name, value in values.items() if value is not None}


def _selector(look: Look) -> Mapping[str, str]:
    return look.plan.want.selector if look.plan else {}
