"""Posthof hands mail to a real Dovecot by LMTP: socket and TCP, a reply for each recipient, callouts. One of each."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from typing import Any

import pytest

from kit.dovecot import Dovecot, dovecot
from kit.mails import mail, stored
from kit.posthof import Posthof, mail_domain, posthof

pytestmark = pytest.mark.interop

USERS = ("a1", "a2", "b1", "b2", "asked1", "asked2", "beside", "later")


@pytest.fixture(scope="module")
def peer() -> Iterator[Dovecot]:
    with dovecot(*USERS, full=["full"]) as running:
        yield running


@pytest.fixture(scope="module")
def mta(peer: Dovecot) -> Iterator[Posthof]:
    by_socket: dict[str, Any] = {"nextHops": [{"socket": str(peer.socket)}]}
    by_tcp: dict[str, Any] = {"nextHops": [{"host": "127.0.0.1", "port": peer.port}]}
    known: dict[str, Any] = {"recipients": {"list": [*USERS, "full"]}}
    asked: dict[str, Any] = {"recipients": {"callout": {}}}
    with posthof(
        mail_domain("ours.test", "Maildir", recipients={"any": True}),
        mail_domain("socket.test", "LMTP", **by_socket, **known),
        mail_domain("tcp.test", "LMTP", **by_tcp, **known),
        mail_domain("asked-socket.test", "LMTP", **by_socket, **asked),
        mail_domain("asked-tcp.test", "LMTP", **by_tcp, **asked),
        mail_domain("any.test", "LMTP", **by_tcp, recipients={"any": True}),
        mta={"workers": 1},
    ) as house:
        yield house


@pytest.mark.parametrize(("domain", "letter"), [("socket.test", "a"), ("tcp.test", "b")])
def test_each_recipient_gets_its_own_copy(mta: Posthof, peer: Dovecot, domain: str, letter: str) -> None:
    content = mail(1, "Grüße\r\n".encode())
    with mta.connect() as session:
        session.sendmail("a@client.test", [f"{letter}1@{domain}", f"{letter}2+shop@{domain}"], content)
    for user in (f"{letter}1", f"{letter}2"):
        (arrived,) = peer.inbox(user).wait_for(1)
        assert arrived.endswith(stored(content))
        assert arrived.startswith(b"Return-Path: <a@client.test>")


def test_a_full_mailbox_bounces_for_its_owner_alone(mta: Posthof, peer: Dovecot) -> None:
    with mta.connect() as session:
        session.sendmail("half@ours.test", ["beside@socket.test", "full@socket.test"], mail(1))
    peer.inbox("beside").wait_for(1)
    (report,) = mta.inbox("ours.test", "half").wait_for(1)
    assert b"full@socket.test" in report
    assert b"Status: 5.2.2" in report
    assert b"beside@socket.test" not in report


def test_a_user_that_dovecot_does_not_know_is_returned(mta: Posthof) -> None:
    mta.send("unknown@ours.test", "nobody@any.test", mail(1))
    (report,) = mta.inbox("ours.test", "unknown").wait_for(1)
    assert b"User doesn't exist" in report
    assert b"Status: 5.1.1" in report


@pytest.mark.parametrize(("domain", "user"), [("asked-socket.test", "asked1"), ("asked-tcp.test", "asked2")])
def test_a_callout_asks_dovecot_and_refuses_at_rcpt(mta: Posthof, peer: Dovecot, domain: str, user: str) -> None:
    with mta.connect() as session:
        session.mail("a@client.test")
        assert session.rcpt(f"{user}@{domain}")[0] == 250
        code, words = session.rcpt(f"nobody@{domain}")
        assert (code, words.split()[0]) == (550, b"5.1.1")
        assert session.data(mail(1))[0] == 250
    peer.inbox(user).wait_for(1)


def test_a_list_refuses_strangers_at_rcpt(mta: Posthof) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        mta.send("a@client.test", "nobody@socket.test", mail(1))


def test_mail_waits_while_dovecot_is_down_and_leaves_when_it_is_back(mta: Posthof, peer: Dovecot) -> None:
    peer.stop()
    mta.send("a@client.test", "later@socket.test", mail(1))
    assert mta.wait_for_event("deferred", to=["later@socket.test"])["reason"] in ("ConnectFailed", "PeerClosed")
    peer.start()
    peer.inbox("later").wait_for(1)
