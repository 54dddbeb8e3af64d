"""Where mail goes, by a real DNS server (knot): priorities, dead hosts, implicit and null MX."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit import dns, peers
from kit.mails import mail
from kit.postfix import postfix
from kit.posthof import Posthof, direct, mail_domain, posthof, relay_policy

pytestmark = pytest.mark.interop

DEAD, FIRST, SECOND = "127.9.1.1", "127.9.1.2", "127.9.1.3"
SENDER = mail_domain("ours.test", "Maildir", recipients={"any": True})


def by_mx(domain: str, port: int) -> dict[str, Any]:
    """What Direct does, at another port than 25, which tests may not have."""
    return relay_policy(
        f"mx-{domain.replace('.', '-')}", {"type": "Smarthost", "nextHops": [{"mx": domain, "port": port}]}
    )


@contextlib.contextmanager
def house(folder: Path, zones: dict[str, str], *documents: dict[str, Any]) -> Iterator[Posthof]:
    """A Posthof that asks a knot with these zones."""
    peers.require("knotd")
    with dns.knot(folder, zones) as resolver, posthof(SENDER, *documents, mta={"resolver": [resolver]}) as mta:
        yield mta


def test_the_best_mx_is_taken_first(tmp_path: Path) -> None:
    zone = f"@ MX 20 b\n@ MX 10 a\na A {FIRST}\nb A {SECOND}"
    port = peers.free_port()
    with (
        postfix(domain="peer.test", address=FIRST, port=port, hostname="first.test") as first,
        postfix(domain="peer.test", address=SECOND, port=port, hostname="second.test") as second,
        house(tmp_path, {"peer.test": zone}, by_mx("peer.test", port)) as mta,
    ):
        for number in range(5):
            mta.send("a@client.test", "b@peer.test", mail(number))
        first.inbox.wait_for(5)
        assert second.inbox.mails() == []


def test_a_dead_first_mx_is_passed_over_in_the_same_try(tmp_path: Path) -> None:
    zone = f"@ MX 10 dead\n@ MX 20 b\ndead A {DEAD}\nb A {SECOND}"
    port = peers.free_port()
    with (
        postfix(domain="peer.test", address=SECOND, port=port) as second,
        house(tmp_path, {"peer.test": zone}, by_mx("peer.test", port)) as mta,
    ):
        mta.send("a@client.test", "b@peer.test", mail(1))
        second.inbox.wait_for(1)
        assert mta.wait_for_event("relayed")["relay"].startswith("b.peer.test[127.9.1.3]")
        assert not mta.events("deferred")


def test_mail_waits_when_every_mx_is_dead_and_leaves_when_one_is_up(tmp_path: Path) -> None:
    zone = f"@ MX 10 dead\n@ MX 20 b\ndead A {DEAD}\nb A {SECOND}"
    with (
        postfix(domain="peer.test", address=SECOND) as second,
        house(tmp_path, {"peer.test": zone}, by_mx("peer.test", second.port)) as mta,
    ):
        second.stop()
        mta.send("a@client.test", "b@peer.test", mail(1))
        assert mta.wait_for_event("deferred")["reason"] in ("ConnectFailed", "SiteDown")
        second.start()
        second.inbox.wait_for(1)


def test_a_null_mx_returns_the_mail_at_once(tmp_path: Path) -> None:
    with house(tmp_path, {"nomail.test": "@ MX 0 ."}, direct()) as mta:
        mta.send("a@ours.test", "b@nomail.test", mail(1))
        (report,) = mta.inbox("ours.test", "a").wait_for(1)
    assert b"Status: 5.1.10" in report


def test_an_unknown_domain_returns_the_mail(tmp_path: Path) -> None:
    with house(tmp_path, {"test": "known A 127.9.1.1"}, direct()) as mta:
        mta.send("a@ours.test", "b@unknown.test", mail(1))
        (report,) = mta.inbox("ours.test", "a").wait_for(1)
    assert b"Status: 5.1.2" in report or b"Status: 5.4.4" in report


def test_a_resolver_that_refuses_keeps_the_mail_waiting(tmp_path: Path) -> None:
    with house(tmp_path, {"known.test": "@ MX 10 a\na A 127.9.1.1"}, direct()) as mta:
        mta.send("a@ours.test", "b@not-served.example", mail(1))
        assert mta.wait_for_event("deferred")["reason"] == "DNSFailed"
        assert mta.inbox("ours.test", "a").mails() == []


def test_direct_mail_goes_to_port_25_of_the_domain_itself_without_mx(tmp_path: Path) -> None:
    with socket.socket() as probe:
        try:
            probe.bind((FIRST, 25))
        except OSError as why:
            pytest.skip(f"port 25 of {FIRST} is not ours here: {why}")
    with (
        postfix(domain="implicit.test", address=FIRST, port=25) as peer,
        house(tmp_path, {"implicit.test": f"@ A {FIRST}"}, direct()) as mta,
    ):
        mta.send("a@client.test", "b@implicit.test", mail(1))
        peer.inbox.wait_for(1)
