"""Objects of a cluster as short texts, and the fleet they make: what `assemble` is given in the operator."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

from posthof_crds.fleet import Fleet, Verdict, assemble
from posthof_crds.parts import Part, part_of

MTA = """
hostname: mx.example.org
listeners:
  - {name: smtp, role: MX, port: 25}
  - {name: inside, role: Internal, port: 2526}
"""
TENANTS = """
allowedNamespaces:
  - selector: {matchLabels: {mail: allowed}}
    domains: ["*.tenants.example"]
    nextHops: ["*.{namespace}.svc.cluster.local", 198.51.100.0/24]
"""
NAMESPACES = {"mail": {}, "shop": {"mail": "allowed"}, "blog": {"mail": "allowed"}, "other": {}}


def raw(
    kind: str,
    where: str,
    spec: str,
    *,
    created: str = "2026-01-01T00:00:00Z",
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    """An object as the API server has it. `where`: namespace/name; `spec`: YAML."""
    namespace, name = where.split("/")
    metadata = {"namespace": namespace, "name": name, "creationTimestamp": created, "labels": labels or {}}
    return {
        "apiVersion": "posthof.dev/v1alpha1",
        "kind": kind,
        "metadata": {**metadata, "uid": f"uid-{where}", "generation": 1, "resourceVersion": "7"},
        "spec": yaml.safe_load(textwrap.dedent(spec)),
        "status": {"observedGeneration": 1},
    }


def mta(more: str = "", base: str = MTA) -> dict[str, Any]:
    return raw("MTA", "mail/edge", textwrap.dedent(base) + textwrap.dedent(more))


def domain(where: str, domain: str, inbound: str = "{mode: Maildir, recipients: {list: [bob]}}", **more: Any) -> Part:
    """A MailDomain; `spec` in `more` is further YAML of the spec."""
    spec = f"domain: {domain}\ninbound: {inbound}\n" + more.pop("spec", "")
    return part_of("MailDomain", raw("MailDomain", where, spec, **more))


def policy(where: str, spec: str, **more: Any) -> Part:
    return part_of("RelayPolicy", raw("RelayPolicy", where, spec, **more))


def cert(where: str, spec: str = "{dnsNames: [mx.example.org], issuer: {selfSigned: {}}}") -> Part:
    return part_of("TLSCert", raw("TLSCert", where, spec))


def fleet(*parts: Part, of: dict[str, Any] | None = None, **known: Any) -> Fleet:
    """The fleet of mail/edge, which allows namespaces shop and blog what TENANTS says."""
    return assemble(of or mta(TENANTS), parts, **{"namespaces": NAMESPACES, **known})


def verdict(of: Fleet, where: str) -> Verdict:
    """What is said about the object `namespace/name`."""
    return next(each for each in of.verdicts if f"{each.namespace}/{each.name}" == where)


def told(of: Fleet, where: str) -> str:
    """`Reason: message`; "Accepted" for what is accepted."""
    found = verdict(of, where)
    return f"{found.reason}: {found.message}" if found.message else str(found.reason)


def credential(where: str, spec: str, **more: Any) -> Part:
    return part_of("SMTPCredential", raw("SMTPCredential", where, spec, **more))
