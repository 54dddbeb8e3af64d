"""The cluster's own roles: view sees mail resources, edit has domains and rules, admin has MTAs, in a namespace."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from kit.api import Object
from kit.stage import Stage


def story(stage: Stage) -> None:
    for role, verb, kind, may in expected():
        stage.api.apply(binding(stage, role))
        stage.until(
            f"{role} {'may' if may else 'may not'} {verb} {kind}",
            partial(answer_is, stage, f"e2e-{role}", verb, kind, may),
        )


def expected() -> Iterator[tuple[str, str, str, bool]]:
    for role, domains, mtas in (("view", False, False), ("edit", True, False), ("admin", True, True)):
        yield role, "list", "maildomains", True
        yield role, "get", "mtas", True
        yield role, "get", "tlscerts", True
        yield role, "create", "maildomains", domains
        yield role, "delete", "relaypolicies", domains
        yield role, "patch", "tlscerts", domains
        yield role, "create", "mtas", mtas
        yield role, "patch", "mtas", mtas


def binding(stage: Stage, role: str) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"e2e-{role}", "namespace": stage.namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"e2e-{role}"}],
    }


def answer_is(stage: Stage, who: str, verb: str, kind: str, may: bool) -> bool:
    asked = {"verb": verb, "group": "posthof.dev", "resource": kind, "namespace": stage.namespace}
    spec = {"user": who, "groups": ["system:authenticated"], "resourceAttributes": asked}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(stage.api.json("POST", path, review)["status"]["allowed"]) == may
