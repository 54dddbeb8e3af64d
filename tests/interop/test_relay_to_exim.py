"""Posthof relays to a real Exim: it offers CHUNKING, so content leaves by BDAT; TLS is GnuTLS. One of each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.exim import Exim, exim
from kit.mails import mail, stored
from kit.posthof import Posthof, mail_domain, posthof, to_domain

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def peer() -> Iterator[Exim]:
    with exim(domain="*.test", has_tls=True) as running:
        yield running


@pytest.fixture(scope="module")
def mta(peer: Exim) -> Iterator[Posthof]:
    ways = [to_domain("plain.test", peer.port, tls="None"), to_domain("tls.test", peer.port, tls="Encrypt")]
    stray = to_domain("stray.example", peer.port)
    ours = mail_domain("ours.test", "Maildir", recipients={"any": True})
    with posthof(ours, stray, *ways, mta={"workers": 1}) as house:
        yield house


def test_content_leaves_by_bdat_and_arrives_byte_for_byte(mta: Posthof, peer: Exim) -> None:
    content = mail(1, b"..two dots\r\n.\r\n\r\nlast line\r\n")
    mta.send("a@client.test", "bdat@plain.test", content)
    (arrived,) = peer.wait_for("bdat@plain.test", 1)
    assert arrived.endswith(stored(content))
    assert " P=esmtp K " in peer.log()  # Exim notes CHUNKING so


def test_tls_with_gnutls_is_used_where_it_is_demanded(mta: Posthof, peer: Exim) -> None:
    mta.send("a@client.test", "b@tls.test", mail(1))
    peer.wait_for("b@tls.test", 1)
    assert mta.wait_for_event("relayed", to=["b@tls.test"])["tls"].startswith("TLSv1.")
    assert "P=esmtps" in peer.log()


def test_a_mail_of_20_mib_passes_by_bdat(mta: Posthof, peer: Exim) -> None:
    content = mail(1, (b"0123456789abcdef" * 4 + b"\r\n") * (20 * 2**20 // 66))
    mta.send("a@client.test", "large@plain.test", content)
    (arrived,) = peer.wait_for("large@plain.test", 1)
    assert arrived.endswith(stored(content))


def test_eight_bit_content_and_an_address_in_utf8_pass(mta: Posthof, peer: Exim) -> None:
    content = mail(1, "Grüße\r\n".encode(), headers=["X-Who: Jürgen".encode()])
    mta.send("jörg@client.test", "jürgen@plain.test", content, options=["SMTPUTF8", "BODY=8BITMIME"])
    (arrived,) = peer.wait_for("jürgen@plain.test", 1)
    assert arrived.endswith(stored(content))


def test_what_exim_refuses_comes_back_with_its_words(mta: Posthof, peer: Exim) -> None:
    mta.send("lost@ours.test", "nobody@stray.example", mail(1))
    (report,) = mta.inbox("ours.test", "lost").wait_for(1)
    assert b"Status: 5." in report
    assert b"Unrouteable address" in report
