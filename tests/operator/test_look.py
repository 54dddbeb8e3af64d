"""How an MTA is, for everything that can be seen of it: conditions, phase and columns from values alone."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from posthof_crds.fleet import Flaw, Fleet, assemble
from posthof_crds.mta import MTASpec
from posthof_crds.reasons import CONDITIONS, MEANINGS, Reason
from posthof_crds.report import ClientCounts, QueueCounts, Report, SpoolState
from posthof_operator import columns, deletion, describe
from posthof_operator.apply import Outcome
from posthof_operator.assembly import Assembly
from posthof_operator.deletion import Step
from posthof_operator.look import Look, age
from posthof_operator.plan import decide
from posthof_operator.resources import FINALIZER, MANAGED_BY, MANAGER, MTA_LABEL, Key
from posthof_operator.settings import Settings
from posthof_operator.snapshot import Seen

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
BORN = "2026-01-01T11:00:00Z"
YOUNG = "2026-01-01T11:59:40Z"
SPEC: dict[str, Any] = {
    "hostname": "mx.example.org",
    "replicas": 2,
    "listeners": [{"name": "smtp", "role": "MX", "port": 25}],
    "service": {"type": "NodePort"},
}
CLAIM = {"spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Bound"}}


def pod(name: str, *, is_ready: bool = True, born: str = BORN, **status: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(is_ready)}]
    return {
        "metadata": {"name": name, "creationTimestamp": born},
        "spec": {},
        "status": {"phase": "Running", "hostIP": "198.18.0.10", "conditions": conditions, **status},
    }


def deployment(**status: int) -> dict[str, Any]:
    counts = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2}
    return {"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": {**counts, **status}}


def report(name: str, **more: Any) -> Report:
    return Report(**{"pod": name, "revision": "new", "desired": "new", "ready": True, "uptime_seconds": 999, **more})


WELL = {
    "claim": CLAIM,
    "deployment": deployment(),
    "pods": (pod("a"), pod("b")),
    "reports": {"a": report("a"), "b": report("b")},
}


def look(spec: dict[str, Any] | None = None, **more: Any) -> Look:
    given = {**WELL, **more}
    wanted = {**SPEC, **(spec or {})}
    metadata = {"name": "edge", "namespace": "mail", "uid": "u", "generation": 3, **given.get("metadata", {})}
    raw = {"metadata": metadata, "spec": wanted, "status": given.get("status", {})}
    fleet = given.get("fleet") or assemble(raw, [], namespaces={})
    problems = given.get("problems", ())
    assembly = Assembly(
        mta=raw, fleet=fleet, problems=problems, revision="new", shards=(b"x",), keys={}, **given.get("assembly", {})
    )
    seen = Seen(
        key=Key("MTA", "mail", "edge"),
        mta=raw,
        spec=MTASpec.model_validate(wanted) if fleet.config else None,
        assembly=assembly,
        children={},
        deployment=given["deployment"],
        claim=given["claim"],
        services=given.get("services", ()),
        pods=given["pods"],
        certificates=given.get("certificates", {}),
        token="word",
    )
    plan = decide(seen, Settings()) if assembly.is_usable else None
    return Look(seen=seen, plan=plan, outcome=given.get("outcome", Outcome()), reports=given["reports"], now=NOON)


def says(one: Look) -> dict[str, tuple[str, str]]:
    return {str(said.type): (said.status, str(said.reason)) for said in describe.describe(one)}


def test_when_all_is_well_nothing_abnormal_is_there() -> None:
    assert says(look()) == {
        "Ready": ("True", "Ready"),
        "Available": ("True", "PodsReady"),
        "ConfigConverged": ("True", "Converged"),
        "SpoolHealthy": ("True", "OneNodeOnly"),
        "CertificatesReady": ("True", "NoCertificates"),
        "ClientIPPreserved": ("True", "AddressesKept"),
    }
    service = {"metadata": {"name": "edge"}, "spec": {"type": "NodePort", "clusterIP": "198.19.0.7", "ports": []}}
    one = look(services=(service,))
    fields = columns.fields(one, describe.describe(one))
    assert (fields["ready"], fields["phase"], fields["addresses"]) == ("2/2", "Healthy", ["198.18.0.10"])


WAITING = {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}
TLS = {"listeners": [{"name": "smtp", "role": "MX", "port": 25, "tls": {"certRefs": [{"name": "edge"}]}}]}
NOT_READY = {"conditions": [{"type": "Ready", "status": "False", "message": "the CA said no"}]}
LONG_AGO = {"conditions": [{"type": "ConfigConverged", "status": "False", "lastTransitionTime": BORN}]}
OLD = report("b", revision="old")


@pytest.mark.parametrize(
    ("given", "type_", "status", "reason", "words"),
    [
        ({"pods": ()}, "Ready", "False", "NoPodReady", "0 of 2"),
        ({"pods": (pod("a", is_ready=False, **WAITING),)}, "Available", "False", "NoPodReady", "no such image"),
        ({"pods": (pod("a"), pod("b", is_ready=False))}, "Ready", "False", "PodsNotReady", "1 of 2"),
        ({"pods": (pod("a"), pod("b", is_ready=False, born=YOUNG))}, "Ready", "False", "RollingOut", "start"),
        ({"pods": (pod("a"), pod("b", is_ready=False))}, "Available", "True", "PodsNotReady", "1 of 2"),
        ({"deployment": deployment(updatedReplicas=1)}, "Ready", "False", "RollingOut", "2 of 2"),
        ({"reports": {}}, "ConfigConverged", "Unknown", "NoReports", ""),
        ({"reports": {"a": report("a"), "b": OLD}}, "ConfigConverged", "False", "Converging", "1 of 2"),
        ({"reports": {"a": report("a"), "b": OLD}}, "Ready", "True", "Ready", ""),
        ({"reports": {"a": report("a"), "b": OLD}}, "Reconciling", "True", "Progressing", "1 of 2"),
        ({"reports": {"a": report("a"), "b": OLD}, "status": LONG_AGO}, "Ready", "False", "NotReady", "1 of 2"),
        (
            {"reports": {"a": report("a", revision="old", refused=("port 25 is taken",))}},
            "ConfigConverged",
            "False",
            "ConfigRefused",
            "port 25 is taken",
        ),
        (
            {"reports": {"a": report("a", revision="", refused=("asking",), ready=False, uptime_seconds=2)}},
            "ConfigConverged",
            "False",
            "Converging",
            "",
        ),
        ({"claim": None}, "SpoolHealthy", "False", "ClaimMissing", "edge-spool"),
        (
            {"claim": {**CLAIM, "status": {"phase": "Pending"}}},
            "SpoolHealthy",
            "False",
            "ClaimPending",
            "describe pvc",
        ),
        ({"claim": {**CLAIM, "status": {"phase": "Lost"}}}, "SpoolHealthy", "False", "ClaimLost", "backup"),
        (
            {"reports": {"a": report("a", spool=SpoolState(healthy=False, reason="the disk is full"))}},
            "SpoolHealthy",
            "False",
            "SpoolFailing",
            "The disk is full.",
        ),
        (
            {"claim": {"spec": {"accessModes": ["ReadWriteOncePod"]}, "status": {"phase": "Bound"}}},
            "Stalled",
            "True",
            "ClaimForOnePod",
            "replicas: 1",
        ),
        ({"spec": TLS}, "CertificatesReady", "False", "CertificateMissing", "TLSCert edge"),
        (
            {"spec": TLS, "certificates": {"edge": {"status": NOT_READY}}},
            "CertificatesReady",
            "False",
            "CertificateNotReady",
            "the CA said no",
        ),
        (
            {"spec": {"service": {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"}}},
            "ClientIPPreserved",
            "False",
            "AddressesTranslated",
            "externalTrafficPolicy: Local",
        ),
        (
            {"reports": {"a": report("a", clients=ClientCounts(total=99, private=99, addresses=("198.18.0.10",)))}},
            "ClientIPPreserved",
            "False",
            "NodeAddressesSeen",
            "PROXY",
        ),
        ({"outcome": Outcome(refused=["Service edge: no"])}, "Stalled", "True", "ApplyFailed", "Service edge: no"),
        ({"assembly": {"too_large": "it is large"}}, "Stalled", "True", "ConfigTooLarge", "It is large."),
        ({"problems": (Flaw("spec.hostname", "wrong", "Mend it."),)}, "Ready", "False", "Invalid", "Mend it."),
        ({"metadata": {"deletionTimestamp": BORN, "finalizers": [FINALIZER]}}, "Ready", "False", "Deleting", ""),
        ({"metadata": {"annotations": {"posthof.dev/paused": ""}}}, "Ready", "Unknown", "Paused", "Remove"),
    ],
)
def test_what_is_so_is_said_and_how_to_mend_it(given, type_, status, reason, words) -> None:
    one = look(**given)
    found = {str(said.type): said for said in describe.describe(one)}
    assert (found[type_].status, str(found[type_].reason)) == (status, reason)
    assert words in found[type_].message
    assert not {"Reconciling", "Stalled"} <= found.keys()
    allowed = {text.type: text.reasons for text in CONDITIONS["MTA"]}
    for said in found.values():
        assert said.reason in allowed[said.type], said
        assert Reason(said.reason) in MEANINGS


def test_an_mta_that_never_was_right_says_so_and_plans_nothing() -> None:
    flaw = Flaw("spec.listeners", "there is none", "Write one.")
    one = look(fleet=Fleet(problems=(flaw,)), problems=(flaw,), deployment=None, claim=None, pods=(), reports={})
    assert one.plan is None
    assert says(one)["Stalled"] == ("True", "Invalid")
    assert columns.fields(one, describe.describe(one))["phase"] == "Invalid"


def test_the_queue_of_all_pods_is_one_queue() -> None:
    reports = {
        "a": report("a", queue=QueueCounts(ready=2, deferred=3, oldest_ready_seconds=41.5)),
        "b": report("b", queue=QueueCounts(ready=1, held=4, oldest_ready_seconds=7)),
    }
    one = look(reports=reports)
    assert columns.fields(one, describe.describe(one))["queue"] == {
        "total": 10,
        "ready": 3,
        "deferred": 3,
        "held": 4,
        "oldestReadySeconds": 41,
        "oldest": "41s",
    }
    assert [age(n) for n in (0, 119, 120, 7199, 7200, 172800)] == ["0s", "119s", "2m", "119m", "2h", "2d"]


def mta(policy: str, spool: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "edge", "resourceVersion": "7", **metadata},
        "spec": {"spool": {"deletionPolicy": policy, **(spool or {})}},
    }


def claim(mta: str = "edge", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"labels": {MANAGED_BY: MANAGER, MTA_LABEL: mta}, **metadata}}


EMPTY, FULL = report("a"), report("a", queue=QueueCounts(deferred=1))
HELD, GOING = {"finalizers": [FINALIZER]}, {"finalizers": [FINALIZER], "deletionTimestamp": BORN}


@pytest.mark.parametrize(
    ("object_", "reports", "living", "step"),
    [
        (mta("Retain"), {}, [], Step.NOTHING),
        (mta("Delete"), {}, [], Step.HOLD),
        (mta("Delete", **HELD), {}, [], Step.NOTHING),
        (mta("Delete", **GOING), {"a": FULL}, ["a"], Step.DELETE),
        (mta("Drain"), {}, [], Step.HOLD),
        (mta("Drain", **HELD), {}, [], Step.NOTHING),
        (mta("Retain", **HELD), {}, [], Step.LET_GO),
        (mta("Drain", **GOING), {}, [], Step.NOTHING),  # nobody says that nothing is left
        (mta("Drain", **GOING), {"a": FULL}, ["a"], Step.NOTHING),
        (mta("Drain", **GOING), {"a": EMPTY}, ["a", "b"], Step.NOTHING),  # b has said nothing
        (mta("Drain", **GOING), {"a": EMPTY}, ["a"], Step.LET_GO),
        (mta("Retain", **GOING), {"a": FULL}, ["a"], Step.LET_GO),  # changed one's mind
    ],
)
def test_a_finalizer_stands_only_while_mail_is_to_be_delivered_or_deleted_first(
    object_, reports, living, step
) -> None:
    assert deletion.step(object_, reports, living, claim()) is step


def test_mail_is_deleted_only_with_a_claim_made_for_this_very_mta() -> None:
    going = mta("Delete", **GOING)
    assert deletion.step(going, {}, [], None) is Step.LET_GO
    assert deletion.step(going, {}, [], claim(deletionTimestamp=BORN)) is Step.LET_GO
    assert deletion.step(going, {}, [], claim("another")) is Step.LET_GO
    assert deletion.step(going, {}, [], {"metadata": {"name": "edge-spool"}}) is Step.LET_GO
    assert deletion.step(mta("Delete", {"existingClaim": "mine"}, **GOING), {}, [], claim()) is Step.LET_GO


def test_children_of_an_mta_that_goes_are_made_only_while_its_mail_is_delivered() -> None:
    assert deletion.may_act(mta("Delete"))
    assert deletion.may_act(mta("Drain", **GOING))
    assert not deletion.may_act(mta("Delete", **GOING))
    assert not deletion.may_act(mta("Retain", deletionTimestamp=BORN))


def test_the_finalizers_of_others_are_left_alone() -> None:
    change = deletion.change(mta("Drain", finalizers=["a/b"]), Step.HOLD)
    assert change["metadata"] == {"finalizers": ["a/b", FINALIZER], "resourceVersion": "7"}
    change = deletion.change(mta("Drain", finalizers=["a/b", FINALIZER]), Step.LET_GO)
    assert change["metadata"]["finalizers"] == ["a/b"]
