"""TLSCert: a certificate and where it comes from: made here, a Secret, or files."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from posthof_crds import engine
from posthof_crds.core import Resource
from posthof_crds.fields import FQDN, Duration, FilePath, ObjectName, Part, SecretKey, one_of, seconds_between

_CERTIFICATE = engine.Certificate(name="", dns_names=())


class SelfSigned(Part):
    """A pair made here, below the MTA's stateDir, and renewed when two thirds of its time are over. It encrypts, and
    proves nothing: enough for opportunistic TLS between mail servers, and for trying things out."""


class CertSecret(Part):
    """A pair in a Secret, as Kubernetes keeps it (type kubernetes.io/tls)."""

    name: ObjectName
    """The Secret's metadata.name."""

    cert_key: SecretKey = "tls.crt"
    """The key of the certificate chain, PEM, the server's own first."""

    private_key_key: SecretKey = "tls.key"
    """The key of the private key, PEM, not encrypted."""


class CertFiles(Part):
    """A pair in two files, as ACME clients leave them. Changed files are read again without a restart."""

    cert: FilePath
    """The certificate chain, PEM, the server's own first. Relative: to the current directory of `posthof up`."""

    key: FilePath
    """The private key, PEM, not encrypted."""


class Issuer(Part):
    """Where the certificate comes from: exactly one of selfSigned, secretRef, files."""

    self_signed: SelfSigned | None = None
    """Made here. Write `selfSigned: {}`."""

    secret_ref: CertSecret | None = None
    """From a Secret that something else fills."""

    files: CertFiles | None = None
    """From two files that something else renews."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        one_of(self, ("self_signed", "secret_ref", "files"), "issuer")
        return self


class TLSCertSpec(Part):
    """A certificate."""

    dns_names: Annotated[tuple[FQDN, ...], Field(min_length=1, max_length=100)]
    """The names it is for. A client's SNI is compared with them; a self-signed certificate is made out to them."""

    issuer: Issuer
    """Where it comes from."""

    duration: Annotated[Duration, seconds_between("1h", "3650d")] = _CERTIFICATE.duration
    """How long a self-signed certificate is valid."""


class TLSCert(Resource):
    """A certificate and its key."""

    short: ClassVar[str] = "tlsc"

    api_version: Literal["posthof.dev/v1alpha1"]
    """posthof.dev/v1alpha1"""

    kind: Literal["TLSCert"]
    """TLSCert"""

    spec: TLSCertSpec
    """What it shall be."""
