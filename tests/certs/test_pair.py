"""A pair is read, and each way in which it can be wrong has its own words."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from posthof_certs import issue, pair
from posthof_certs.issue import ECDSA, KeyKind, Order
from posthof_certs.pair import BadPair, Pair
from posthof_crds.reasons import Reason

NOW = 1_800_000_000.0
DAY = 86400.0
ORDER = Order(("mx.example.org", "mail.example.org"), ECDSA, 90 * DAY)


@pytest.fixture(scope="module")
def made() -> Pair:
    return issue.self_signed(ORDER, NOW)


def refusal(bad: Pair) -> BadPair:
    with pytest.raises(BadPair) as caught:
        pair.read(bad)
    return caught.value


def test_a_self_signed_pair_says_what_it_is(made: Pair) -> None:
    facts = pair.read(made)
    assert facts.names == ORDER.names
    assert (facts.algorithm, facts.size, facts.is_self_signed) == ("ECDSA", 256, True)
    assert facts.issuer == "mx.example.org"
    assert facts.not_after == NOW + 90 * DAY
    assert facts.not_before == NOW - 3600
    assert facts.serial == facts.serial.lower()
    assert len(facts.serial) % 2 == 0


def test_an_rsa_pair_has_the_size_that_was_asked_for() -> None:
    facts = pair.read(issue.self_signed(ORDER._replace(key=KeyKind("RSA", 2048)), NOW))
    assert (facts.algorithm, facts.size) == ("RSA", 2048)


def test_an_authority_signs_and_its_intermediate_is_sent_along_but_no_root() -> None:
    root = issue.make_authority("Example root", 3650 * DAY, NOW)
    made = issue.by_authority(ORDER, issue.read_authority(root, NOW), NOW)
    facts = pair.read(made)
    assert (facts.issuer, facts.is_self_signed) == ("Example root", False)
    assert len(pair.certificates(made.chain)) == 1
    assert pair.signed_by(pair.certificates(made.chain)[0], pair.certificates(root.chain)[0])


def test_a_certificate_never_outlives_its_authority() -> None:
    root = issue.make_authority("Example root", 10 * DAY, NOW)
    facts = pair.read(issue.by_authority(ORDER, issue.read_authority(root, NOW), NOW))
    assert facts.not_after == NOW + 10 * DAY


def test_a_server_certificate_is_no_authority(made: Pair) -> None:
    with pytest.raises(BadPair, match="may not sign others") as caught:
        issue.read_authority(made, NOW)
    assert caught.value.reason is Reason.ISSUER_FAILED


def test_a_key_of_another_certificate_is_told(made: Pair) -> None:
    other = issue.self_signed(ORDER, NOW)
    error = refusal(Pair(made.chain, other.key))
    assert error.reason is Reason.PAIR_INVALID
    assert "does not belong to the certificate" in error.message


def test_a_chain_that_begins_with_the_issuer_is_told() -> None:
    root = issue.make_authority("Example root", 3650 * DAY, NOW)
    made = issue.by_authority(ORDER, issue.read_authority(root, NOW), NOW)
    assert "put the server's own certificate first" in refusal(Pair(root.chain + made.chain, made.key)).message


def test_a_chain_with_a_stranger_in_it_is_told(made: Pair) -> None:
    stranger = issue.make_authority("A stranger", 3650 * DAY, NOW)
    error = refusal(Pair(made.chain + stranger.chain, made.key))
    assert "certificate 1 of the chain (mx.example.org) was not signed by the next one (A stranger)" in error.message


@pytest.mark.parametrize("text", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_told(made: Pair, text: bytes) -> None:
    assert "no readable certificate" in refusal(Pair(text, made.key)).message


@pytest.mark.parametrize("text", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_told(made: Pair, text: bytes) -> None:
    error = refusal(Pair(made.chain, text))
    assert error.reason is Reason.PAIR_INVALID
    assert "no readable private key" in error.message


def test_an_encrypted_key_is_told(made: Pair) -> None:
    key = serialization.load_pem_private_key(made.key, None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"word"),
    )
    assert "the private key is encrypted" in refusal(Pair(made.chain, locked)).message


def test_a_short_rsa_key_is_told() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    builder = issue._leaf(ORDER, key, NOW, NOW + DAY)
    name = x509.Name([])
    from cryptography.hazmat.primitives import hashes

    short = issue._paired([builder.subject_name(name).issuer_name(name).sign(key, hashes.SHA256())], key)
    assert "an RSA key of 1024 bits is too short" in refusal(short).message


def test_dates_are_checked_with_an_hour_of_grace_at_the_begin(made: Pair) -> None:
    facts = pair.read(made)
    pair.check_dates(facts, facts.not_before - 3599)
    with pytest.raises(BadPair, match="begins at") as early:
        pair.check_dates(facts, facts.not_before - 3601)
    assert early.value.reason is Reason.NOT_YET_VALID
    with pytest.raises(BadPair, match="ended at 2027-04-15T08:00:00Z") as late:
        pair.check_dates(facts, facts.not_after)
    assert late.value.reason is Reason.EXPIRED


def test_names_that_are_missing_are_named(made: Pair) -> None:
    facts = pair.read(made)
    pair.check_names(facts, ["MX.example.org"])
    with pytest.raises(BadPair, match="not for smtp") as caught:
        pair.check_names(facts, ["mx.example.org", "smtp.example.org"])
    assert caught.value.reason is Reason.NAMES_MISSING


def test_a_wildcard_stands_for_exactly_one_label() -> None:
    assert pair.covers(["*.example.org"], "mx.example.org")
    assert not pair.covers(["*.example.org"], "a.mx.example.org")
    assert not pair.covers(["*.example.org"], "example.org")
    assert pair.covers(["*.example.org"], "*.example.org")


def test_serials_are_compared_as_numbers() -> None:
    assert pair.serial_text(0xABC) == "0abc"
    assert pair.same_serial("0ABC", "abc")
    assert pair.same_serial("0A:BC", "0abc")
    assert not pair.same_serial("0abc", "0abd")


def test_no_text_shows_a_key(made: Pair) -> None:
    secret = made.key.splitlines()[1].decode()
    assert secret not in repr(made)
    assert secret not in str(refusal(Pair(made.chain, issue.self_signed(ORDER, NOW).key)))
