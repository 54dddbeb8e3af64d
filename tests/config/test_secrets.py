"""Secrets for workers: by name, never printed."""

from __future__ import annotations

import msgspec
import pytest

from kit.manifests import compiled, loaded, manifest, mta, policy, secret
from posthof_crds.engine import Domain, InboundMode, Outbound, SecretRef, SigningKey
from posthof_pod.config.secrets import Secrets, gather, key, of_config, refs

REF = SecretRef(name="login", key="password")
OUT = policy(
    "out",
    """
    match: {clients: [10.0.0.0/8]}
    action: {type: Smarthost, nextHops: [{host: a}], auth: {secretName: login}}
    tls: Verify
    """,
)
CERT = manifest("TLSCert", "c", "dnsNames: [mx.example.org]\nissuer: {secretRef: {name: pair}}")
SECRETS = (secret("login", username="u", password="xyzzy"), secret("pair", **{"tls.crt": "C", "tls.key": "K"}))


def test_a_config_s_secrets_are_gathered_by_name_and_key() -> None:
    config = compiled(OUT, CERT, *SECRETS)
    assert {key(ref) for ref in refs(config)} == {"login/username", "login/password", "pair/tls.crt", "pair/tls.key"}
    assert gather(config, loaded(mta(), *SECRETS).secret) == {
        "login/username": b"u",
        "login/password": b"xyzzy",
        "pair/tls.crt": b"C",
        "pair/tls.key": b"K",
    }


def test_the_quick_way_finds_the_secrets_of_domains_rules_listeners_and_certificates() -> None:
    config = compiled(OUT, CERT, *SECRETS)
    key_ = SigningKey(name="k", selector="s1", secret=SecretRef(name="k-dkim", key="private.pem"))
    outbound = Outbound(dkim=(key_,), srs=SecretRef(name="srs", key="a"), batv=SecretRef(name="batv", key="b"))
    domain = Domain(name="d", domain="d.test", mode=InboundMode.REJECT, outbound=outbound)
    listener = msgspec.structs.replace(config.listeners[0], client_ca=SecretRef(name="ca", key="ca.crt"))
    config = msgspec.structs.replace(config, domains={"d.test": domain}, listeners=(listener,))
    assert set(of_config(config)) == set(refs(config))
    assert {"k-dkim/private.pem", "srs/a", "batv/b", "ca/ca.crt", "login/username"} <= set(
        map(key, of_config(config))
    )


def test_a_store_gives_bytes_and_text() -> None:
    store = Secrets({"login/password": b"xyzzy\r\n"})
    assert store.bytes(REF) == b"xyzzy\r\n"
    assert store.text(REF) == "xyzzy"


def test_what_is_not_there_is_told_without_values() -> None:
    store = Secrets({"login/username": b"xyzzy", "login/password": b"\xff"})
    with pytest.raises(LookupError, match="secret other/password is not known"):
        store.bytes(SecretRef(name="other", key="password"))
    with pytest.raises(LookupError, match="secret login/password is not UTF-8"):
        store.text(REF)
    assert repr(store) == "Secrets(login/password, login/username)"
    assert Secrets({"a/b": b"1"}) == Secrets({"a/b": b"1"}) != Secrets({"a/b": b"2"})
