"""Certificates for tests: an authority, and what it signs."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kit.scratch import lasting

Files = tuple[Path, Path]  # chain and key, PEM
_DAY = datetime.timedelta(days=1)


class Authority:
    """A CA. `file`: its certificate (PEM). `signer`: the authority above, None for a root."""

    def __init__(self, name: str, *, signer: Authority | None = None, is_ca: bool = True) -> None:
        self.folder = lasting("ca")
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.signer = signer
        above = signer or self
        self.certificate = _builder(self.name, above.name, self.key, 0, 30, is_ca=is_ca).sign(
            above.key, hashes.SHA256()
        )
        self.file = self.folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def issue(self, *names: str, begins: int = -1, ends: int = 30, whole_chain: bool = True) -> Files:
        """A pair for these DNS names or addresses, valid between these days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
        builder = _builder(subject, self.name, key, begins, ends, is_ca=False)
        alternative = x509.SubjectAlternativeName([_general(name) for name in names])
        made = builder.add_extension(alternative, critical=False).sign(self.key, hashes.SHA256())
        folder = Path(tempfile.mkdtemp(prefix="posthof-pair-", dir=self.folder))
        chain = made.public_bytes(serialization.Encoding.PEM)
        above: Authority | None = self if whole_chain else None
        while above is not None:
            chain += above.certificate.public_bytes(serialization.Encoding.PEM)
            above = above.signer
        (folder / "cert.pem").write_bytes(chain)
        (folder / "key.pem").write_bytes(_pem(key))
        return folder / "cert.pem", folder / "key.pem"


def _builder(subject, issuer, key, begins: int, ends: int, *, is_ca: bool) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins * _DAY - _DAY / 24)
        .not_valid_after(now + ends * _DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def ders(chain: Path) -> list[bytes]:
    """The certificates of a PEM file."""
    found = x509.load_pem_x509_certificates(chain.read_bytes())
    return [one.public_bytes(serialization.Encoding.DER) for one in found]


def key_of(der: bytes) -> bytes:
    """The SubjectPublicKeyInfo, by the library and not by our own reader."""
    return (
        x509.load_der_x509_certificate(der)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def tlsa(usage: int, selector: int, matching: int, der: bytes) -> str:
    """The text of a TLSA record for a certificate."""
    content = der if selector == 0 else key_of(der)
    data = [content.hex(), hashlib.sha256(content).hexdigest(), hashlib.sha512(content).hexdigest()][matching]
    return f"{usage} {selector} {matching} {data}"


def first(files: Files | Sequence[Path]) -> bytes:
    """The host's own certificate (DER)."""
    return ders(files[0])[0]
