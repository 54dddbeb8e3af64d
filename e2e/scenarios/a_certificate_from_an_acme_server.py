"""A TLSCert is ordered from an ACME server, proven by the MTA's own pods over HTTP, and renewed under traffic."""

from kit import manifests
from kit.acme import Authority, authority
from kit.stage import Stage

NODES = True


def story(stage: Stage) -> None:
    traffic, sink = stage.world()
    host = f"edge.{stage.namespace}.svc.cluster.local"
    listener = {"name": "mx", "role": "MX", "port": 25, "tls": {"certRefs": [{"name": "edge"}]}}
    with authority(stage) as ca:
        stage.apply(
            certificate(ca, host, "RSA"),
            manifests.on_many_nodes(spec={"listeners": [listener]}),
            stage.relayed("steady.test"),
        )
        stage.running(replicas=2)

        stage.step("every pod answers the authority, the order is made, every pod serves what came")
        with stage.measure("from the manifest to a certificate that every pod serves", wanted=60):
            stage.until_condition("TLSCert", "edge", Ready="True", Served="True", wanted=60)
        first = str(stage.status("TLSCert", "edge")["serial"])
        hosts = stage.addresses()
        traffic.until_serial(hosts, plain(first))
        columns = stage.columns("TLSCert", "edge")
        stage.expect(
            columns["ISSUER"] == "acme" and columns["SERVED"] == "2/2", f"the columns should say so: {columns}"
        )

        stage.step("mail flows in TLS sessions, and another kind of key is wanted: it is ordered anew")
        traffic.until_answer(hosts, "x@steady.test", "250")
        traffic.start("edge", "x@steady.test", rate=20, sessions=6, tls=1)
        traffic.grows()
        stage.apply(certificate(ca, host, "ECDSA"))
        stage.until("a new certificate is there", lambda: renewed(stage, first), wanted=30)
        new = str(stage.status("TLSCert", "edge")["serial"])
        stage.keep("until every pod presents it", traffic.until_serial(hosts, plain(new)), wanted=2)
        traffic.grows()
        stage.nobody_disconnected(traffic.stop())
        stage.nothing_lost(traffic, sink)

        stage.step("a name that does not lead here is refused with the authority's words, and the good one serves on")
        stage.apply(certificate(ca, host, "ECDSA", "nowhere.acme.test"))
        stage.until("the refusal is told", lambda: stage.status("TLSCert", "edge").get("failures"), wanted=30)
        told = stage.condition("TLSCert", "edge", "Ready")["message"]
        stage.expect("nowhere.acme.test" in told, f"the refusal should name the name: {told}")
        _, kind = traffic.serial(hosts[0])
        stage.expect("RSA" not in kind, f"the good certificate should be served on, and {kind} is")


def certificate(ca: Authority, host: str, algorithm: str, *more: str) -> dict[str, object]:
    issuer = {"acme": {"directory": ca.directory, "caBundle": ca.roots, "solver": {"http01": {}}}}
    spec = {"dnsNames": [host, *more], "issuer": issuer, "privateKey": {"algorithm": algorithm}}
    return manifests.ours("TLSCert", "edge", spec)


def renewed(stage: Stage, first: str) -> bool:
    return stage.status("TLSCert", "edge").get("serial") not in (None, first)


def plain(serial: str) -> str:
    return serial.replace(":", "").lower().lstrip("0")
