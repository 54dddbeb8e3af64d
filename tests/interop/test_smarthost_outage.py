"""A smarthost goes away and comes back: what a person sees in between, and that the mail leaves."""

from __future__ import annotations

import pytest

from kit import peers
from kit.mails import mail, numbers
from kit.postfix import postfix
from kit.posthof import Posthof, posthof, to_host

pytestmark = pytest.mark.interop

COUNT = 12


def reasons(mta: Posthof) -> set[str]:
    return {one.get("reason", "") for item in mta.queue() for one in item["waiting"]}


def test_mail_waits_with_reasons_and_leaves_when_the_smarthost_is_back() -> None:
    with postfix(domain="peer.test") as peer, posthof(to_host("out", "127.0.0.1", peer.port)) as mta:
        peer.stop()
        for number in range(COUNT):
            mta.send("a@client.test", "b@peer.test", mail(number))
        peers.wait_for(
            lambda: len(mta.queue()) == COUNT and reasons(mta) <= {"ConnectFailed", "SiteDown"},
            "every mail in the queue with a reason",
        )
        item = mta.queue()[0]
        assert (item["sender"], item["waiting"][0]["address"]) == ("a@client.test", "b@peer.test")
        shown = mta.run("queue", "show", item["id"])
        assert "b@peer.test" in shown
        assert "refused" in shown.lower()  # the kernel's words: connection refused
        peer.start()
        arrived = peer.inbox.wait_for(COUNT)
        mta.wait_until_empty()
        assert mta.queue() == []
    assert sorted(numbers(arrived)) == list(range(COUNT))


def test_a_flush_tries_at_once() -> None:
    retry = {"intervals": ["1h"], "jitter": 0}
    with postfix(domain="peer.test") as peer, posthof(to_host("out", "127.0.0.1", peer.port, retry=retry)) as mta:
        peer.stop()
        mta.send("a@client.test", "b@peer.test", mail(1))
        mta.wait_for_event("deferred")
        peer.start()
        mta.run("queue", "flush", "--all")
        peer.inbox.wait_for(1)


def test_a_greylisting_peer_gets_the_mail_at_the_second_try() -> None:
    later = "check_client_access inline:{{127.0.0.1=450 4.7.1 greylisted, come back}}, permit"
    with (
        postfix(domain="peer.test", extra={"smtpd_recipient_restrictions": later}) as peer,
        # A session that stays open would keep an smtpd(8) with the old settings.
        posthof(to_host("out", "127.0.0.1", peer.port, limits={"idle": "0s"})) as mta,
    ):
        mta.send("a@client.test", "b@peer.test", mail(1))
        told = mta.wait_for_event("deferred")
        assert told["reason"] == "RecipientRefused"
        assert "greylisted, come back" in told["reply"]
        peer.set("smtpd_recipient_restrictions", "permit")
        peer.inbox.wait_for(1)
