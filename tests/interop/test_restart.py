"""A clean stop ends within seconds and loses nothing; the next start goes on at once."""

from __future__ import annotations

import time

import pytest

from kit.load import clients
from kit.mails import mail, numbers
from kit.postfix import postfix
from kit.posthof import mail_domain, posthof, to_host

pytestmark = pytest.mark.interop

OURS = mail_domain("ours.test", "Maildir", recipients={"any": True})


def test_a_stop_under_load_loses_nothing_and_doubles_nothing() -> None:
    with posthof(OURS) as mta:
        with clients(mta.port, "b@ours.test") as busy:
            for _ in range(2):
                busy.wait_for(50)
                started = time.monotonic()
                assert mta.stop() == 0
                assert time.monotonic() - started < 10
                mta.start()
                busy.wait_for(50)
        mta.wait_until_empty()
        arrived = numbers(mta.inbox("ours.test", "b").mails())
    assert busy.accepted <= set(arrived)
    assert len(arrived) == len(set(arrived))


def test_what_waits_is_tried_again_after_the_start() -> None:
    with postfix(domain="peer.test") as peer, posthof(to_host("out", "127.0.0.1", peer.port)) as mta:
        peer.stop()
        for number in range(10):
            mta.send("a@client.test", "b@peer.test", mail(number))
        mta.wait_for_event("deferred")
        assert mta.stop() == 0
        peer.start()
        mta.start()
        arrived = peer.inbox.wait_for(10)
        mta.wait_until_empty()
    assert sorted(numbers(arrived)) == list(range(10))


def test_a_stopping_house_says_421_and_why() -> None:
    with posthof(OURS) as mta, mta.connect() as session:
        mta.stop()
        assert session.getreply()[0] == 421
