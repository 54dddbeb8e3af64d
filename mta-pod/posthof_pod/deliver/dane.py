"""Whether the chain a host shows is the one its TLSA records name (RFC 7671, RFC 7672 section 3).

Rules
- DANE-EE (3): the host's own certificate, or its key, matches. Names, dates and issuers do not count (7672 3.1.1).
- DANE-TA (2): a certificate in the chain, or its key, matches; a path of signatures leads from the host's own to it;
  every certificate on the path is in its time, may sign, and no constraint is passed over; the host's own names one
  of the names asked for (3.1.2, 3.2). A trust anchor whose whole certificate or key is in DNS may be missing in the
  chain.
- Names are the subjectAltName's DNS names, a `*.` for exactly one label (RFC 9525); the subject's CN does not count.
- Certificates are what the peer sends: whatever is wrong with one is a mismatch, never an error of ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from posthof_pod.model import TLSFault
from posthof_pod.resolve.stspolicy import is_named

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

DEEPEST = 10  # certificates of a chain that are looked at
_TA, _EE = 2, 3

Record = tuple[int, int, int, bytes]  # usage, selector, matching type, data: resolve.tlsa.TLSA


class Mismatch(Exception):
    """The chain is not the one. The text says why."""

    def __init__(self, fault: TLSFault, why: str) -> None:
        super().__init__(why)
        self.fault = fault


def verify(chain: Sequence[bytes], records: Sequence[Record], names: Sequence[str], now: float) -> str:
    """Which record the chain (DER, the host's own first) matches: "3 1 1". Raises Mismatch. `now`: unix seconds."""
    if not chain:
        raise Mismatch(TLSFault.VALIDATION, "the host showed no certificate")
    chain = chain[:DEEPEST]
    for record in records:
        if record[0] == _EE and _has(chain[0], record):
            return _words(record)
    mismatch = Mismatch(TLSFault.VALIDATION, "the certificate is not the one in the TLSA records of the host")
    for record in records:
        if record[0] != _TA:
            continue
        try:
            _verify_path(chain, record, names, now)
            return _words(record)
        except Mismatch as error:
            mismatch = error
    raise mismatch


def _words(record: Record) -> str:
    return f"{record[0]} {record[1]} {record[2]}"


def _has(certificate: bytes, record: Record) -> bool:
    """Whether the certificate, or its key, is what the record says."""
    _, selector, matching, data = record
    try:
        content = certificate if selector == 0 else public_key(certificate)
    except ValueError:
        return False
    if matching == 1:
        return hashlib.sha256(content).digest() == data
    if matching == 2:
        return hashlib.sha512(content).digest() == data
    return content == data


def public_key(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo as it stands in a certificate (DER), of any algorithm. Raises ValueError."""
    _, body, _ = _element(certificate, 0, 0x30)
    _, start, end = _element(certificate, body, 0x30)  # tbsCertificate
    at = start
    if certificate[at] == 0xA0:  # version
        at = _element(certificate, at, 0xA0)[2]
    for tag in (0x02, 0x30, 0x30, 0x30, 0x30):  # serialNumber, signature, issuer, validity, subject
        at = _element(certificate, at, tag)[2]
    begin, _, finish = _element(certificate, at, 0x30)
    if finish > end:
        raise ValueError("the key does not end inside the certificate")
    return certificate[begin:finish]


def _element(data: bytes, at: int, tag: int) -> tuple[int, int, int]:
    """Where a DER element begins, where its content does, and where it ends. Raises ValueError."""
    if at + 2 > len(data) or data[at] != tag:
        raise ValueError("not the element that belongs here")
    length, start = data[at + 1], at + 2
    if length >= 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4 or start + count > len(data):
            raise ValueError("a length that cannot be read")
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    if start + length > len(data):
        raise ValueError("it ends before its end")
    return at, start, start + length


# --- a path to a trust anchor


def _verify_path(chain: Sequence[bytes], record: Record, names: Sequence[str], now: float) -> None:
    """Raises Mismatch where no path leads from the host's certificate to the trust anchor of this record."""
    from cryptography import x509

    try:
        certificates = [x509.load_der_x509_certificate(one) for one in chain]
        anchors = [one for one, der in zip(certificates, chain, strict=True) if _has(der, record)]
        if not anchors and record[1:3] == (0, 0):
            anchors = [x509.load_der_x509_certificate(record[3])]
        leaf = certificates[0]
        if anchors:
            path = _path(leaf, certificates, anchors[0])
        elif record[1:3] == (1, 0):
            path = _path_to_key(certificates, record[3])
        else:
            raise Mismatch(TLSFault.NOT_TRUSTED, "the trust anchor in the TLSA records is not in the chain")
        _check_path(path, now)
        _check_names(leaf, names)
    except Mismatch:
        raise
    except Exception as error:  # whatever a hostile certificate makes the library raise
        raise Mismatch(TLSFault.VALIDATION, f"a certificate of the chain cannot be read: {error}") from None


def _path(leaf: Certificate, others: Sequence[Certificate], anchor: Certificate) -> list[Certificate]:
    """From the host's certificate to the anchor, both included."""
    path = [leaf]
    while path[-1] != anchor:
        child = path[-1]
        issuer = next(
            (one for one in (anchor, *others) if one not in path and _has_signed(one, child)),
            None,
        )
        if issuer is None or len(path) > DEEPEST:
            raise Mismatch(TLSFault.NOT_TRUSTED, "no path leads from the certificate to the trust anchor")
        path.append(issuer)
    return path


def _path_to_key(others: Sequence[Certificate], info: bytes) -> list[Certificate]:
    """As `_path`, to a trust anchor of which only the key is known: the path ends with what it has signed."""
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key: Any = load_der_public_key(info)
    path = [others[0]]
    while not _is_signed_by(path[-1], key):
        child = path[-1]
        issuer = next((one for one in others if one not in path and _has_signed(one, child)), None)
        if issuer is None or len(path) > DEEPEST:
            raise Mismatch(TLSFault.NOT_TRUSTED, "nothing in the chain is signed by the key in the TLSA records")
        path.append(issuer)
    return path


def _has_signed(issuer: Certificate, child: Certificate) -> bool:
    try:
        child.verify_directly_issued_by(issuer)
    except Exception:  # InvalidSignature, and ValueError or TypeError for keys and names that do not fit
        return False
    return True


def _is_signed_by(child: Certificate, key: Any) -> bool:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    content, signature = child.tbs_certificate_bytes, child.signature
    parameters: Any = child.signature_algorithm_parameters
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, content, parameters, child.signature_hash_algorithm)  # type: ignore[arg-type]  # None raises
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, content, parameters)
        else:
            key.verify(signature, content)
    except Exception:  # InvalidSignature, and ValueError or TypeError for a key of another kind
        return False
    return True


