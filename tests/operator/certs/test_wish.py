"""A TLSCert object as the API server gives it becomes a wish."""

from __future__ import annotations

from typing import Any

import pytest

from posthof_certs.issue import KeyKind
from posthof_operator.certs.wish import IssuerRef, Source, Unreadable, wish_of


def tls_cert(issuer: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "posthof.dev/v1alpha1",
        "kind": "TLSCert",
        "metadata": {"namespace": "mail", "name": "mx", "uid": "1", "resourceVersion": "7", "generation": 2},
        "spec": {"dnsNames": ["mx.example.org"], "issuer": issuer} | spec,
        "status": {"serial": "01"},
    }


def test_a_self_signed_one_takes_the_defaults() -> None:
    wish = wish_of(tls_cert({"selfSigned": {}}))
    assert (wish.namespace, wish.name, wish.result) == ("mail", "mx", "mx-tls")
    assert wish.source is Source.SELF_SIGNED
    assert (wish.order.key, wish.order.duration) == (KeyKind("ECDSA", 256), 90 * 86400)


def test_rsa_without_a_size_is_2048() -> None:
    assert wish_of(tls_cert({"selfSigned": {}}, privateKey={"algorithm": "RSA"})).order.key == KeyKind("RSA", 2048)


def test_each_issuer_is_found() -> None:
    assert wish_of(tls_cert({"ca": {"secretName": "root"}})).secret == "root"
    named = wish_of(tls_cert({"secretRef": {"name": "bought", "certKey": "a.pem", "privateKeyKey": "b.pem"}}))
    assert (named.source, named.secret, named.cert_key, named.private_key_key) == (
        Source.SECRET,
        "bought",
        "a.pem",
        "b.pem",
    )
    ordered = wish_of(tls_cert({"certManager": {"name": "le", "kind": "ClusterIssuer"}}, renewBefore="10d"))
    assert ordered.issuer == IssuerRef("le", "ClusterIssuer", "cert-manager.io")
    assert ordered.renew_before == 10 * 86400


def test_files_are_of_one_machine() -> None:
    with pytest.raises(Unreadable, match="store the pair in a Secret"):
        wish_of(tls_cert({"files": {"cert": "a", "key": "b"}}))


def test_an_object_that_breaks_a_rule_says_which() -> None:
    with pytest.raises(Unreadable, match=r"spec.*renewBefore is not shorter than duration"):
        wish_of(tls_cert({"selfSigned": {}}, duration="1d", renewBefore="2d"))
