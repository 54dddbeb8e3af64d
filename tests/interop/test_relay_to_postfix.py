"""Posthof relays to a real Postfix: content, TLS, DSN, extensions, refusals.

One Posthof for the file. Each test has a domain of its own, whose mail goes to a port where it starts a Postfix.
"""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from typing import Any

import pytest

from kit import peers
from kit.mails import mail, stored
from kit.postfix import postfix
from kit.posthof import Posthof, mail_domain, posthof, relay_policy, to_domain

pytestmark = pytest.mark.interop

NAMES = ("plain", "tls", "no-tls", "dsn", "utf8", "large", "refusing", "small", "session", "bouncing", "held")
PORTS = {name: peers.free_port() for name in NAMES}
TLS = {"tls": "Encrypt"}
ONE = {"limits": {"connectionsStart": 1, "connections": 1, "idle": "30s"}}
OTHERS: dict[str, dict[str, Any]] = {"tls": TLS, "no-tls": TLS, "session": ONE}
NOBODY = "check_recipient_access inline:{{nobody@%s.test=550 5.1.1 no such person here}}"


@pytest.fixture(scope="module")
def mta() -> Iterator[Posthof]:
    ours = mail_domain("ours.test", "Maildir", recipients={"any": True})
    ways = [to_domain(f"{name}.test", PORTS[name], **OTHERS.get(name, {})) for name in NAMES]
    from_h = {"clients": ["127.0.0.0/8"], "senders": ["h@client.test"]}
    hold = relay_policy("hold", {"type": "Hold"}, priority=10, match=from_h)
    with posthof(ours, hold, *ways, mta={"workers": 1}) as house:
        yield house


def test_what_goes_in_arrives_byte_for_byte_below_the_trace(mta: Posthof) -> None:
    content = mail(1, b"..two dots\r\n.\xc3\xa4 line\r\n\r\nlast line\r\n")
    with postfix(domain="plain.test", port=PORTS["plain"]) as peer:
        mta.send("a@client.test", "b@plain.test", content, options=["BODY=8BITMIME"])
        (arrived,) = peer.inbox.wait_for(1)
    assert arrived.endswith(stored(content))
    assert b"by posthof.test" in arrived


def test_tls_is_used_where_it_is_demanded_and_offered(mta: Posthof) -> None:
    with postfix(domain="tls.test", port=PORTS["tls"], has_tls=True) as peer:
        mta.send("a@client.test", "b@tls.test", mail(1))
        peer.inbox.wait_for(1)
        told = mta.wait_for_event("relayed", to=["b@tls.test"])
        assert told["tls"].startswith("TLSv1.")
        assert "TLS connection established from" in peer.log()


def test_without_tls_nothing_leaves_where_tls_is_demanded(mta: Posthof) -> None:
    with postfix(domain="no-tls.test", port=PORTS["no-tls"]) as peer:
        mta.send("a@client.test", "b@no-tls.test", mail(1))
        told = mta.wait_for_event("deferred", to=["b@no-tls.test"])
        mta.run("queue", "delete", "--to", "*@no-tls.test")
        assert told["reason"] == "TLSRequired"
        assert peer.inbox.mails() == []


