"""A certificate chain and its key: reading them, and everything that can be wrong with the two together.

Rules of this file
- Values in, values or `BadPair` out; no clock (`now` is passed in), no I/O.
- Key bytes never reach a text: `Pair` hides them from repr, and no message quotes what a parser said of a key.
- A message says what is wrong and what to do, with the names and dates a person needs for it.
Sources: RFC 5280 (chains, dates), RFC 9525 (names; a wildcard stands for exactly one label, section 6.3).
"""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from posthof_crds.reasons import Reason

SMALLEST_RSA = 2048  # OpenSSL's level 2, and what peers of today take


@dataclass(frozen=True, slots=True)
class Pair:
    """A chain (PEM, the server's certificate first) and its key (PEM, not encrypted)."""

    chain: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says. Times are unix seconds; `serial` is lower-case hex of whole bytes, as
    pods report it; `algorithm` is ECDSA, RSA or Ed25519, `size` the key's bits; `issuer` is for people."""

    serial: str
    not_before: float
    not_after: float
    names: tuple[str, ...]
    issuer: str
    algorithm: str
    size: int
    is_self_signed: bool


class BadPair(Exception):
    """A pair that cannot be served. The text says what to mend and holds no key material."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def read(pair: Pair) -> Facts:
    """The facts of a pair whose parts fit together: certificate, key, chain. Raises BadPair."""
    chain = certificates(pair.chain)
    public = _public_bytes(private_key(pair.key).public_key())
    leaf = chain[0]
    if public != _public_bytes(leaf.public_key()):
        other = next((n for n, c in enumerate(chain[1:], 2) if _public_bytes(c.public_key()) == public), 0)
        if other:
            raise BadPair(
                Reason.PAIR_INVALID,
                f"the key belongs to certificate {other} of the chain: put the server's own certificate first",
            )
        raise BadPair(
            Reason.PAIR_INVALID,
            "the key does not belong to the certificate: put the key that the request was made with",
        )
    facts = facts_of(leaf)
    if facts.algorithm == "RSA" and facts.size < SMALLEST_RSA:
        raise BadPair(
            Reason.PAIR_INVALID, f"an RSA key of {facts.size} bits is too short for today's peers: use 2048 or more"
        )
    _check_chain(chain)
    return facts


def certificates(chain: bytes) -> list[x509.Certificate]:
    """All certificates of a PEM text, one at least. Raises BadPair."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", CryptographyDeprecationWarning
            )  # old CAs have odd serials; not our matter
            return x509.load_pem_x509_certificates(chain)
    except (ValueError, UnsupportedAlgorithm):
        raise BadPair(
            Reason.PAIR_INVALID, "there is no readable certificate: write it as PEM (-----BEGIN CERTIFICATE-----)"
        ) from None


def private_key(text: bytes) -> PrivateKeyTypes:
    """A PEM key without a password. Raises BadPair, which quotes nothing."""
    try:
        return serialization.load_pem_private_key(text, password=None)
    except TypeError:
        raise BadPair(
            Reason.PAIR_INVALID,
            "the private key is encrypted: store it without a password (openssl pkey -in ... -out ...)",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadPair(
            Reason.PAIR_INVALID, "there is no readable private key: write it as PEM (-----BEGIN PRIVATE KEY-----)"
        ) from None


def facts_of(certificate: x509.Certificate) -> Facts:
    """What one certificate says. Raises BadPair for a kind of key that SMTP peers do not speak."""
    algorithm, size = _kind_of(certificate.public_key())
    return Facts(
        serial=serial_text(certificate.serial_number),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        names=names_of(certificate),
        issuer=_readable(certificate.issuer),
        algorithm=algorithm,
        size=size,
        is_self_signed=certificate.issuer == certificate.subject,
    )


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names of a certificate, lower-case. A common name counts for nothing (RFC 9525 section 2)."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(name.lower().rstrip(".") for name in extension.value.get_values_for_type(x509.DNSName))


def kind_of(key: bytes) -> tuple[str, int]:
    """Algorithm and bits of a private key (PEM). Raises BadPair."""
    return _kind_of(private_key(key).public_key())


def pin(key: bytes) -> str:
    """SHA-256 of the public half (SPKI), hex: what a TLSA record 3 1 1 holds (RFC 6698 2.1). Raises BadPair."""
    return hashlib.sha256(_public_bytes(private_key(key).public_key())).hexdigest()


def check_dates(facts: Facts, now: float) -> None:
    """Raises BadPair outside the certificate's time. An hour before its begin is forgiven: clocks differ."""
    if now >= facts.not_after:
        raise BadPair(Reason.EXPIRED, f"the certificate ended at {time_text(facts.not_after)}: renew it")
    if now < facts.not_before - 3600:
        begins = time_text(facts.not_before)
        raise BadPair(
            Reason.NOT_YET_VALID, f"the certificate begins at {begins}: wait, or take one that is valid now"
        )


def check_names(facts: Facts, wanted: Iterable[str]) -> None:
    """Raises BadPair unless the certificate is for every wanted name."""
    lacking = [name for name in wanted if not covers(facts.names, name)]
    if lacking:
        has = some(facts.names) if facts.names else "no DNS name at all"
        raise BadPair(
            Reason.NAMES_MISSING,
            f"the certificate is not for {some(lacking)} (it is for {has}): issue one for all dnsNames, "
            "or remove the names from spec.dnsNames",
        )


def covers(names: Iterable[str], name: str) -> bool:
    """Whether a certificate with `names` is for `name`, which may itself be a wildcard."""
    name = name.lower()
    parent = name.partition(".")[2]
    return any(name == one or (one.startswith("*.") and parent != "" and parent == one[2:]) for one in names)


def signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority's key signed the certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def serial_text(number: int) -> str:
    """4660 -> "1234": lower-case hex of whole bytes."""
    digits = f"{number:x}"
    return digits.rjust(len(digits) + len(digits) % 2, "0")


def same_serial(one: str, other: str) -> bool:
    """Whether two texts name one serial; case, colons and leading zeros do not count."""
    first, second = (text.replace(":", "").lstrip("0").lower() for text in (one, other))
    return first == second


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256, hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def time_text(moment: float) -> str:
    """Unix seconds -> RFC 3339 in UTC, as Kubernetes writes times."""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unix_time(text: str) -> float:
    """What `time_text` wrote. ValueError: it did not."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def some(names: Sequence[str], limit: int = 5) -> str:
    """A list for a sentence, cut where it gets long."""
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def _check_chain(chain: Sequence[x509.Certificate]) -> None:
    for number, (lower, upper) in enumerate(itertools.pairwise(chain), 1):
        if not signed_by(lower, upper):
            raise BadPair(
                Reason.PAIR_INVALID,
                f"certificate {number} of the chain ({_readable(lower.subject)}) was not signed by the next one "
                f"({_readable(upper.subject)}): write the server's certificate first, then each one's issuer",
            )


def _kind_of(key: PublicKeyTypes) -> tuple[str, int]:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "ECDSA", key.curve.key_size
    if isinstance(key, rsa.RSAPublicKey):
        return "RSA", key.key_size
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return "Ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else "Ed448", 256
    raise BadPair(
        Reason.PAIR_INVALID, "this kind of key is unknown to SMTP peers: use ECDSA P-256, or RSA of 2048 bits"
    )


def _public_bytes(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _readable(name: x509.Name) -> str:
    """The common name, else the organisation, else all of it."""
    for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
        found = name.get_attributes_for_oid(kind)
        if found:
            value = found[0].value
            return value if isinstance(value, str) else value.decode("utf-8", "replace")
    return name.rfc4514_string() or "without a name"
