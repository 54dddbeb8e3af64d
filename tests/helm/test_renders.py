"""What the chart makes of values: valid for Kubernetes, restricted, and no right more than is used.

The renders in tests/helm/golden are written by `scripts/chart.py --render HELM`; the scenario the_chart_renders holds
them in step with the templates.
"""

from __future__ import annotations

import json
import re
from itertools import product
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from kit import charts
from posthof_crds.load import KINDS
from posthof_operator.settings import Settings

SCHEMAS = charts.ROOT / "tests" / "vectors" / "crd-schemas"
MONITORING = {"PodMonitor": "podmonitor_v1", "PrometheusRule": "prometheusrule_v1"}
OURS = {"MTA", "MailDomain", "RelayPolicy", "AccessPolicy", "SMTPCredential", "DKIMKey", "TLSCert"}
EVERY = list(charts.renders())
IDS = [where for where, _ in EVERY]
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "ValidatingWebhookConfiguration", "CustomResourceDefinition"}


def test_every_case_has_a_render_and_the_other_way_round() -> None:
    assert sorted(path.stem for path in charts.GOLDEN.glob("*.yaml")) == charts.CASES


@pytest.mark.parametrize(("where", "one"), EVERY, ids=IDS)
def test_every_object_is_valid_for_kubernetes(where: str, one: dict[str, Any]) -> None:
    if one["kind"] in MONITORING:
        text = (SCHEMAS / f"monitoring.coreos.com_{MONITORING[one['kind']]}.json").read_text()
        schema = json.loads(text.replace('"^(?i)', '"(?i)^'))  # a pattern of Go's, as Python writes it
        jsonschema.validate(one, schema)
    elif one["kind"] in OURS:
        KINDS[one["kind"]].model_validate(one)
    else:
        for version in ("1.31", "1.37"):
            kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize(("where", "one"), EVERY, ids=IDS)
