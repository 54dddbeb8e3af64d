"""kill -9 of a worker: nothing that was answered 250 is lost, and the survivors deliver what it left."""

from __future__ import annotations

import pytest

from kit.load import clients
from kit.mails import mail, numbers
from kit.postfix import postfix
from kit.posthof import mail_domain, posthof, to_host

pytestmark = pytest.mark.interop

OURS = mail_domain("ours.test", "Maildir", recipients={"any": True})


def test_under_load_nothing_is_lost() -> None:
    with posthof(OURS) as mta:
        with clients(mta.port, "b@ours.test") as busy:
            for _ in range(3):
                busy.wait_for(50)
                mta.kill_worker()
                busy.wait_for(50)
        mta.wait_for_event("worker_died")
        mta.wait_until_empty()
        arrived = set(numbers(mta.inbox("ours.test", "b").mails()))
    assert busy.accepted <= arrived
    assert not busy.refusals


def test_the_survivors_deliver_what_it_left() -> None:
    with postfix(domain="peer.test") as peer, posthof(to_host("out", "127.0.0.1", peer.port)) as mta:
        peer.stop()
        for number in range(40):  # sessions are spread over the workers, so each holds some
            mta.send("a@client.test", "b@peer.test", mail(number))
        mta.kill_worker()
        mta.wait_for_event("lane_adopted")
        peer.start()
        arrived = peer.inbox.wait_for(40)
        mta.wait_until_empty()
    assert set(numbers(arrived)) == set(range(40))


def test_the_whole_house_killed_loses_nothing() -> None:
    with posthof(OURS) as mta:
        with clients(mta.port, "b@ours.test") as busy:
            busy.wait_for(50)
            mta.kill()
            mta.start()
            busy.wait_for(50)
        mta.wait_until_empty()
        arrived = set(numbers(mta.inbox("ours.test", "b").mails()))
    assert busy.accepted <= arrived
