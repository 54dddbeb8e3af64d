"""The MTA-STS policies we publish: their text and id, and when `enforce` may be said."""

import asyncio
import contextlib
import ssl
import urllib.error
import urllib.request

import pytest

from kit import peers
from kit.dns import DNSServer
from kit.pki import Authority
from kit.posthof import document, mail_domain, posthof
from posthof_crds import policytext
from posthof_crds.engine import Domain, EngineConfig, InboundMode, OwnPolicy, SpoolSettings
from posthof_pod.admin.mxproof import NOT_YET, Proof
from posthof_pod.admin.policies import policy_of
from posthof_pod.resolve.stspolicy import Mode, read_policy, read_record


def config(**domains):
    made = {
        name: Domain(name=name, domain=name, mode=InboundMode.ALIAS, mta_sts=policy)
        for name, policy in domains.items()
    }
    spool = SpoolSettings(path="/s")
    return EngineConfig(
        name="t", hostname="mx.house.test", listeners=(), spool=spool, mail_root="/", state_dir="/", domains=made
    )


HOUSE = config(
    **{"a.test": OwnPolicy(mode="enforce", max_age=86400, mx=("backup.test",)), "b.test": OwnPolicy(mode="testing")},
    **{"c.test": None},
)


def test_the_text_is_a_policy_and_its_id_is_made_of_it():
    text = policy_of(HOUSE, {}, "mta-sts.a.test")
    assert text is not None
    announced = read_record([policytext.record(text).encode()])
    found = read_policy("a.test", announced, text.encode(), 0.0)
    assert (found.mode, found.mx, found.max_age) == (Mode.ENFORCE, ("backup.test", "mx.house.test"), 86400)
    other = policy_of(HOUSE, {"backup.test": "no"}, "mta-sts.a.test")
    assert policytext.policy_id(other) != announced


def test_enforce_waits_for_every_host_in_the_policy():
    for host in ("backup.test", "mx.house.test"):
        assert "mode: testing\r\n" in policy_of(HOUSE, {host: NOT_YET}, "mta-sts.a.test")
    assert "mode: enforce\r\n" in policy_of(HOUSE, {"elsewhere.test": "no"}, "MTA-STS.a.test.:443")
    assert policytext.mx_hosts(HOUSE) == ("backup.test", "mx.house.test")


@pytest.mark.parametrize(
    "host", ["a.test", "mta-sts.c.test", "mta-sts.other.test", "mta-sts.", "", "\xff\xfe", "mta-sts"]
)
def test_there_is_no_policy_under_any_other_name(host):
    assert policy_of(HOUSE, {}, host) is None


def test_a_host_stays_proven_while_it_does_not_answer_and_no_longer_than_its_certificate_holds():
    told = []
    answers = {"a.test": None, "b.test": ""}

    async def ask(host):
        return answers[host]

    async def run():
        proof = Proof(lambda: list(answers), told.append)
        assert proof.unproven == {"a.test": NOT_YET, "b.test": NOT_YET}
        await proof.look(ask)
        assert proof.unproven == {"a.test": "it does not answer"}
        answers.update({"a.test": "", "b.test": None})
        await proof.look(ask)
        assert proof.unproven == {}
        answers["b.test"] = "the certificate does not hold"
        await proof.look(ask)
        await proof.look(ask)
        assert proof.unproven == {"b.test": "the certificate does not hold"}
        answers["new.test"] = None
        proof.poke()
        assert proof.unproven["new.test"] == NOT_YET

    asyncio.run(run())
    assert [text.split(" ")[4] for text in told] == ["a.test", "b.test"]


# --- a whole house


def fetch(port, domain, ca):
    """The policy, as a sender fetches it; "" where there is none."""
    context = ssl.create_default_context(cafile=ca)

    class Reaching(urllib.request.HTTPSHandler):
        def https_open(self, request):
            return self.do_open(_connection(port, context), request)

    opener = urllib.request.build_opener(Reaching())
    with (
        contextlib.suppress(urllib.error.HTTPError),
        opener.open(f"https://mta-sts.{domain}/.well-known/mta-sts.txt") as r,
    ):
        assert r.headers["Content-Type"].startswith("text/plain")
        return r.read().decode()
    return ""


def _connection(port, context):
    import http.client
    import socket

    class Local(http.client.HTTPSConnection):
        def connect(self):
            plain = socket.create_connection(("127.0.0.1", port), 10)
            self.sock = context.wrap_socket(plain, server_hostname=self.host)

    return lambda host, **_: Local(host)


def test_a_house_serves_its_policies_and_enforces_when_its_own_host_is_proven(monkeypatch):
    ca = Authority("Test CA")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
    web, mx = ca.issue("mta-sts.ours.test"), ca.issue("posthof.test")
    port = peers.free_port()
    ours = mail_domain("ours.test", "Alias", aliases={"bob": ["bob@far.test"]})
    ours["spec"]["dns"] = {"mtaSts": {"mode": "Enforce", "maxAge": "1d"}}
    certificates = [
        document("TLSCert", name, {"dnsNames": [host], "issuer": {"files": {"cert": str(c), "key": str(k)}}})
        for name, host, (c, k) in (("web", "mta-sts.ours.test", web), ("mx", "posthof.test", mx))
    ]
    with DNSServer({"posthof.test": {"A": "127.0.0.1"}}) as dns, posthof(ours, *certificates, start=False) as mta:
        listener = {"name": "mx", "role": "MX", "address": "127.0.0.1", "port": mta.port}
        listener["tls"] = {"certRefs": [{"name": "mx"}]}
        server = {"address": "127.0.0.1", "port": port, "certRefs": [{"name": "web"}]}
        mta.write(
            "mta",
            mta.mta({"listeners": [listener], "mtaSts": server, "directPort": mta.port, "resolver": [dns.address]}),
        )
        mta.start()
        mta.program.until(lambda: "mode: enforce" in fetch(port, "ours.test", ca.file), "the policy is enforced")
        text = fetch(port, "ours.test", ca.file)
        assert read_policy("ours.test", "x", text.encode(), 0.0).mx == ("posthof.test",)
        shown = mta.run("mtasts", "--zone", "-f", str(mta.manifests))
        assert f'_mta-sts.ours.test. 3600 IN TXT "{policytext.record(text)}"' in shown
        with pytest.raises(urllib.error.URLError):  # no certificate for that name, and no policy either
            fetch(port, "other.test", ca.file)
