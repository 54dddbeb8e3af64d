"""Posthof relays to a real Postfix: content, TLS, DSN, extensions, refusals."""

from __future__ import annotations

import smtplib

import pytest

from kit import peers
from kit.mails import mail, stored
from kit.postfix import postfix
from kit.posthof import mail_domain, posthof, relay_policy, to_host

pytestmark = pytest.mark.interop

OURS = mail_domain("ours.test", "Maildir", recipients={"any": True})


def test_what_goes_in_arrives_byte_for_byte_below_the_trace() -> None:
    content = mail(1, b"..two dots\r\n.\xc3\xa4 line\r\n\r\nlast line\r\n")
    with postfix(domain="peer.test") as peer, posthof(to_host("out", "127.0.0.1", peer.port)) as mta:
        mta.send("a@client.test", "b@peer.test", content, options=["BODY=8BITMIME"])
        (arrived,) = peer.inbox.wait_for(1)
    assert arrived.endswith(stored(content))
    assert b"by posthof.test" in arrived


def test_tls_is_used_where_it_is_demanded_and_offered() -> None:
    with (
        postfix(domain="peer.test", has_tls=True) as peer,
        posthof(to_host("out", "127.0.0.1", peer.port, tls="Encrypt")) as mta,
    ):
        mta.send("a@client.test", "b@peer.test", mail(1))
        peer.inbox.wait_for(1)
        assert mta.wait_for_event("relayed")["tls"].startswith("TLSv1.")
        assert "TLS connection established from" in peer.log()


def test_without_tls_nothing_leaves_where_tls_is_demanded() -> None:
    with (
        postfix(domain="peer.test") as peer,
        posthof(to_host("out", "127.0.0.1", peer.port, tls="Encrypt")) as mta,
    ):
        mta.send("a@client.test", "b@peer.test", mail(1))
        told = mta.wait_for_event("deferred")
        assert told["reason"] == "TLSRequired"
        assert peer.inbox.mails() == []


