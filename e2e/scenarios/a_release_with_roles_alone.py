"""Namespaced mode: no right for the whole cluster, no webhook; it serves its namespaces, others are left alone."""

from __future__ import annotations

from kit import manifests
from kit.record import Told
from kit.stage import RELEASE, SYSTEM, Stage, uninstall

INSTALLS = True
CLUSTER_WIDE = (
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
)


def story(stage: Stage) -> None:
    other = Stage(stage.place, Told(f"{stage.told.name}_not"))
    try:
        other.open()
        tell(stage, other)
    finally:
        uninstall(stage.place)
        other.clear()


def tell(stage: Stage, other: Stage) -> None:
    stage.step("the definitions by an administrator, the release with a list of namespaces")
    stage.install()  # brings the definitions, which an uninstall keeps
    uninstall(stage.place)
    stage.install("crds.enabled=false", f"watchNamespaces={{{stage.namespace}}}")
    for version, kind in CLUSTER_WIDE:
        ours = [one["metadata"]["name"] for one in stage.api.list(version, kind) if is_ours(one)]
        stage.expect(ours == [], f"there should be no {kind} of the release: {ours}")
    deployments = [one["metadata"]["name"] for one in stage.api.list("apps/v1", "Deployment", SYSTEM)]
    stage.expect(deployments == [f"{RELEASE}-operator"], f"there should be the operator alone: {deployments}")

    stage.step("mail passes in the namespace it watches")
    traffic, sink = stage.world()
    stage.apply(manifests.mta(), stage.relayed("own.test"), manifests.certificate("edge", "edge.mx.test"))
    [pod] = stage.running()
    key, reply = traffic.send(pod["status"]["podIP"], "a@own.test", port=2525)
    stage.expect(reply.startswith("250"), f"the mail should be taken: {reply}")
    stage.until("the mail is delivered", lambda: sink.has(key))
    stage.until_condition("TLSCert", "edge", Ready="True")

    stage.step("a rule by namespace holds: the namespace's labels may be read")
    internal = {"listeners": [{"name": "relay", "role": "Internal", "port": 25}]}
    stage.apply(manifests.mta("relay", internal))
    spec = {
        "match": {"listenerRoles": ["Internal"], "namespaces": {"matchLabels": {"posthof.dev/e2e": "true"}}},
        "action": {
            "type": "Smarthost",
            "nextHops": [{"host": f"sink.{stage.namespace}.svc.cluster.local", "port": 2525}],
        },
        "tls": "None",
    }
    stage.apply(manifests.ours("RelayPolicy", "workloads", spec))
    [relay] = stage.running("relay")
    stage.until(
        "the workload may relay",
        lambda: traffic.rcpt(relay["status"]["podIP"], "a@world.test", port=2525).startswith("250"),
    )

    stage.step("another namespace is left alone")
    stage.expect(other.get("MTA", "edge") is None, "the other namespace should be empty")
    other.apply(manifests.mta())
    stage.apply(manifests.mta("later"))  # what came after it was reconciled, so it has been passed over
    stage.running("later")
    stage.expect(other.status("MTA", "edge") == {}, f"nobody should look at it: {other.status('MTA', 'edge')}")
    stage.expect(other.pods(ready=False) == [], "it should have no pods")

    stage.step("what it serves goes, while there is an operator that may let go of it")
    stage.place.kubectl("delete", "mta", "--all", "-n", stage.namespace, "--timeout=120s")


def is_ours(one: dict[str, dict[str, dict[str, str]]]) -> bool:
    return one["metadata"].get("labels", {}).get("helm.sh/chart", "").startswith("posthof-")
