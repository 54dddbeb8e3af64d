"""Posthof receives from Postfix, Exim, swaks and smtplib into its own Maildirs. One Posthof for the file."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Iterator

import pytest

from kit import peers
from kit.exim import exim
from kit.mails import mail
from kit.postfix import postfix
from kit.posthof import Posthof, certificate, mail_domain, posthof
from kit.swaks import swaks

pytestmark = pytest.mark.interop

USERS = ["none", "encrypt", "jürgen", "jörg", "exim", "exims", "swaks", "proxy", "tls", "large"]
BEHIND_BALANCER = peers.free_port()


@pytest.fixture(scope="module")
def mta() -> Iterator[Posthof]:
    ours = mail_domain("ours.test", "Maildir", recipients={"list": USERS})
    with posthof(ours, certificate("own", "posthof.test"), start=False) as house:
        document = house.mta({"workers": 1})
        (listener,) = document["spec"]["listeners"]
        listener["tls"] = {"mode": "STARTTLS", "certRefs": [{"name": "own"}]}
        proxied = {"proxyProtocol": {"trustedCIDRs": ["127.0.0.0/8"]}, "name": "proxied", "port": BEHIND_BALANCER}
        document["spec"]["listeners"].append({**listener, **proxied})
        house.write("mta", document)
        house.start()
        yield house


@pytest.mark.parametrize("level", ["none", "encrypt"])
def test_postfix_hands_over_its_queue(mta: Posthof, level: str) -> None:
    content = mail(1, "..Grüße\r\n".encode())
    with postfix(relay_to=f"[127.0.0.1]:{mta.port}", extra={"smtp_tls_security_level": level}) as peer:
        with smtplib.SMTP("127.0.0.1", peer.port) as session:
            session.sendmail("a@client.test", [f"{level}@ours.test"], content, mail_options=["BODY=8BITMIME"])
        (arrived,) = mta.inbox("ours.test", level).wait_for(1)
    told = mta.wait_for_event("accepted", to=[f"{level}@ours.test"])
    assert arrived.endswith(content)
    assert bool(told.get("tls")) == (level == "encrypt")


def test_postfix_passes_dsn_and_utf8_on(mta: Posthof) -> None:
    with postfix(relay_to=f"[127.0.0.1]:{mta.port}") as peer:
        with smtplib.SMTP("127.0.0.1", peer.port) as session:
            session.ehlo()
            session.command_encoding = "utf-8"
            assert session.mail("jörg@client.test", ["SMTPUTF8"])[0] == 250
            assert session.rcpt("jürgen@ours.test", ["NOTIFY=FAILURE"])[0] == 250  # Postfix makes an ORCPT of it
            session.data(mail(1))
        (arrived,) = mta.inbox("ours.test", "jürgen").wait_for(1)
    assert "jörg@client.test".encode() in arrived.partition(b"\r\n")[0]


@pytest.mark.parametrize("has_tls", [False, True])
def test_exim_hands_over_its_queue_by_bdat(mta: Posthof, has_tls: bool) -> None:
    user = "exims" if has_tls else "exim"
    with exim(relay_to=f"127.0.0.1:{mta.port}", has_tls=has_tls) as peer:
        peer.send("a@client.test", f"{user}@ours.test", mail(1, b".dot\r\nlast\r\n").replace(b"\r\n", b"\n"))
        (arrived,) = mta.inbox("ours.test", user).wait_for(1)
        log = peer.log()
    told = mta.wait_for_event("accepted", to=[f"{user}@ours.test"])
    assert arrived.endswith(b"\r\n\r\n.dot\r\nlast\r\n")
    assert bool(told.get("tls")) == has_tls
    assert " K " in log  # Exim used CHUNKING


@pytest.mark.parametrize(
    "arguments",
    [(), ("--tls",), ("--pipeline",), ("--tls", "--pipeline"), ("--protocol", "SMTP"), ("--attach", "-")],
    ids=["plain", "tls", "pipelined", "tls-pipelined", "helo", "attachment"],
)
def test_swaks_sends(mta: Posthof, arguments: tuple[str, ...]) -> None:
    before = len(mta.inbox("ours.test", "swaks").mails())
    said = swaks(mta.port, *arguments, recipient="swaks@ours.test", given="attached\n")
    assert said.is_taken, said.conversation
    mta.inbox("ours.test", "swaks").wait_for(before + 1)


def test_swaks_sends_by_proxy_header_from_a_trusted_balancer(mta: Posthof) -> None:
    header = "TCP4 192.0.2.9 127.0.0.1 4711 25"
    said = swaks(BEHIND_BALANCER, "--proxy", header, recipient="proxy@ours.test")
    assert said.is_taken, said.conversation
    assert mta.wait_for_event("accepted", to=["proxy@ours.test"])["client"] == "192.0.2.9"


def test_swaks_is_refused_for_a_stranger(mta: Posthof) -> None:
    said = swaks(mta.port, recipient="nobody@ours.test")
    assert not said.is_taken
    assert "550 5.1.1" in said.conversation


def test_smtplib_sends_over_starttls_with_every_option(mta: Posthof) -> None:
    content = mail(1, "Grüße\r\n".encode(), headers=["X-Who: Jürgen".encode()])
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with mta.connect() as session:
        session.starttls(context=context)
        options = ["SMTPUTF8", "BODY=8BITMIME", "RET=HDRS"]  # smtplib adds SIZE
        session.sendmail("jörg@client.test", ["jörg@ours.test"], content, options, ["NOTIFY=NEVER"])
    (arrived,) = mta.inbox("ours.test", "jörg").wait_for(1)
    assert arrived.endswith(content)
    assert b"with UTF8SMTPS" in arrived


def test_commands_behind_starttls_in_one_packet_never_count(mta: Posthof) -> None:
    with socket.create_connection(("127.0.0.1", mta.port)) as wire:
        wire.settimeout(10)
        wire.recv(4096)
        wire.sendall(b"EHLO client.test\r\n")
        wire.recv(4096)
        wire.sendall(b"STARTTLS\r\nMAIL FROM:<injected@evil.test>\r\n")
        said = b""
        with contextlib.suppress(ConnectionError):
            while block := wire.recv(4096):
                said += block
    assert b"2.1.0" not in said  # never answered as a MAIL, and the session is over


def test_a_mail_of_20_mib_is_taken_by_data_and_by_bdat(mta: Posthof) -> None:
    content = mail(1, (b"0123456789abcdef" * 4 + b"\r\n") * (20 * 2**20 // 66))
    mta.send("a@client.test", "large@ours.test", content)
    with mta.connect() as session:
        session.mail("a@client.test")
        session.rcpt("large@ours.test")
        size = 3 * 2**20
        for at in range(0, len(content), size):
            chunk = content[at : at + size]
            last = b" LAST" if at + size >= len(content) else b""
            session.send(b"BDAT %d%s\r\n" % (len(chunk), last) + chunk)
            assert session.getreply()[0] == 250
    first, second = mta.inbox("ours.test", "large").wait_for(2)
    assert first.endswith(content)
    assert second.endswith(content)
