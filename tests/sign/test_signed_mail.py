"""Mail on its way out of a worker: who signs it, who does not, and what its envelope sender is."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from kit.dkim import at_once, judged, pem, signing_key, table
from kit.dns import DNSServer
from kit.house import House
from kit.peer import FULL, Message, Peer
from posthof_pod.mailauth import batv, canon, srs
from posthof_pod.mailauth.arc.verify import verify_chain

INTERNAL = """
apiVersion: posthof.dev/v1alpha1
kind: MTA
metadata: {name: house}
spec:
  hostname: mail.house.test
  listeners:
    - {name: inside, role: Internal, address: 127.0.0.1, port: 2525}
  spool: {path: spool}
  mailRoot: mail
  stateDir: state
"""
WORLD = INTERNAL.replace("role: Internal", "role: MX")


def manifests(port: int, *, match: str = "clients: [127.0.0.0/8]", more: str = "", extra: str = "") -> str:
    rsa, ed = (textwrap.indent(pem(one).decode(), "    ") for one in ("rsa2048", "ed25519"))
    return f"""
apiVersion: posthof.dev/v1alpha1
kind: MailDomain
metadata: {{name: ours}}
spec:
  domain: a.example
  inbound:
    mode: Maildir
    recipients: {{list: [ada]}}
    aliases: {{away: [someone@far.test]}}
  outbound:
    dkim: {{keyRefs: [{{name: one}}, {{name: two}}]}}
    {more}
