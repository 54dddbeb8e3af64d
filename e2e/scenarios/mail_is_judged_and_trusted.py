"""A new domain's mail passes at a foreign verifier; a forged one is marked, then refused; its policy is served."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from base64 import b64decode
from pathlib import Path

from kit import manifests
from kit.acme import Authority, authority
from kit.actors import Sink, Traffic
from kit.stage import Stage
from kit.verifier import verdict
from kit.zone import Zone, zone

NODES = True
INSTALLS = True
EGRESS = "198.51.100.7"  # what the world sees mail come from
HOST = "edge.traffic.test"

SEND = """
import smtplib, sys
with smtplib.SMTP(sys.argv[1], 2525, local_hostname="elsewhere.test", timeout=30) as session:
    session.ehlo()
    session.mail("sender@elsewhere.test")
    session.rcpt("x@letters.test")
    code, text = session.data(sys.stdin.buffer.read())
    print(code, text.decode())
"""


def story(stage: Stage) -> None:
    stage.place.has_program("rspamd")
    with zone(stage, "traffic.test") as primary, authority(stage) as ca:
        stage.install(*primary.settings)
        tell(stage, primary, ca)
    stage.install()


def tell(stage: Stage, primary: Zone, ca: Authority) -> None:
    traffic, letters = Traffic(stage), Sink(stage, "letters")
    traffic.ready()
    letters.ready()
    place = str((stage.get("Service", "letters", "v1") or {})["spec"]["clusterIP"])
    stage.apply(
        primary.secret(),
        acme_certificate(stage, ca),
        manifests.certificate("policies", "mta-sts.traffic.test"),
        manifests.mta(spec=edge(primary)),
        domain(primary),
        manifests.relayed("letters.test", place),
    )
    stage.running()

    stage.step("the certificate comes from the authority; the domain's records are told, and missing")
    stage.until_condition("TLSCert", "edge", Ready="True", Served="True", wanted=60)
    columns = stage.columns("TLSCert", "edge")
    stage.expect((columns["ISSUER"], columns["SERVED"]) == ("acme", "1/1"), f"the columns should say so: {columns}")
    stage.until("SPF and DMARC are told to be missing", lambda: seen(stage) == ("missing", "missing"), wanted=30)

    stage.step("what the status tells to publish is published, word for word: every column says ok")
    for record in stage.status("MailDomain", "traffic-test")["dnsRecords"]:
        if record["type"] in ("TXT", "MX") and "_domainkey" not in record["name"] and record["state"] != "ok":
            text = record["expected"]
            quoted = text if record["type"] == "MX" else json.dumps(text)
            primary.publish(stage, "traffic.test", record["name"].rstrip("."), record["type"], quoted)
    stage.until_condition("MailDomain", "traffic-test", DKIMReady="True", wanted=40)
    stage.until("the columns are right", lambda: all_ok(stage), wanted=60)
    phases = [one["status"]["phase"] for one in stage.api.list(manifests.VERSION, "DKIMKey", stage.namespace)]
    stage.expect(phases == ["Active", "Active"], f"two keys should be Active, and are {phases}")

    stage.step("a workload's mail passes SPF, DKIM and DMARC in rspamd")
    text = stage.until("mail is signed twice", lambda: signed(traffic, letters), wanted=30)
    found = verdict(stage, primary, text, client=EGRESS, sender="sender@traffic.test", helo=HOST)
    stage.expect(found == "spf=pass dkim=pass dmarc=pass", f"rspamd says {found} of\n{text}")
    forged = text.replace("xxxx", "yyyy")
    found = verdict(stage, primary, forged, client="203.0.113.9", sender="sender@traffic.test", helo="x.test")
    stage.expect(found == "spf=softfail dkim=fail dmarc=fail", f"rspamd says {found} of a forged one")

    stage.step("the same mail from the world is judged here: the good one passes, the forged one is marked")
    [host] = stage.addresses()
    reply = receive(stage, host, text)
    stage.expect(reply.startswith("250"), f"the good one should be taken: {reply}")
    judged = stage.until("it arrives", lambda: newest(letters, "Authentication-Results"))
    stage.expect("dkim=pass" in judged and "dmarc=pass" in judged, f"it should pass:\n{judged}")
    stage.expect("X-Posthof-Quarantine" not in judged, f"it should not be marked:\n{judged}")
    reply = receive(stage, host, forged)
    stage.expect(reply.startswith("250"), f"without an AccessPolicy nothing is refused: {reply}")
    stage.until(
        "the forged one is marked", lambda: newest(letters, "X-Posthof-Quarantine: dmarc=fail for traffic.test")
    )

    stage.step("with an AccessPolicy that obeys to the letter the forged one gets 550 5.7.1")
    stage.apply(manifests.ours("AccessPolicy", "trust", {"dmarc": {"reject": "Reject"}}))
    stage.until_condition("AccessPolicy", "trust", Ready="True")
    reply = stage.until("it is refused", lambda: refused(stage, host, forged))
    stage.expect("5.7.1" in reply and "traffic.test" in reply, f"the reply should say why: {reply}")
    reply = receive(stage, host, text)
    stage.expect(reply.startswith("250"), f"the good one should be taken: {reply}")

    stage.step("the domain's MTA-STS policy is served by HTTPS, as testing until the world believes the certificate")
    policy = stage.until("the policy is served", lambda: served(stage), wanted=20)
    lines = policy.split()
    stage.expect("testing" in lines and HOST in lines, f"the policy should be testing, for {HOST}: {policy}")
    waits = stage.condition("MailDomain", "traffic-test", "MTASTSReady")
    stage.expect(
        waits["status"] == "False" and HOST in waits["message"], f"it should name what is waited for: {waits}"
    )


def edge(primary: Zone) -> dict[str, object]:
    public = {"name": "mx", "role": "MX", "port": 25, "tls": {"certRefs": [{"name": "edge"}]}}
    return {
        "hostname": HOST,
        "listeners": [public, {"name": "relay", "role": "Internal", "port": 2500}],
        "resolver": [primary.address],
        "egress": {"addresses": [EGRESS]},
        "mtaSts": {"certRefs": [{"name": "policies"}]},
    }


def acme_certificate(stage: Stage, ca: Authority) -> dict[str, object]:
    issuer = {"acme": {"directory": ca.directory, "caBundle": ca.roots, "solver": {"http01": {}}}}
    name = f"edge.{stage.namespace}.svc.cluster.local"
    return manifests.ours("TLSCert", "edge", {"dnsNames": [name], "issuer": issuer})


def domain(primary: Zone) -> dict[str, object]:
    """The domain that the workload's mail is from."""
    records = {"rfc2136": primary.rfc2136, "dmarc": "v=DMARC1; p=reject", "mtaSts": {"mode": "Enforce"}}
    spec = {
        "domain": "traffic.test",
        "inbound": {"mode": "Reject"},
        "outbound": {"dkim": {"auto": {}}},
        "dns": {**records, "tlsRpt": "v=TLSRPTv1; rua=mailto:tls@traffic.test"},
    }
    return manifests.ours("MailDomain", "traffic-test", spec)


