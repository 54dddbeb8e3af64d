"""What a TLSCert asks for: its spec as one small value, read from the object as the API server gives it.

Rules of this file
- The models of the contract validate; nothing is defaulted here that they do not default.
- No pydantic object leaves: a wish is a value that a plan compares.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from posthof_certs.issue import KeyKind, Order
from posthof_certs.renewal import Window
from posthof_crds import tlscert
from posthof_crds.compile import certificate_of, update_of
from posthof_crds.engine import ACMEOrder, DNSUpdate
from posthof_crds.tlscert import TLSCert


class Source(enum.StrEnum):
    """Which issuer a TLSCert names; the column ISSUER shows it."""

    SELF_SIGNED = "selfSigned"
    CA = "ca"
    SECRET = "secretRef"
    CERT_MANAGER = "certManager"
    ACME = "acme"
    CSR = "csr"


class Solver(enum.StrEnum):
    """How an ACME server is shown that names are ours."""

    HTTP = "http01"
    UPDATE = "rfc2136"
    ENDPOINT = "dnsEndpoint"


class Dane(NamedTuple):
    """TLSA records that go before the key."""

    ports: tuple[int, ...]
    ttl: int
    update: DNSUpdate | None = None
    by_endpoint: bool = False


class IssuerRef(NamedTuple):
    """An issuer of cert-manager."""

    name: str
    kind: str = "Issuer"
    group: str = "cert-manager.io"


class Wish(NamedTuple):
    """A TLSCert. `secret` is the Secret to read: the CA's for Source.CA, the pair's for Source.SECRET."""

    namespace: str
    name: str
    source: Source
    order: Order
    renew_before: float | None = None
    secret: str = ""
    cert_key: str = "tls.crt"
    private_key_key: str = "tls.key"
    issuer: IssuerRef | None = None
    acme: ACMEOrder | None = None
    solver: Solver = Solver.HTTP
    signer: str = ""  # of Source.CSR
    rotation: str = "Always"  # or Never, Staged
    windows: tuple[Window, ...] = ()
    dane: Dane | None = None  # None: Off

    @property
    def next(self) -> str:
        """The Secret of the key that the next certificate will have."""
        return f"{self.name}-next"

    @property
    def result(self) -> str:
        """The Secret that pods are served from."""
        return f"{self.name}-tls"

    @property
    def has_usual_keys(self) -> bool:
        """The pair is under the keys that Secrets of type kubernetes.io/tls have."""
        return (self.cert_key, self.private_key_key) == ("tls.crt", "tls.key")


class Unreadable(Exception):
    """The object is not a TLSCert that means something in a cluster. The text says what to write instead."""


def wish_of(raw: Mapping[str, Any]) -> Wish:
    """The wish of a TLSCert object. Raises Unreadable."""
    metadata = raw.get("metadata", {})
    bare = {
        "apiVersion": raw.get("apiVersion"),
        "kind": raw.get("kind"),
        "metadata": {"name": metadata.get("name"), "namespace": metadata.get("namespace")},
        "spec": raw.get("spec"),
    }
    try:
        model = TLSCert.model_validate(bare)
    except ValidationError as error:
        raise Unreadable(_first(error)) from None
    issuer = model.spec.issuer
    made = certificate_of(model, Path("/"))
    wish = Wish(
        metadata["namespace"],
        metadata["name"],
        Source.SELF_SIGNED,
        Order(made.dns_names, KeyKind(made.key_algorithm, made.key_size), made.duration),
        made.renew_before,
        rotation=made.key_rotation,
        dane=_dane_of(model.spec.dane),
        windows=tuple(Window(frozenset(one.days), one.start, one.length) for one in made.windows),
    )
    if issuer.self_signed is not None:
        return wish
    if issuer.ca is not None:
        return wish._replace(source=Source.CA, secret=issuer.ca.secret_name)
    if issuer.secret_ref is not None:
        ref = issuer.secret_ref
        return wish._replace(
            source=Source.SECRET, secret=ref.name, cert_key=ref.cert_key, private_key_key=ref.private_key_key
        )
    if issuer.cert_manager is not None:
        made_by = issuer.cert_manager
        return wish._replace(source=Source.CERT_MANAGER, issuer=IssuerRef(made_by.name, made_by.kind, made_by.group))
    if issuer.acme is not None:
        dns01 = issuer.acme.solver.dns01
        solver = Solver.HTTP if dns01 is None else Solver.UPDATE if dns01.rfc2136 else Solver.ENDPOINT
        return wish._replace(source=Source.ACME, acme=made.acme, solver=solver)
    if issuer.csr is not None:
        return wish._replace(source=Source.CSR, signer=issuer.csr.signer_name)
    raise Unreadable(
        "issuer.files names files of one machine, and pods have none of them: store the pair in a Secret "
        "(kubectl create secret tls) and write issuer.secretRef"
    )


def _dane_of(given: tlscert.Dane) -> Dane | None:
    if given.mode == "Off":
        return None
    update = update_of(given.rfc2136) if given.rfc2136 is not None else None
    return Dane(given.ports, given.ttl, update, given.dns_endpoint is not None)


def _first(error: ValidationError) -> str:
    """The first mistake. (The API server has checked the rest: this is for objects older than a rule.)"""
    mistake = next(iter(error.errors(include_url=False, include_input=False)))
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in mistake["loc"]).lstrip(".")
    instead = str(mistake.get("ctx", {}).get("instead", ""))
    return f"{place}: {mistake['msg']}" + (f": {instead}" if instead else "")
