"""What the webhook knows of the cluster: our kinds and namespaces, by watches of its own, and who has which domain.

Rules of this file
- Read only. It may be some moments behind: then a condition says what the webhook did not.
- Parts are made when they are asked for: a review is about a handful of objects, of ten thousand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from posthof_crds.parts import Part, part_of
from posthof_operator.dns.want import domain_of
from posthof_operator.resources import Key, Raw
from posthof_operator.store import Change, Store


class View:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._claims: dict[str, set[Key]] = defaultdict(set)  # domain -> MailDomains
        self._domains: dict[Key, str] = {}
        self._parts: dict[Key, tuple[str, Part]] = {}  # resourceVersion, part
        store.listeners.append(self._note)

    def _note(self, key: Key, change: Change) -> None:
        if key.kind == "MailDomain" and change is Change.MEANING:
            self._forget(key)
            raw = self._store.get(key)
            if raw is not None:
                domain = domain_of(raw)
                self._domains[key] = domain
                self._claims[domain].add(key)

    def _forget(self, key: Key) -> None:
        self._parts.pop(key, None)
        domain = self._domains.pop(key, None)
        if domain is not None:
            self._claims[domain].discard(key)
            if not self._claims[domain]:
                del self._claims[domain]

    def mtas(self) -> Iterator[tuple[Key, Raw]]:
        for key, held in self._store.all("MTA"):
            yield key, held.raw()

    def mta(self, namespace: str, name: str) -> Raw | None:
        return self._store.get(Key("MTA", namespace, name))

    def namespaces(self) -> Mapping[str, Mapping[str, str]]:
        return {key.name: held.labels for key, held in self._store.all("Namespace")}

    def claims(self, domain: str) -> list[Part]:
        """The MailDomains of one domain."""
        return [part for key in sorted(self._claims.get(domain, ())) if (part := self._part(key)) is not None]

    def proven(self, domain: str) -> dict[str, set[str]]:
        """As the operator told it in status: enough for advice, which is all a webhook gives."""
        found = {
            f"{key.namespace}/{key.name}"
            for key in self._claims.get(domain, ())
            if (raw := self._store.get(key)) is not None and _has_proof(raw)
        }
        return {domain: found}

    def certificates(self, namespace: str) -> set[str]:
        """Names of the TLSCerts of a namespace."""
        return {key.name for key in self._store.keys("TLSCert", namespace)}

    def users_of_certificate(self, namespace: str, name: str) -> list[str]:
        """MTAs with a listener that names the TLSCert."""
        return [
            key.name
            for key, held in self._store.all("MTA", namespace)
            if any(
                ref.get("name") == name
                for listener in held.raw().get("spec", {}).get("listeners", ())
                for ref in (listener.get("tls") or {}).get("certRefs", ())
            )
        ]

    def users_of_secret(self, namespace: str, name: str) -> list[str]:
        """RelayPolicies and TLSCerts that refer to a Secret, as "Kind name"."""
        found = []
        for kind in ("RelayPolicy", "TLSCert"):
            for key, held in self._store.all(kind, namespace):
                if name in _secrets_of(kind, held.raw()):
                    found.append(f"{kind} {key.name}")
        return found

    def _part(self, key: Key) -> Part | None:
        held = self._store.held(key)
        if held is None:
            return None
        known = self._parts.get(key)
        if known is None or known[0] != held.version:
            known = self._parts[key] = (held.version, part_of(key.kind, held.raw()))
        return known[1]


def _has_proof(raw: Raw) -> bool:
    records = raw.get("status", {}).get("dnsRecords") or ()
    return any(one.get("purpose") == "proof" and one.get("state") == "ok" for one in records)


def _secrets_of(kind: str, raw: Raw) -> set[str]:
    spec = raw.get("spec", {})
    if kind == "RelayPolicy":
        return {((spec.get("action") or {}).get("auth") or {}).get("secretName", "")}
    issuer = spec.get("issuer") or {}
    return {
        (issuer.get("ca") or {}).get("secretName", ""),
        (issuer.get("secretRef") or {}).get("name", ""),
        f"{raw['metadata']['name']}-tls",
    }
