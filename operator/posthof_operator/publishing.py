"""Whose names a TLSCert may have published by ExternalDNS, which writes wherever its own credentials reach. Pure.

Rules of this file
- TLSCerts are for whoever may edit a namespace; DNS of the whole house is not. So names are published for a namespace
  that has an MTA, which only administrators make, and for MailDomains of the namespace that an MTA has accepted (a
  proof in DNS, or an entry in allowedNamespaces stands behind that). Anybody else would get certificates, or TLSA
  records, for names of others.
- Dynamic updates (rfc2136) need no such rule: they reach as far as the namespace's own TSIG key.
"""

from __future__ import annotations

from collections.abc import Iterable

from posthof_crds.reasons import Condition
from posthof_operator.resources import Raw
from posthof_operator.store import Store


def is_accepted(domain: Raw | None) -> bool:
    """Whether an MTA has accepted this MailDomain as it is now: a verdict about what it was before is none."""
    if domain is None:
        return False
    generation = (domain.get("metadata") or {}).get("generation", 0)
    return any(
        (one["type"], one["status"], one.get("observedGeneration", 0)) == (Condition.ACCEPTED, "True", generation)
        for one in (domain.get("status") or {}).get("conditions") or ()
    )


def why_not(store: Store, namespace: str, names: Iterable[str]) -> str:
    """Why ExternalDNS is not asked to publish under these names; "": it is."""
    if any(True for _ in store.keys("MTA", namespace)):
        return ""
    found = (store.get(key) for key in store.keys("MailDomain", namespace))
    own = {str(one["spec"]["domain"]).lower() for one in found if one is not None and is_accepted(one)}
    for name in names:
        plain = name.lower().removeprefix("*.")
        if not any(plain == domain or plain.endswith(f".{domain}") for domain in own):
            return (
                f"ExternalDNS publishes {name} for a namespace with an MTA, or with a MailDomain of that name or "
                "above it that an MTA has accepted: make the TLSCert there, or use rfc2136 with a key of your own"
            )
    return ""
