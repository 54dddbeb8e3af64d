"""Where mail goes, by a real DNS server (knot): priorities, dead hosts, implicit and null MX. One of each."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import dns, peers
from kit.mails import mail
from kit.postfix import postfix
from kit.posthof import Posthof, direct, mail_domain, posthof, relay_policy

pytestmark = pytest.mark.interop

DEAD, FIRST, SECOND = "127.9.1.1", "127.9.1.2", "127.9.1.3"
TWO = f"@ MX 20 b\n@ MX 10 a\na A {FIRST}\nb A {SECOND}"
ONE_DEAD = f"@ MX 10 dead\n@ MX 20 b\ndead A {DEAD}\nb A {SECOND}"
ZONES = {
    "two.test": TWO,
    "dead.test": ONE_DEAD,
    "away.test": ONE_DEAD,
    "nomail.test": "@ MX 0 .",
    "implicit.test": f"@ A {FIRST}",
    "test": "known A 127.9.1.1",
}
PORTS = {domain: peers.free_port() for domain in ("two.test", "dead.test", "away.test")}


@pytest.fixture(scope="module")
def mta(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Posthof]:
    """A Posthof that asks the knot. Three domains are routed by MX to another port than 25, which is root's."""
    peers.require("knotd")
    folder: Path = tmp_path_factory.mktemp("knot")
    ways = []
    for domain, port in PORTS.items():
        match = {"clients": ["127.0.0.0/8"], "recipients": [f"*@{domain}"]}
        action = {"type": "Smarthost", "nextHops": [{"mx": domain, "port": port}]}
        ways.append(relay_policy(domain.replace(".", "-"), action, match=match, priority=1))
    ours = mail_domain("ours.test", "Maildir", recipients={"any": True})
    with dns.knot(folder, ZONES) as resolver, posthof(ours, direct(), *ways, mta={"resolver": [resolver]}) as house:
        yield house


def test_the_best_mx_is_taken_first(mta: Posthof) -> None:
    port = PORTS["two.test"]
    with (
        postfix(domain="two.test", address=FIRST, port=port, hostname="first.test") as first,
        postfix(domain="two.test", address=SECOND, port=port, hostname="second.test") as second,
    ):
        for number in range(5):
            mta.send("a@client.test", "b@two.test", mail(number))
        first.inbox.wait_for(5)
        assert second.inbox.mails() == []


def test_a_dead_first_mx_is_passed_over_in_the_same_try(mta: Posthof) -> None:
    with postfix(domain="dead.test", address=SECOND, port=PORTS["dead.test"]) as second:
        mta.send("a@client.test", "b@dead.test", mail(1))
        second.inbox.wait_for(1)
        assert mta.wait_for_event("relayed", to=["b@dead.test"])["relay"].startswith("b.dead.test[127.9.1.3]")
        assert not mta.events("deferred", to=["b@dead.test"])


def test_mail_waits_when_every_mx_is_dead_and_leaves_when_one_is_up(mta: Posthof) -> None:
    mta.send("a@client.test", "b@away.test", mail(1))
    told = mta.wait_for_event("deferred", to=["b@away.test"])
    assert told["reason"] in ("ConnectFailed", "SiteDown")
    with postfix(domain="away.test", address=SECOND, port=PORTS["away.test"]) as second:
        second.inbox.wait_for(1)


def test_a_null_mx_returns_the_mail_at_once(mta: Posthof) -> None:
    mta.send("null@ours.test", "b@nomail.test", mail(1))
    (report,) = mta.inbox("ours.test", "null").wait_for(1)
    assert b"Status: 5.1.10" in report


def test_an_unknown_domain_returns_the_mail(mta: Posthof) -> None:
    mta.send("unknown@ours.test", "b@unknown.test", mail(1))
    (report,) = mta.inbox("ours.test", "unknown").wait_for(1)
    assert b"Status: 5.1.2" in report or b"Status: 5.4.4" in report


def test_a_resolver_that_refuses_keeps_the_mail_waiting(mta: Posthof) -> None:
    mta.send("refused@ours.test", "b@not-served.example", mail(1))
    assert mta.wait_for_event("deferred", to=["b@not-served.example"])["reason"] == "DNSFailed"
    assert mta.inbox("ours.test", "refused").mails() == []


def test_direct_mail_goes_to_port_25_of_the_domain_itself_without_mx(mta: Posthof) -> None:
    with socket.socket() as probe:
        try:
            probe.bind((FIRST, 25))
        except OSError as why:
            peers.absent(f"port 25 of {FIRST} is not ours here: {why}")
    with postfix(domain="implicit.test", address=FIRST, port=25) as peer:
        mta.send("a@client.test", "b@implicit.test", mail(1))
        peer.inbox.wait_for(1)
