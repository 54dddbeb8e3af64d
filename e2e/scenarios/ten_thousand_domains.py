"""10,000 MailDomains: a cold start of the operator, a second pass that writes nothing, an edit served at once."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

from kit import manifests
from kit.api import Object
from kit.stage import SYSTEM, Stage

DOMAINS = 10_000
OURS = ("MTA", "MailDomain", "RelayPolicy", "TLSCert")


def story(stage: Stage) -> None:
    traffic, _ = stage.world()
    stage.apply(manifests.mta())
    stage.running()

    stage.step(f"{DOMAINS} MailDomains are applied while no operator looks")
    stage.install("webhook.enabled=false")
    scale(stage, 0)
    with stage.measure("until all are applied"), ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: stage.apply(domain(stage, n)), range(DOMAINS)))
    scale(stage, 1)
    with stage.measure("until the MTA serves them all", wanted=60):
        stage.until("it does", lambda: stage.status("MTA", "edge").get("domains") == DOMAINS, wanted=60)
        stage.until_condition("MTA", "edge", ConfigConverged="True", wanted=60)
    with stage.measure("until every one is told so", wanted=120):
        stage.until("all are Accepted", lambda: accepted(stage) == DOMAINS, wanted=120)

    stage.step("the operator starts anew: a second pass, with nothing to write")
    stage.until("nothing is written any more", lambda: is_quiet(stage), wanted=60)
    before, versions = writes(stage), everything(stage)
    with stage.measure("cold start of the operator", wanted=15):
        [old] = operators(stage)
        stage.api.delete("v1", "Pod", old, SYSTEM)
        stage.until("another leads", lambda: leads(stage, old), wanted=15)
        stage.until("it has looked at every object", lambda: looked(stage) >= DOMAINS, wanted=15)
    stage.until("nothing is written any more", lambda: is_quiet(stage), wanted=60)
    after = {key: count for key, count in writes(stage).items() if count != before.get(key, 0)}
    stage.expect(everything(stage) == versions, "objects were written though nothing had changed")
    wrote = {key: count - before.get(key, 0) for key, count in after.items() if "mtas/status" not in key}
    stage.keep("writes of the second pass, by the API server's count", sum(wrote.values()), unit="writes")
    stage.expect(not wrote, f"the second pass wrote {wrote}")
    stage.keep("memory of the operator", memory(stage) / 2**20, wanted=300, unit="MiB")

    stage.step("one of them is edited")
    hosts = stage.addresses()
    waiting = stage.meanwhile(lambda: traffic.until_answer(hosts, "x@edited.test", "250"))
    changed = domain(stage, DOMAINS // 2)
    changed["spec"]["domain"] = "edited.test"
    stage.apply(changed)
    stage.keep("until an edit is served", waiting.result(), wanted=2)

    stage.step("all are deleted")
    with stage.measure("until all are gone"):
        stage.until("no MailDomain is left", lambda: emptied(stage), wanted=60)


def domain(stage: Stage, n: int) -> Object:
    return stage.relayed(f"d{n}.test", name=f"d{n}")


def emptied(stage: Stage) -> bool:
    """One request for all of them may take the API server longer than it has: it is asked again."""
    if listed(stage):
        stage.api.call("DELETE", stage.api.path(manifests.VERSION, "MailDomain", stage.namespace))
    return not listed(stage)


def listed(stage: Stage) -> list[Object]:
    return stage.api.list(manifests.VERSION, "MailDomain", stage.namespace, limit="1")


def accepted(stage: Stage) -> int:
    return sum(
        any(each["type"] == "Accepted" and each["status"] == "True" for each in conditions(found))
        for found in stage.api.list(manifests.VERSION, "MailDomain", stage.namespace)
    )


def conditions(found: Object) -> list[Object]:
    return list((found.get("status") or {}).get("conditions") or ())


def everything(stage: Stage) -> dict[str, str]:
    """kind/name -> resourceVersion of all that an operator writes; the canary is elsewhere."""
    found: dict[str, str] = {}
    kinds = [(manifests.VERSION, kind) for kind in OURS]
    kinds += [("v1", kind) for kind in ("ConfigMap", "Secret", "Service", "ServiceAccount")]
    for version, kind in [*kinds, ("apps/v1", "Deployment")]:
        for each in stage.api.list(version, kind, stage.namespace):
            if kind != "MTA":  # its status counts seconds
                found[f"{kind}/{each['metadata']['name']}"] = each["metadata"]["resourceVersion"]
    return found


def writes(stage: Stage) -> dict[str, int]:
    """resource and verb -> writes the API server has served, of the kinds an operator writes for its users. Status of
    what is not ours is written by Kubernetes' own controllers."""
    text = stage.api.call("GET", "/metrics").decode()
    found: dict[str, int] = {}
    for labels, count in re.findall(r"^apiserver_request_total\{(.*?)\} (\S+)$", text, re.MULTILINE):
        of = dict(re.findall(r'(\w+)="(.*?)"', labels))
        made = of["resource"] in ("secrets", "deployments", "services", "roles") and not of["subresource"]
        if (of["group"] == "posthof.dev" or made) and of["verb"] in ("POST", "PUT", "PATCH", "APPLY", "DELETE"):
            key = f"{of['verb']} {of['resource']}/{of['subresource']}"
            found[key] = found.get(key, 0) + int(float(count))
    return found


def is_quiet(stage: Stage) -> bool:
    """Nothing of ours was written for some seconds."""
    before = {key: count for key, count in writes(stage).items() if "mtas/status" not in key}
    time.sleep(3)
    return before == {key: count for key, count in writes(stage).items() if "mtas/status" not in key}


def scale(stage: Stage, replicas: int) -> None:
    merge = {"spec": {"replicas": replicas}}
    stage.api.patch("apps/v1", "Deployment", "posthof-operator", SYSTEM, merge=merge, part="scale")
    stage.until(f"{replicas} operators run", lambda: len(operators(stage)) == replicas, wanted=20)


def operators(stage: Stage) -> list[str]:
    found = stage.api.list("v1", "Pod", SYSTEM, labelSelector="app.kubernetes.io/component=operator")
    return [each["metadata"]["name"] for each in found if "deletionTimestamp" not in each["metadata"]]


def leads(stage: Stage, old: str) -> bool:
    leases = stage.api.list("coordination.k8s.io/v1", "Lease", SYSTEM)
    holder = str(leases[0]["spec"].get("holderIdentity") or "") if leases else ""
    return bool(holder) and not holder.startswith(old)


def metrics(stage: Stage) -> str:
    [pod] = operators(stage)
    return stage.api.ask_pod(SYSTEM, pod, 8080, "metrics").decode()


def looked(stage: Stage) -> float:
    """Objects of MailDomain that the operator has in its store and has worked on."""
    found = re.findall(r'^posthof_operator_objects\{.*?kind="MailDomain".*?\} (\S+)$', metrics(stage), re.MULTILINE)
    return sum(float(each) for each in found)


def memory(stage: Stage) -> float:
    """Bytes of the operator's resident memory, as its node's kubelet counts them."""
    [name] = operators(stage)
    pod = stage.api.get("v1", "Pod", name, SYSTEM) or {}
    summary = stage.api.json("GET", f"/api/v1/nodes/{pod['spec']['nodeName']}/proxy/stats/summary")
    [found] = [each for each in summary["pods"] if each["podRef"]["name"] == name]
    return float(sum(each["memory"]["rssBytes"] for each in found["containers"]))