def test_a_success_report_is_left_to_postfix_and_comes_back(mta: Posthof) -> None:
    with postfix(domain="dsn.test", port=PORTS["dsn"], relay_to=f"[127.0.0.1]:{mta.port}") as peer:
        with mta.connect() as session:
            session.mail("dsn@ours.test", ["RET=HDRS", "ENVID=order+3D66"])
            code, reply = session.rcpt("b@dsn.test", ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;b@dsn.test"])
            assert code == 250, reply
            session.data(mail(1))
        peer.inbox.wait_for(1)
        (report,) = mta.inbox("ours.test", "dsn").wait_for(1)
    assert b"Reporting-MTA: dns; postfix.test" in report
    assert b"Original-Envelope-Id: order=66" in report
    assert b"Original-Recipient: rfc822;b@dsn.test" in report
    assert b"Action: delivered" in report


def test_an_address_in_utf8_passes(mta: Posthof) -> None:
    content = mail(1, headers=["X-Who: Jürgen".encode()])
    with postfix(domain="utf8.test", port=PORTS["utf8"], extra={"smtputf8_enable": "yes"}) as peer:
        mta.send("jörg@client.test", "jürgen@utf8.test", content, options=["SMTPUTF8", "BODY=8BITMIME"])
        (arrived,) = peer.inbox.wait_for(1)
    assert arrived.endswith(stored(content))
    assert "Delivered-To: jürgen@utf8.test".encode() in arrived


def test_a_mail_of_20_mib_passes(mta: Posthof) -> None:
    content = mail(1, (b"0123456789abcdef" * 4 + b"\r\n") * (20 * 2**20 // 66))
    with postfix(domain="large.test", port=PORTS["large"], extra={"message_size_limit": "50000000"}) as peer:
        mta.send("a@client.test", "b@large.test", content)
        (arrived,) = peer.inbox.wait_for(1)
    assert arrived.endswith(stored(content))


def test_a_refused_recipient_is_returned_with_postfix_words(mta: Posthof) -> None:
    extra = {"smtpd_recipient_restrictions": NOBODY % "refusing"}
    with postfix(domain="refusing.test", port=PORTS["refusing"], extra=extra) as peer:
        with mta.connect() as session:
            session.sendmail("refused@ours.test", ["b@refusing.test", "nobody@refusing.test"], mail(1))
        peer.inbox.wait_for(1)
        (report,) = mta.inbox("ours.test", "refused").wait_for(1)
    assert b"Final-Recipient: rfc822;nobody@refusing.test" in report.replace(b"rfc822; ", b"rfc822;")
    assert b"Status: 5.1.1" in report
    assert b"no such person here" in report
    assert b"<b@refusing.test>" not in report


def test_a_mail_too_large_for_postfix_is_returned_and_never_sent(mta: Posthof) -> None:
    with postfix(domain="small.test", port=PORTS["small"], extra={"message_size_limit": "20000"}) as peer:
        mta.send("large@ours.test", "b@small.test", mail(1, (b"x" * 70 + b"\r\n") * 2_000))
        (report,) = mta.inbox("ours.test", "large").wait_for(1)
        assert peer.inbox.mails() == []
    assert b"Status: 5.3.4" in report


def test_a_session_carries_many_mails(mta: Posthof) -> None:
    with postfix(domain="session.test", port=PORTS["session"]) as peer:
        with mta.connect() as session:
            for number in range(20):
                session.sendmail("a@client.test", ["b@session.test"], mail(number))
        peer.inbox.wait_for(20)
        connects = [line for line in peer.log().splitlines() if ": connect from" in line]
    assert len(connects) <= 3  # one to see that Postfix is up, one that delivered, at most one more


def test_a_bounce_that_bounces_ends_at_the_postmaster(mta: Posthof) -> None:
    extra = {"smtpd_recipient_restrictions": NOBODY % "bouncing"}
    with postfix(domain="bouncing.test", port=PORTS["bouncing"], extra=extra):
        mta.send("", "nobody@bouncing.test", mail(1))
        (report,) = mta.inbox("ours.test", "postmaster").wait_for(1)
    assert report.startswith(b"Return-Path: <>\r\n")
    assert b"no such person here" in report


def test_hold_keeps_it_until_it_is_released(mta: Posthof) -> None:
    with postfix(domain="held.test", port=PORTS["held"]) as peer:
        mta.send("h@client.test", "b@held.test", mail(1))
        mta.send("a@client.test", "b@held.test", mail(2))
        (arrived,) = peer.inbox.wait_for(1)
        assert b"<2@mails.test>" in arrived
        (waiting,) = [one for one in mta.queue() if one["sender"] == "h@client.test"]
        mta.run("queue", "release", waiting["id"])
        assert len(peer.inbox.wait_for(2)) == 2


def test_smtplib_is_told_when_nobody_may_relay(mta: Posthof) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        mta.send("a@client.test", "b@elsewhere.test", mail(1))
    ((code, _),) = refused.value.recipients.values()
    assert code in (550, 554)
