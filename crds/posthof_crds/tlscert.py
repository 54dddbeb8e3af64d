"""TLSCert: a certificate and where it comes from: made here, an authority of yours, a Secret, cert-manager, or files.

On one machine: selfSigned, secretRef and files. In a cluster: all but files; what the operator makes it writes to the
Secret `<name>-tls` beside the TLSCert, and it is renewed in time.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from posthof_crds import engine
from posthof_crds.core import Resource
from posthof_crds.fields import FQDN, Duration, FilePath, ObjectName, Part, SecretKey, one_of, seconds_between, wrong

_CERTIFICATE = engine.Certificate(name="", dns_names=())


class SelfSigned(Part):
    """A pair made here (on one machine below the MTA's stateDir), and renewed when two thirds of its time are over.
    It encrypts, and proves nothing: enough for opportunistic TLS between mail servers, and for trying things out."""


class CertAuthority(Part):
    """A certificate authority of your own."""

    secret_name: ObjectName
    """The Secret with the authority's certificate (`tls.crt`) and key (`tls.key`), of type kubernetes.io/tls."""


class CertManager(Part):
    """An issuer of cert-manager. A Certificate object is made, and cert-manager fills its Secret."""

    name: ObjectName
    """The issuer's metadata.name."""

    kind: Annotated[str, Field(min_length=1, max_length=63)] = "Issuer"
    """Issuer (of this namespace), ClusterIssuer, or the kind of an external issuer."""

    group: Annotated[str, Field(min_length=1, max_length=253)] = "cert-manager.io"
    """The issuer's API group."""


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
    """Where the certificate comes from: exactly one of selfSigned, ca, secretRef, certManager, files."""

    self_signed: SelfSigned | None = None
    """Made here. Write `selfSigned: {}`."""

    ca: CertAuthority | None = None
    """In a cluster: signed by an authority whose key is in a Secret of this namespace."""

    secret_ref: CertSecret | None = None
    """From a Secret that something else fills."""

    cert_manager: CertManager | None = None
    """In a cluster: made by cert-manager, which has to be there."""

    files: CertFiles | None = None
    """On one machine: from two files that something else renews. A pod has no such files: refused there."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        one_of(self, ("self_signed", "ca", "secret_ref", "cert_manager", "files"), "issuer")
        return self


class PrivateKey(Part):
    """The key of a certificate that is made in a cluster. One machine makes ECDSA keys of 256 bits."""

    algorithm: Literal["ECDSA", "RSA"] = "ECDSA"
    """ECDSA: small and quick. RSA: for clients that know nothing else."""

    size: Literal[256, 384, 2048, 3072, 4096] | None = None
    """Bits. ECDSA: 256 (default) or 384. RSA: 2048 (default), 3072 or 4096."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.size is not None and (self.size < 1024) != (self.algorithm == "ECDSA"):
            sizes = "256 or 384" if self.algorithm == "ECDSA" else "2048, 3072 or 4096"
            raise wrong(f"{self.algorithm} has no keys of {self.size} bits", f"Write {sizes}, or remove size.")
        return self


class TLSCertSpec(Part):
    """A certificate."""

    dns_names: Annotated[tuple[FQDN, ...], Field(min_length=1, max_length=100)]
    """The names it is for. A client's SNI is compared with them; a self-signed certificate is made out to them."""

    issuer: Issuer
    """Where it comes from."""

    duration: Annotated[Duration, seconds_between("1h", "3650d")] = _CERTIFICATE.duration
    """How long a certificate that is made here, or asked of cert-manager, is valid."""

    renew_before: Annotated[Duration, seconds_between("5m", "3650d")] | None = None
    """In a cluster: how long before its end a certificate is renewed. Default: when two thirds of its time are
    over."""

    private_key: PrivateKey = PrivateKey()
    """In a cluster: the key of a certificate that is made. Each renewal makes a new one."""

    @model_validator(mode="after")
    def _renewal(self) -> Self:
        if self.renew_before is not None and self.renew_before >= self.duration:
            raise wrong("renewBefore is not shorter than duration", "Make it shorter, or duration longer.")
        return self


class TLSCert(Resource):
    """A certificate and its key."""

    short: ClassVar[str] = "tlsc"

    api_version: Literal["posthof.dev/v1alpha1"]
    """posthof.dev/v1alpha1"""

    kind: Literal["TLSCert"]
    """TLSCert"""

    spec: TLSCertSpec
    """What it shall be."""
