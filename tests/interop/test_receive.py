"""Posthof receives from Postfix, Exim, swaks and smtplib into its own Maildirs."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from kit.exim import exim
from kit.mails import mail
from kit.postfix import postfix
from kit.posthof import Posthof, certificate, mail_domain, posthof
from kit.swaks import swaks

pytestmark = pytest.mark.interop

OURS = mail_domain("ours.test", "Maildir", recipients={"list": ["b", "jürgen"]})


@contextlib.contextmanager
def house(**listener: Any) -> Iterator[Posthof]:
    """A Posthof that receives for ours.test and offers STARTTLS."""
    with posthof(OURS, certificate("own", "posthof.test"), start=False) as mta:
        document = mta.mta({})
        document["spec"]["listeners"][0] |= {"tls": {"mode": "STARTTLS", "certRefs": [{"name": "own"}]}, **listener}
        mta.write("mta", document)
        mta.start()
        yield mta


@pytest.mark.parametrize("level", ["none", "encrypt"])
def test_postfix_hands_over_its_queue(level: str) -> None:
    settings = {"smtp_tls_security_level": level}
    content = mail(1, "..Grüße\r\n".encode())
    with house() as mta, postfix(relay_to=f"[127.0.0.1]:{mta.port}", extra=settings) as peer:
        with smtplib.SMTP("127.0.0.1", peer.port) as session:
            session.sendmail("a@client.test", ["b@ours.test"], content, mail_options=["BODY=8BITMIME"])
        (arrived,) = mta.inbox("ours.test", "b").wait_for(1)
        told = mta.wait_for_event("accepted")
    assert arrived.endswith(content)
    assert bool(told.get("tls")) == (level == "encrypt")


def test_postfix_passes_dsn_and_utf8_on() -> None:
    with house() as mta, postfix(relay_to=f"[127.0.0.1]:{mta.port}") as peer:
        with smtplib.SMTP("127.0.0.1", peer.port) as session:
            session.ehlo()
            session.command_encoding = "utf-8"
            assert session.mail("jörg@client.test", ["SMTPUTF8"])[0] == 250
            assert session.rcpt("jürgen@ours.test", ["NOTIFY=FAILURE"])[0] == 250
            session.data(mail(1))
        (arrived,) = mta.inbox("ours.test", "jürgen").wait_for(1)
    assert "jörg@client.test".encode() in arrived.partition(b"\r\n")[0]


@pytest.mark.parametrize("has_tls", [False, True])
def test_exim_hands_over_its_queue_by_bdat(has_tls: bool) -> None:
    with house() as mta, exim(relay_to=f"127.0.0.1:{mta.port}", has_tls=has_tls) as peer:
        peer.send("a@client.test", "b@ours.test", mail(1, b".dot\r\nlast\r\n").replace(b"\r\n", b"\n"))
        (arrived,) = mta.inbox("ours.test", "b").wait_for(1)
        told = mta.wait_for_event("accepted")
        log = peer.log()
    assert arrived.endswith(b"\r\n\r\n.dot\r\nlast\r\n")
    assert bool(told.get("tls")) == has_tls
    assert " K " in log  # Exim used CHUNKING


@pytest.mark.parametrize(
    "arguments",
    [(), ("--tls",), ("--pipeline",), ("--tls", "--pipeline"), ("--protocol", "SMTP"), ("--attach", "-")],
    ids=["plain", "tls", "pipelined", "tls-pipelined", "helo", "attachment"],
)
def test_swaks_sends(arguments: tuple[str, ...]) -> None:
    with house() as mta:
        said = swaks(mta.port, *arguments, recipient="b@ours.test", given="attached\n")
        assert said.is_taken, said.conversation
        mta.inbox("ours.test", "b").wait_for(1)


def test_swaks_sends_by_proxy_header_from_a_trusted_balancer() -> None:
    with house(proxyProtocol={"trustedCIDRs": ["127.0.0.0/8"]}) as mta:
        header = "PROXY TCP4 192.0.2.9 127.0.0.1 4711 25"
        said = swaks(mta.port, "--proxy", header.removeprefix("PROXY "), recipient="b@ours.test")
        assert said.is_taken, said.conversation
        assert mta.wait_for_event("accepted")["client"] == "192.0.2.9"


def test_swaks_is_refused_for_a_stranger() -> None:
    with house() as mta:
        said = swaks(mta.port, recipient="nobody@ours.test")
    assert not said.is_taken
    assert "550 5.1.1" in said.conversation


def test_smtplib_sends_over_starttls_with_every_option() -> None:
    content = mail(1, "Grüße\r\n".encode(), headers=["X-Who: Jürgen".encode()])
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with house() as mta, mta.connect() as session:
        session.starttls(context=context)
        options = ["SMTPUTF8", "BODY=8BITMIME", "RET=HDRS"]  # smtplib adds SIZE
        session.sendmail("jörg@client.test", ["jürgen@ours.test"], content, options, ["NOTIFY=NEVER"])
        (arrived,) = mta.inbox("ours.test", "jürgen").wait_for(1)
        assert arrived.endswith(content)
        assert b"with UTF8SMTPS" in arrived


def test_commands_behind_starttls_in_one_packet_never_count() -> None:
    with house() as mta, socket.create_connection(("127.0.0.1", mta.port)) as wire:
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


def test_a_mail_of_20_mib_is_taken_by_data_and_by_bdat() -> None:
    content = mail(1, (b"0123456789abcdef" * 4 + b"\r\n") * (20 * 2**20 // 66))
    with house() as mta:
        mta.send("a@client.test", "b@ours.test", content)
        with mta.connect() as session:
            session.mail("a@client.test")
            session.rcpt("b@ours.test")
            size = 3 * 2**20
            for at in range(0, len(content), size):
                chunk = content[at : at + size]
                last = " LAST" if at + size >= len(content) else ""
                session.send(b"BDAT %d%s\r\n" % (len(chunk), last.encode()) + chunk)
                assert session.getreply()[0] == 250
        first, second = mta.inbox("ours.test", "b").wait_for(2)
    assert first.endswith(content)
    assert second.endswith(content)
