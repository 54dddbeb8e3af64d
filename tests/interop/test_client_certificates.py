"""Relaying by certificate (mutual TLS): a client of ours proves its name to a listener, and we ours to a hop."""

import smtplib
import ssl

import pytest

from kit import peers
from kit.peer import Peer
from kit.pki import Authority
from kit.posthof import certificate, document, posthof, relay_policy, to_host

CLIENTS = Authority("Clients' CA")
OTHERS = Authority("Another CA")
CONTENT = "Subject: hi\r\n\r\nhello\r\n"


def secret(name, **data):
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


@pytest.fixture(scope="module")
def house():
    """Whoever proves to be relay.ours.test, or below it, may relay to far.test; nobody else."""
    with Peer() as far:
        match = {"certificates": ["relay.ours.test", "*.pool.ours.test"]}
        hops = [{"host": "127.0.0.1", "port": far.port}]
        rule = relay_policy("by-certificate", {"type": "Smarthost", "nextHops": hops}, match=match)
        documents = [rule, certificate("mx", "posthof.test"), secret("clients", ca=CLIENTS.file.read_text())]
        with posthof(*documents, start=False) as mta:
            tls = {"certRefs": [{"name": "mx"}], "clientCa": {"name": "clients", "key": "ca"}}
            here = {"role": "Internal", "address": "127.0.0.1", "tls": tls}
            other = peers.free_port()
            listeners = [
                {**here, "name": "in", "port": mta.port},
                {**here, "name": "other", "port": other, "implementation": "Aiosmtpd"},
            ]
            mta.write("mta", mta.mta({"listeners": listeners, "workers": 1}))
            mta.other_port = other
            mta.start()
            yield mta, far


def submit(mta, pair, port=0):
    """The reply to a message for far.test, sent with this client certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if pair is not None:
        context.load_cert_chain(*pair)
    with smtplib.SMTP("127.0.0.1", port or mta.port, timeout=20) as client:
        client.ehlo("client.test")
        client.starttls(context=context)
        client.ehlo("client.test")
        client.mail("a@ours.test")
        code, text = client.rcpt("b@far.test")
        if code == 250:
            code, text = client.data(CONTENT)
        return code, text.decode()


@pytest.mark.parametrize("names", [("relay.ours.test",), ("x.test", "n1.pool.ours.test")])
def test_a_certificate_with_a_name_of_the_rule_relays(house, names):
    mta, far = house
    before = len(far.messages)
    assert submit(mta, CLIENTS.issue(*names))[0] == 250
    peers.wait_for(lambda: len(far.messages) > before, "the message is relayed")


@pytest.mark.parametrize(
    "names",
    [("else.ours.test",), ("a.b.pool.ours.test",), ("pool.ours.test",), ("*.pool.ours.test",), ("*.ours.test",)],
)
def test_another_name_of_the_same_authority_does_not(house, names):
    assert submit(house[0], CLIENTS.issue(*names))[0] in {550, 554}


def test_without_a_certificate_nobody_relays(house):
    for port in (house[0].port, house[0].other_port):
        assert submit(house[0], None, port)[0] in {550, 554}


def test_it_is_the_same_through_aiosmtpd(house):
    mta, _ = house
    assert submit(mta, CLIENTS.issue("relay.ours.test"), mta.other_port)[0] == 250
    assert submit(mta, CLIENTS.issue("else.ours.test"), mta.other_port)[0] in {550, 554}


@pytest.mark.parametrize(
    "pair",
    [OTHERS.issue("relay.ours.test"), CLIENTS.issue("relay.ours.test", begins=-20, ends=-10)],
    ids=["another authority", "out of time"],
)
def test_a_certificate_that_does_not_hold_ends_the_session(house, pair):
    with pytest.raises((ssl.SSLError, OSError, smtplib.SMTPException)):
        submit(house[0], pair)


@pytest.mark.parametrize("is_shown", [True, False])
def test_a_rule_shows_its_certificate_to_a_hop_that_asks_for_one(is_shown):
    pair = CLIENTS.issue("posthof.test")
    hop_pair = CLIENTS.issue("127.0.0.1")
    with Peer(certificate=hop_pair, client_ca=CLIENTS.file) as hop:
        files = {"cert": str(pair[0]), "key": str(pair[1])}
        shown = document("TLSCert", "ours", {"dnsNames": ["posthof.test"], "issuer": {"files": files}})
        more = {"clientCertRef": {"name": "ours"}} if is_shown else {}
        with posthof(shown, to_host("all", "127.0.0.1", hop.port, tls="Encrypt", **more)) as mta:
            mta.send("a@ours.test", "b@far.test", CONTENT.encode())
            if is_shown:
                peers.wait_for(lambda: hop.messages, "the message is taken")
                assert hop.messages[0].tls
            else:
                peers.wait_for(lambda: mta.waiting() == 1 and len(hop.sessions) > 1, "it was tried in vain")
                assert hop.messages == []