def seen(stage: Stage) -> tuple[str, str]:
    columns = stage.columns("MailDomain", "traffic-test")
    return columns["SPF"], columns["DMARC"]


def all_ok(stage: Stage) -> bool:
    columns = stage.columns("MailDomain", "traffic-test")
    return all(columns[name] == "ok" for name in ("SPF", "DKIM", "DMARC"))


def signed(traffic: Traffic, letters: Sink) -> str:
    """The text of a mail that a pod sent; "" while it is not signed by both keys."""
    key, reply = traffic.send("edge-internal", "x@letters.test", port=2500)
    if not reply.startswith("250"):
        return ""
    traffic.stage.until("it has arrived", lambda: letters.has(key))
    text = str(letters.mails(key)[0]["text"])
    return text if text.count("DKIM-Signature:") == 2 else ""


def receive(stage: Stage, host: str, text: str) -> str:
    """The reply to the dot, to a client beside the cluster."""
    answered = subprocess.run(
        [*stage.place.beside(), sys.executable, "-c", SEND, host],
        input=text.replace("\n", "\r\n").encode(),
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return answered.stdout.decode().strip()


def refused(stage: Stage, host: str, text: str) -> str:
    reply = receive(stage, host, text)
    return reply if reply.startswith("550") else ""


def newest(letters: Sink, word: str) -> str:
    """The header of the last mail that came, once it has this."""
    came = [one for key in letters.seen() for one in letters.mails(key)]
    header = str(max(came, key=lambda one: float(one["at"]))["header"])
    return header if word in header else ""


def served(stage: Stage) -> str:
    """The policy, as a sender fetches it from the Service, with the certificate that names its host."""
    service = (stage.get("Service", "edge", "v1") or {})["spec"]["clusterIP"]
    made = stage.get("Secret", "policies-tls", "v1")
    if made is None:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        roots = Path(folder) / "roots.pem"
        roots.write_bytes(b64decode(made["data"]["tls.crt"]))
        host = "mta-sts.traffic.test"
        words = ["curl", "-sS", "--cacert", str(roots), "--resolve", f"{host}:443:{service}"]
        answered = subprocess.run(
            [*stage.place.beside(), *words, f"https://{host}/.well-known/mta-sts.txt"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    return answered.stdout if answered.returncode == 0 else ""
