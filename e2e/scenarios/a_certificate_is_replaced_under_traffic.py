"""A certificate is replaced, RSA by ECDSA, while TLS sessions send mail: all pods present it, nobody is cut off."""

from kit import manifests
from kit.stage import Stage


def story(stage: Stage) -> None:
    traffic, sink = stage.world()
    listener = {"name": "mx", "role": "MX", "port": 25, "tls": {"certRefs": [{"name": "edge"}]}}
    stage.apply(
        manifests.certificate("edge", "edge.mx.test", privateKey={"algorithm": "RSA"}),
        manifests.on_many_nodes(spec={"listeners": [listener]}),
        stage.relayed("steady.test"),
    )
    stage.running(replicas=2)
    stage.until_condition("TLSCert", "edge", Ready="True", Served="True")
    hosts = stage.addresses()
    old = stage.status("TLSCert", "edge")["serial"]
    number, kind = traffic.serial(hosts[0])
    stage.expect("RSA" in kind, f"the first key should be RSA, and is {kind}")
    stage.expect(same(number, old), f"the pod presents {number}, the status says {old}")
    traffic.until_answer(hosts, "x@steady.test", "250")

    stage.step("mail flows in TLS sessions")
    traffic.start("edge", "x@steady.test", rate=20, sessions=6, tls=1)
    traffic.grows()

    stage.step("the key's kind is changed: a new certificate is made, and every pod presents it")
    stage.apply(manifests.certificate("edge", "edge.mx.test", privateKey={"algorithm": "ECDSA"}))
    new = stage.until("a new certificate is issued", lambda: issued(stage, old), wanted=5)
    stage.keep("until every pod presents the issued one", traffic.until_serial(hosts, plain(new)), wanted=2)
    for host in hosts:
        _, kind = traffic.serial(host)
        stage.expect("RSA" not in kind and "EC" in kind, f"{host} should present an ECDSA key, and presents {kind}")

    stage.step("the status says who serves it, and until when")
    stage.until_condition("TLSCert", "edge", Ready="True", Served="True")
    stage.until("all pods serve it, says the status", lambda: stage.status("TLSCert", "edge").get("served") == "2/2")
    status = stage.status("TLSCert", "edge")
    stage.expect(status["renewalTime"] < status["notAfter"], f"it is renewed too late: {status}")

    stage.step("nobody noticed")
    traffic.grows()
    stage.nobody_disconnected(traffic.stop())
    stage.nothing_lost(traffic, sink)


def issued(stage: Stage, old: str) -> str:
    """The serial of a certificate other than `old`, "" before there is one."""
    serial = str(stage.status("TLSCert", "edge").get("serial", ""))
    return "" if same(serial, old) else serial


def plain(serial: str) -> str:
    return serial.replace(":", "").lower().lstrip("0")


def same(one: str, other: str) -> bool:
    return plain(one) == plain(other)
