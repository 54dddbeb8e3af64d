"""What we sign and say of mail, beside what rspamd finds: a new user's first mail, and mails judged by both."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import ssl
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple

import dns.query
import dns.tsigkeyring
import dns.update
import dns.zonefile
import pytest

from kit import peers
from kit.dkim import signed, signing_key
from kit.dns import DNSServer, knot
from kit.judging import Nobody
from kit.pebble import pebble
from kit.peer import Peer
from kit.posthof import Posthof, document, mail_domain, posthof, relay_policy
from kit.rspamd import Rspamd, rspamd
from kit.zones import Zones
from posthof_crds.engine import EngineConfig, ListenerRole, SpoolSettings
from posthof_pod.admit.auth import Means, SenderCheck
from posthof_pod.mailauth.dkim import keys
from posthof_pod.smtp.gate import Incoming, Session
from posthof_pod.smtp.grammar import MailParameters

pytestmark = pytest.mark.interop

SECRET = base64.b64encode(b"a secret of thirty-two octets...").decode()
OURS, THEIRS = "192.0.2.1", "198.51.100.9"  # the address we send from, and a stranger's
HELO = "mx.acme.example"

# The zone of a new user, without the keys: they are made first.
ZONE = """
@ MX 10 mx
mx A 127.0.0.1
@ TXT "v=spf1 ip4:192.0.2.1 -all"
_dmarc TXT "v=DMARC1; p=reject"
"""


def mail(sender: str, *, subject: str = "hello") -> bytes:
    return (
        f"From: Ada <{sender}>\r\nTo: someone@far.test\r\nSubject: {subject}\r\nDate: {formatdate(time.time())}\r\n"
        f"Message-ID: <1@{sender.partition('@')[2]}>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
        "The mail itself, of two\r\nlines.\r\n"
    ).encode()


def an_address() -> str:
    """On loopback, and nobody else's: its port 53 is free."""
    return f"127.{64 + (os.getpid() >> 16 & 63)}.{os.getpid() >> 8 & 255}.{(os.getpid() & 255) or 255}"


def publish(primary: str, lines: str) -> None:
    """As a user does: what `posthof dkim --zone` prints goes into the zone."""
    update = dns.update.UpdateMessage("acme.example", keyring=dns.tsigkeyring.from_text({"updates": SECRET}))
    for rrset in dns.zonefile.read_rrsets(lines, rdclass=None):
        update.add(rrset.name, rrset)
    address, _, port = primary.partition("@")
    reply = dns.query.tcp(update, address, port=int(port), timeout=10)
    assert reply.rcode() == 0


def is_proven_by(mta: Posthof, roots: str) -> bool:
    """Whether it presents a certificate of this authority."""
    with mta.connect() as session:
        session._host = HELO  # the name that smtplib checks
        with contextlib.suppress(ssl.SSLError):
            session.starttls(context=ssl.create_default_context(cadata=roots))
            return True
    return False


def test_the_first_mail_of_a_new_domain_passes_at_a_foreign_verifier_and_what_is_forged_does_not(
    tmp_path: Path,
) -> None:
    peers.require("knotd")
    peers.require_root()  # for port 53, where the servers of a zone are asked
    with (
        knot(tmp_path / "knot", {"acme.example": ZONE}, key=("updates", SECRET), at=f"{an_address()}@53") as primary,
        pebble(dns=primary) as ca,
        Peer() as far,
        rspamd(resolver=primary) as judge,
    ):
        issuer = {
            "acme": {"directory": ca.directory, "caBundle": ca.roots, "solver": {"http01": {"port": ca.http_port}}}
        }
        domain = mail_domain("acme.example", "Reject")
        domain["spec"]["outbound"] = {"dkim": {"auto": {}}}
        hop = {"type": "Smarthost", "nextHops": [{"host": "127.0.0.1", "port": far.port}]}
        certificate = document("TLSCert", "mx", {"dnsNames": [HELO], "issuer": issuer})
        listener = {"name": "in", "role": "Internal", "address": "127.0.0.1", "port": peers.free_port()}
        listener["tls"] = {"mode": "STARTTLS", "certRefs": [{"name": "mx"}]}
        spec = {"hostname": HELO, "listeners": [listener], "resolver": [primary]}
        with posthof(certificate, domain, relay_policy("out", hop), mta=spec, start=False) as mta:
            mta.port = listener["port"]
            folder = str(mta.manifests)
            publish(primary, mta.run("dkim", "--zone", "-f", folder))
            mta.run("dkim", "--check", "-f", folder)  # says 0: every server has them
            mta.start()
            peers.wait_for(lambda: is_proven_by(mta, ca.issuing), "the ordered certificate", timeout=90)
            mta.send("ada@acme.example", "someone@far.test", mail("ada@acme.example"))
            [came] = peers.wait_for(lambda: far.messages, "the mail")

        content = came.content
        assert [*re.findall(rb"\ba=([a-z0-9-]+)", content)] == [b"rsa-sha256", b"ed25519-sha256"]
        assert judge.verdict(content, client=OURS, sender=came.sender, helo=HELO) == "spf=pass dkim=pass dmarc=pass"
        changed = content.replace(b"The mail itself", b"The mail, altered")
        assert (
            judge.verdict(changed, client=THEIRS, sender=came.sender, helo="x.test")
            == "spf=fail dkim=fail dmarc=fail"
        )
        forwarded = judge.verdict(content, client=THEIRS, sender="", helo="ns.acme.example")
        assert forwarded == "spf=none dkim=pass dmarc=pass"


