"""TLS by level: what a session demands, what it falls back to, what it refuses."""

import ssl

import pytest
import uvloop

from kit.peer import CLOSE, FULL, RESET, Peer, Say, certificate
from kit.session import connect, destination, mail
from posthof_crds.engine import TLSLevel
from posthof_pod.deliver import opening
from posthof_pod.deliver.connection import Unreachable
from posthof_pod.deliver.tls import ClientTLS, server_name
from posthof_pod.model import Reason, Status

PAIR = certificate("mx.peer.test", "127.0.0.1")
TRUSTING = ClientTLS(ca_file=str(PAIR[0]))


def deliver(peer, level, *, name="mx.peer.test", tls=TRUSTING):
    """One message; gives the session and the outcome."""

    async def run():
        connection = await connect(peer, name=name, destination=destination(tls=level), tls=tls)
        [outcome] = await connection.send(mail())
        await connection.quit()
        return connection, outcome

    with peer:
        return uvloop.run(run())


@pytest.mark.parametrize("level", [TLSLevel.MAY, TLSLevel.ENCRYPT, TLSLevel.VERIFY])
def test_a_message_travels_encrypted_where_starttls_is_offered(level):
    peer = Peer(certificate=PAIR)
    connection, outcome = deliver(peer, level)
    assert outcome.status is Status.RELAYED
    assert peer.messages[0].tls
    assert connection.tls.startswith("TLSv1.3 TLS_")
    assert connection.tls_failure == ""


def test_level_none_stays_in_plain_text():
    peer = Peer(certificate=PAIR)
    connection, _ = deliver(peer, TLSLevel.NONE)
    assert not peer.messages[0].tls
    assert connection.tls == ""


def test_what_was_offered_before_tls_is_forgotten():
    offers = ["250-peer.test\n250-CHUNKING\n250-PIPELINING\n250 STARTTLS", "250-peer.test\n250 8BITMIME"]
    peer = Peer({"EHLO": offers}, certificate=PAIR)
    connection, _ = deliver(peer, TLSLevel.MAY)
    assert connection.extensions.eightbit
    assert not connection.extensions.chunking
    assert peer.messages[0].by == "DATA"


# --- levels that need not


def test_may_goes_on_in_plain_text_where_tls_is_not_offered_or_refused():
    for peer in (Peer(), Peer({"STARTTLS": "454 4.7.0 not now"}, certificate=PAIR)):
        connection, outcome = deliver(peer, TLSLevel.MAY)
        assert outcome.status is Status.RELAYED
        assert connection.tls == ""
        assert len(peer.sessions) == 1


@pytest.mark.parametrize("broken", [CLOSE, RESET, b"220 ready\r\n"], ids=["close", "reset", "no TLS behind the 220"])
def test_may_connects_again_in_plain_text_where_the_handshake_fails_and_says_so(broken):
    def with_delay(session, line):
        """The bytes behind the 220 come when the handshake has begun."""
        session.say(b"220 go ahead\r\n")
        session._receive()
        return Say(b"this is no TLS record\r\n", CLOSE) if isinstance(broken, bytes) else broken

    peer = Peer({"STARTTLS": with_delay}, offers=(*FULL, "STARTTLS"))
    connection, outcome = deliver(peer, TLSLevel.MAY)
    assert outcome.status is Status.RELAYED
    assert "TLS handshake failed" in connection.tls_failure
    assert len(peer.sessions) == 2
    assert not peer.messages[0].tls


def test_may_and_encrypt_look_at_no_certificate():
    for level in (TLSLevel.MAY, TLSLevel.ENCRYPT):
        peer = Peer(certificate=certificate("somebody.else.test"))
        _, outcome = deliver(peer, level, tls=ClientTLS())
        assert outcome.status is Status.RELAYED
        assert peer.messages[0].tls


# --- levels that must


@pytest.mark.parametrize("level", [TLSLevel.ENCRYPT, TLSLevel.VERIFY])
def test_a_host_that_does_not_offer_what_is_required_gets_no_mail(level):
    for peer, code in (
        (Peer(), 0),
        (Peer({"STARTTLS": "454 4.7.0 not now"}, certificate=PAIR), 454),
        (Peer({"STARTTLS": "502 5.5.1 what"}, offers=(*FULL, "STARTTLS")), 502),
        (Peer({"EHLO": "500 5.5.1 what"}), 0),
    ):
        with pytest.raises(Unreachable) as caught:
            deliver(peer, level)
        assert (caught.value.reason, caught.value.code) == (Reason.TLS_REQUIRED, code)
        assert not caught.value.is_permanent
        assert peer.messages == []


