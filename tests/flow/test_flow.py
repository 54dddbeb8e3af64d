"""The story, with real parts: a worker's listener, spool, schedule and sessions, and scripted next hops."""

from __future__ import annotations

import asyncio
import email
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from kit.house import House
from kit.peer import Peer, Say

OURS = """
apiVersion: posthof.dev/v1alpha1
kind: MailDomain
metadata: {name: ours}
spec:
  domain: ours.test
  inbound:
    mode: Maildir
    recipients: {list: [alice, bob, postmaster]}
    aliases: {team: [alice, bob], away: [someone@far.test]}
"""
CONTENT = (
    b"From: a@ours.test\r\nTo: b@far.test\r\nSubject: the subject\r\nMessage-ID: <one@x>\r\n\r\nhello\r\n..dots\r\n"
)


def rule(action: str, match: str = "clients: [127.0.0.0/8]", *, name: str = "out", priority: int = 0) -> str:
    return f"""
---
apiVersion: posthof.dev/v1alpha1
kind: RelayPolicy
metadata: {{name: {name}}}
spec:
  priority: {priority}
  match: {{{match}}}
  action: {{{action}}}
  retry: {{intervals: [1s], jitter: 0}}
"""


def to(port: int) -> str:
    return rule(f"type: Smarthost, nextHops: [{{host: 127.0.0.1, port: {port}}}]")


def story(folder: Path, manifests: str, act: Callable[[House], Awaitable[None]]) -> None:
    async def run() -> None:
        async with House(folder, manifests) as house:
            await act(house)

    uvloop.run(run())