def test_a_success_report_is_left_to_postfix_and_comes_back() -> None:
    with posthof(OURS) as mta, postfix(domain="peer.test", relay_to=f"[127.0.0.1]:{mta.port}") as peer:
        mta.write("out", to_host("out", "127.0.0.1", peer.port))
        mta.reload()
        mta.wait_for_event("config_swapped")
        with mta.connect() as session:
            session.mail("a@ours.test", ["RET=HDRS", "ENVID=order+3D66"])
            code, reply = session.rcpt("b@peer.test", ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;b@peer.test"])
            assert code == 250, reply
            session.data(mail(1))
        peer.inbox.wait_for(1)
        (report,) = mta.inbox("ours.test", "a").wait_for(1)
    assert b"Reporting-MTA: dns; postfix.test" in report
    assert b"Original-Envelope-Id: order=66" in report
    assert b"Original-Recipient: rfc822;b@peer.test" in report
    assert b"Action: delivered" in report


def test_an_address_in_utf8_passes() -> None:
    content = mail(1, headers=["X-Who: Jürgen".encode()])
    with (
        postfix(domain="peer.test", extra={"smtputf8_enable": "yes"}) as peer,
        posthof(to_host("out", "127.0.0.1", peer.port)) as mta,
    ):
        mta.send("jörg@client.test", "jürgen@peer.test", content, options=["SMTPUTF8", "BODY=8BITMIME"])
        (arrived,) = peer.inbox.wait_for(1)
    assert arrived.endswith(stored(content))
    assert "Delivered-To: jürgen@peer.test".encode() in arrived


def test_a_mail_of_20_mib_passes() -> None:
    content = mail(1, (b"0123456789abcdef" * 4 + b"\r\n") * (20 * 2**20 // 66))
    with (
        postfix(domain="peer.test", extra={"message_size_limit": "50000000"}) as peer,
        posthof(to_host("out", "127.0.0.1", peer.port)) as mta,
    ):
        mta.send("a@client.test", "b@peer.test", content)
        (arrived,) = peer.inbox.wait_for(1)
    assert arrived.endswith(stored(content))


def test_a_refused_recipient_is_returned_with_postfix_words() -> None:
    refusal = "check_recipient_access inline:{{nobody@peer.test=550 5.1.1 no such person here}}"
    with (
        postfix(domain="peer.test", extra={"smtpd_recipient_restrictions": refusal}) as peer,
        posthof(OURS, to_host("out", "127.0.0.1", peer.port)) as mta,
    ):
        with mta.connect() as session:
            session.sendmail("a@ours.test", ["b@peer.test", "nobody@peer.test"], mail(1))
        peer.inbox.wait_for(1)
        (report,) = mta.inbox("ours.test", "a").wait_for(1)
    assert (
        b"Final-Recipient: rfc822; nobody@peer.test" in report
        or b"Final-Recipient: rfc822;nobody@peer.test" in report
    )
    assert b"Status: 5.1.1" in report
    assert b"no such person here" in report
    assert b"b@peer.test" not in report.partition(b"Final-Recipient")[2]


def test_a_mail_too_large_for_postfix_is_returned_and_never_sent() -> None:
    with (
        postfix(domain="peer.test", extra={"message_size_limit": "20000"}) as peer,
        posthof(OURS, to_host("out", "127.0.0.1", peer.port)) as mta,
    ):
        mta.send("a@ours.test", "b@peer.test", mail(1, b"x" * 70 + b"\r\n" * 20_000))
        (report,) = mta.inbox("ours.test", "a").wait_for(1)
        assert peer.inbox.mails() == []
    assert b"Status: 5.3.4" in report


def test_a_session_carries_many_mails() -> None:
    limits = {"connectionsStart": 1, "connections": 1, "idle": "30s"}
    with (
        postfix(domain="peer.test") as peer,
        posthof(to_host("out", "127.0.0.1", peer.port, limits=limits), mta={"workers": 1}) as mta,
    ):
        with mta.connect() as session:
            for number in range(20):
                session.sendmail("a@client.test", ["b@peer.test"], mail(number))
        peer.inbox.wait_for(20)
        sessions = [line for line in peer.log().splitlines() if "smtpd[" in line and ": client=" in line]
        assert len(sessions) == 20
        connects = [line for line in peer.log().splitlines() if ": connect from" in line]
    assert len(connects) <= 3  # one to see that Postfix is up, one that delivered, at most one more


def test_a_bounce_that_bounces_ends_at_the_postmaster() -> None:
    refusal = "check_recipient_access inline:{{nobody@peer.test=550 5.1.1 no}}"
    with (
        postfix(domain="peer.test", extra={"smtpd_recipient_restrictions": refusal}) as peer,
        posthof(OURS, to_host("out", "127.0.0.1", peer.port)) as mta,
    ):
        mta.send("", "nobody@peer.test", mail(1))
        (report,) = mta.inbox("ours.test", "postmaster").wait_for(1)
        mta.wait_until_empty()
        (made,) = mta.events("report_made")
    assert made["to"] == ["postmaster@ours.test"]
    assert report.startswith(b"Return-Path: <>\r\n")


def test_hold_keeps_it_until_it_is_released() -> None:
    hold = relay_policy(
        "hold", {"type": "Hold"}, priority=10, match={"clients": ["127.0.0.0/8"], "senders": ["h@x.test"]}
    )
    with postfix(domain="peer.test") as peer, posthof(hold, to_host("out", "127.0.0.1", peer.port)) as mta:
        mta.send("h@x.test", "b@peer.test", mail(1))
        mta.send("a@x.test", "b@peer.test", mail(2))
        (arrived,) = peer.inbox.wait_for(1)
        assert b"<2@mails.test>" in arrived
        peers.wait_for(lambda: len(mta.queue()) == 1, "the other one settled")
        (waiting,) = mta.queue()
        mta.run("queue", "release", waiting["id"])
        assert len(peer.inbox.wait_for(2)) == 2


def test_smtplib_is_told_when_nobody_may_relay() -> None:
    with posthof(OURS) as mta, pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        mta.send("a@client.test", "b@elsewhere.test", mail(1))
    ((code, _),) = refused.value.recipients.values()
    assert code in (550, 554)
