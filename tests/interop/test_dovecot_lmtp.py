"""Posthof hands mail to a real Dovecot by LMTP: socket and TCP, a reply for each recipient, callouts."""

from __future__ import annotations

import smtplib
from typing import Any

import pytest

from kit.dovecot import Dovecot, dovecot
from kit.mails import mail, stored
from kit.posthof import mail_domain, posthof

pytestmark = pytest.mark.interop

SENDER = mail_domain("ours.test", "Maildir", recipients={"any": True})


def hops(peer: Dovecot, way: str) -> list[dict[str, Any]]:
    return [{"socket": str(peer.socket)}] if way == "socket" else [{"host": "127.0.0.1", "port": peer.port}]


@pytest.mark.parametrize("way", ["socket", "tcp"])
def test_each_recipient_gets_its_own_copy(way: str) -> None:
    content = mail(1, "Grüße\r\n".encode())
    with dovecot("alice", "bob") as peer:
        boxes = mail_domain("boxes.test", "LMTP", nextHops=hops(peer, way), recipients={"list": ["alice", "bob"]})
        with posthof(boxes) as mta:
            with mta.connect() as session:
                session.sendmail("a@client.test", ["alice@boxes.test", "bob+shop@boxes.test"], content)
            for user in ("alice", "bob"):
                (arrived,) = peer.inbox(user).wait_for(1)
                assert arrived.endswith(stored(content))
                assert arrived.startswith(b"Return-Path: <a@client.test>")
            mta.wait_until_empty()


def test_a_full_mailbox_bounces_for_its_owner_alone() -> None:
    with dovecot("alice", full=["full"]) as peer:
        boxes = mail_domain(
            "boxes.test", "LMTP", nextHops=hops(peer, "socket"), recipients={"list": ["alice", "full"]}
        )
        with posthof(boxes, SENDER) as mta:
            with mta.connect() as session:
                session.sendmail("a@ours.test", ["alice@boxes.test", "full@boxes.test"], mail(1))
            peer.inbox("alice").wait_for(1)
            (report,) = mta.inbox("ours.test", "a").wait_for(1)
            mta.wait_until_empty()
    assert b"full@boxes.test" in report
    assert b"Status: 5.2.2" in report
    assert b"alice@boxes.test" not in report.partition(b"Reporting-MTA")[2].partition(b"Message-ID")[0]


def test_a_user_that_dovecot_does_not_know_is_returned() -> None:
    with dovecot("alice") as peer:
        boxes = mail_domain("boxes.test", "LMTP", nextHops=hops(peer, "tcp"), recipients={"any": True})
        with posthof(boxes, SENDER) as mta:
            mta.send("a@ours.test", "nobody@boxes.test", mail(1))
            (report,) = mta.inbox("ours.test", "a").wait_for(1)
    assert b"User doesn't exist" in report
    assert b"Status: 5.1.1" in report


@pytest.mark.parametrize("way", ["socket", "tcp"])
def test_a_callout_asks_dovecot_and_refuses_at_rcpt(way: str) -> None:
    with dovecot("alice") as peer:
        boxes = mail_domain("boxes.test", "LMTP", nextHops=hops(peer, way), recipients={"callout": {}})
        with posthof(boxes) as mta, mta.connect() as session:
            session.mail("a@client.test")
            assert session.rcpt("alice@boxes.test")[0] == 250
            code, words = session.rcpt("nobody@boxes.test")
            assert (code, words.split()[0]) == (550, b"5.1.1")
            assert session.data(mail(1))[0] == 250
            peer.inbox("alice").wait_for(1)


def test_mail_waits_while_dovecot_is_down_and_leaves_when_it_is_back() -> None:
    with dovecot("alice") as peer:
        boxes = mail_domain("boxes.test", "LMTP", nextHops=hops(peer, "socket"), recipients={"list": ["alice"]})
        with posthof(boxes) as mta:
            peer.stop()
            mta.send("a@client.test", "alice@boxes.test", mail(1))
            assert mta.wait_for_event("deferred")["reason"] == "ConnectFailed"
            peer.start()
            peer.inbox("alice").wait_for(1)


def test_a_domain_list_refuses_strangers_at_rcpt() -> None:
    boxes = mail_domain("boxes.test", "LMTP", nextHops=[{"host": "127.0.0.1"}], recipients={"list": ["alice"]})
    with posthof(boxes) as mta, pytest.raises(smtplib.SMTPRecipientsRefused):
        mta.send("a@client.test", "nobody@boxes.test", mail(1))
