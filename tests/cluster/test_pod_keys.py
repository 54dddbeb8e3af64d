"""Keys and lists of pods reach a pod's workers beside its configuration, in time, and disturb nobody."""

from __future__ import annotations

import datetime
import smtplib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from kit.apiserver import ApiServer
from kit.pod import Pod
from posthof_crds.engine import Action, ActionKind, HopKind, Match, NextHop, Outbound, Rule, SecretRef, SigningKey

CERT, KEY = "mail/edge-tls/tls.crt", "mail/edge-tls/tls.key"


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with ApiServer(tmp_path) as api, Pod(tmp_path, api) as pod:
        yield pod


def pair(kind: str, *, days: int = 30) -> tuple[dict[str, bytes], str]:
    """The keys of a Secret, and the certificate's serial."""
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "ecdsa" else rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.edge.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM)
    return {CERT: chain, KEY: private}, format(certificate.serial_number, "x")


def encrypted(pod: Pod) -> tuple[smtplib.SMTP, str]:
    """A session after STARTTLS, and the serial it was shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    session = pod.session()
    session.starttls(context=context)
    session.ehlo()
    assert isinstance(session.sock, ssl.SSLSocket)
    der = session.sock.getpeercert(binary_form=True)
    assert der is not None
    return session, format(x509.load_der_x509_certificate(der).serial_number, "x")


def served(pod: Pod) -> str:
    return str(pod.report().get("certificates", {}).get("edge", {}).get("serial"))


def test_a_new_pair_of_another_kind_is_served_within_two_seconds_and_open_sessions_go_on(pod: Pod) -> None:
    keys, serial = pair("rsa")
    pod.configure(pod.config(tls=True), keys=keys)
    pod.start()
    pod.until_ready()
    old, shown = encrypted(pod)
    assert shown == served(pod) == serial
    old.docmd("MAIL", "FROM:<a@client.test>")
    fresh, new_serial = pair("ecdsa")
    pod.put_keys(fresh)
    begun = time.monotonic()
    pod.until(lambda: served(pod) == new_serial, "the new pair")
    assert time.monotonic() - begun < 2.0
    for _ in range(4):  # whichever worker takes it
        session, shown = encrypted(pod)
        assert shown == new_serial
        session.quit()
    assert old.docmd("RCPT", "TO:<b@ours.test>")[0] == 250
    assert old.data(b"Subject: x\r\n\r\nx\r\n")[0] == 250
    old.quit()


@pytest.mark.parametrize("what", ["broken", "expired", "gone"])
def test_a_pair_that_cannot_be_served_is_told_of_and_the_last_good_one_stays(pod: Pod, what: str) -> None:
    keys, serial = pair("ecdsa")
    pod.configure(pod.config(tls=True, workers=1), keys=keys)
    pod.start()
    pod.until_ready()
    if what == "broken":
        pod.put_keys({**keys, KEY: pair("ecdsa")[0][KEY]})
    elif what == "expired":
        pod.put_keys(pair("ecdsa", days=-1)[0])
    else:
        pod.put_keys({})
    pod.until(lambda: "TLSCert/edge" in str(pod.report().get("refused")), "the complaint")
    assert served(pod) == serial
    session, shown = encrypted(pod)
    assert shown == serial
    session.quit()
    revision = pod.configure(pod.config(tls=True, workers=1, domains=("new.test",)))
    pod.until_running(revision)  # nobody else's change waits for it


def test_a_pod_begins_without_a_certificate_that_is_not_there_yet(pod: Pod) -> None:
    pod.configure(pod.config(tls=True, workers=1), keys={})
    pod.start()
    pod.until_ready()
    with pod.session() as session:
        assert not session.has_extn("starttls")
    assert "edge-tls" in str(pod.report()["refused"])
    keys, serial = pair("ecdsa")
    pod.put_keys(keys)
    pod.until(lambda: served(pod) == serial, "the pair")
    session, _ = encrypted(pod)
    session.quit()
    assert not pod.report().get("refused")


def test_pods_that_come_and_go_change_what_they_may_without_another_configuration(pod: Pod) -> None:
    rule = Rule(name="shop", priority=0, match=Match(workloads=("shop",)), action=Action(kind=ActionKind.DISCARD))
    pod.configure(pod.config(rules=(rule,)))
    pod.put_pods({"10.0.0.1": ("shop",)})
    pod.start()
    pod.until_ready()
    swaps = len(pod.events("config_swapped"))

    def answers() -> set[int]:
        """Of every worker."""
        found = set()
        for _ in range(8):
            with pod.session() as session:
                session.docmd("MAIL", "FROM:<a@client.test>")
                found.add(session.docmd("RCPT", "TO:<b@far.test>")[0])
        return found

    assert answers() == {550}
    pod.put_pods({"127.0.0.1": ("other", "shop")})
    pod.until(lambda: answers() == {250}, "the pod is known")
    pod.put_pods({})
    pod.until(lambda: answers() == {550}, "the pod is gone")
    assert len(pod.events("config_swapped")) == swaps


def test_a_login_that_is_not_there_yet_keeps_its_mail_and_nobody_elses(pod: Pod) -> None:
    login = {name: SecretRef(name="mail/login", key=name) for name in ("username", "password")}
    hop = NextHop(kind=HopKind.HOST, name="127.0.0.1", port=9)
    action = Action(kind=ActionKind.SMARTHOST, hops=(hop,), **login)
    rule = Rule(name="mail/out", priority=0, match=Match(clients=("127.0.0.0/8",)), action=action)
    pod.configure(pod.config(rules=(rule,), workers=1), keys={})
    pod.start()
    pod.until_ready()
    assert "mail/login/username" in str(pod.report()["refused"])
    pod.send("b@far.test")
    pod.until(lambda: pod.report()["queue"]["deferred"] == 1, "it waits")
    assert "AuthFailed" in pod.run("queue", "list").stdout
    pod.send("b@ours.test")
    pod.until(lambda: pod.mails() == 1, "the other mail")
    pod.put_keys({"mail/login/username": b"u", "mail/login/password": b"p"})
    pod.until(lambda: not pod.report().get("refused"), "the login is known")
    pod.run("queue", "flush", "--all")
    pod.until(lambda: "AuthFailed" not in pod.run("queue", "list").stdout, "another reason")


def test_keys_that_sign_reach_the_workers(pod: Pod) -> None:
    signing = SigningKey(name="mail/k", selector="s1", secret=SecretRef(name="mail/k-dkim", key="private.pem"))
    config = pod.config(workers=1)
    domain = msgspec.structs.replace(config.domains["ours.test"], outbound=Outbound(dkim=(signing,)))
    pod.configure(msgspec.structs.replace(config, domains={"ours.test": domain}), keys={})
    pod.start()
    pod.until_ready()
    assert "mail/k-dkim/private.pem" in str(pod.report()["refused"])
    assert any("ours.test is not signed" in one["detail"] for one in pod.events("warning"))
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    told = len(pod.events("warning"))
    pod.put_keys({"mail/k-dkim/private.pem": pem})
    pod.until(lambda: not pod.report().get("refused"), "the key is known")
    assert not any("not signed" in one["detail"] for one in pod.events("warning")[told:])
