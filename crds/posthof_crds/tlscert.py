"""TLSCert: a certificate and where it comes from: made here, an authority of yours, an ACME server, a Secret,
cert-manager, a signer of the cluster, or files.

On one machine: selfSigned, acme, secretRef and files. In a cluster: all but files; what the operator makes it writes
to the Secret `<name>-tls` beside the TLSCert, and it is renewed in time.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from posthof_crds import engine
from posthof_crds.core import Resource
from posthof_crds.dnsupdate import RFC2136
from posthof_crds.fields import (
    FQDN,
    Address,
    Duration,
    FilePath,
    Int,
    ObjectName,
    Part,
    RemotePort,
    SecretKey,
    one_of,
    seconds_between,
    wrong,
)

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
Weekday = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
WEEK: tuple[Weekday, ...] = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

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


class HTTP01(Part):
    """The authority asks each of dnsNames for a word over HTTP (RFC 8555 section 8.3). Whoever serves the certificate
    answers: the pods of the MTAs whose listeners name it, through their Service, or this machine. They need no word
    for each order, and answer nothing else there."""

    port: RemotePort = 80
    """Where it is answered. Authorities ask port 80: another one is for those behind something that passes it on."""


class DNSEndpoint(Part):
    """By a DNSEndpoint object, which ExternalDNS publishes. Write `dnsEndpoint: {}`."""


class DNS01(Part):
    """The authority looks for a TXT record at `_acme-challenge.` before each of dnsNames (RFC 8555 section 8.4). For
    names that HTTP does not reach. Every authoritative server has to show it before the authority is asked to
    look."""

    rfc2136: RFC2136 | None = None
    """By dynamic updates."""

    dns_endpoint: DNSEndpoint | None = None
    """In a cluster: by a DNSEndpoint object for ExternalDNS, whose source of that name must be switched on."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        one_of(self, ("rfc2136", "dns_endpoint"), "dns01")
        return self


class Solver(Part):
    """How the names are proven to be yours: exactly one of http01, dns01."""

    http01: HTTP01 | None = None
    """Over HTTP. Write `http01: {}`."""

    dns01: DNS01 | None = None
    """By DNS."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        one_of(self, ("http01", "dns01"), "solver")
        return self


class ExternalAccount(Part):
    """An account that you have with the authority (RFC 8555 section 7.3.4)."""

    key_id: Annotated[str, Field(min_length=1, max_length=512)]
    """Its key's name, as the authority gave it to you."""

    secret_name: ObjectName
    """The Secret that holds the key."""

    secret_key: SecretKey = "mac"
    """The key of that Secret: the MAC key in base64url, as the authority gave it to you."""


class ACME(Part):
    """An authority that speaks ACME (RFC 8555), such as Let's Encrypt. Its terms of service are agreed to in your
    name. A certificate is renewed when the authority advises it (RFC 9773) or when two thirds of its time are over,
    what is sooner."""

    directory: Annotated[str, Field(pattern=r"^https://[^\s]+$", max_length=512)] = LETS_ENCRYPT
    """The directory's URL. Default: Let's Encrypt."""

    contact: Annotated[tuple[Address, ...], Field(max_length=5)] = ()
    """Mail addresses for the authority's notices."""

    account_secret_name: ObjectName = "acme-account"
    """The Secret with the account's key (`account.key`). It is made where there is none; TLSCerts that name the same
    one share the account. On one machine: the file of this name below the MTA's stateDir."""

    external_account: ExternalAccount | None = None
    """The account you have there, for authorities that serve their customers alone."""

    solver: Solver
    """How the names are proven to be yours."""

    ca_bundle: Annotated[str, Field(min_length=1, max_length=65536)] | None = None
    """PEM certificates that the server's own certificate may chain to, for an authority of your own. Default: the
    usual roots alone."""


