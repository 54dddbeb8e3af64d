"""Server-side TLS: contexts from chains and keys, the choice by name, and self-signed pairs.

Rules
- TLS 1.2 and above, no renegotiation, no compression (RFC 8996, RFC 9325); opportunistic peers get what OpenSSL's
  level allows. Nothing is asked of the client, unless there are CAs whose certificates it may show.
- A context holds one pair of each key type (RSA beside ECDSA). Several certificates: the one whose names match the
  server name the client asks for (SNI) serves it, else the first.
- Key bytes touch no disk: OpenSSL wants a path, so it gets one of a file in memory.
- `cryptography` is loaded only to make a pair.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple


class Pair(NamedTuple):
    """A chain (PEM, the server's certificate first) and its key (PEM, not encrypted)."""

    chain: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"Pair(chain={self.chain!r})"


class Certificate(NamedTuple):
    """What serves some names: pairs of different key types. Names are lower case; `*.` stands for one label."""

    names: tuple[str, ...]
    pairs: tuple[Pair, ...]


class BadPair(Exception):
    """A chain or key that OpenSSL does not take. The text names no key material."""


def server_context(certificates: Sequence[Certificate], client_ca: bytes = b"") -> ssl.SSLContext:
    """One context that serves all of `certificates` (one at least). Raises BadPair. `client_ca`: CA certificates
    (PEM); clients are asked for a certificate of one of them, and need not have one."""
    contexts = [(certificate.names, _context(certificate.pairs)) for certificate in certificates]
    for _, context in contexts if client_ca else ():
        try:
            context.load_verify_locations(cadata=client_ca.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise BadPair(f"the CA certificates for clients cannot be read: {error}") from None
        context.verify_mode = ssl.CERT_OPTIONAL
    first = contexts[0][1]
    if len(contexts) > 1:
        _serve_by_name(first, contexts)
    return first


def _context(pairs: Iterable[Pair]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.verify_mode = ssl.CERT_NONE
    for pair in pairs:
        with _path_of(pair.chain) as chain, _path_of(pair.key) as key:
            try:
                context.load_cert_chain(chain, key, password=_no_password)
            except (ssl.SSLError, OSError, ValueError) as error:
                raise BadPair(f"the certificate and its key cannot be used: {error}") from None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")


@contextmanager
def _path_of(content: bytes) -> Iterator[str]:
    """A path that holds `content` for as long as it is needed, in memory."""
    descriptor = os.memfd_create("posthof-tls")
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _serve_by_name(first: ssl.SSLContext, contexts: list[tuple[tuple[str, ...], ssl.SSLContext]]) -> None:
    """Lets `first` pass a handshake on to the context whose names match. It holds no reference to itself."""
    others = [(names, None if context is first else context) for names, context in contexts]

    def choose(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        if name is None:
            return
        for names, context in others:
            if matches(name, names):
                if context is not None:
                    connection.context = context
                return

    first.sni_callback = choose


def matches(name: str, names: Iterable[str]) -> bool:
    """Whether a certificate with `names` is for `name`; a wildcard stands for exactly one label (RFC 9525 6.3)."""
    name = name.lower().rstrip(".")
    parent = name.partition(".")[2]
    return any(name == one or (one.startswith("*.") and parent != "" and parent == one[2:]) for one in names)


def self_signed(names: Sequence[str], lifetime: float, now: float) -> Pair:
    """A fresh ECDSA P-256 pair for `names` (the first is the subject). `lifetime` in seconds; `now`: unix seconds."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    start = datetime.fromtimestamp(now, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - timedelta(hours=1))
        .not_valid_after(start + timedelta(seconds=lifetime))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def end_point(chain: bytes) -> bytes:
    """The channel binding tls-server-end-point of a chain (RFC 5929 section 4.1): the hash of its first certificate,
    by the hash its signature uses, or SHA-256 where that is weak or none."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    certificate = x509.load_pem_x509_certificate(chain)
    found = certificate.signature_hash_algorithm
    is_weak = found is None or isinstance(found, hashes.MD5 | hashes.SHA1)
    return certificate.fingerprint(hashes.SHA256() if is_weak or found is None else found)


def expires(chain: bytes) -> float:
    """When the first certificate of `chain` ends, unix seconds."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(chain).not_valid_after_utc.timestamp()


MOST_NAMES = 16


def proven_names(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The DNS names of a client's certificate that OpenSSL has verified (ssl.getpeercert), lower case; () for none.
    A wildcard names no host. What holds a space or is no ASCII is left out: names are kept in one text."""
    entries = (certificate or {}).get("subjectAltName", ())
    names = [str(value).lower().rstrip(".") for kind, value in entries if kind == "DNS"]
    return tuple(name for name in names if name.isascii() and name.isprintable() and not set(name) & {" ", "*"})[
        :MOST_NAMES
    ]