def test_mail_for_a_mailbox_of_ours_lies_in_its_maildir_as_it_came(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        reply = await house.submit("you@example.org", ["alice@ours.test"], CONTENT)
        assert reply.startswith("250 2.0.0 queued as ")
        await house.until(lambda: house.inbox("ours.test/alice"))
        mail = house.inbox("ours.test/alice")[0]
        assert mail.endswith(CONTENT)
        assert mail.startswith(b"Return-Path: <you@example.org>\r\nDelivered-To: alice@ours.test\r\nReceived: from ")
        await house.drained()

    story(tmp_path, OURS, act)


def test_an_alias_reaches_all_its_mailboxes_once(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        await house.submit("you@example.org", ["team@ours.test", "alice@ours.test"], CONTENT)
        await house.until(lambda: house.inbox("ours.test/alice") and house.inbox("ours.test/bob"))
        assert (len(house.inbox("ours.test/alice")), len(house.inbox("ours.test/bob"))) == (1, 1)

    story(tmp_path, OURS, act)


def test_nobody_relays_without_a_policy(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        assert (await house.submit("you@example.org", ["b@far.test"], CONTENT)).startswith("550 5.7.1")
        assert (await house.submit("you@example.org", ["nobody@ours.test"], CONTENT)).startswith("550 5.1.1")

    story(tmp_path, OURS, act)


def test_mail_leaves_by_the_smarthost_byte_for_byte(tmp_path: Path) -> None:
    with Peer() as peer:

        async def act(house: House) -> None:
            await house.submit("a@ours.test", ["b@far.test"], CONTENT)
            await house.until(lambda: peer.messages)
            assert peer.messages[0].content.endswith(CONTENT)
            assert peer.messages[0].recipients == ["b@far.test"]

        story(tmp_path, OURS + to(peer.port), act)


def test_a_temporary_refusal_waits_with_the_peers_words_and_then_leaves(tmp_path: Path) -> None:
    with Peer({"RCPT": ["450 4.2.1 mailbox busy", "250 2.1.5 ok"]}) as peer:

        async def act(house: House) -> None:
            await house.submit("a@ours.test", ["b@far.test"], CONTENT)
            is_deferred = {"state": "deferred"}
            page = await house.asked("queue.list", is_deferred, lambda page: page["items"])
            one = page["items"][0]["waiting"][0]
            assert (one["reason"], one["attempts"]) == ("RecipientRefused", 1)
            shown = await house.ask("queue.show", {"id": page["items"][0]["id"]})
            assert "450 4.2.1 mailbox busy" in shown["detail"]
            await house.until(lambda: peer.messages)
            await house.drained()

        story(tmp_path, OURS + to(peer.port), act)


def test_a_permanent_refusal_comes_back_as_a_report_to_our_own_mailbox(tmp_path: Path) -> None:
    with Peer({"RCPT": "550 5.1.1 no such user here"}) as peer:

        async def act(house: House) -> None:
            await house.submit("alice@ours.test", ["b@far.test"], CONTENT)
            await house.until(lambda: house.inbox("ours.test/alice"))
            report = email.message_from_bytes(house.inbox("ours.test/alice")[0])
            assert report.get_content_type() == "multipart/report"
            assert report["Return-Path"] == "<>"
            assert b"no such user here" in house.inbox("ours.test/alice")[0]
            await house.drained()

        story(tmp_path, OURS + to(peer.port), act)


def test_held_mail_waits_for_its_release_over_a_restart(tmp_path: Path) -> None:
    with Peer() as peer:
        manifests = OURS + to(peer.port) + rule("type: Hold", "senders: [slow@ours.test]", name="hold", priority=9)

        async def arrive(house: House) -> None:
            assert (await house.submit("slow@ours.test", ["b@far.test"], CONTENT)).startswith("250")
            assert [w["state"] for item in await house.queue() for w in item["waiting"]] == ["held"]

        async def go(house: House) -> None:
            items = (await house.asked("queue.list", {}, lambda page: page["items"]))["items"]
            assert [w["state"] for item in items for w in item["waiting"]] == ["held"]
            assert await house.ask("queue.release", {"ids": [items[0]["id"]]}) == {"count": 1}
            await house.until(lambda: peer.messages)

        story(tmp_path, manifests, arrive)
        story(tmp_path, manifests, go)
        assert len(peer.messages) == 1


def test_what_waits_at_a_stop_is_delivered_after_the_start(tmp_path: Path) -> None:
    with Peer({"MAIL": ["451 4.3.0 not now", "250 2.1.0 ok"]}) as peer:

        async def arrive(house: House) -> None:
            for _ in range(3):
                await house.submit("a@ours.test", ["b@far.test"], CONTENT)

        async def go(house: House) -> None:
            await house.until(lambda: len(peer.messages) == 3)
            await house.drained()

        story(tmp_path, OURS + to(peer.port), arrive)
        story(tmp_path, OURS + to(peer.port), go)
        assert len(peer.messages) == 3


def test_queued_mail_takes_the_way_of_a_new_configuration(tmp_path: Path) -> None:
    with Peer({"CONNECT": Say("421 4.3.2 closed")}) as closed, Peer() as open_:

        async def act(house: House) -> None:
            await house.submit("a@ours.test", ["b@far.test"], CONTENT)
            await house.until(lambda: closed.sessions)
            house.write(OURS + to(open_.port))
            await house.swap(house.config())
            await house.until(lambda: open_.messages)

        story(tmp_path, OURS + to(closed.port), act)


def test_discarded_mail_is_accepted_and_forgotten(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        assert (await house.submit("spam@x.test", ["alice@ours.test"], CONTENT)).startswith("250")
        assert (await house.submit("ok@x.test", ["alice@ours.test"], CONTENT)).startswith("250")
        await house.until(lambda: house.inbox("ours.test/alice"))
        await house.drained()
        assert len(house.inbox("ours.test/alice")) == 1

    story(tmp_path, OURS + rule("type: Discard", "senders: [spam@x.test]"), act)


def test_a_header_rule_decides_after_the_content(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        reply = await house.submit("you@x.test", ["alice@ours.test"], b"Subject: buy VIAGRA now\r\n\r\nx\r\n")
        assert reply.startswith("550 5.7.1")
        assert (await house.submit("you@x.test", ["alice@ours.test"], CONTENT)).startswith("250")

    match = 'headers: [{name: Subject, pattern: "*viagra*"}]'
    story(tmp_path, OURS + rule("type: Reject", match), act)


def test_a_message_over_the_blob_threshold_passes_whole(tmp_path: Path) -> None:
    large = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 60 + b"\r\n"
    large += (b"x" * 998 + b"\r\n") * 1000
    with Peer() as peer:

        async def act(house: House) -> None:
            await house.submit("a@ours.test", ["b@far.test"], large)
            await house.until(lambda: peer.messages)
            assert peer.messages[0].content.endswith(large)

        story(tmp_path, OURS + to(peer.port), act)


def test_deleted_mail_is_gone_over_a_restart(tmp_path: Path) -> None:
    with Peer({"MAIL": "451 4.3.0 not now"}) as peer:

        async def arrive(house: House) -> None:
            await house.submit("a@ours.test", ["b@far.test"], CONTENT)
            await house.asked("queue.delete", {"sender": "a@ours.test"}, lambda said: said == {"count": 1})
            assert await house.queue() == []

        async def look(house: House) -> None:
            await asyncio.sleep(0.3)
            assert await house.queue() == []

        story(tmp_path, OURS + to(peer.port), arrive)
        story(tmp_path, OURS + to(peer.port), look)