_KNOWN_CRITICAL = frozenset({"2.5.29.19", "2.5.29.15", "2.5.29.37", "2.5.29.17", "2.5.29.32"})
"""basicConstraints, keyUsage, extendedKeyUsage, subjectAltName, certificatePolicies."""


def _check_path(path: Sequence[Certificate], now: float) -> None:
    """Dates, the right to sign, constraints (RFC 5280 section 6). Raises Mismatch."""
    from cryptography import x509

    moment = datetime.fromtimestamp(now, UTC)
    for depth, one in enumerate(path):
        if not one.not_valid_before_utc <= moment <= one.not_valid_after_utc:
            raise Mismatch(TLSFault.EXPIRED, "a certificate of the chain is not in its time")
        for extension in one.extensions:
            if extension.critical and extension.oid.dotted_string not in _KNOWN_CRITICAL:
                text = f"a certificate of the chain has a constraint that is not known here: {extension.oid._name}"
                raise Mismatch(TLSFault.VALIDATION, text)
        if depth == 0:
            continue
        if one.version is x509.Version.v1 and one is path[-1]:
            continue  # an old trust anchor: DNS vouches for it
        _check_signer(one, depth)


def _check_signer(one: Certificate, depth: int) -> None:
    from cryptography import x509

    try:
        basic = one.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise Mismatch(TLSFault.NOT_TRUSTED, "a certificate of the chain has signed another and is no CA") from None
    if not basic.ca or (basic.path_length is not None and basic.path_length < depth - 1):
        raise Mismatch(TLSFault.NOT_TRUSTED, "a certificate of the chain has signed another and must not")
    try:
        usage = one.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.key_cert_sign:
        raise Mismatch(TLSFault.NOT_TRUSTED, "a certificate of the chain has signed another and must not")


def _check_names(leaf: Certificate, names: Sequence[str]) -> None:
    from cryptography import x509

    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        having = [name.lower() for name in found.get_values_for_type(x509.DNSName)]
    except x509.ExtensionNotFound:
        having = []
    if not any(is_named(name, having) for name in names):
        text = f"the certificate is for {', '.join(having[:5]) or 'nobody'} and not for {' or '.join(names)}"
        raise Mismatch(TLSFault.HOST_MISMATCH, text)