class Case(NamedTuple):
    what: str
    content: bytes
    client: str
    sender: str
    verdict: str  # ours
    foreign: str = ""  # rspamd's, where it is another, and rightly so


KEY = signing_key("rsa2048", "signed.test", "one")
CURVE = signing_key("ed25519", "signed.test", "two")
OTHER = signing_key("rsa2048", "other.test", "one")
SUB = signing_key("rsa2048", "news.signed.test", "one")
GONE = signing_key("rsa2048", "signed.test", "gone")
SIGNED = mail("ada@signed.test")

ROWS = {
    "signed.test": [{"TXT": "v=spf1 ip4:192.0.2.0/24 -all"}],
    "_dmarc.signed.test": [{"TXT": "v=DMARC1; p=quarantine; sp=reject"}],
    "news.signed.test": [{"TXT": "v=spf1 include:signed.test ~all"}],
    "strict.test": [{"TXT": "v=spf1 include:news.strict.test -all"}],
    "news.strict.test": [{"TXT": "v=spf1 ip4:192.0.2.1 -all"}],
    "_dmarc.strict.test": [{"TXT": "v=DMARC1; p=reject; aspf=s; adkim=s"}],
    "soft.test": [{"TXT": "v=spf1 a:mail.soft.test ~all"}],
    "mail.soft.test": [{"A": "192.0.2.1"}],
    "open.test": [{"TXT": "v=spf1 ?all"}],
    "_dmarc.open.test": [{"TXT": "v=DMARC1; p=none"}],
    "broken.test": [{"TXT": "v=spf1 ip4:192.0.2.300 -all"}],
    "twice.test": [{"TXT": "v=spf1 ip4:192.0.2.1 -all"}, {"TXT": "v=spf1 ip4:192.0.2.0/24 -all"}],
    "other.test": [{"TXT": "v=spf1 ip4:192.0.2.1 -all"}],
    **{
        f"{key.selector}._domainkey.{key.domain}": [{"TXT": keys.record(key.key)}] for key in (KEY, CURVE, OTHER, SUB)
    },
    "gone._domainkey.signed.test": [{"TXT": "v=DKIM1; p="}],
}

