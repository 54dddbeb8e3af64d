"""Clients of others submit mail to Posthof: swaks, curl, gsasl, smtplib and scramp. One Posthof for the file.

What they must not be able to do stands here too: no mail without TLS and login, none as somebody else, no word about
who exists.
"""

from __future__ import annotations

import base64
import contextlib
import json
import smtplib
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import peers
from kit.posthof import Document, Posthof, certificate, document, mail_domain, posthof
from kit.swaks import swaks

pytestmark = pytest.mark.interop

PORT, SECURE_PORT, ODD_PORT, PLUS_PORT = (peers.free_port() for _ in range(4))
PASSWORD = "p\u00e4ssword, with = and space"


def account(name: str, secret: str = "", **spec: object) -> Document:
    senders = {"allowedSenders": [f"{name}@ours.test"]}
    return document("SMTPCredential", name, {"secretRef": {"name": secret or name}, **senders, **spec})


def secret(name: str, password: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": {"username": name, "password": password},
    }


def listener(name: str, role: str, port: int, **more: object) -> Document:
    mode = "Implicit" if role == "Submissions" else "STARTTLS"
    tls = {"mode": mode, "certRefs": [{"name": "own"}]}
    return {"name": name, "role": role, "address": "127.0.0.1", "port": port, "tls": tls, **more}


@pytest.fixture(scope="module")
def mta() -> Iterator[Posthof]:
    documents = (
        mail_domain("ours.test", "Maildir", recipients={"any": True}),
        certificate("own", "posthof.test"),
        account("alice"),
        secret("alice", PASSWORD),
        account("bob"),
        secret("bob", "bob's password\n"),
        document("SMTPCredential", "made", {"generate": {}, "domainRef": {"name": "ours-test"}}),
        account("loud", guard={"recipients": 2, "factor": 2}),
        secret("loud", "loud"),
        account("few", quota={"messagesPerDay": 1, "recipientsPerMessage": 2}),
        secret("few", "few"),
        account("gone", expires="2020-01-01T00:00:00Z"),
        secret("gone", "gone"),
    )
    with posthof(*documents, start=False) as house:
        manifest = house.mta({"workers": 1})
        plus = {"mechanisms": ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]}
        manifest["spec"]["listeners"] += [
            listener("submission", "Submission", PORT),
            listener("submissions", "Submissions", SECURE_PORT),
            listener("odd", "Submission", ODD_PORT, implementation="Aiosmtpd"),
            listener("plus", "Submissions", PLUS_PORT, auth=plus),
        ]
        house.write("mta", manifest)
        house.start()
        yield house


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def session(port: int = PORT, source: str = "127.0.0.1") -> Iterator[smtplib.SMTP]:
    if port in (SECURE_PORT, PLUS_PORT):
        found: smtplib.SMTP = smtplib.SMTP_SSL("127.0.0.1", port, context=trusting())
    else:
        found = smtplib.SMTP("127.0.0.1", port, source_address=(source, 0))
        found.starttls(context=trusting())
    with found:
        found.ehlo()
        yield found


def mail(sender: str, subject: str) -> bytes:
    return f"From: {sender}\r\nBcc: secret@else.test\r\nSubject: {subject}\r\n\r\nhello\r\n".encode()


@pytest.mark.parametrize("port", [PORT, SECURE_PORT, ODD_PORT], ids=["submission", "submissions", "aiosmtpd"])
def test_smtplib_logs_in_and_sends(mta: Posthof, port: int) -> None:
    with session(port) as client:
        client.login("made", made_password(mta))
        client.sendmail("x@ours.test", [f"to{port}@ours.test"], mail("x@ours.test", "made"))
    (arrived,) = mta.inbox("ours.test", f"to{port}").wait_for(1)
    assert b"Bcc" not in arrived
    assert b"\r\nMessage-ID: <" in arrived
    assert b"\r\nDate: " in arrived
    assert b"with ESMTPSA" in arrived
    assert mta.wait_for_event("authenticated", name="made")


def made_password(mta: Posthof) -> str:
    found = json.loads((mta.folder / "state" / "credentials" / "made-smtp.yaml").read_text())
    assert found["kind"] == "Secret"
    assert (mta.folder / "state" / "credentials" / "made-smtp.yaml").stat().st_mode & 0o077 == 0
    return str(found["stringData"]["password"])


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("arguments", [("--tls",), ("--tls-on-connect",)], ids=["starttls", "implicit"])
def test_swaks_logs_in(mta: Posthof, mechanism: str, arguments: tuple[str, ...]) -> None:
    port = PORT if arguments == ("--tls",) else SECURE_PORT
    login = ("--auth", mechanism, "--auth-user", "bob", "--auth-password", "bob's password")
    said = swaks(
        port, *arguments, *login, "--h-From", "bob@ours.test", sender="bob@ours.test", recipient="a@ours.test"
    )
    assert said.is_taken, said.conversation


