"""The cluster's own roles: view sees mail resources, edit and admin have domains and rules; MTAs need their own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from kit.api import Object
from kit.stage import Stage


def story(stage: Stage) -> None:
    for role, verb, kind, may in expected():
        stage.api.apply(binding(stage, role, of_the_release(stage) if role == "release" else role))
        stage.until(
            f"{role} {'may' if may else 'may not'} {verb} {kind}",
            partial(answer_is, stage, f"e2e-{role}", verb, kind, may),
        )


def expected() -> Iterator[tuple[str, str, str, bool]]:
    for role, domains, mtas in (
        ("view", False, False),
        ("edit", True, False),
        ("admin", True, False),
        ("release", False, True),
    ):
        for kind in ("maildomains", "mtas", "tlscerts"):
            yield role, "get", kind, role != "release"
        yield role, "create", "maildomains", domains
        yield role, "delete", "relaypolicies", domains
        yield role, "patch", "tlscerts", domains
        yield role, "create", "mtas", mtas
        yield role, "patch", "mtas", mtas


def of_the_release(stage: Stage) -> str:
    """The role for those who run mail for the others: in nobody's `admin`, to be bound by name."""
    path = "/apis/rbac.authorization.k8s.io/v1/clusterroles?labelSelector=app.kubernetes.io/name%3Dposthof"
    names = [one["metadata"]["name"] for one in stage.api.json("GET", path)["items"]]
    return str(next(name for name in names if name.endswith("-admin")))


def binding(stage: Stage, who: str, role: str) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"e2e-{who}", "namespace": stage.namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"e2e-{who}"}],
    }


def answer_is(stage: Stage, who: str, verb: str, kind: str, may: bool) -> bool:
    asked = {"verb": verb, "group": "posthof.dev", "resource": kind, "namespace": stage.namespace}
    spec = {"user": who, "groups": ["system:authenticated"], "resourceAttributes": asked}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(stage.api.json("POST", path, review)["status"]["allowed"]) == may
