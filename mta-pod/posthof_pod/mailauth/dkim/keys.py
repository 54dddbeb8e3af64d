"""Keys of DKIM: the public one as DNS has it, the private one as a PEM, and the record made of it.

Rules of this file
- A public key is parsed once per text of its record: DNS says how long a text is believed, nothing here does.
- RSA below 1024 bits is no key, SHA-1 is no hash (RFC 8301); above MAX_BITS it is not computed with.
- A private key stands in no repr and no error.
- `cryptography` is loaded with the first key: a worker that meets none does without its memory.
Sources: RFC 6376 3.6.1, RFC 8301 3, RFC 8463 3 and 4.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from posthof_pod.mailauth import tags

if TYPE_CHECKING:
    from cryptography.hazmat.primitives._asymmetric import AsymmetricPadding
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

MIN_BITS = 1024
MAX_BITS = 8192
MAX_EXPONENT_BITS = 64  # a public exponent as long as the modulus makes each look cost fifty times as much
CACHED = 4096  # texts of records whose keys are kept parsed


@functools.cache
def _rsa_scheme() -> tuple[AsymmetricPadding, Prehashed]:
    """RSASSA-PKCS1-v1_5 over a SHA-256 that was made before (RFC 8017 8.2, RFC 6376 3.3.2)."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

    return padding.PKCS1v15(), Prehashed(hashes.SHA256())


class BadKey(ValueError):
    """The record or the PEM holds no key that can be used; the text says why."""


class PublicKey(NamedTuple):
    """A key record (RFC 6376 3.6.1)."""

    algorithm: str  # "rsa" or "ed25519"
    bits: int
    check: Callable[[bytes, bytes], bool]  # (signature, SHA-256 of what was signed)
    is_test: bool  # t=y: the domain only tries
    is_strict: bool  # t=s: i= must name d= itself
    is_revoked: bool = False
    weakness: str = ""  # not to be believed, though it can be computed with (RFC 8301)


def _never(signature: bytes, digest: bytes) -> bool:
    return False


REVOKED = PublicKey("", 0, _never, False, False, True)


@functools.lru_cache(maxsize=CACHED)
def public_key(record: bytes) -> PublicKey | str:
    """The key a TXT record holds, or why it holds none."""
    try:
        return _public_key(record)
    except (tags.BadTags, BadKey) as error:
        return str(error)


def _public_key(record: bytes) -> PublicKey:
    if len(record) > 8192:
        raise BadKey("the key record is too long")
    found = tags.parse(record)
    if b"v" in found and (found[b"v"] != b"DKIM1" or next(iter(found)) != b"v"):
        raise BadKey("the key record is of another version")
    if b"p" not in found:
        raise BadKey("the key record has no p=")
    if b"h" in found and b"sha256" not in tags.names(found[b"h"]):
        raise BadKey("the key is not for SHA-256")
    if b"s" in found and not {b"*", b"email"} & set(tags.names(found[b"s"])):
        raise BadKey("the key is not for mail")
    flags = tags.names(found.get(b"t", b""))
    kind = found.get(b"k", b"rsa").lower()
    if kind not in (b"rsa", b"ed25519"):
        raise BadKey(f"the key is of an unknown kind: {tags.shown(kind)}")
    if not tags.compact(found[b"p"]):
        return REVOKED
    material = tags.decoded(found[b"p"], "p=")
    is_test, is_strict = b"y" in flags, b"s" in flags
    if kind == b"ed25519":
        return PublicKey("ed25519", 256, _ed25519(material), is_test, is_strict)
    return _rsa(material, is_test, is_strict)


def _ed25519(material: bytes) -> Callable[[bytes, bytes], bool]:
    if len(material) == 44 and material.startswith(b"\x30\x2a"):  # as some publish it: the whole SubjectPublicKeyInfo
        material = material[12:]
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ed25519

    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(material)
    except ValueError:
        raise BadKey("p= is no Ed25519 key") from None

    def check(signature: bytes, digest: bytes) -> bool:
        try:
            key.verify(signature, digest)
        except InvalidSignature:
            return False
        return True

    return check


def _rsa(material: bytes, is_test: bool, is_strict: bool) -> PublicKey:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        key: object = load_der_public_key(material)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = _bare_rsa(material)
    if not isinstance(key, rsa.RSAPublicKey):
        raise BadKey("p= is no RSA key")
    bits = key.key_size
    if bits > MAX_BITS:
        raise BadKey(f"the RSA key has {bits} bits, more than {MAX_BITS}")
    if key.public_numbers().e.bit_length() > MAX_EXPONENT_BITS:
        raise BadKey("the RSA key's exponent is too large")
    verify = key.verify
    pkcs1, sha256 = _rsa_scheme()

    def check(signature: bytes, digest: bytes) -> bool:
        try:
            verify(signature, digest, pkcs1, sha256)
        except InvalidSignature:
            return False
        return True

    weakness = f"the RSA key has only {bits} bits" if bits < MIN_BITS else ""
    return PublicKey("rsa", bits, check, is_test, is_strict, False, weakness)


def _bare_rsa(material: bytes) -> object:
    """An RSAPublicKey without its SubjectPublicKeyInfo, which RFC 6376 3.6.1 names and nearly nobody publishes."""
    size = len(material)
    bits = b"\x03" + _der_length(size + 1) + b"\x00" + material
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    whole = algorithm + bits
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        return load_der_public_key(b"\x30" + _der_length(len(whole)) + whole)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadKey("p= is no RSA key") from None


def _der_length(size: int) -> bytes:
    if size < 128:
        return bytes([size])
    text = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(text)]) + text


class PrivateKey:
    """What signs. `algorithm` is "rsa-sha256" or "ed25519-sha256"."""

    __slots__ = ("algorithm", "bits", "public", "sign")

    def __init__(self, algorithm: str, bits: int, public: bytes, sign: Callable[[bytes], bytes]) -> None:
        self.algorithm = algorithm
        self.bits = bits
        self.public = public  # as p= holds it, before base64
        self.sign = sign  # (SHA-256 of what is to be signed) -> signature

    def __repr__(self) -> str:
        return f"PrivateKey({self.algorithm}, {self.bits} bits)"


def private_key(pem: bytes) -> PrivateKey:
    """BadKey: no private key, a password on it, another kind, or too short."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadKey("it is no private key in PEM without a password") from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return PrivateKey("ed25519-sha256", 256, public, key.sign)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise BadKey("it is neither an RSA nor an Ed25519 key")
    if not MIN_BITS <= key.key_size <= MAX_BITS:
        raise BadKey(f"an RSA key has {MIN_BITS} to {MAX_BITS} bits, this one has {key.key_size}")
    sign = key.sign
    pkcs1, sha256 = _rsa_scheme()
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PrivateKey("rsa-sha256", key.key_size, public, lambda digest: sign(digest, pkcs1, sha256))


def record(key: PrivateKey) -> str:
    """The TXT record's text."""
    kind = key.algorithm.partition("-")[0]
    return f"v=DKIM1; k={kind}; p={base64.b64encode(key.public).decode('ascii')}"
