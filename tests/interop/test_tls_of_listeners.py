"""The TLS that our listeners offer, as others see it: sslscan's judgement, sessions resumed, names chosen by SNI."""

import smtplib
import socket
import ssl
import subprocess
from xml.etree import ElementTree

import pytest

from kit import peers
from kit.pki import Authority
from kit.posthof import certificate, document, posthof

CA = Authority("Test CA")


@pytest.fixture(scope="module")
def house():
    """Listeners with STARTTLS and with TLS from the first byte; one worker, so that tickets are one's."""
    pairs = {"mx": CA.issue("mx.test"), "other": CA.issue("other.test", "third.test")}
    certificates = [
        document("TLSCert", name, {"dnsNames": list(names), "issuer": {"files": {"cert": str(c), "key": str(k)}}})
        for (name, (c, k)), names in zip(pairs.items(), [("mx.test",), ("other.test", "third.test")], strict=True)
    ]
    implicit = peers.free_port()
    with posthof(*certificates, certificate("unused", "unused.test"), start=False) as mta:
        tls = {"certRefs": [{"name": "mx"}, {"name": "other"}]}
        both = [
            {"name": "mx", "role": "MX", "address": "127.0.0.1", "port": mta.port, "tls": tls},
            {
                "name": "tls",
                "role": "MX",
                "address": "127.0.0.1",
                "port": implicit,
                "tls": {**tls, "mode": "Implicit"},
            },
        ]
        mta.write("mta", mta.mta({"listeners": both, "workers": 1}))
        mta.start()
        yield mta, implicit


def test_sslscan_finds_nothing_old_and_nothing_weak(house, tmp_path):
    peers.require("sslscan")
    mta, _ = house
    out = tmp_path / "scan.xml"
    command = ["sslscan", "--starttls-smtp", "--no-colour", f"--xml={out}", f"127.0.0.1:{mta.port}"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    scan = ElementTree.parse(out).getroot().find("ssltest")
    on = {f"{one.get('type')}{one.get('version')}" for one in scan.iter("protocol") if one.get("enabled") == "1"}
    assert on == {"tls1.2", "tls1.3"}
    assert {one.get("supported") for one in scan.iter("compression")} <= {"0"}
    assert {one.get("vulnerable") for one in scan.iter("heartbleed")} <= {"0"}
    ciphers = list(scan.iter("cipher"))
    assert ciphers
    assert min(int(one.get("bits")) for one in ciphers) >= 128
    weak = ("RC4", "DES", "MD5", "NULL", "EXPORT", "anon")
    assert not [one.get("cipher") for one in ciphers if any(word in one.get("cipher") for word in weak)]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_resumes_its_session(house, version):
    _, port = house
    context = ssl.create_default_context(cafile=CA.file)
    context.minimum_version = context.maximum_version = version
    resumed, session = [], None
    for _ in range(3):
        with (
            socket.create_connection(("127.0.0.1", port), 20) as plain,
            context.wrap_socket(plain, server_hostname="mx.test", session=session) as wrapped,
        ):
            assert wrapped.recv(1000).startswith(b"220 ")
            resumed.append(wrapped.session_reused)
            session = wrapped.session
    assert resumed == [False, True, True]


@pytest.mark.parametrize("name", ["mx.test", "other.test", "third.test", "OTHER.test"])
def test_the_certificate_is_the_one_of_the_name_that_is_asked_for(house, name):
    mta, _ = house
    with smtplib.SMTP(timeout=20) as client:
        client.connect("127.0.0.1", mta.port)
        client._host = name
        client.starttls(context=ssl.create_default_context(cafile=CA.file))
        assert client.ehlo("client.test")[0] == 250


def test_a_name_nobody_here_has_gets_the_first_certificate(house):
    mta, _ = house
    with smtplib.SMTP(timeout=20) as client:
        client.connect("127.0.0.1", mta.port)
        client._host = "nobody.test"
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            client.starttls(context=ssl.create_default_context(cafile=CA.file))