CASES = [
    Case(
        "nothing is known of the domain", mail("a@plain.test"), OURS, "a@plain.test", "spf=none dkim=none dmarc=none"
    ),
    Case("SPF passes and is aligned", mail("a@signed.test"), OURS, "a@signed.test", "spf=pass dkim=none dmarc=pass"),
    Case("SPF fails", mail("a@signed.test"), THEIRS, "a@signed.test", "spf=fail dkim=none dmarc=fail"),
    Case("SPF fails softly", mail("a@soft.test"), THEIRS, "a@soft.test", "spf=softfail dkim=none dmarc=none"),
    Case("SPF by an A record", mail("a@soft.test"), OURS, "a@soft.test", "spf=pass dkim=none dmarc=none"),
    Case("SPF is neutral", mail("a@open.test"), OURS, "a@open.test", "spf=neutral dkim=none dmarc=fail"),
    Case(
        "SPF that cannot be read",
        mail("a@broken.test"),
        OURS,
        "a@broken.test",
        "spf=permerror dkim=none dmarc=none",
        foreign="spf=fail dkim=none dmarc=none",  # it reads on behind a broken term; RFC 7208 4.6 forbids that
    ),
    Case(
        "two SPF records",
        mail("a@twice.test"),
        OURS,
        "a@twice.test",
        "spf=permerror dkim=none dmarc=none",
        foreign="spf=pass dkim=none dmarc=none",  # it takes one of them; RFC 7208 4.5 says permerror
    ),
    Case(
        "SPF passes for another domain", mail("a@signed.test"), OURS, "b@other.test", "spf=pass dkim=none dmarc=fail"
    ),
    Case("signed by RSA", signed(SIGNED, KEY), THEIRS, "b@plain.test", "spf=none dkim=pass dmarc=pass"),
    Case("signed by Ed25519", signed(SIGNED, CURVE), THEIRS, "b@plain.test", "spf=none dkim=pass dmarc=pass"),
    Case("signed by both", signed(SIGNED, KEY, CURVE), OURS, "a@signed.test", "spf=pass dkim=pass dmarc=pass"),
    Case(
        "signed, body changed",
        signed(SIGNED, KEY) + b"more\r\n",
        OURS,
        "a@signed.test",
        "spf=pass dkim=fail dmarc=pass",
    ),
    Case(
        "signed, subject changed",
        signed(SIGNED, KEY).replace(b"Subject: hello", b"Subject: hullo"),
        THEIRS,
        "a@signed.test",
        "spf=fail dkim=fail dmarc=fail",
    ),
    Case("signed by another domain", signed(SIGNED, OTHER), THEIRS, "b@plain.test", "spf=none dkim=pass dmarc=fail"),
    Case("signed by a subdomain", signed(SIGNED, SUB), THEIRS, "b@plain.test", "spf=none dkim=pass dmarc=pass"),
    Case(
        "signed by a revoked key", signed(SIGNED, GONE), THEIRS, "b@plain.test", "spf=none dkim=permerror dmarc=fail"
    ),
    Case(
        "a subdomain's mail, policy of the domain above",
        mail("a@news.signed.test"),
        THEIRS,
        "a@news.signed.test",
        "spf=softfail dkim=none dmarc=fail",
    ),
    Case(
        "strict alignment, sent as a subdomain",
        mail("a@strict.test"),
        OURS,
        "a@news.strict.test",
        "spf=pass dkim=none dmarc=fail",
    ),
    Case(
        "strict alignment, the same domain",
        mail("a@strict.test"),
        OURS,
        "a@strict.test",
        "spf=pass dkim=none dmarc=pass",
    ),
]


@pytest.fixture(scope="module")
def judge() -> Iterator[Rspamd]:
    table: dict[str, dict[str, list[str]]] = {}
    for name, rows in ROWS.items():
        for row in rows:
            for kind, value in row.items():
                table.setdefault(name, {}).setdefault(kind, []).append(text(value) if kind == "TXT" else value)
    with DNSServer(table) as world, rspamd(resolver=world.address) as found:
        yield found


def text(value: str) -> str:
    """In a zone file's form: strings of at most 255 octets."""
    return " ".join(f'"{value[at : at + 250]}"' for at in range(0, len(value), 250))


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_both_judge_the_same_mail_alike(case: Case, judge: Rspamd) -> None:
    foreign = judge.verdict(case.content, client=case.client, sender=case.sender, helo="client.test")
    assert (ours(case), foreign) == (case.verdict, case.foreign or case.verdict)


def ours(case: Case) -> str:
    config = EngineConfig(
        name="x",
        hostname="mx.house.test",
        listeners=(),
        spool=SpoolSettings(path="/nowhere"),
        mail_root="/nowhere",
        state_dir="/nowhere",
    )
    session = Session(case.client, listener="mx", role=ListenerRole.MX)
    session.helo = "client.test"
    content = case.content
    found = Incoming(session, case.sender, MailParameters(), [], content, b"", len(content), False, "ESMTPS")
    check = SenderCheck(config, Means(lambda: Zones(ROWS), time.time, Nobody()))
    return asyncio.run(check.check(found, found.header_block())).summary
