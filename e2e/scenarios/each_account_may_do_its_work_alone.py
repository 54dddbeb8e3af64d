"""RBAC, asked of the API server: each service account and role may do what it needs, and nothing else at all."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from kit import manifests
from kit.stage import SYSTEM, Stage

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
Right = tuple[str, str, str]  # verb, group/resource, name
POD = {
    *((verb, "/configmaps", f"edge-config-{n}") for n in range(8) for verb in ("get", "watch")),
    *((verb, "/configmaps", "edge-pods") for verb in ("get", "watch")),
    *((verb, "/secrets", f"edge-keys-{n}") for n in range(4) for verb in ("get", "watch")),
}
MAY_ASK_OF_ITSELF = ("authorization.k8s.io/", "authentication.k8s.io/")


def story(stage: Stage) -> None:
    stage.apply(manifests.mta())
    stage.running()
    resources = sorted(every_resource(stage))

    stage.step("a pod of an MTA reads the objects made for it, by name, and nothing else")
    pod = f"system:serviceaccount:{stage.namespace}:edge"
    for verb, resource, name in sorted(POD):
        stage.expect(may(stage, pod, (verb, resource, name)), f"the pod may not {verb} {resource} {name}")
    everybody = rights(stage, f"system:serviceaccount:{stage.namespace}:default", resources)  # the cluster's own gift
    found = rights(stage, pod, resources) - everybody
    stage.expect(not found, f"the pod may do more than it needs: {sorted(found)}")
    found = {right for right in POD if may(stage, pod, right, namespace=SYSTEM)}
    stage.expect(not found, f"the pod may do it in another namespace: {sorted(found)}")
    for right in (("patch", "/configmaps", "edge-config-0"), ("get", "/secrets", "edge-report")):
        stage.expect(not may(stage, pod, right), f"the pod may {right}")

    stage.step("the webhook reads what it compares, and writes nothing")
    webhook = f"system:serviceaccount:{SYSTEM}:posthof-webhook"
    found = rights(stage, webhook, resources) - everybody
    kinds = ("mtas", "maildomains", "relaypolicies", "tlscerts")
    expected = {(verb, f"posthof.dev/{kind}", "") for kind in kinds for verb in ("get", "list", "watch")}
    expected |= {(verb, "/namespaces", "") for verb in ("get", "list", "watch")}
    stage.expect(found == expected, f"more: {sorted(found - expected)}, less: {sorted(expected - found)}")

    stage.step("the operator runs no pods, enters none, makes nobody mightier than itself")
    operator = f"system:serviceaccount:{SYSTEM}:posthof-operator"
    for right in operator_may():
        stage.expect(may(stage, operator, right), f"the operator may not {right}")
    for right in operator_may_not():
        stage.expect(not may(stage, operator, right), f"the operator may {right}")

    stage.step("people: view sees, edit has domains and rules, admin has MTAs")
    for role, kind, verb, expected_answer in people():
        stage.api.apply(person(stage, role))
        name = f"e2e-{role}"
        stage.until(
            f"{role} {'may' if expected_answer else 'may not'} {verb} {kind}",
            partial(answers, stage, name, (verb, f"posthof.dev/{kind}", ""), expected_answer),
        )


def rights(stage: Stage, who: str, resources: list[str]) -> set[Right]:
    """Everything the account may do with whole resources of the namespace."""
    return {(verb, each, "") for each in resources for verb in VERBS if may(stage, who, (verb, each, ""))}


def answers(stage: Stage, who: str, right: Right, expected: bool) -> bool:
    return may(stage, who, right) == expected


def people() -> Iterator[tuple[str, str, str, bool]]:
    for role, domains, mtas in (("view", False, False), ("edit", True, False), ("admin", True, True)):
        yield role, "maildomains", "list", True
        yield role, "mtas", "get", True
        yield role, "maildomains", "create", domains
        yield role, "relaypolicies", "delete", domains
        yield role, "mtas", "create", mtas


def person(stage: Stage, role: str) -> dict[str, object]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"e2e-{role}", "namespace": stage.namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"e2e-{role}"}],
    }


def operator_may() -> Iterator[Right]:
    for verb in ("get", "list", "watch", "create", "patch", "delete"):
        for resource in ("apps/deployments", "/configmaps", "/secrets", "/services", "/persistentvolumeclaims"):
            yield verb, resource, ""
    yield "patch", "posthof.dev/mtas/status", ""
    yield "create", "/events", ""
    yield "list", "/pods", ""


def operator_may_not() -> Iterator[Right]:
    yield "create", "/pods", ""
    yield "delete", "/pods", ""
    yield "create", "/pods/exec", ""
    yield "create", "/pods/portforward", ""
    yield "delete", "/namespaces", ""
    yield "create", "posthof.dev/maildomains", ""
    yield "delete", "posthof.dev/maildomains", ""
    yield "delete", "posthof.dev/mtas", ""
    yield "escalate", "rbac.authorization.k8s.io/roles", ""
    yield "bind", "rbac.authorization.k8s.io/roles", ""
    yield "create", "rbac.authorization.k8s.io/clusterroles", ""
    yield "create", "rbac.authorization.k8s.io/clusterrolebindings", ""
    yield "create", "admissionregistration.k8s.io/validatingwebhookconfigurations", ""
    yield "patch", "admissionregistration.k8s.io/validatingwebhookconfigurations", "another"
    yield "update", "/nodes", ""
    yield "create", "/serviceaccounts/token", ""
    yield "impersonate", "/users", ""


def every_resource(stage: Stage) -> Iterator[str]:
    """group/plural of everything the API server serves, but what anybody may ask about himself."""
    roots = [("", "/api/v1")]
    for group in stage.api.json("GET", "/apis")["groups"]:
        roots += [(group["name"], f"/apis/{version['groupVersion']}") for version in group["versions"]]
    for group, root in roots:
        for each in stage.api.json("GET", root)["resources"]:
            if not f"{group}/".startswith(MAY_ASK_OF_ITSELF):
                yield f"{group}/{each['name']}"


def may(stage: Stage, who: str, right: Right, namespace: str = "") -> bool:
    verb, resource, name = right
    group, plural, *sub = resource.split("/")
    asked = {"verb": verb, "group": group, "resource": plural, "namespace": namespace or stage.namespace}
    asked |= {"subresource": sub[0]} if sub else {}
    asked |= {"name": name} if name else {}
    groups = ["system:authenticated"]
    if who.startswith("system:serviceaccount:"):
        groups += ["system:serviceaccounts", f"system:serviceaccounts:{who.split(':')[2]}"]
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": who, "groups": groups, "resourceAttributes": asked},
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(stage.api.json("POST", path, review)["status"]["allowed"])
