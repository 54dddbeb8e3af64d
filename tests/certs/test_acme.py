"""Certificates from an ACME server: a real one, which looks for its proofs by DNS and HTTP."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

import pytest

from kit.acme import answering
from kit.dns import DNSServer
from kit.pebble import Pebble, pebble
from posthof_certs import acme, issue, pair
from posthof_certs.acme import Account, Proof, Refused
from posthof_certs.issue import ECDSA, KeyKind

WORLD = {"mx.example.org": {"A": "127.0.0.1"}, "mx2.example.org": {"A": "127.0.0.1"}}


class ByHTTP:
    """Nothing to do: whoever asks is answered from the thumbprint."""

    type = "http-01"

    def present(self, proofs: Sequence[Proof]) -> None:
        self.names = [proof.name for proof in proofs]

    def remove(self, proofs: Sequence[Proof]) -> None:
        self.removed = [proof.name for proof in proofs]


class ByDNS:
    type = "dns-01"

    def __init__(self, server: DNSServer) -> None:
        self.server = server

    def present(self, proofs: Sequence[Proof]) -> None:
        for name in {proof.name for proof in proofs}:  # a domain and its wildcard have theirs in one place
            texts = [f'"{proof.text}"' for proof in proofs if proof.name == name]
            self.server.set(f"_acme-challenge.{name}", "TXT", *texts)

    def remove(self, proofs: Sequence[Proof]) -> None:
        for name in {proof.name for proof in proofs}:
            self.server.remove(f"_acme-challenge.{name}")


@pytest.fixture(scope="module")
def world() -> Iterator[DNSServer]:
    with DNSServer(WORLD) as server:
        yield server


@pytest.fixture(scope="module")
def ca(world: DNSServer) -> Iterator[Pebble]:
    with pebble(dns=world.address) as found:
        yield found


def account(ca: Pebble) -> Account:
    return Account(ca.directory, acme.account_key(), ("admin@example.org",), ca.roots)


def test_a_name_is_proven_by_a_thumbprint_alone(ca: Pebble) -> None:
    asks = account(ca)
    solver = ByHTTP()
    with answering(ca.http_port, acme.thumbprint(asks.key)) as asked:
        made = acme.obtain(asks, ["mx.example.org", "mx2.example.org"], issue.pem_key(ECDSA), solver)
    facts = pair.read(made)
    assert set(facts.names) == {"mx.example.org", "mx2.example.org"}
    assert facts.algorithm == "ECDSA"
    assert sorted(solver.names) == sorted(solver.removed) == ["mx.example.org", "mx2.example.org"]
    assert any(path.startswith("/.well-known/acme-challenge/") for path in asked)
    assert len(pair.certificates(made.chain)) > 1


def test_a_wildcard_is_proven_by_dns_and_the_same_account_comes_again(ca: Pebble, world: DNSServer) -> None:
    asks = account(ca)
    for kind in (KeyKind("RSA", 2048), ECDSA):
        made = acme.obtain(asks, ["*.example.net", "example.net"], issue.pem_key(kind), ByDNS(world))
        assert set(pair.read(made).names) == {"*.example.net", "example.net"}
        assert pair.read(made).algorithm == kind.algorithm


def test_what_the_server_could_not_see_is_said_by_name(ca: Pebble) -> None:
    asks = account(ca)
    stranger = acme.thumbprint(acme.account_key())
    solver = ByHTTP()
    with answering(ca.http_port, stranger), pytest.raises(Refused) as refused:
        acme.obtain(asks, ["mx.example.org"], issue.pem_key(ECDSA), solver)
    assert "mx.example.org (http-01)" in refused.value.message
    assert solver.removed == ["mx.example.org"]


def test_a_wildcard_is_not_offered_by_http(ca: Pebble) -> None:
    with pytest.raises(Refused, match=r"offers dns-01.* and not http-01: choose another"):
        acme.obtain(account(ca), ["*.example.net"], issue.pem_key(ECDSA), ByHTTP())


def test_the_server_advises_when_to_renew(ca: Pebble, world: DNSServer) -> None:
    asks = account(ca)
    made = acme.obtain(asks, ["www.example.net"], issue.pem_key(ECDSA), ByDNS(world))
    advised = acme.advice(asks, made.chain)
    facts = pair.read(made)
    assert advised.renew is not None
    assert facts.not_before < advised.renew < facts.not_after


def test_an_authority_for_customers_wants_their_key(world: DNSServer) -> None:
    mac = b"0123456789abcdef0123456789abcdef"
    with pebble(dns=world.address, eab=("kid-1", mac)) as ca:
        asks = account(ca)
        with pytest.raises(Refused, match=r"name their key in issuer\.acme\.externalAccount"):
            acme.obtain(asks, ["a.example.net"], issue.pem_key(ECDSA), ByDNS(world))
        text = base64.urlsafe_b64encode(mac).decode().rstrip("=")
        known = Account(asks.directory, asks.key, asks.contact, asks.roots, ("kid-1", text))
        assert acme.obtain(known, ["a.example.net"], issue.pem_key(ECDSA), ByDNS(world)).chain


def test_a_server_that_is_not_trusted_or_not_there_is_told(ca: Pebble) -> None:
    with pytest.raises(Refused, match=r"give its root in issuer\.acme\.caBundle"):
        acme.obtain(Account(ca.directory, acme.account_key()), ["a.example"], issue.pem_key(ECDSA), ByHTTP())
    away = Account("https://127.0.0.1:1/dir", acme.account_key())
    with pytest.raises(Refused, match="it cannot be reached"):
        acme.obtain(away, ["a.example"], issue.pem_key(ECDSA), ByHTTP())


@pytest.mark.parametrize(
    "token", ["", "short", "a" * 300, "../../etc/passwd_______", "aaaaaaaaaaaaaaaaaaaaa\n", "ä" * 20]
)
def test_only_a_token_is_answered(token: str) -> None:
    assert acme.answer(token, "thumb") is None