def test_curl_logs_in(mta: Posthof, tmp_path: Path) -> None:
    peers.require("curl")
    path = tmp_path / "mail"
    path.write_bytes(mail("alice@ours.test", "curl"))
    command = ["curl", "-sS", "-k", f"smtps://127.0.0.1:{SECURE_PORT}", "--user", f"alice:{PASSWORD}"]
    command += ["--mail-from", "alice@ours.test", "--mail-rcpt", "curl@ours.test", "--upload-file", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    mta.inbox("ours.test", "curl").wait_for(1)


@pytest.mark.parametrize(
    ("mechanism", "password"),
    [("PLAIN", PASSWORD), ("LOGIN", PASSWORD), ("SCRAM-SHA-256", PASSWORD), ("SCRAM-SHA-256", "wrong")],
)
def test_gsasl_is_let_in_with_the_right_password_alone(mta: Posthof, mechanism: str, password: str) -> None:
    peers.require("gsasl")
    command = ["gsasl", "--smtp", "--connect", f"127.0.0.1:{PORT}", "--starttls", "--mechanism", mechanism]
    command += ["--authentication-id", "alice", "--authorization-id", "", "--password", password, "--no-cb"]
    command += ["--x509-ca-file=", "--quiet"]
    ran = subprocess.run(command, input="", capture_output=True, timeout=60, check=False, env={"LC_ALL": "C.UTF-8"})
    assert (ran.returncode == 0) == (password == PASSWORD), ran.stdout + ran.stderr


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])
def test_scramp_proves_the_password_and_the_server_proves_itself(mta: Posthof, mechanism: str) -> None:
    scramp = pytest.importorskip("scramp")
    with session(PLUS_PORT) as client:
        der = client.sock.getpeercert(binary_form=True)  # type: ignore[union-attr]  # connected
        binding = ("tls-server-end-point", scramp_hash(der)) if mechanism.endswith("PLUS") else None
        talk = scramp.ScramClient([mechanism], "alice", PASSWORD, channel_binding=binding)
        first = base64.b64encode(talk.get_client_first().encode()).decode()
        code, challenge = client.docmd("AUTH", f"{mechanism} {first}")
        assert code == 334
        talk.set_server_first(base64.b64decode(challenge).decode())
        code, challenge = client.docmd(base64.b64encode(talk.get_client_final().encode()).decode())
        assert code == 334, challenge
        talk.set_server_final(base64.b64decode(challenge).decode())  # raises unless the server knows the password
        assert client.docmd("")[0] == 235


def scramp_hash(der: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(der).digest()


def test_nobody_sends_without_tls_and_login(mta: Posthof) -> None:
    for port in (PORT, ODD_PORT):
        with smtplib.SMTP("127.0.0.1", port) as client:
            client.ehlo()
            assert not client.has_extn("auth")
            assert client.mail("a@ours.test")[0] == 530
            assert client.docmd("AUTH", "PLAIN AGFsaWNlAHg=")[0] == 530
            client.starttls(context=trusting())
            client.ehlo()
            assert client.has_extn("auth")
            assert client.mail("a@ours.test")[0] == 530
            assert client.rcpt("b@ours.test")[0] == 503


@pytest.mark.parametrize("port", [PORT, ODD_PORT], ids=["native", "aiosmtpd"])
def test_an_account_sends_as_nobody_else(mta: Posthof, port: int) -> None:
    with session(port) as client:
        client.login("bob", "bob's password")
        assert client.mail("alice@ours.test")[0] == 550
        assert client.mail("bob@ours.test")[0] == 250
        assert client.rcpt("somebody@elsewhere.example")[0] == 250
        assert client.data(mail("alice@ours.test", "forged"))[0] == 550


@pytest.mark.parametrize("port", [PORT, ODD_PORT], ids=["native", "aiosmtpd"])
def test_all_wrong_answers_are_one_and_none_is_quick(mta: Posthof, port: int) -> None:
    """A wrong password, a name nobody has, an account that has ended."""
    answers, times = set(), []
    for n, (name, password) in enumerate((("alice", "wrong"), ("nobody", "wrong"), ("gone", "gone"))):
        with session(port, f"127.0.{port % 250}.{n + 1}") as client:
            begun = time.monotonic()
            answers.add(client.docmd("AUTH", "PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode()).decode()))
            times.append(time.monotonic() - begun)
    assert answers == {(535, b"5.7.8 Authentication credentials invalid")}
    assert min(times) >= 0.95


def test_an_account_that_sends_unlike_itself_is_held_and_told(mta: Posthof) -> None:
    with session() as client:
        client.login("loud", "loud")
        for n in range(4):
            client.sendmail("loud@ours.test", ["loud@ours.test"], mail("loud@ours.test", f"{n}"))
    mta.inbox("ours.test", "loud").wait_for(2)
    told = mta.wait_for_event("account_held", name="loud")
    assert "3 recipients in this hour" in told["reason"]
    assert len(mta.wait_for_events("held", 2)) == 2
    assert mta.queue()
    assert "AccountHold" in repr(mta.queue())
    assert mta.metric("posthof_accounts_held") == 1


def test_an_account_sends_no_more_than_its_quota(mta: Posthof) -> None:
    with session() as client:
        client.login("few", "few")
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("few@ours.test", [f"{n}@ours.test" for n in range(3)], mail("few@ours.test", "many"))
        assert refused.value.smtp_code == 550
        client.sendmail("few@ours.test", ["few@ours.test"], mail("few@ours.test", "one"))
        code, said = client.mail("few@ours.test")
        assert (code, said.split()[0]) == (450, b"4.7.1")
