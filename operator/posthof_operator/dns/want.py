"""What to expect of a MailDomain's DNS: from its spec, from what the MTAs say of it, and from those MTAs. Pure.

Rules of this file
- What MTAs say stands in status.bindings; it is not decided here.
- A MailDomain that no MTA accepts is not looked at, except for the proof it lacks: then also what to publish next is
  told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from posthof_crds import names
from posthof_crds.reasons import Reason
from posthof_operator.dns import proof, transport
from posthof_operator.dns.rows import Want
from posthof_operator.resources import Raw

_NOT_THEIRS = (Reason.PROOF_MISSING, Reason.DOMAIN_TAKEN, Reason.NOT_ALLOWED, Reason.NEXT_HOP_NOT_ALLOWED)


class House(NamedTuple):
    """An MTA, as far as DNS has to do with it."""

    hostname: str
    addresses: tuple[str, ...] = ()  # at which the world reaches it: addresses and names
    egress: tuple[str, ...] = ()
    proven: frozenset[str] = frozenset()  # MX hosts seen with a certificate that the world believes
    tlsa: tuple[str, ...] = ()  # texts of TLSA records for the keys of its MX listeners


class Bound(NamedTuple):
    """What one MTA says of the MailDomain."""

    namespace: str
    name: str
    is_accepted: bool
    reason: str
    is_current: bool  # said of the object as it is now


def certificates_of(raw: Raw) -> list[str]:
    """The TLSCerts that the world sees at an MTA's MX listeners, by name."""
    listeners = [one for one in raw.get("spec", {}).get("listeners") or () if one.get("role") == "MX"]
    refs = [ref for one in listeners for ref in (one.get("tls") or {}).get("certRefs") or ()]
    return list(dict.fromkeys(str(ref.get("name", "")) for ref in refs))


def house_of(raw: Raw, certificates: Sequence[Raw] = ()) -> House:
    """The MTA's part. An object that breaks a rule gives what can be read of it. `certificates`: its TLSCerts."""
    spec, status = raw.get("spec", {}), raw.get("status", {})
    egress = (spec.get("egress") or {}).get("addresses") or ()
    return House(
        _domain(spec.get("hostname", "")),
        tuple(status.get("addresses") or ()),
        tuple(str(one) for one in egress),
        frozenset(status.get("provenHosts") or ()),
        tuple(
            one["text"]
            for cert in certificates
            for one in cert.get("status", {}).get("tlsa") or ()
            if one.get("name") == tlsa_name(_domain(spec.get("hostname", "")))
        ),
    )


def tlsa_name(host: str) -> str:
    """Where TLSA records of an MX host stand (RFC 7672 2.2.3)."""
    return f"_25._tcp.{host}"


def bindings(raw: Raw) -> Iterator[Bound]:
    generation = raw["metadata"].get("generation", 0)
    for one in raw.get("status", {}).get("bindings") or ():
        accepted: Mapping[str, Any] = next((c for c in one.get("conditions", ()) if c["type"] == "Accepted"), {})
        yield Bound(
            one.get("namespace", ""),
            one.get("mta", ""),
            accepted.get("status") == "True",
            accepted.get("reason", ""),
            accepted.get("observedGeneration", generation) == generation,
        )


def is_in_doubt(raw: Raw) -> bool:
    """Whether nobody has judged it as it is now, or it is wrong by itself, while its last good version may be in
    force."""
    found = list(bindings(raw))
    is_old = any(not one.is_current for one in found)
    return is_old or (bool(found) and not any(one.is_accepted or one.reason in _NOT_THEIRS for one in found))


def want_of(raw: Raw, house: Callable[[str, str], House | None], salt: bytes, *, is_proven: bool) -> Want | None:
    """What to expect; None: there is nothing to look at. `house(namespace, name)` gives an MTA."""
    metadata, spec = raw["metadata"], raw.get("spec", {})
    domain = domain_of(raw)
    if not domain:
        return None
    found = list(bindings(raw))
    accepting = [one for one in found if one.is_accepted]
    lacking = [one for one in found if one.reason == Reason.PROOF_MISSING]
    is_foreign = any(one.namespace != metadata["namespace"] for one in found)
    is_taken = any(one.reason == Reason.DOMAIN_TAKEN for one in found)
    houses = [known for one in accepting or lacking if (known := house(one.namespace, one.name)) is not None]
    asks_proof = is_proven or is_foreign or is_taken
    if not houses and not asks_proof:
        return None
    dns = spec.get("dns") or {}
    hosts = _unique(one.hostname for one in houses if one.hostname)
    proven = frozenset[str]().union(*(one.proven for one in houses))
    return Want(
        domain=domain,
        hosts=hosts,
        addresses=_unique(address for one in houses for address in one.addresses),
        egress=_unique(address for one in houses for address in one.egress),
        spf=dns.get("spf"),
        dmarc=dns.get("dmarc"),
        proof=proof.value_of(salt, metadata["namespace"], domain) if asks_proof else "",
        is_proof_needed=bool(lacking) and not accepting,
        may_publish=bool(accepting),
        policy=transport.policy_of(dns.get("mtaSts"), hosts, proven) if hosts else None,
        tls_rpt=dns.get("tlsRpt") or "",
        tlsa=tuple((tlsa_name(one.hostname), one.tlsa) for one in houses if one.hostname) if dns.get("dane") else (),
    )


def domain_of(raw: Raw) -> str:
    """The MailDomain's domain in its one form, "" where it has none."""
    return _domain(raw.get("spec", {}).get("domain", ""))


def _unique(values: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _domain(text: object) -> str:
    """In its one form, "" where it is none."""
    try:
        return names.to_ascii(str(text)).rstrip(".")
    except ValueError:
        return ""
