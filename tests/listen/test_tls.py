"""Contexts from pairs in memory, the choice by name and key type, self-signed pairs."""

from __future__ import annotations

import ssl
import time

import pytest

from posthof_pod.listen import tls

NOW = time.time()


def rsa_pair(names: list[str]) -> tls.Pair:
    """As tls.self_signed, with an RSA key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(65537, 2048)
    ecdsa = x509.load_pem_x509_certificate(tls.self_signed(names, 86400, NOW).chain)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ecdsa.not_valid_before_utc)
        .not_valid_after(ecdsa.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return tls.Pair(certificate.public_bytes(pem), key.private_bytes(pem, form, serialization.NoEncryption()))


def shake_hands(server: ssl.SSLContext, name: str | None, *, cipher: str = "") -> tuple[bytes, str]:
    """A handshake in memory: the server's certificate (DER) and the protocol version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if cipher:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(cipher)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=name)
    there = server.wrap_bio(to_server, to_client, server_side=True)
    ends = [client, there]
    for _ in range(20):
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue
    assert not ends
    return client.getpeercert(binary_form=True) or b"", client.version() or ""


def der(pair: tls.Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.chain.decode())


def test_a_self_signed_pair_serves_its_names() -> None:
    pair = tls.self_signed(["mx.posthof.test", "*.mail.posthof.test"], 86400.0, NOW)
    context = tls.server_context([tls.Certificate(("mx.posthof.test",), (pair,))])
    assert shake_hands(context, "mx.posthof.test") == (der(pair), "TLSv1.3")
    assert abs(tls.expires(pair.chain) - NOW - 86400) < 2


def test_the_certificate_is_chosen_by_the_name_asked_for() -> None:
    one, two = tls.self_signed(["one.test"], 1000, NOW), tls.self_signed(["*.two.test"], 1000, NOW)
    context = tls.server_context([tls.Certificate(("one.test",), (one,)), tls.Certificate(("*.two.test",), (two,))])
    assert shake_hands(context, "one.test")[0] == der(one)
    assert shake_hands(context, "mx.TWO.test")[0] == der(two)
    assert shake_hands(context, "unknown.test")[0] == der(one)
    assert shake_hands(context, None)[0] == der(one)


def test_two_key_types_serve_the_same_names() -> None:
    ecdsa, rsa = tls.self_signed(["mx.test"], 1000, NOW), rsa_pair(["mx.test"])
    context = tls.server_context([tls.Certificate(("mx.test",), (rsa, ecdsa))])
    assert shake_hands(context, "mx.test", cipher="ECDHE-RSA-AES128-GCM-SHA256")[0] == der(rsa)
    assert shake_hands(context, "mx.test", cipher="ECDHE-ECDSA-AES128-GCM-SHA256")[0] == der(ecdsa)


def test_old_protocols_are_not_spoken() -> None:
    pair = tls.self_signed(["mx.test"], 1000, NOW)
    context = tls.server_context([tls.Certificate(("mx.test",), (pair,))])
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_key_of_another_certificate_is_told_without_its_content() -> None:
    one, two = tls.self_signed(["one.test"], 1000, NOW), tls.self_signed(["two.test"], 1000, NOW)
    for bad in (tls.Pair(one.chain, two.key), tls.Pair(b"junk", one.key), tls.Pair(one.chain, b"junk")):
        with pytest.raises(tls.BadPair) as caught:
            tls.server_context([tls.Certificate(("one.test",), (bad,))])
        assert "PRIVATE KEY" not in str(caught.value)


def test_an_encrypted_key_is_refused_and_never_asks() -> None:
    from cryptography.hazmat.primitives import serialization

    pair = tls.self_signed(["one.test"], 1000, NOW)
    key = serialization.load_pem_private_key(pair.key, None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    with pytest.raises(tls.BadPair):
        tls.server_context([tls.Certificate(("one.test",), (tls.Pair(pair.chain, locked),))])


def test_a_wildcard_stands_for_one_label() -> None:
    assert tls.matches("a.b.test", ["*.b.test"])
    assert not tls.matches("b.test", ["*.b.test"])
    assert not tls.matches("x.a.b.test", ["*.b.test"])
    assert tls.matches("B.test.", ["b.test"])
