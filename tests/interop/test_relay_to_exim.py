"""Posthof relays to a real Exim: it offers CHUNKING, so content leaves by BDAT; TLS is GnuTLS."""

from __future__ import annotations

import pytest

from kit.exim import exim
from kit.mails import mail, stored
from kit.posthof import mail_domain, posthof, to_host

pytestmark = pytest.mark.interop


def test_content_leaves_by_bdat_and_arrives_byte_for_byte() -> None:
    content = mail(1, b"..two dots\r\n.\r\n\r\nlast line\r\n")
    with exim(domain="peer.test") as peer, posthof(to_host("out", "127.0.0.1", peer.port)) as mta:
        with mta.connect() as session:  # smtplib would dot-stuff it, so that it arrives as it stands here
            session.sendmail("a@client.test", ["b@peer.test"], content)
        (arrived,) = peer.inbox.wait_for(1)
        log = peer.log()
    assert arrived.endswith(stored(content))
    assert " K " in log  # Exim notes CHUNKING so


def test_tls_with_gnutls_is_used_where_it_is_demanded() -> None:
    with (
        exim(domain="peer.test", has_tls=True) as peer,
        posthof(to_host("out", "127.0.0.1", peer.port, tls="Encrypt")) as mta,
    ):
        mta.send("a@client.test", "b@peer.test", mail(1))
        peer.inbox.wait_for(1)
        assert mta.wait_for_event("relayed")["tls"].startswith("TLSv1.")
        assert "P=esmtps" in peer.log()


def test_a_mail_of_20_mib_passes_by_bdat() -> None:
    content = mail(1, (b"0123456789abcdef" * 4 + b"\r\n") * (20 * 2**20 // 66))
    with exim(domain="peer.test") as peer, posthof(to_host("out", "127.0.0.1", peer.port)) as mta:
        mta.send("a@client.test", "b@peer.test", content)
        (arrived,) = peer.inbox.wait_for(1)
    assert arrived.endswith(stored(content))


def test_eight_bit_content_and_an_address_in_utf8_pass() -> None:
    content = mail(1, "Grüße\r\n".encode(), headers=["X-Who: Jürgen".encode()])
    with exim(domain="peer.test") as peer, posthof(to_host("out", "127.0.0.1", peer.port)) as mta:
        mta.send("jörg@client.test", "jürgen@peer.test", content, options=["SMTPUTF8", "BODY=8BITMIME"])
        (arrived,) = peer.inbox.wait_for(1)
    assert arrived.endswith(stored(content))


def test_exim_refuses_and_the_sender_reads_why() -> None:
    with (
        exim(domain="peer.test") as peer,
        posthof(
            mail_domain("ours.test", "Maildir", recipients={"any": True}), to_host("out", "127.0.0.1", peer.port)
        ) as mta,
    ):
        mta.send("a@ours.test", "b@not-here.test", mail(1))  # Exim takes it, finds no router, and reports
        mta.wait_for_event("relayed")
        mta.wait_until_empty()
        assert "Unrouteable address" in peer.log() or "unrouteable" in peer.log().lower()
