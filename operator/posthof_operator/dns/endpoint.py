"""The DNSEndpoint object that ExternalDNS publishes a domain's records from.

Rules of this file
- Pure. Only for a domain that an MTA accepts: whoever may write a MailDomain would else write anybody's SPF.
- Only texts that are known are published: MX while an MTA receives for the domain; SPF and DMARC where the
  MailDomain gives them; SPF also where the MTA's addresses are known. A proof is never published: whoever may make
  objects here may not for that hold the domain.
- SPF shares its name with other TXT records that ExternalDNS does not know of; ExternalDNS writes only what it owns.
"""

from __future__ import annotations

from typing import Any

from posthof_operator.dns import spf, transport
from posthof_operator.dns.rows import PREFERENCE, PROPOSED_DMARC, Want
from posthof_operator.resources import MANAGED_BY, MANAGER, RESOURCES

TTL = 3600


def endpoint(namespace: str, name: str, want: Want, owner: dict[str, Any]) -> dict[str, Any] | None:
    """The object, None when there is nothing to publish."""
    entries: list[dict[str, Any]] = []
    if want.hosts:
        entries.append(_entry(want.domain, "MX", [f"{PREFERENCE} {host}" for host in want.hosts]))
    sender = want.spf if want.spf is not None else (spf.proposal(want.egress) if want.egress else "")
    if sender:
        entries.append(_entry(want.domain, "TXT", [f'"{sender}"']))
    policy = want.dmarc if want.dmarc is not None else PROPOSED_DMARC
    if policy and want.hosts:
        entries.append(_entry(f"_dmarc.{want.domain}", "TXT", [f'"{policy}"']))
    if want.policy is not None and want.hosts:
        entries.append(_entry(transport.record_name(want.domain), "TXT", [f'"{want.policy.record}"']))
        entries.append(_entry(transport.host_name(want.domain), "CNAME", [want.hosts[0]]))
    if want.tls_rpt:
        entries.append(_entry(transport.reports_name(want.domain), "TXT", [f'"{want.tls_rpt}"']))
    if not entries:
        return None
    return {
        "apiVersion": RESOURCES["DNSEndpoint"].api_version,
        "kind": "DNSEndpoint",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": {"app.kubernetes.io/name": "posthof", MANAGED_BY: MANAGER},
            "ownerReferences": [owner],
        },
        "spec": {"endpoints": entries},
    }


def _entry(name: str, kind: str, targets: list[str]) -> dict[str, Any]:
    return {"dnsName": name, "recordType": kind, "recordTTL": TTL, "targets": targets}
