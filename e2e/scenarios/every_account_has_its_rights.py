"""RBAC over every kind the API server has and every verb: each account may do what its table says, and nothing else.

What any account may do (an account nobody bound to anything is asked, too) does not count.
"""

from __future__ import annotations

from itertools import product

from kit import manifests
from kit.api import Object
from kit.stage import RELEASE, SYSTEM, Stage

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
OURS = "mtas maildomains relaypolicies accesspolicies smtpcredentials dkimkeys tlscerts"
MADE = "get list watch create patch delete"
Table = dict[str, str]  # "resource.group" words -> verbs

OPERATOR: Table = {
    "configmaps secrets services serviceaccounts persistentvolumeclaims": MADE,
    "deployments.apps": MADE,
    "roles.rbac.authorization.k8s.io rolebindings.rbac.authorization.k8s.io": MADE,
    "networkpolicies.networking.k8s.io poddisruptionbudgets.policy": MADE,
    " ".join(f"{one}.posthof.dev" for one in OURS.split()): "get list watch patch",
    "dkimkeys.posthof.dev": "create delete",  # made, changed and taken away for a MailDomain that asks for it
    " ".join(f"{one}/status.posthof.dev" for one in OURS.split()): "get patch",
    "namespaces nodes": "get list watch",
    "pods": "get list watch patch",
    "horizontalpodautoscalers.autoscaling": MADE,
    "events": "create patch",
    "leases.coordination.k8s.io": "get list create patch delete",
    "certificatesigningrequests.certificates.k8s.io": "get create delete",
}
OPERATOR_AT_HOME: Table = {**OPERATOR, "leases.coordination.k8s.io": "get list watch create update patch delete"}
WEBHOOK: Table = {
    " ".join(f"{one}.posthof.dev" for one in OURS.split()): "get list watch",
    "namespaces": "get list watch",
}
POD: Table = {"leases.coordination.k8s.io": "get list create patch delete"}
# Only by name: account -> resource, names, verbs.
POD_BY_NAME = (
    ("configmaps", ("edge-config-0", "edge-config-7", "edge-pods"), ("get", "watch")),
    ("secrets", ("edge-keys-0", "edge-keys-3"), ("get", "watch")),
)
NEVER_BY_NAME = (("secrets", "edge-report"), ("secrets", "others"), ("configmaps", "others"))


class Account:
    """A service account and what the API server says it may do."""

    def __init__(self, stage: Stage, namespace: str, name: str) -> None:
        self._stage = stage
        self.user = f"system:serviceaccount:{namespace}:{name}"
        self._groups = ["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{namespace}"]

    def may(self, verb: str, resource: str, namespace: str = "", name: str = "") -> bool:
        """`resource` is `plural[/sub][.group]`."""
        plural, _, group = resource.partition(".")
        plural, _, sub = plural.partition("/")
        asked = {"verb": verb, "group": group, "resource": plural, "subresource": sub}
        asked |= {"namespace": namespace, "name": name}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": self.user, "groups": self._groups, "resourceAttributes": asked},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return bool(self._stage.api.json("POST", path, review)["status"]["allowed"])

    def rights(self, resources: list[str], namespace: str) -> set[tuple[str, str]]:
        """(resource, verb) of everything it may do with any object of the namespace."""
        asked = product(resources, VERBS)
        return {(resource, verb) for resource, verb in asked if self.may(verb, resource, namespace)}


def story(stage: Stage) -> None:
    stage.apply(manifests.mta())
    stage.running()
    resources = known(stage)
    stage.step(f"{len(resources)} resources, {len(VERBS)} verbs, four accounts")
    nobody = Account(stage, stage.namespace, "default").rights(resources, stage.namespace)
    accounts: tuple[tuple[str, Account, str, Table], ...] = (
        ("the operator in any namespace", account(stage, "operator"), stage.namespace, OPERATOR),
        ("the operator in its own", account(stage, "operator"), SYSTEM, OPERATOR_AT_HOME),
        ("the webhook", account(stage, "webhook"), SYSTEM, WEBHOOK),
        ("an MTA's pod", Account(stage, stage.namespace, "edge"), stage.namespace, POD),
    )
    for who, one, namespace, table in accounts:
        found = one.rights(resources, namespace) - nobody
        wanted = {right for right in spelled(table) if right[0] in resources}
        stage.expect(found - wanted == set(), f"{who} may do more than it needs: {sorted(found - wanted)}")
        stage.expect(wanted - found == set(), f"{who} may not do what it needs: {sorted(wanted - found)}")

    stage.step("a pod reads what is made for it, by name, and nothing beside it")
    pod = Account(stage, stage.namespace, "edge")
    for resource, names, verbs in POD_BY_NAME:
        for name, verb in product(names, verbs):
            stage.expect(pod.may(verb, resource, stage.namespace, name), f"a pod may not {verb} {resource} {name}")
    for resource, name in NEVER_BY_NAME:
        stage.expect(not pod.may("get", resource, stage.namespace, name), f"a pod may get {resource} {name}")
    stage.expect(not pod.may("get", "configmaps", SYSTEM, "edge-config-0"), "a pod may read another namespace")

    stage.step("the webhook reads its own certificate and no other Secret")
    webhook = account(stage, "webhook")
    stage.expect(webhook.may("get", "secrets", SYSTEM, f"{RELEASE}-webhook-tls"), "it may not read its certificate")
    stage.expect(not webhook.may("get", "secrets", SYSTEM, f"{RELEASE}-webhook-ca"), "it may read the authority")


def account(stage: Stage, component: str) -> Account:
    return Account(stage, SYSTEM, f"{RELEASE}-{component}")


def spelled(table: Table) -> set[tuple[str, str]]:
    return {
        (resource, verb)
        for resources, verbs in table.items()
        for resource, verb in product(resources.split(), verbs.split())
    }


def known(stage: Stage) -> list[str]:
    """Every resource of the API server, as `plural[/sub][.group]`."""
    versions = [("", "/api/v1")]
    groups: list[Object] = stage.api.json("GET", "/apis")["groups"]
    versions += [(group["name"], f"/apis/{group['preferredVersion']['groupVersion']}") for group in groups]
    found = []
    for group, path in versions:
        names = [one["name"] for one in stage.api.json("GET", path)["resources"]]
        found += [f"{name}.{group}" if group else name for name in names]
    return sorted(found)
