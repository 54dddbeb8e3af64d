"""examples/cluster-relay: workloads of labelled namespaces send through one address, one Secret for the provider."""

from __future__ import annotations

from kit import examples
from kit.actors import Actor, Traffic
from kit.api import Object
from kit.record import Told
from kit.stage import Stage

ADDRESS = "relay-internal.{}.svc.cluster.local"


class Provider(Actor):
    """Takes mail from whoever logs in; the scenario's own end of the Internet."""

    def __init__(self, stage: Stage) -> None:
        ports = [{"port": 587, "targetPort": 2525}]
        spec = {"selector": {"actor": "provider"}, "ports": ports}
        stage.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "provider"}, "spec": spec})
        super().__init__(stage, "provider", "provider.py")

    def user(self, key: str) -> str:
        """Who handed this mail over, "" while it has not come."""
        return str(self.ask("seen")["users"].get(key, ""))


def story(stage: Stage) -> None:
    shop = Stage(stage.place, Told(f"{stage.told.name}_shop"))
    try:
        shop.open()
        tell(stage, shop)
    finally:
        shop.clear()


def tell(stage: Stage, shop: Stage) -> None:
    provider = Provider(stage)
    stage.step("the example's manifests, with our provider in place of the world's")
    for one in examples.objects("cluster-relay"):
        stage.apply(adapted(one, stage))
    workload, stranger = Traffic(shop), Traffic(stage, "stranger")
    for actor in (provider, workload, stranger):
        actor.ready()
    stage.running("relay", 1)
    address = ADDRESS.format(stage.namespace)

    stage.step("a namespace without the label may not send")
    stage.expect(reply_to(stranger, address).startswith("550"), "a stranger's RCPT should get 550")
    stage.expect(reply_to(workload, address).startswith("550"), "an unlabelled namespace's RCPT should get 550")

    stage.step("the label lets it send, with the Secret's login")
    label = {"metadata": {"labels": {"mail.example.org/may-send": "true"}}}
    stage.api.patch("v1", "Namespace", shop.namespace, None, merge=label)
    with stage.measure("label to first 250", wanted=5):
        stage.until("the shop may send", lambda: reply_to(workload, address).startswith("250"), wanted=5)
    key, reply = workload.send(address, "you@world.test")
    stage.expect(reply.startswith("250"), f"the mail should be taken: {reply}")
    stage.until("the mail reaches the provider", lambda: provider.user(key) == "relay@example.org")

    stage.step("the provider is away: mail is taken, waits, and leaves when the provider is back")
    provider.ask("set", away=1)
    key, reply = workload.send(address, "you@world.test")
    stage.expect(reply.startswith("250"), f"the mail should be taken: {reply}")
    stage.until("the mail waits", lambda: waiting(stage) == 1)
    provider.ask("set", away=0)
    stage.until("the mail reaches the provider", lambda: provider.user(key), wanted=30)

    stage.step("the provider wants another password: a new Secret is enough")
    provider.ask("set", password="second")
    key, _ = workload.send(address, "you@world.test")
    stage.until("the mail waits", lambda: waiting(stage) == 1)
    [secret] = [one for one in examples.objects("cluster-relay") if one["kind"] == "Secret"]
    secret = adapted(secret, stage)
    secret["stringData"]["password"] = "second"
    stage.apply(secret)
    stage.until("the mail reaches the provider", lambda: provider.user(key), wanted=30)
    stage.until("nothing waits", lambda: waiting(stage) == 0)

    stage.step("what a person sees")
    stage.until("READY is 1/1", lambda: stage.columns("mta", "relay")["READY"] == "1/1")
    policy = stage.columns("relaypolicy", "workloads")
    stage.expect(policy["READY"] == "True", f"the policy should be ready: {policy}")
    stage.expect(policy["ACTION"] == "Smarthost", f"the policy should say its action: {policy}")


def adapted(one: Object, stage: Stage) -> Object:
    """As it stands in the example, but in our namespace, small, and with our provider."""
    del one["metadata"]["namespace"]
    if one["kind"] == "MTA":
        return examples.small(one)
    if one["kind"] == "RelayPolicy":
        spec = one["spec"]
        spec["action"]["nextHops"] = [{"host": f"provider.{stage.namespace}.svc.cluster.local", "port": 587}]
        spec["tls"] = "Encrypt"  # nobody in the cluster has a certificate that the world's authorities signed
        spec["retry"]["intervals"] = ["2s"]
    if one["kind"] == "Secret":
        one["stringData"]["password"] = "first"
    return one


def reply_to(traffic: Traffic, address: str) -> str:
    return traffic.rcpt(address, "you@world.test")


def waiting(stage: Stage) -> int:
    """Messages in the MTA's queue, as its status says."""
    return int(stage.status("MTA", "relay")["queue"]["total"])
