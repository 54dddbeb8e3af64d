"""A DANE key and a DKIM key are rolled under traffic: both are in DNS, at every server, before anything uses them."""

from __future__ import annotations

import time

import dkim

from kit import manifests
from kit.actors import Sink
from kit.stage import Stage
from kit.zone import Zone, zone

NODES = True
INSTALLS = True
TTL = 30


def story(stage: Stage) -> None:
    with zone(stage, "traffic.test") as primary:
        stage.install(*primary.settings)
        tell(stage, primary)
    stage.install()


def tell(stage: Stage, primary: Zone) -> None:
    traffic, sink = stage.world()
    letters = Sink(stage, "letters")  # whose mails are read; of the traffic's thousands only the first ones are kept
    letters.ready()
    public = {"name": "mx", "role": "MX", "port": 25, "tls": {"certRefs": [{"name": "edge"}]}}
    internal = {"name": "relay", "role": "Internal", "port": 2500}
    stage.apply(
        primary.secret(),
        certificate(primary, "RSA"),
        manifests.on_many_nodes(spec={"listeners": [public, internal]}),
        signed(primary, 2048),
        stage.relayed("steady.test"),
        stage.relayed("letters.test", "letters"),
    )
    stage.running(replicas=2)

    stage.step("TLSA records of the present key and of the next one stand in the zone")
    stage.until_condition("TLSCert", "edge", Ready="True", Served="True", DANEReady="True", wanted=40)
    name = "_25._tcp.edge.traffic.test"
    stage.expect(len(primary.texts(stage, name, "TLSA")) == 2, f"{name} should have two TLSA records")
    first = str(stage.status("TLSCert", "edge")["serial"])

    stage.step("DKIM keys are made and published; mail is signed once the servers show them")
    stage.until_condition("MailDomain", "traffic-test", DKIMReady="True", wanted=40)
    stage.until("mail is signed", lambda: is_signed_anew(stage, letters, set()), wanted=10)
    check(stage, primary, sent(stage, letters), 1)
    selectors = keys(stage)

    stage.step("under traffic another kind of key is wanted for TLS, and a longer one for DKIM")
    hosts = stage.addresses()
    traffic.until_answer(hosts, "x@steady.test", "250")
    traffic.start("edge", "x@steady.test", rate=20, sessions=6, tls=1)
    traffic.grows()
    stage.apply(certificate(primary, "ECDSA"), signed(primary, 3072))
    begun = time.monotonic()
    stage.until("the next key waits for DNS", lambda: waits(stage), wanted=20)
    number, kind = traffic.serial(hosts[0])
    stage.expect(
        plain(number) == plain(first) and "RSA" in kind, f"the old one should be served, and is {number} {kind}"
    )
    stage.until("a certificate with the new key is there", lambda: renewed(stage, first), wanted=3 * TTL)
    waited = time.monotonic() - begun
    stage.keep("from the wish to the new key's certificate", waited)
    stage.expect(waited >= 2 * TTL, f"two TTLs are {2 * TTL} s, and it came after {waited:.0f} s")
    new = str(stage.status("TLSCert", "edge")["serial"])
    stage.keep("until every pod presents it", traffic.until_serial(hosts, plain(new)), wanted=2)
    stage.expect(len(primary.texts(stage, name, "TLSA")) == 3, "the old record should stand for two TTLs more")

    stage.step("the new DKIM key signs, the old one's record stays for what is on its way")
    stage.until("another DKIM key signs", lambda: keys(stage) > selectors, wanted=60)
    stage.until("mail is signed by the new key", lambda: is_signed_anew(stage, letters, selectors), wanted=30)
    check(stage, primary, sent(stage, letters), 1)

    stage.step("the old TLSA record goes; nobody noticed anything")
    stage.until("only the new keys' records stand", lambda: len(primary.texts(stage, name, "TLSA")) == 2, wanted=90)
    traffic.grows()
    stage.nobody_disconnected(traffic.stop())
    stage.nothing_lost(traffic, sink)
    stage.until_condition("TLSCert", "edge", Ready="True", Served="True", DANEReady="True")
    columns = stage.columns("MailDomain", "traffic-test")
    stage.expect(columns["DKIM"] == "ok", f"`kubectl get md` should say so: {columns}")


def certificate(primary: Zone, algorithm: str) -> dict[str, object]:
    dane = {"mode": "Staged", "ttl": TTL, "rfc2136": primary.rfc2136}
    key = {"algorithm": algorithm, "rotationPolicy": "Staged"}
    return manifests.certificate("edge", "edge.traffic.test", privateKey=key, dane=dane)


def signed(primary: Zone, bits: int) -> dict[str, object]:
    """The domain that the traffic's mail is from."""
    return manifests.ours(
        "MailDomain",
        "traffic-test",
        {
            "domain": "traffic.test",
            "inbound": {"mode": "Reject"},
            "outbound": {"dkim": {"auto": {"algorithms": ["RSA"], "size": bits}}},
            "dns": {"rfc2136": primary.rfc2136, "spf": "", "dmarc": ""},
        },
    )


def sent(stage: Stage, letters: Sink) -> str:
    """The text of a mail that a pod of ours sent through the internal listener."""
    key, reply = stage.world()[0].send("edge-internal", "x@letters.test", port=2500)
    stage.expect(reply.startswith("250"), f"a pod's mail should be taken: {reply}")
    stage.until("it has arrived", lambda: letters.has(key))
    return str(letters.mails(key)[0]["text"])


def check(stage: Stage, primary: Zone, text: str, signatures: int) -> None:
    """Somebody else's verifier agrees, with the records that the zone has."""
    mail = text.replace("\n", "\r\n").encode()

    def txt(name: bytes, **_: object) -> bytes:
        found = primary.texts(stage, name.decode().rstrip("."), "TXT")
        return found[0].encode() if found else b""

    verifier = dkim.DKIM(mail)
    results = [verifier.verify(n, dnsfunc=txt) for n in range(signatures)]
    stage.expect(all(results), f"a foreign verifier says {results} of\n{text}")


def keys(stage: Stage) -> set[str]:
    """Selectors of the keys that are or were in use."""
    found = stage.api.list(manifests.VERSION, "DKIMKey", stage.namespace)
    return {str(one["spec"]["selector"]) for one in found if (one.get("status") or {}).get("activeSince")}


def is_signed_anew(stage: Stage, letters: Sink, before: set[str]) -> bool:
    text = sent(stage, letters)
    return any(f"s={selector};" in text.replace(" ", "") for selector in keys(stage) - before)


def waits(stage: Stage) -> bool:
    message = str(stage.condition("TLSCert", "edge", "Ready").get("message", ""))
    return "waits until its TLSA records" in message


def renewed(stage: Stage, first: str) -> bool:
    return stage.status("TLSCert", "edge").get("serial") not in (None, first)


def plain(serial: str) -> str:
    return serial.replace(":", "").lower().lstrip("0")
