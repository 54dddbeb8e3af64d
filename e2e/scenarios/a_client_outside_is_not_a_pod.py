"""A rule for pods of a namespace lets no stranger in: from outside, through a NodePort, it gets 550."""

from kit import manifests
from kit.actors import Traffic
from kit.api import Object
from kit.record import Failure
from kit.stage import Stage

NODES = True

RCPT = """
import smtplib, sys
with smtplib.SMTP(sys.argv[1], int(sys.argv[2]), timeout=30) as session:
    session.ehlo("outside.test")
    session.mail("a@outside.test")
    print(*session.rcpt(sys.argv[3]))
"""


def story(stage: Stage) -> None:
    traffic, _ = stage.world()
    other = Traffic(stage, "other", labels={"team": "other"})
    other.ready()
    listeners = [
        {"name": "mx", "role": "MX", "port": 25},
        {"name": "inside", "role": "Internal", "port": 2526},
    ]
    for policy, why in (("Local", "addresses are kept"), ("Cluster", "addresses may be translated")):
        stage.step(f"externalTrafficPolicy {policy}: {why}")
        service = {"type": "NodePort", "externalTrafficPolicy": policy}
        stage.apply(manifests.mta(spec={"listeners": listeners, "service": service}), stage.relayed("ours.test"))
        stage.apply(rule(stage))
        stage.running()
        kept = "True" if policy == "Local" else "False"
        stage.until_condition("MTA", "edge", ClientIPPreserved=kept)

        stage.step("a pod that the rule means may relay; one that it does not mean may not")
        stage.until("the rule is in force", lambda: allowed(traffic), wanted=5)
        reply = other.rcpt("edge-internal", "you@world.test", port=2526)
        stage.expect(reply.startswith("550"), f"a pod with other labels got {reply}")

        stage.step("a client outside reaches the NodePort, and gets 550 for what is not ours")
        for address in ("198.18.0.10", "198.18.0.11"):
            ours, world = from_outside(stage, address, "a@ours.test"), from_outside(stage, address, "you@world.test")
            if policy == "Local" and not ours:
                continue  # no pod on that node: with Local, nobody answers there
            stage.expect(ours.startswith("250"), f"{address}: mail for our domain got {ours}")
            stage.expect(world.startswith("550"), f"{address}: it relays for strangers: {world}")


def rule(stage: Stage) -> Object:
    hop = {"host": f"sink.{stage.namespace}.svc.cluster.local", "port": 2525}
    match = {"podSelector": {"matchLabels": {"actor": "traffic"}}}
    spec = {"match": match, "action": {"type": "Smarthost", "nextHops": [hop]}, "tls": "None"}
    return manifests.ours("RelayPolicy", "pods", spec)


def allowed(traffic: Traffic) -> bool:
    return traffic.rcpt("edge-internal", "you@world.test", port=2526).startswith("250")


def from_outside(stage: Stage, address: str, recipient: str) -> str:
    """What RCPT gets at a node's port, "" where nobody listens."""
    service = stage.api.get("v1", "Service", "edge", stage.namespace) or {}
    port = str(service["spec"]["ports"][0]["nodePort"])
    try:
        return stage.place.outside("python3", "-c", RCPT, address, port, recipient)
    except Failure as failure:
        if "ConnectionRefusedError" in str(failure) or "TimeoutError" in str(failure):
            return ""
        raise
