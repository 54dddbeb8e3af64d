"""Making a pair: a fresh key, and a certificate that it or an authority signs.

Rules of this file
- Only here are keys made. Nothing is stored, logged or remembered: a `Pair` goes out.
- A certificate begins a little before `now`, because peers' clocks differ, and never outlives its authority.
Sources: RFC 5280 (extensions), CA/Browser Forum (at least 64 bits of serial: `cryptography` takes 159).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from posthof_certs import pair
from posthof_certs.pair import BadPair, Pair
from posthof_crds.reasons import Reason

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_CURVES: dict[int, type[ec.EllipticCurve]] = {256: ec.SECP256R1, 384: ec.SECP384R1}


class KeyKind(NamedTuple):
    """`algorithm` ECDSA (size 256 or 384) or RSA (2048 to 8192)."""

    algorithm: str = "ECDSA"
    size: int = 256


ECDSA = KeyKind()


class Order(NamedTuple):
    """What to make: for whom, with what key, how long (seconds)."""

    names: tuple[str, ...]
    key: KeyKind
    duration: float


class Authority(NamedTuple):
    """A certificate that may sign others, its key, and the chain to send along (without a self-signed root)."""

    certificate: x509.Certificate
    key: PrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
    chain: tuple[x509.Certificate, ...]


def self_signed(order: Order, now: float, *, key: bytes | None = None) -> Pair:
    """A pair that vouches for itself, with this key (PEM) or a fresh one."""
    key_ = _given(key) or make_key(order.key)
    subject = _subject(order.names)
    builder = _leaf(order, key_, now, now + order.duration).subject_name(subject).issuer_name(subject)
    return _paired([builder.sign(key_, hashes.SHA256())], key_)


def by_authority(order: Order, authority: Authority, now: float, *, key: bytes | None = None) -> Pair:
    """A pair that the authority vouches for, with this key (PEM) or a fresh one; it ends with the authority at the
    latest."""
    key_ = _given(key) or make_key(order.key)
    ends = min(now + order.duration, authority.certificate.not_valid_after_utc.timestamp())
    issuer = authority.certificate
    builder = (
        _leaf(order, key_, now, ends)
        .subject_name(_subject(order.names))
        .issuer_name(issuer.subject)
        .add_extension(_key_id_of(issuer), critical=False)
    )
    return _paired([builder.sign(authority.key, _digest_for(authority)), *authority.chain], key_)


def make_authority(name: str, duration: float, now: float, key: KeyKind = ECDSA) -> Pair:
    """A root of our own that may sign server certificates and no further authority."""
    made = make_key(key)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _bare(made, now, now + duration, duration)
        .subject_name(subject)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(made.public_key()), critical=False)
    )
    return _paired([builder.sign(made, hashes.SHA256())], made)


def read_authority(source: Pair, now: float) -> Authority:
    """The authority a pair stands for. Raises BadPair when it cannot sign."""
    facts = pair.read(source)
    chain = pair.certificates(source.chain)
    try:
        may_sign = chain[0].extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        may_sign = False
    if not may_sign:
        raise BadPair(Reason.ISSUER_FAILED, "its certificate may not sign others (basicConstraints CA is not true)")
    try:
        usage = chain[0].extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        usage = None
    if usage is not None and not usage.key_cert_sign:
        raise BadPair(Reason.ISSUER_FAILED, "its certificate may not sign others (keyUsage lacks keyCertSign)")
    pair.check_dates(facts, now)
    key = pair.private_key(source.key)
    if not isinstance(key, PrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        raise BadPair(Reason.ISSUER_FAILED, "its kind of key cannot sign certificates: use ECDSA or RSA")
    sent = tuple(one for one in chain if one.issuer != one.subject)
    return Authority(chain[0], key, sent)


def _given(key: bytes | None) -> PrivateKey | None:
    if key is None:
        return None
    private = pair.private_key(key)
    assert isinstance(private, PrivateKey), "a key of ours"
    return private


def make_key(kind: KeyKind) -> PrivateKey:
    """A fresh key."""
    if kind.algorithm == "RSA":
        return rsa.generate_private_key(public_exponent=65537, key_size=kind.size)
    return ec.generate_private_key(_CURVES[kind.size]())


def pem_key(kind: KeyKind) -> bytes:
    """A fresh key, PEM."""
    return _pem(make_key(kind))


def request(names: Sequence[str], key: bytes) -> bytes:
    """A request for a certificate (PKCS #10, PEM) that asks for these names, signed with the key (PEM)."""
    private = _given(key)
    assert private is not None
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    wanted = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    signed = builder.add_extension(wanted, critical=False).sign(private, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def _bare(key: PrivateKey, now: float, ends: float, duration: float) -> x509.CertificateBuilder:
    begins = now - min(3600.0, duration / 12)
    return (
        x509.CertificateBuilder()
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(int(begins), UTC))
        .not_valid_after(datetime.fromtimestamp(int(ends), UTC))
    )


def _leaf(order: Order, key: PrivateKey, now: float, ends: float) -> x509.CertificateBuilder:
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=is_rsa,  # TLS 1.2 suites without forward secrecy; ECDSA has none
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _bare(key, now, ends, order.duration)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in order.names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(names: Sequence[str]) -> x509.Name:
    """For people; what counts are the alternative names. A common name holds 64 characters."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])


def _key_id_of(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        public = issuer.public_key()
        if isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
        raise BadPair(Reason.ISSUER_FAILED, "its kind of key cannot sign certificates: use ECDSA or RSA") from None
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)


def _digest_for(authority: Authority) -> hashes.SHA256 | None:
    """Edwards curves bring their own digest."""
    return hashes.SHA256() if isinstance(authority.key, PrivateKey) else None


def _paired(chain: Sequence[x509.Certificate], key: PrivateKey) -> Pair:
    return Pair(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain), _pem(key))


def _pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
