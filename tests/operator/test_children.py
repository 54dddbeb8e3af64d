"""Children of an MTA: what each builder gives, line by line (golden/*.yaml), and what must hold for all of them.

POSTHOF_GOLDEN=write pytest tests/operator/test_children.py   writes the golden files anew; read the difference.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from posthof_crds.autoscaling import Autoscaling
from posthof_crds.engine import EngineConfig, HTTPSettings, SpoolSettings
from posthof_crds.mta import MTASpec
from posthof_operator import children
from posthof_operator.children import (
    claim,
    config,
    deployment,
    disruption,
    hpa,
    keys,
    monitor,
    network,
    permissions,
    report,
    scaledobject,
    services,
    workloads,
)
from posthof_operator.desired import Desired, needs_restart

GOLDEN = Path(__file__).parent / "golden"
KEDA = Path(__file__).parents[1] / "vectors" / "crd-schemas" / "keda.sh_scaledobject_v1alpha1.json"
SMALL = {"hostname": "mx.example.org", "listeners": [{"name": "smtp", "role": "MX", "port": 25}]}
FULL = {
    "hostname": "mx.example.org",
    "replicas": 3,
    "listeners": [
        {"name": "smtp", "role": "MX", "port": 25, "nodePort": 30025},
        {"name": "other", "role": "MX", "port": 2626},
        {"name": "inside", "role": "Internal", "port": 587},
    ],
    "service": {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Cluster",
        "loadBalancerClass": "example.org/balancer",
        "annotations": {"external-dns.alpha.kubernetes.io/hostname": "mx.example.org"},
    },
    "spool": {
        "size": "20Gi",
        "storageClassName": "shared",
        "accessMode": "ReadWriteMany",
        "deletionPolicy": "Delete",
    },
    "drain": {"settle": "7s"},
    "podTemplate": {
        "image": "registry.example.org/posthof/pod:1.2",
        "imagePullSecrets": [{"name": "registry"}],
        "resources": {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "mail", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "important",
        "labels": {"team": "mail"},
        "annotations": {"example.org/note": "x"},
    },
}
BUILDERS = {
    "claim": claim.build,
    "config": config.build,
    "deployment": deployment.build,
    "disruption": disruption.build,
    "hpa": lambda want: hpa.build(scaled(want, "HPA", targets={"cpu": 0.6})),
    "keys": keys.build,
    "monitor": monitor.build,
    "network": network.build,
    "permissions": permissions.build,
    "report": report.build,
    "scaledobject": lambda want: scaledobject.build(scaled(want, "KEDA", targets={"backlog": "2m"})),
    "services": services.build,
    "workloads": lambda want: workloads.build(want, b"pods"),
}


def scaled(want: Desired, mode: str, **more: Any) -> Desired:
    """The same with autoscaling by others."""
    behavior = {"scaleDown": {"stabilization": "10m", "period": "30s"}}
    wish = {"mode": mode, "min": 2, "max": 9, "behavior": behavior, **more}
    spec = want.spec.model_copy(update={"autoscaling": Autoscaling.model_validate(wish)})
    return replace(want, spec=spec, has_keda=True)


def desired(spec: dict[str, Any], **more: Any) -> Desired:
    given = {
        "namespace": "mail",
        "name": "edge",
        "uid": "11111111-2222-3333-4444-555555555555",
        "spec": MTASpec.model_validate(spec),
        "spec_text": "{}",
        "image": spec.get("podTemplate", {}).get("image", "posthof/pod:0.1.0"),
        "replicas": spec.get("replicas", 1),
        "restart": "0123456789abcdef",
        "config": (b"first", b"second"),
        "keys": (b"a", b"b", b"c", b"d"),
        "token": "word",
    }
    return Desired(**{**given, **more})


WANTED = {
    "small": desired(SMALL),
    "full": desired(FULL, is_one_node=False, has_pod_monitors=True),
}


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("size", WANTED)
def test_a_builder_gives_what_stands_in_its_golden_file(builder: str, size: str) -> None:
    made = yaml.safe_dump_all(BUILDERS[builder](WANTED[size]), sort_keys=False, width=118)
    path = GOLDEN / f"{builder}-{size}.yaml"
    if os.environ.get("POSTHOF_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(made)
    assert path.read_text() == made


def test_there_is_no_golden_file_of_a_builder_that_is_gone() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{b}-{size}.yaml" for b in BUILDERS for size in WANTED}


def test_every_builder_is_asked_and_what_pods_need_comes_first() -> None:
    kinds = [child["kind"] for child in children.build(WANTED["full"])]
    assert kinds.index("Deployment") > max(kinds.index(kind) for kind in ("Secret", "ConfigMap", "Role"))
    assert kinds.index("Deployment") > kinds.index("PersistentVolumeClaim")


def test_pods_of_one_node_can_leave_it_and_others_go_one_by_one() -> None:
    """The first one's successor must stand on the node that is drained, as long as the others do."""
    budgets = {is_one: desired(FULL, is_one_node=is_one) for is_one in (True, False)}
    found = {is_one: disruption.build(want)[0]["spec"]["maxUnavailable"] for is_one, want in budgets.items()}
    assert found == {True: 3, False: 1}


