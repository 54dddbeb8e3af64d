"""What is ordered from others by objects of theirs. cert-manager: the Certificate, and what it says of the order.
ExternalDNS: the DNSEndpoint with proofs or TLSA records. Pure.

Only fields that a TLSCert speaks of are written; the rest is cert-manager's own default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posthof_certs.zone import Record
from posthof_operator.apply import is_within
from posthof_operator.certs.plan import Ordered
from posthof_operator.certs.wish import Wish
from posthof_operator.resources import MANAGED_BY, MANAGER, RESOURCES, Raw

LABEL = "posthof.dev/tlscert"
PROOF_TTL = 60  # seconds: a proof is looked at once


def certificate(wish: Wish, owner: Raw) -> Raw:
    """The Certificate of a wish; it fills the result Secret."""
    issuer = wish.issuer
    if issuer is None:
        raise ValueError("only a wish with an issuer of cert-manager is ordered")
    spec: Raw = {
        "secretName": wish.result,
        "dnsNames": list(wish.order.names),
        "duration": _duration(wish.order.duration),
        "issuerRef": {"name": issuer.name, "kind": issuer.kind, "group": issuer.group},
        "privateKey": {
            "algorithm": wish.order.key.algorithm,
            "size": wish.order.key.size,
            "rotationPolicy": "Always",
        },
        "usages": ["digital signature", "key encipherment", "server auth"],
        "secretTemplate": {"labels": labels(wish)},
    }
    if wish.renew_before is not None:
        spec["renewBefore"] = _duration(wish.renew_before)
    return {
        "apiVersion": RESOURCES["Certificate"].api_version,
        "kind": "Certificate",
        "metadata": {
            "namespace": wish.namespace,
            "name": wish.name,
            "labels": labels(wish),
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def labels(wish: Wish) -> dict[str, str]:
    """Of everything that is made for a TLSCert."""
    return {"app.kubernetes.io/name": "posthof", MANAGED_BY: MANAGER, LABEL: label_value(wish.name)}


def label_value(name: str) -> str:
    """A name as a label's value: at most 63 characters, the last a letter or digit."""
    return name[:63].rstrip("-.")


def ordered(wanted: Raw, live: Raw | None) -> Ordered | None:
    """What became of the order, None: there is none."""
    if live is None:
        return None
    conditions: dict[str, Any] = {one["type"]: one for one in live.get("status", {}).get("conditions", ())}
    ready, issuing = conditions.get("Ready", {}), conditions.get("Issuing", {})
    is_seen = ready.get("observedGeneration", 0) == live["metadata"].get("generation", 0)
    return Ordered(
        is_current=is_within(wanted["spec"], live["spec"]),
        is_ready=ready.get("status") == "True" and is_seen,
        has_failed=issuing.get("status") == "False" and issuing.get("reason") == "Failed",
        message=str((issuing if issuing.get("message") else ready).get("message", "")),
    )


def _duration(seconds: float) -> str:
    """As Go writes it, so that what comes back is what was sent: 5400.0 -> "1h30m0s"."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{left}s"
    return f"{minutes}m{left}s" if minutes else f"{left}s"


def endpoint(wish: Wish, name: str, records: Sequence[Record], owner: Raw) -> Raw:
    """A DNSEndpoint object of a TLSCert's own, for ExternalDNS: records of one name and type stand together."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for record in records:
        text = f'"{record.text}"' if record.type == "TXT" else record.text
        grouped.setdefault((record.name, record.type), []).append(text)
    ttl = wish.dane.ttl if wish.dane is not None else PROOF_TTL
    return {
        "apiVersion": RESOURCES["DNSEndpoint"].api_version,
        "kind": "DNSEndpoint",
        "metadata": {
            "namespace": wish.namespace,
            "name": name,
            "labels": labels(wish),
            "ownerReferences": [owner],
        },
        "spec": {
            "endpoints": [
                {"dnsName": one, "recordType": kind, "recordTTL": ttl, "targets": targets}
                for (one, kind), targets in grouped.items()
            ]
        },
    }