class CSR(Part):
    """A signer of the cluster, asked by a CertificateSigningRequest object (certificates.k8s.io). Somebody has to
    approve it: a person with kubectl certificate approve, or the signer's own controller."""

    signer_name: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9_.:-]+$", max_length=571)]
    """The signer, such as `example.com/servers`. The cluster's own kubernetes.io signers make no certificates for
    servers that the world knows."""


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
    """Where the certificate comes from: exactly one of selfSigned, ca, acme, secretRef, certManager, csr, files."""

    self_signed: SelfSigned | None = None
    """Made here. Write `selfSigned: {}`."""

    ca: CertAuthority | None = None
    """In a cluster: signed by an authority whose key is in a Secret of this namespace."""

    acme: ACME | None = None
    """From an authority that speaks ACME, such as Let's Encrypt."""

    secret_ref: CertSecret | None = None
    """From a Secret that something else fills."""

    cert_manager: CertManager | None = None
    """In a cluster: made by cert-manager, which has to be there."""

    csr: CSR | None = None
    """In a cluster: from one of its signers."""

    files: CertFiles | None = None
    """On one machine: from two files that something else renews. A pod has no such files: refused there."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        one_of(self, ("self_signed", "ca", "acme", "secret_ref", "cert_manager", "csr", "files"), "issuer")
        return self


class PrivateKey(Part):
    """The key of a certificate that is made. A self-signed one of one machine always has an ECDSA key of 256 bits."""

    algorithm: Literal["ECDSA", "RSA"] = "ECDSA"
    """ECDSA: small and quick. RSA: for clients that know nothing else."""

    size: Literal[256, 384, 2048, 3072, 4096] | None = None
    """Bits. ECDSA: 256 (default) or 384. RSA: 2048 (default), 3072 or 4096."""

    rotation_policy: Literal["Always", "Never", "Staged"] = "Always"
    """When a new key is made. Always: for every certificate. Never: the first one stays, until algorithm or size
    change. Staged: the next key is made as soon as a certificate is there, and told in `status.nextKey`, so that it
    can be published before it is served. Where another program makes the key (secretRef, certManager, files) it
    decides."""

    @property
    def bits(self) -> int:
        return self.size or (256 if self.algorithm == "ECDSA" else 2048)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.size is not None and (self.size < 1024) != (self.algorithm == "ECDSA"):
            sizes = "256 or 384" if self.algorithm == "ECDSA" else "2048, 3072 or 4096"
            raise wrong(f"{self.algorithm} has no keys of {self.size} bits", f"Write {sizes}, or remove size.")
        return self


class RenewalWindow(Part):
    """A time of the week, in UTC, in which certificates may be renewed."""

    days: Annotated[tuple[Weekday, ...], Field(min_length=1, max_length=7)] = WEEK
    """The days on which it begins. Default: all."""

    start: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", max_length=5)]
    """When it begins, such as "22:00", UTC."""

    duration: Annotated[Duration, seconds_between("10m", "24h")]
    """How long it lasts; it may reach into the next day."""


class Dane(Part):
    """TLSA records of the names (RFC 7672), and how a new key follows them."""

    mode: Literal["Off", "Staged"] = "Off"
    """Staged: for the present key and for the next one there are TLSA records `3 1 1` (RFC 7671 section 8.1), and a
    certificate with the next key is made only when every authoritative server of the zone has shown its record for
    two TTLs; the old record goes when all pods serve the new key and two TTLs more have passed. It needs
    `privateKey.rotationPolicy: Staged`, and a zone that is signed. Off: no record is looked at, and those that were
    published stay."""

    ports: Annotated[tuple[RemotePort, ...], Field(min_length=1, max_length=8)] = (25,)
    """The ports that have records: `_25._tcp.` before each of dnsNames."""

    ttl: Annotated[Int, Field(ge=30, le=86400)] = 3600
    """TTL of the records, in seconds: what is published gets it, and what you publish should have it at most."""

    rfc2136: RFC2136 | None = None
    """Publish them by dynamic updates. Its own `ttl` says nothing here."""

    dns_endpoint: DNSEndpoint | None = None
    """Publish them by a DNSEndpoint object for ExternalDNS. Neither this nor rfc2136: `status.tlsa` shows what to
    publish."""

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if self.rfc2136 is not None and self.dns_endpoint is not None:
            raise wrong("dane is published by rfc2136 or by dnsEndpoint, and both are there", "Remove one of them.")
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

    renewal_windows: Annotated[tuple[RenewalWindow, ...], Field(max_length=14)] = ()
    """When certificates that are made here, by your authority, or asked of an ACME server or a signer may be renewed.
    Default: at any time. In the last tenth of a certificate's time, a day at most, it is renewed whatever the
    hour."""

    private_key: PrivateKey = PrivateKey()
    """The key of a certificate that is made."""

    dane: Dane = Dane()
    """In a cluster: TLSA records that go before the key."""

    @model_validator(mode="after")
    def _staged(self) -> Self:
        if self.dane.mode == "Staged" and self.private_key.rotation_policy != "Staged":
            raise wrong("dane.mode Staged needs the next key early", "Write privateKey: {rotationPolicy: Staged}.")
        return self

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