def pod_of(want: Desired) -> dict[str, Any]:
    return deployment.template(want)["spec"]


def test_pods_are_restricted() -> None:
    for want in WANTED.values():
        pod = pod_of(want)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all("hostPath" not in volume for volume in pod["volumes"])
        for one in pod["containers"]:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert all(port["containerPort"] >= 1024 for port in one["ports"])


@pytest.mark.parametrize(
    "change",
    [
        {"listeners": [*SMALL["listeners"], {"name": "more", "role": "Internal", "port": 2500}]},
        {"replicas": 4},
        {"service": {"type": "NodePort"}},
        {"egress": {"addresses": ["192.0.2.1"]}},
        {"domainSelector": {"matchLabels": {"a": "b"}}},
    ],
)
def test_what_pods_take_while_they_run_does_not_restart_them(change: dict[str, Any]) -> None:
    assert deployment.template(desired({**SMALL, **change})) == deployment.template(desired(SMALL))


def test_new_shards_keys_and_words_do_not_restart_pods() -> None:
    changed = desired(SMALL, config=(b"other",), keys=(b"x",) * 4, token="other", spec_text="other")
    assert deployment.template(changed) == deployment.template(desired(SMALL))


def test_what_only_a_start_can_change_restarts_them() -> None:
    base = EngineConfig(
        name="edge", hostname="mx", listeners=(), spool=SpoolSettings(path="/s"), mail_root="/m", state_dir="/r"
    )
    changed = EngineConfig(
        name="edge",
        hostname="mx",
        listeners=(),
        spool=SpoolSettings(path="/s", lane_messages=7),
        mail_root="/m",
        state_dir="/r",
    )
    assert needs_restart(base) != needs_restart(changed)
    hot = EngineConfig(
        name="edge", hostname="other", listeners=(), spool=SpoolSettings(path="/s"), mail_root="/m", state_dir="/r"
    )
    assert needs_restart(base) == needs_restart(hot)
    assert HTTPSettings() == base.http


def test_no_claim_goes_by_itself_with_its_mta() -> None:
    for policy in ("Retain", "Drain", "Delete"):
        (made,) = claim.build(desired({**SMALL, "spool": {"deletionPolicy": policy}}))
        assert "ownerReferences" not in made["metadata"]
    assert claim.build(desired({**SMALL, "spool": {"existingClaim": "mine"}})) == []


def test_pods_may_keep_leases_read_what_is_made_for_them_by_name_and_nothing_else() -> None:
    role = permissions.role(WANTED["full"])
    *by_name, leases = role["rules"]
    assert (leases["apiGroups"], leases["resources"]) == (["coordination.k8s.io"], ["leases"])
    assert "*" not in str(role)
    for rule in by_name:
        assert rule["verbs"] == ["get", "watch"]
        assert rule["resourceNames"]
    names = {name for rule in by_name for name in rule["resourceNames"]}
    mounted = {
        source.get("name")
        for volume in pod_of(WANTED["full"])["volumes"]
        for projected in volume.get("projected", {}).get("sources", [])
        for source in projected.values()
    }
    assert mounted <= names


def test_services_reach_the_ports_that_a_pod_may_bind() -> None:
    made = {one["metadata"]["name"]: one["spec"] for one in services.build(WANTED["full"])}
    assert [(port["port"], port["targetPort"]) for port in made["edge"]["ports"]] == [(25, 2525), (2626, 2626)]
    assert [(port["port"], port["targetPort"]) for port in made["edge-internal"]["ports"]] == [(587, 5587)]
    assert made["edge-internal"]["type"] == "ClusterIP"
    assert services.build(desired(SMALL, is_draining=True)) == []


def test_nothing_is_deployed_before_there_is_a_configuration() -> None:
    assert deployment.build(desired(SMALL, config=())) == []


def test_a_pod_is_given_the_time_its_drain_needs() -> None:
    assert pod_of(WANTED["full"])["terminationGracePeriodSeconds"] == 52


@pytest.mark.parametrize("size", WANTED)
def test_autoscalers_are_valid_for_their_apis(size: str) -> None:
    for one in hpa.build(scaled(WANTED[size], "HPA")):
        kubernetes_validate.validate(one, "1.37", strict=True)
    made = scaledobject.build(scaled(WANTED[size], "KEDA"))
    kubernetes_validate.validate(made[0], "1.37", strict=True)
    jsonschema.validate(made[1], json.loads(KEDA.read_text()))


def test_an_autoscaler_is_made_only_where_it_is_asked_for_and_can_be() -> None:
    def kinds(want: Desired) -> set[str]:
        return {child["kind"] for child in children.build(want)} & {"HorizontalPodAutoscaler", "ScaledObject"}

    small = WANTED["small"]
    assert kinds(small) == set()
    assert kinds(scaled(small, "Builtin")) == set()
    assert kinds(scaled(small, "HPA")) == {"HorizontalPodAutoscaler"}
    assert kinds(scaled(small, "KEDA")) == {"ScaledObject"}
    assert kinds(replace(scaled(small, "KEDA"), has_keda=False)) == set()