---
apiVersion: posthof.dev/v1alpha1
kind: DKIMKey
metadata: {{name: one}}
spec: {{domainRef: {{name: ours}}, selector: rsa2048, secretRef: {{name: keys, key: rsa}}}}
---
apiVersion: posthof.dev/v1alpha1
kind: DKIMKey
metadata: {{name: two}}
spec: {{domainRef: {{name: ours}}, selector: ed25519, algorithm: Ed25519, secretRef: {{name: keys, key: ed}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: keys}}
stringData:
  salt: |
    new secret
    old secret
  rsa: |
{rsa}
  ed: |
{ed}
---
apiVersion: posthof.dev/v1alpha1
kind: RelayPolicy
metadata: {{name: out}}
spec:
  match: {{{match}}}
  action: {{type: Smarthost, nextHops: [{{host: 127.0.0.1, port: {port}}}]}}
  retry: {{intervals: [1s], jitter: 0}}
{extra}"""


RECORDS = table(signing_key("rsa2048"), signing_key("ed25519"))
MAIL = b"From: Ada <ada@a.example>\r\nTo: b@far.test\r\nSubject: signed\r\n\r\nhello \xc3\xa9\r\n..dots \r\n\r\n"


def story(
    folder: Path,
    act: Callable[[House, Peer], Awaitable[None]],
    *,
    mta: str = INTERNAL,
    offers: tuple[str, ...] = FULL,
    script: dict[str, list[str]] | None = None,
    **what: str,
) -> None:
    async def run(peer: Peer) -> None:
        async with House(folder, manifests(peer.port, **what), mta=mta) as house:
            await act(house, peer)

    with Peer(script, offers=offers) as peer:
        uvloop.run(run(peer))


async def sent(house: House, peer: Peer, content: bytes = MAIL, *, sender: str = "ada@a.example") -> Message:
    reply = await house.submit(sender, ["b@far.test"], content, mail=" BODY=8BITMIME")
    assert reply[0] == "2", reply
    return await taken(house, peer)


async def taken(house: House, peer: Peer, n: int = 1) -> Message:
    await house.until(lambda: len(peer.messages) >= n)
    return peer.messages[n - 1]


def results(content: bytes) -> list[tuple[str, str]]:
    return [(one.algorithm, one.result) for one in judged(content, RECORDS, now=time.time())]


BOTH = [("rsa-sha256", "pass"), ("ed25519-sha256", "pass")]


def test_mail_of_our_hosts_leaves_with_both_signatures(tmp_path: Path) -> None:
    async def act(house: House, peer: Peer) -> None:
        message = await sent(house, peer)
        assert results(message.content) == BOTH
        assert message.sender == "ada@a.example"

    story(tmp_path, act)


def test_what_had_to_be_converted_is_signed_as_it_leaves(tmp_path: Path) -> None:
    async def act(house: House, peer: Peer) -> None:
        message = await sent(house, peer, b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n" + MAIL)
        assert message.content.isascii()
        assert results(message.content) == BOTH

    story(tmp_path, act, offers=("PIPELINING",))


def test_a_large_message_is_signed_without_being_held(tmp_path: Path) -> None:
    async def act(house: House, peer: Peer) -> None:
        large = MAIL + b"all work and no play  makes \t a dull boy\r\n" * 12_000
        assert len(large) > 2 * 262144 - 40000
        assert results((await sent(house, peer, large)).content) == BOTH

    story(tmp_path, act)


def test_mail_of_another_author_is_not_signed(tmp_path: Path) -> None:
    async def act(house: House, peer: Peer) -> None:
        for n, head in enumerate(
            (
                b"From: x@elsewhere.test\r\n\r\n",
                b"From: x@sub.a.example\r\n\r\n",
                b"From: ada@a.example, eve@b.example\r\n\r\n",
                b"From: ada@a.example\r\nFrom: eve@b.example\r\n\r\n",
                b'From: "ada@a.example" <eve@b.example>\r\n\r\n',
                b"Subject: nobody\r\n\r\n",
            ),
            1,
        ):
            await house.submit("ada@a.example", ["b@far.test"], head)
            assert b"DKIM-Signature" not in (await taken(house, peer, n)).content

    story(tmp_path, act)


def test_the_world_gets_no_signature_of_ours(tmp_path: Path) -> None:
    """Neither through a rule about recipients nor through an alias, whatever From says."""

    async def act(house: House, peer: Peer) -> None:
        await house.submit("ada@a.example", ["b@far.test"], MAIL)
        await house.submit("ada@a.example", ["away@a.example"], MAIL)
        for n in (1, 2):
            assert b"DKIM-Signature" not in (await taken(house, peer, n)).content

    story(tmp_path, act, mta=WORLD, match="recipients: ['*@far.test']")


def test_a_rule_that_knows_its_clients_makes_their_mail_ours(tmp_path: Path) -> None:
    async def act(house: House, peer: Peer) -> None:
        assert results((await sent(house, peer)).content) == BOTH

    story(tmp_path, act, mta=WORLD)


def test_a_rule_as_wide_as_the_world_knows_nobody(tmp_path: Path) -> None:
    async def act(house: House, peer: Peer) -> None:
        assert b"DKIM-Signature" not in (await sent(house, peer)).content

    match = "clients: [0.0.0.0/1, 128.0.0.0/1], recipients: ['*@far.test']"
    story(tmp_path, act, mta=WORLD, match=match)


def test_a_report_is_signed_by_the_domain_above_our_hostname(tmp_path: Path) -> None:
    async def act(house: House, peer: Peer) -> None:
        await house.submit("carol@far.test", ["nobody@far.test"], MAIL)
        report = await taken(house, peer)
        assert report.sender == ""
        assert b"From: " in report.content
        assert b"mail.a.example" in report.content
        assert results(report.content) == BOTH

    mta = INTERNAL.replace("mail.house.test", "mail.a.example")
    story(tmp_path, act, mta=mta, script={"RCPT": ["550 5.1.1 nobody", "250 2.1.5 ok"]})


def test_what_goes_to_several_places_is_signed_once(tmp_path: Path) -> None:
    async def act(house: House, peer: Peer) -> None:
        await house.submit("ada@a.example", ["b@far.test", "away@a.example"], MAIL)
        await taken(house, peer)
        await house.drained()
        fields = {re.findall(rb"DKIM-Signature:.*?b=[^;]*?\r\n(?=\S)", one.content, re.S)[0] for one in peer.messages}
        assert len(fields) == 1

    story(tmp_path, act)


def test_a_key_taken_away_signs_no_more(tmp_path: Path) -> None:
    async def act(house: House, peer: Peer) -> None:
        house.write(
            manifests(peer.port).replace(
                "secretRef: {name: keys, key: ed}", "secretRef: {name: keys, key: ed}, state: Retired"
            )
        )
        await house.swap(house.config())
        assert results((await sent(house, peer)).content) == BOTH[:1]

    story(tmp_path, act)


# ---- envelope senders

SRS = "srs: {secretRef: {name: keys, key: salt}}"
BATV = "batv: {secretRef: {name: keys, key: salt}, enforce: true}"


def test_forwarded_mail_leaves_with_a_sender_of_ours_and_its_bounce_finds_home(tmp_path: Path) -> None:
    async def act(house: House, peer: Peer) -> None:
        await house.submit("carol@c.example", ["away@a.example"], MAIL)
        message = await taken(house, peer)
        assert message.recipients == ["someone@far.test"]
        assert re.fullmatch(r"SRS0=[A-Z2-7]{6}=[A-Z2-7]{2}=c\.example=carol@a\.example", message.sender)
        reply = await house.submit("", [message.sender], b"Subject: bounce\r\n\r\n")
        assert reply[0] == "2", reply
        assert (await taken(house, peer, 2)).recipients == ["carol@c.example"]
        assert (await house.submit("x@d.example", [message.sender], MAIL))[:9] == "550 5.7.1"
        forged = message.sender.replace("carol", "dave")
        assert (await house.submit("", [forged], MAIL))[:9] == "550 5.7.1"
        old = srs.forward("carol@c.example", "a.example", b"old secret", time.time())
        assert (await house.submit("", [old], MAIL))[0] == "2"

    story(tmp_path, act, mta=WORLD, match="recipients: ['*@far.test', '*@c.example']", more=SRS)


def test_our_own_senders_are_marked_and_false_bounces_refused(tmp_path: Path) -> None:
    async def act(house: House, peer: Peer) -> None:
        message = await sent(house, peer)
        assert re.fullmatch(r"prvs=0\d{3}[0-9a-f]{6}=ada@a\.example", message.sender)
        assert (await house.submit("", [message.sender], MAIL))[0] == "2"
        await house.until(lambda: house.inbox("a.example/ada"))
        assert (await house.submit("", ["ada@a.example"], MAIL))[:9] == "550 5.7.1"
        assert (await house.submit("", ["prvs=0000000000=ada@a.example"], MAIL))[:9] == "550 5.7.1"
        assert (await house.submit("bob@b.example", ["ada@a.example"], MAIL))[0] == "2"
        assert (await house.submit("bob@b.example", [message.sender], MAIL))[0] == "2"
        old = batv.mark("ada@a.example", b"old secret", time.time())
        assert (await house.submit("", [old], MAIL))[0] == "2"
        assert (await house.submit("", ["postmaster@a.example"], MAIL))[0] == "2"

    story(tmp_path, act, mta=WORLD, more=BATV)


# ---- chains

JUDGED = """
---
apiVersion: posthof.dev/v1alpha1
kind: AccessPolicy
metadata: {name: trust}
spec: {}
"""


def test_what_we_forward_carries_a_seal_over_what_we_saw(tmp_path: Path) -> None:
    async def act(house: House, peer: Peer) -> None:
        await house.submit("carol@c.example", ["away@a.example"], MAIL.replace(b"ada@a.example", b"carol@c.example"))
        content = (await taken(house, peer)).content
        assert b"DKIM-Signature" not in content
        head, body = canon.parted(content)
        headers = canon.fields(head)
        found = at_once(verify_chain(headers, body, RECORDS, time.time()))
        assert (found.cv, found.instances, found.sealers) == ("pass", 1, ("a.example",)), found.reason
        (results,) = [raw for name, raw in headers if name == b"arc-authentication-results"]
        assert b"mail.house.test;" in results
        assert b"spf=" in results

    with DNSServer({"c.example": {"TXT": "v=spf1 -all"}}) as dns:
        mta = WORLD + f"  resolver: ['{dns.address}']\n"
        story(tmp_path, act, mta=mta, match="recipients: ['*@far.test']", more="", extra=JUDGED)
