"""Mail from the world, judged: through a real listener, with a real DNS server, into a Maildir."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from kit.dkim import signed, signing_key
from kit.dns import DNSServer
from kit.house import House
from posthof_pod.mailauth.dkim import keys
from posthof_pod.reports.journal import day_of
from posthof_pod.reports.received import reports

MTA = """
apiVersion: posthof.dev/v1alpha1
kind: MTA
metadata: {{name: house}}
spec:
  hostname: mx.house.test
  listeners:
    - name: smtp
      role: MX
      address: 127.0.0.1
      port: 2525
      proxyProtocol: {{trustedCIDRs: [127.0.0.0/8]}}
  resolver: ["{resolver}"]
  spool: {{path: spool, blobThreshold: 64Ki}}
  mailRoot: mail
  stateDir: state
"""
OURS = """
apiVersion: posthof.dev/v1alpha1
kind: MailDomain
metadata: {name: ours}
spec:
  domain: ours.test
  inbound: {mode: Maildir, recipients: {list: [alice]}}
"""
GOOD, BAD = "192.0.2.1", "198.51.100.9"  # clients: the one that may send, and another
CONTENT = b"From: Ada <ada@a.example>\r\nTo: alice@ours.test\r\nSubject: hi\r\n\r\nhello\r\n"
KEY = signing_key("rsa1024")  # made in a moment; RFC 8301 still lets it be verified


def policy(spec: str) -> str:
    body = textwrap.indent(textwrap.dedent(spec).strip(), "  ")
    return (
        f"{OURS}---\napiVersion: posthof.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: trust}}\nspec:\n{body}\n"
    )


def world(dmarc: str = "v=DMARC1; p=reject") -> DNSServer:
    text = keys.record(KEY.key)
    return DNSServer(
        {
            "a.example": {"TXT": f'"v=spf1 ip4:{GOOD} -all exp=why.a.example"'},
            "why.a.example": {"TXT": '"Ask %{r} about %{i}"'},
            "_dmarc.a.example": {"TXT": f'"{dmarc}"'},
            "a.example._report._dmarc.ours.test": {"TXT": '"v=DMARC1"'},
            f"{KEY.selector}._domainkey.a.example": {"TXT": f'"{text[:200]}" "{text[200:]}"'},
        }
    )


def story(folder: Path, manifests: str, act: Callable[[House], Awaitable[None]], *, dmarc: str = "") -> None:
    async def run(resolver: str) -> None:
        async with House(folder, manifests, mta=MTA.format(resolver=resolver)) as house:
            await act(house)

    with world(dmarc) if dmarc else world() as server:
        uvloop.run(run(server.address))


async def delivered(house: House) -> bytes:
    await house.until(lambda: house.inbox("ours.test/alice"))
    return house.inbox("ours.test/alice")[-1]


def results(mail: bytes) -> list[bytes]:
    """The lines of our Authentication-Results field, without their line ends."""
    field = mail.partition(b"Authentication-Results: mx.house.test;\r\n")[2]
    lines = []
    for line in field.split(b"\r\n"):
        if line.startswith(b"\t "):
            lines[-1] += line[1:].rstrip(b";")
        elif line.startswith(b"\t"):
            lines.append(line.strip(b"\t;"))
        else:
            break
    return lines


def test_mail_of_its_domain_says_so(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        reply = await house.submit("ada@a.example", ["alice@ours.test"], signed(CONTENT, KEY), client=GOOD)
        assert reply.startswith("250"), reply
        mail = await delivered(house)
        said = results(mail)
        assert said[0] == b"spf=pass smtp.mailfrom=ada@a.example"
        assert said[1].startswith(b"dkim=pass")
        assert said[-1] == b"dmarc=pass header.from=a.example polrec.p=reject polrec.domain=a.example"
        assert b"X-Posthof-Quarantine" not in mail
        stats = await house.ask("stats", None)
        assert stats['posthof_sender_auth_total{method="dmarc",result="pass"}'] == 1

    story(tmp_path, OURS, act)


def test_a_signature_over_a_large_message_is_verified_as_it_streams(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        content = signed(CONTENT + b"x" * 70 + b"\r\n" + b"A line of text.\r\n" * 20_000, KEY)
        await house.submit("x@elsewhere.example", ["alice@ours.test"], content, client=BAD)
        mail = await delivered(house)
        assert b"dkim=pass" in b" ".join(results(mail))
        assert b"dmarc=pass" in results(mail)[-1]
        assert mail.endswith(content)

    story(tmp_path, OURS, act)


def test_a_forged_sender_is_marked_where_nobody_said_more(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        await house.submit("ada@a.example", ["alice@ours.test"], CONTENT, client=BAD)
        mail = await delivered(house)
        assert results(mail)[-1].startswith(b"dmarc=fail")
        assert b"\r\nX-Posthof-Quarantine: dmarc=fail for a.example, p=reject\r\n" in mail

    story(tmp_path, OURS, act)


def test_a_policy_rejects_what_evidence_speaks_against(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        reply = await house.submit("ada@a.example", ["alice@ours.test"], CONTENT, client=BAD)
        assert reply.startswith("550 5.7.1 a.example wants mail that is not proven to be its own rejected"), reply

    story(tmp_path, policy("{}"), act)


def test_a_forwarded_message_is_no_evidence(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        reply = await house.submit("list@lists.example", ["alice@ours.test"], CONTENT, client=BAD)
        assert reply.startswith("250")
        assert b"X-Posthof-Quarantine" in await delivered(house)

    story(tmp_path, policy("{}"), act)


def test_a_policy_may_hold_what_fails(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        reply = await house.submit("list@lists.example", ["alice@ours.test"], CONTENT, client=BAD)
        assert reply.startswith("250")
        rows = await house.queue()
        assert [one["state"] for row in rows for one in row["waiting"]] == ["held"]

    story(tmp_path, policy("dmarc: {quarantine: Hold}"), act)


def test_spf_may_reject_alone(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        content = CONTENT.replace(b"a.example", b"other.example")
        reply = await house.submit("ada@a.example", ["alice@ours.test"], content, client=BAD)
        assert reply.startswith("550 5.7.23 a.example does not let this client send for it"), reply
        assert reply.endswith(f"It explains: Ask mx.house.test about {BAD}"), reply

    story(tmp_path, policy("spf: {fail: Reject}"), act)


def test_two_authors_are_nobody(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        content = signed(b"From: eve@evil.example\r\n" + CONTENT, KEY)
        await house.submit("ada@a.example", ["alice@ours.test"], content, client=GOOD)
        mail = await delivered(house)
        assert results(mail)[-1].startswith(b'dmarc=permerror reason="there are 2 From fields"')
        assert b"X-Posthof-Quarantine: no author" in mail

    story(tmp_path, OURS, act)


def test_results_in_our_name_do_not_come_in(tmp_path: Path) -> None:
    forged = b"Authentication-Results: mx.house.test; dmarc=pass header.from=bank.example\r\n"

    async def act(house: House) -> None:
        await house.submit("ada@a.example", ["alice@ours.test"], forged + CONTENT, client=GOOD)
        mail = await delivered(house)
        assert mail.count(b"uthentication-") == 1
        assert b"bank.example" not in mail
        large = forged + CONTENT + b"A line of text.\r\n" * 20_000
        await house.submit("ada@a.example", ["alice@ours.test"], large, client=GOOD)
        await house.until(lambda: len(house.inbox("ours.test/alice")) == 2)
        mail = max(house.inbox("ours.test/alice"), key=len)
        assert mail.count(b"uthentication-") == 1
        assert b"\r\nX-Foreign-Auth-Results: mx.house.test; dmarc=pass header.from=bank.example\r\n" in mail

    story(tmp_path, OURS, act)


def test_dns_that_is_away_delays_nobody_for_ever(tmp_path: Path) -> None:
    async def run() -> None:
        with world() as server:
            server.failing.add("*")
            async with House(tmp_path, OURS, mta=MTA.format(resolver=server.address)) as house:
                reply = await house.submit("ada@a.example", ["alice@ours.test"], CONTENT, client=GOOD)
                assert reply.startswith("250")
                mail = await delivered(house)
                assert results(mail)[0].startswith(b"spf=temperror")
                assert results(mail)[-1].startswith(b"dmarc=temperror")

    uvloop.run(run())


def test_a_policy_may_wait_for_dns(tmp_path: Path) -> None:
    async def run() -> None:
        with world() as server:
            server.failing.add("*")
            manifests = policy("dmarc: {tempError: Defer}")
            async with House(tmp_path, manifests, mta=MTA.format(resolver=server.address)) as house:
                reply = await house.submit("ada@a.example", ["alice@ours.test"], CONTENT, client=GOOD)
                assert reply.startswith("451 4.7.24")

    uvloop.run(run())


def test_what_comes_from_this_machine_is_not_judged(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        await house.submit("ada@a.example", ["alice@ours.test"], CONTENT, client="127.0.0.1")
        assert b"Authentication-Results" not in await delivered(house)

    story(tmp_path, OURS, act)


def test_a_policy_judges_what_comes_from_this_machine_without_spf(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        await house.submit("ada@a.example", ["alice@ours.test"], signed(CONTENT, KEY), client="127.0.0.1")
        said = results(await delivered(house))
        assert said[0].startswith(b"spf=none")
        assert said[-1].startswith(b"dmarc=pass")

    story(tmp_path, policy("{}"), act)


def test_test_mode_and_policies_of_none_change_nothing(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        await house.submit("ada@a.example", ["alice@ours.test"], CONTENT, client=BAD)
        mail = await delivered(house)
        assert results(mail)[-1].startswith(b"dmarc=fail (t=y)")
        assert b"X-Posthof-Quarantine" not in mail

    story(tmp_path, policy("{}"), act, dmarc="v=DMARC1; p=quarantine; t=y")


def test_a_day_of_mail_becomes_one_report(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        for n in range(3):
            await house.submit("ada@a.example", ["alice@ours.test"], CONTENT, client=GOOD)
            await house.submit(f"n{n}@lists.example", ["alice@ours.test"], CONTENT, client=BAD)
        await house.until(lambda: len(house.inbox("ours.test/alice")) == 6)
        room = house.worker.reports
        await room.flush()
        (today,) = (house.folder / "spool" / "reports" / "dmarc").iterdir()
        today.rename(today.with_name(day_of(time.time() - 2 * 86400)))  # two days have passed
        await room.collect()
        await house.until(lambda: len(house.inbox("ours.test/alice")) == 7)
        (mail,) = [one for one in house.inbox("ours.test/alice") if b"Subject: Report Domain: a.example" in one]
        (report,) = reports(mail)
        assert {(one.source, one.messages, one.disposition) for one in report.records} == {
            (GOOD, 3, "pass"),
            (BAD, 3, "quarantine"),
        }
        await room.collect()  # nothing is left to report
        assert room.sent == 1
        await house.drained()

    story(tmp_path, policy("{}"), act, dmarc="v=DMARC1; p=reject; rua=mailto:alice@ours.test")


def test_the_owner_hears_of_each_failure_where_the_policy_lets_us(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        await house.submit("list@lists.example", ["alice@ours.test"], CONTENT, client=BAD)
        await house.until(lambda: len(house.inbox("ours.test/alice")) == 2)
        (mail,) = [one for one in house.inbox("ours.test/alice") if b"feedback-report" in one]
        assert b"\r\nFeedback-Type: auth-failure\r\n" in mail
        assert b"\r\nSource-IP: " + BAD.encode() + b"\r\n" in mail
        assert b"\r\nDelivery-Result: policy\r\n" in mail
        told = mail.partition(b"text/rfc822-headers")[2]
        assert b"Subject: hi" in told
        assert b"alice@ours.test" not in told  # who it was for is nobody's business
        await house.drained()

    wanted = policy("dmarc: {failureReports: true, aggregateReports: false}")
    story(tmp_path, wanted, act, dmarc="v=DMARC1; p=reject; ruf=mailto:alice@ours.test")


def test_nobody_hears_of_failures_by_default(tmp_path: Path) -> None:
    async def act(house: House) -> None:
        await house.submit("list@lists.example", ["alice@ours.test"], CONTENT, client=BAD)
        await delivered(house)
        await house.drained()
        assert len(house.inbox("ours.test/alice")) == 1

    story(tmp_path, policy("{}"), act, dmarc="v=DMARC1; p=reject; ruf=mailto:alice@ours.test")