def test_encrypt_does_not_fall_back():
    def hang_up(session, line):
        session.say(b"220 go ahead\r\n")
        session._receive()
        return CLOSE

    peer = Peer({"STARTTLS": hang_up}, offers=(*FULL, "STARTTLS"))
    with pytest.raises(Unreachable) as caught:
        deliver(peer, TLSLevel.ENCRYPT)
    assert caught.value.reason is Reason.TLS_FAILED
    assert len(peer.sessions) == 1


@pytest.mark.parametrize(
    ("name", "tls", "words"),
    [
        ("other.peer.test", TRUSTING, "mismatch"),
        ("mx.peer.test", ClientTLS(), "self-signed"),
        ("mx.peer.test", ClientTLS(ca_file=str(certificate("a.test")[0])), "self-signed"),
    ],
    ids=["another name", "an unknown CA", "another CA"],
)
def test_verify_refuses_a_certificate_that_does_not_hold(name, tls, words):
    peer = Peer(certificate=PAIR)
    with pytest.raises(Unreachable) as caught:
        deliver(peer, TLSLevel.VERIFY, name=name, tls=tls)
    assert caught.value.reason is Reason.TLS_FAILED
    assert words in caught.value.reply
    assert peer.messages == []


def test_verify_takes_an_address_in_the_certificate_and_a_name_with_a_last_dot():
    for name in ("127.0.0.1", "mx.peer.test."):
        _, outcome = deliver(Peer(certificate=PAIR), TLSLevel.VERIFY, name=name)
        assert outcome.status is Status.RELAYED


@pytest.mark.parametrize("level", [TLSLevel.MAY, TLSLevel.ENCRYPT, TLSLevel.VERIFY])
@pytest.mark.parametrize("injected", [b"250 you are in\r\n", b"250-peer.test\r\n250 CHU", b"x"])
def test_what_stands_behind_the_220_in_plain_text_ends_the_session(level, injected):
    """STARTTLS injection: a reply from the wire must not pass for one from inside TLS."""
    peer = Peer({"STARTTLS": b"220 go ahead\r\n" + injected}, certificate=PAIR)
    with pytest.raises(Unreachable) as caught:
        deliver(peer, level)
    assert caught.value.reason is Reason.PEER_BROKEN
    assert peer.messages == []


# --- TLS from the first byte


def test_port_465_is_tls_from_the_first_byte(monkeypatch):
    peer = Peer(certificate=PAIR, implicit_tls=True)
    monkeypatch.setattr(opening, "SUBMISSIONS", peer.port)
    connection, outcome = deliver(peer, TLSLevel.VERIFY)
    assert outcome.status is Status.RELAYED
    assert connection.tls
    assert not peer.said("STARTTLS")


def test_port_465_never_falls_back(monkeypatch):
    peer = Peer()
    monkeypatch.setattr(opening, "SUBMISSIONS", peer.port)
    with pytest.raises(Unreachable) as caught:
        deliver(peer, TLSLevel.MAY)
    assert caught.value.reason is Reason.TLS_FAILED
    assert peer.messages == []


# --- contexts


def test_no_context_speaks_less_than_tls_1_2_and_each_is_made_once():
    tls = ClientTLS(ca_file=str(PAIR[0]))
    for level in (TLSLevel.MAY, TLSLevel.ENCRYPT, TLSLevel.VERIFY):
        assert tls.context(level).minimum_version == ssl.TLSVersion.TLSv1_2
        assert tls.context(level) is tls.context(level)
    assert tls.context(TLSLevel.MAY) is tls.context(TLSLevel.ENCRYPT)
    assert tls.context(TLSLevel.MAY).verify_mode == ssl.CERT_NONE
    assert tls.context(TLSLevel.VERIFY).check_hostname


def test_a_name_no_certificate_can_have_is_not_sent_unless_it_must_be_checked():
    assert server_name("mx.a.test.", TLSLevel.MAY) == "mx.a.test"
    assert server_name("192.0.2.1", TLSLevel.MAY) == ""
    assert server_name("ä.test", TLSLevel.MAY) == ""
    assert server_name("x" * 64 + ".test", TLSLevel.MAY) == ""
    assert server_name("192.0.2.1", TLSLevel.VERIFY) == "192.0.2.1"