def test_every_object_says_whose_it_is(where: str, one: dict[str, Any]) -> None:
    if (one["kind"] == "ConfigMap" and "extra" in where) or where.endswith("posthof-text"):
        return  # the user's own
    labels = one["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "posthof"
    assert labels["app.kubernetes.io/managed-by"] == "Helm"
    assert labels["helm.sh/chart"].startswith("posthof-")
    assert ("namespace" in one["metadata"]) == (one["kind"] not in CLUSTER_WIDE)


# ---------------------------------------------------------------- pods

PODS = list(charts.pod_specs())


@pytest.mark.parametrize(("where", "spec"), PODS, ids=[where for where, _ in PODS])
def test_every_pod_is_restricted(where: str, spec: dict[str, Any]) -> None:
    """PodSecurity `restricted`, and what it does not ask for: a read-only root, a numeric user."""
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] >= 1000
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    for volume in spec.get("volumes", ()):
        assert volume.keys() & {"emptyDir", "configMap", "secret", "projected"}, volume
    for container in spec["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert not any("hostPort" in port for port in container.get("ports", ()))


@pytest.mark.parametrize(("where", "spec"), PODS, ids=[where for where, _ in PODS])
def test_every_pod_asks_for_what_it_needs_and_runs_no_shell(where: str, spec: dict[str, Any]) -> None:
    for container in spec["containers"]:
        assert "memory" in container["resources"]["limits"]
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert container["command"][0] in ("posthof", "posthof-operator")
        assert not container["image"].endswith(":latest")


@pytest.mark.parametrize(
    ("where", "one"),
    [(w, o) for w, o in EVERY if o["kind"] == "Deployment"],
    ids=lambda v: v if type(v) is str else "",
)
def test_every_deployment_is_probed_and_never_goes_below_its_size(where: str, one: dict[str, Any]) -> None:
    assert one["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    container = one["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["http"] == 8080
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "http"


def test_the_environment_of_the_operator_is_one_it_reads() -> None:
    """A variable that nothing reads is a promise that nothing keeps."""
    source = "".join(path.read_text() for path in (charts.ROOT / "operator" / "posthof_operator").rglob("*.py"))
    read = set(re.findall(r"POSTHOF_[A-Z_]+", source))
    for where, spec in PODS:
        given = {one["name"] for one in spec["containers"][0].get("env", ()) if one["name"].startswith("POSTHOF_")}
        assert given <= read, where


# ---------------------------------------------------------------- rights


def rules() -> list[tuple[str, dict[str, Any]]]:
    return [(where, rule) for where, one in EVERY for rule in one.get("rules", ()) if one["kind"].endswith("Role")]


def test_no_right_is_a_wildcard_and_none_gives_more_rights() -> None:
    for where, rule in rules():
        everything = [*rule["apiGroups"], *rule["resources"], *rule["verbs"], *rule.get("resourceNames", ())]
        assert "*" not in everything, where
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"]), where
        assert not {"pods/exec", "pods/attach", "pods/portforward", "nodes/proxy"} & set(rule["resources"]), where


def covers(held: list[dict[str, Any]], group: str, resource: str, verb: str) -> bool:
    return any(
        group in rule["apiGroups"]
        and resource in rule["resources"]
        and verb in rule["verbs"]
        and "resourceNames" not in rule
        for rule in held
    )


def rules_of(case: str, kind: str, end: str) -> list[dict[str, Any]]:
    found = (one for one in charts.of_kind(case, kind) if one["metadata"]["name"].endswith(end))
    return [rule for one in found for rule in one["rules"]]


def test_the_operator_holds_what_the_roles_of_mta_pods_grant() -> None:
    """Otherwise the API server refuses to let it make them, since it has neither escalate nor bind."""
    held = rules_of("default", "ClusterRole", "-operator")
    golden = charts.ROOT / "tests" / "operator" / "golden" / "permissions-full.yaml"
    [role] = [one for one in yaml.safe_load_all(golden.read_text()) if one["kind"] == "Role"]
    for rule in role["rules"]:
        for group, resource, verb in product(rule["apiGroups"], rule["resources"], rule["verbs"]):
            assert covers(held, group, resource, verb), (group, resource, verb)


def test_every_kind_that_the_operator_speaks_of_is_in_its_rules() -> None:
    from posthof_operator.resources import RESOURCES

    held = rules_of("default", "ClusterRole", "-operator") + rules_of("default", "Role", "-own")
    named = {(group, resource) for rule in held for group in rule["apiGroups"] for resource in rule["resources"]}
    assert {(one.group, one.plural) for one in RESOURCES.values()} - named == set()


def test_namespaced_rules_are_those_of_the_cluster_without_what_has_no_namespace() -> None:
    cluster = rules_of("default", "ClusterRole", "-operator")
    for namespace in ("team-a", "team-b", "posthof-system"):
        roles = [one for one in charts.of_kind("namespaced", "Role") if one["metadata"]["namespace"] == namespace]
        own = [rule for one in roles if one["metadata"]["name"].endswith("-operator") for rule in one["rules"]]
        missing = [rule for rule in cluster if rule not in own]
        assert [rule["resources"] for rule in missing] == [
            ["namespaces", "nodes"],
            ["certificatesigningrequests"],
            ["validatingwebhookconfigurations"],
        ]


def test_a_namespaced_release_has_nothing_of_the_whole_cluster() -> None:
    assert charts.of_kind("namespaced", *CLUSTER_WIDE) == []
    [operator] = charts.of_kind("namespaced", "Deployment")
    environment = {e["name"]: e.get("value") for e in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert environment["POSTHOF_WATCH_NAMESPACES"] == "posthof-system,team-a,team-b"
    assert environment["POSTHOF_WEBHOOK_SERVICE"] == ""


def test_the_webhook_reads_and_never_writes() -> None:
    for kind, end in (("ClusterRole", "-webhook"), ("Role", "-webhook")):
        for rule in rules_of("default", kind, end):
            assert set(rule["verbs"]) <= {"get", "list", "watch"}


def test_editors_get_what_is_a_tenants_and_no_namespaces_admin_gets_mtas() -> None:
    """An MTA may obey, and so read, the objects of every namespace: only who is bound to its role makes one."""
    by_name = {one["metadata"]["name"]: one for one in charts.of_kind("default", "ClusterRole")}
    edit = by_name["posthof-system-posthof-edit"]["rules"]
    tenants = "maildomains relaypolicies accesspolicies smtpcredentials dkimkeys tlscerts"
    assert {r for rule in edit for r in rule["resources"]} == set(tenants.split())
    admin = by_name["posthof-system-posthof-admin"]
    assert "mtas" in {r for rule in admin["rules"] for r in rule["resources"]}
    assert not [label for label in admin["metadata"]["labels"] if label.startswith("rbac.authorization.k8s.io/")]


# ---------------------------------------------------------------- parts


def test_a_minimal_release_is_one_deployment() -> None:
    assert [one["kind"] for one in charts.render("minimal")] == ["Deployment"]


def test_the_webhook_is_registered_for_our_kinds_and_lets_everything_through_when_it_is_away() -> None:
    [registered] = charts.of_kind("default", "ValidatingWebhookConfiguration")
    ours, secrets = registered["webhooks"]
    services = {one["metadata"]["name"]: one for one in charts.of_kind("default", "Service")}
    for hook in (ours, secrets):
        assert hook["failurePolicy"] == "Ignore"
        assert hook["sideEffects"] == "None"
        assert "caBundle" not in hook["clientConfig"]  # the operator writes it, a later helm upgrade leaves it alone
        service = services[hook["clientConfig"]["service"]["name"]]
        assert service["spec"]["ports"][0]["port"] == hook["clientConfig"]["service"]["port"]
    assert [rule["apiGroups"] for rule in ours["rules"]] == [["posthof.dev"]]
    assert [(rule["resources"], rule["operations"]) for rule in secrets["rules"]] == [(["secrets"], ["DELETE"])]


def test_the_operator_finds_the_webhook_under_the_names_the_chart_gives_it() -> None:
    [registered] = charts.of_kind("default", "ValidatingWebhookConfiguration")
    client = registered["webhooks"][0]["clientConfig"]["service"]
    told = Settings(namespace=client["namespace"], webhook_service=client["name"])
    assert told.webhook_configuration == registered["metadata"]["name"]
    roles = charts.of_kind("default", "Role")
    readable = [name for role in roles for rule in role["rules"] for name in rule.get("resourceNames", ())]
    assert f"{client['name']}-tls" in readable


def test_selectors_find_the_pods_and_only_them() -> None:
    for case in charts.CASES:
        deployments = charts.of_kind(case, "Deployment")
        selectors = [one["spec"]["selector"]["matchLabels"] for one in deployments]
        assert len({json.dumps(one, sort_keys=True) for one in selectors}) == len(deployments)
        for one in deployments:
            labels = one["spec"]["template"]["metadata"]["labels"]
            assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_test_sends_through_the_service_of_the_mta_and_is_removed_after() -> None:
    [pod] = charts.of_kind("full", "Pod")
    command = pod["spec"]["containers"][0]["command"]
    assert "--server=edge.posthof-system.svc:25" in command
    [domain] = [one for one in charts.of_kind("full", "MailDomain") if "test" in one["metadata"]["name"]]
    assert domain["spec"]["mtaRef"] == {"name": "edge"}
    [made] = charts.of_kind("default", "MTA")
    assert made["spec"]["spool"]["deletionPolicy"] == "Delete"
    for one in (pod, domain, made):
        assert one["metadata"]["annotations"]["helm.sh/hook"] == "test"
        assert "hook-succeeded" in one["metadata"]["annotations"]["helm.sh/hook-delete-policy"]


def test_extra_objects_are_templates() -> None:
    names = {one["metadata"]["name"] for one in charts.of_kind("full", "ConfigMap")}
    assert {"posthof-extra", "posthof-text"} <= names


def test_the_dashboards_are_what_grafana_loads() -> None:
    maps = [one for one in charts.of_kind("full", "ConfigMap") if "-dashboard-" in one["metadata"]["name"]]
    assert all(one["metadata"]["labels"]["grafana_dashboard"] == "1" for one in maps)
    files = sorted((charts.CHART / "files" / "dashboards").glob("*.json"))
    assert len(maps) == len(files) >= 3
    for one in maps:
        [text] = one["data"].values()
        assert json.loads(text)["panels"]


def test_an_alert_can_be_left_out() -> None:
    [rule] = charts.of_kind("full", "PrometheusRule")
    told = {alert["alert"] for group in rule["spec"]["groups"] for alert in group["rules"]}
    lacking = {alert["alert"] for alert in charts.alerts()} - told
    assert lacking == {"PosthofQueueGrowing"}, "out of step with the golden renders, or not left out"


@pytest.mark.parametrize("folder", [charts.CHART, charts.CRD_CHART])
def test_charts_say_what_they_need(folder: Any) -> None:
    chart = yaml.safe_load((folder / "Chart.yaml").read_text())
    assert chart["apiVersion"] == "v2"
    assert chart["kubeVersion"]
    assert chart["annotations"]["artifacthub.io/license"] == "Apache-2.0"
    version = re.search(r'^version = "(.*)"', (charts.ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert chart["version"] == chart["appVersion"] == version[1]


def test_the_examples_in_the_charts_annotations_are_valid() -> None:
    chart = yaml.safe_load((charts.CHART / "Chart.yaml").read_text())
    examples = yaml.safe_load(chart["annotations"]["artifacthub.io/crdsExamples"])
    assert {one["kind"] for one in examples} == {"MTA", "MailDomain"}
    for one in examples:
        KINDS[one["kind"]].model_validate(one)
    told = {one["kind"] for one in yaml.safe_load(chart["annotations"]["artifacthub.io/crds"])}
    assert told == OURS
