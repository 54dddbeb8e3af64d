"""Autoscaling at work: who writes which replicas, who is marked, and what a person sees of it."""

from __future__ import annotations

import asyncio
from typing import Any

from kit.fakeapi import Failure, FakeApi, Request, until
from kit.fakepods import FakePods
from kit.operated import NS, condition, events, is_, mta, operated, running
from posthof_crds.report import Load
from posthof_operator.scale.cost import COST

AT_ONCE = {"scaleUp": {"stabilization": "0s"}, "scaleDown": {"stabilization": "0s", "period": "1s"}}
BUSY = Load(cpu=1.0, messages=900, messages_most=1000)


def scaling(mode: str = "Builtin", **wish: Any) -> dict[str, Any]:
    given = {"mode": mode, "min": 1, "max": 4, "behavior": AT_ONCE} if mode != "External" else {"mode": mode}
    return mta(autoscaling={**given, **wish})


def replicas(server: FakeApi) -> int:
    return int(server.get("Deployment", "edge", NS)["spec"]["replicas"])


def marks(server: FakeApi) -> dict[str, str]:
    found = {name: server.get("Pod", name, NS)["metadata"].get("annotations") or {} for name in server.names("Pod")}
    return {name: each[COST] for name, each in found.items() if COST in each}


def told(server: FakeApi, reason: str) -> list[str]:
    found = [server.get("Event", name, NS) for name in server.names("Event")]
    return [one["message"] for one in found if one["reason"] == reason]


def phase(server: FakeApi) -> str:
    return str(server.get("MTA", "edge", NS)["status"]["phase"])


async def asked_again(pods: FakePods) -> None:
    """What pods say now has been heard."""
    asked = pods.asked
    await until(lambda: pods.asked > asked + 3)


async def scale_to(server: FakeApi, pods: FakePods, count: int) -> None:
    await until(lambda: replicas(server) == count)
    await pods.deploy("edge", NS)
    await until(lambda: is_(server, "MTA", "edge", "Ready"))


def test_busy_pods_get_help_and_calm_ones_go_one_by_one_the_emptiest_first() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(scaling())
            async with operated(server) as (pods, _):
                await running(server, pods)
                await until(lambda: is_(server, "MTA", "edge", "ScalingActive", reason="WithinTargets"))
                pods.load["edge-0"] = Load(cpu=1.0)
                pods.load["edge-1"] = Load(cpu=1.0)
                await until(lambda: replicas(server) == 2)
                await until(lambda: phase(server) == "ScalingUp")
                assert "CPU is at 100% (target 75%)" in told(server, "ScalingUp")[0]
                assert told(server, "ScalingUp")[0].startswith("1 -> 2 pods: ")
                await pods.deploy("edge", NS)
                await until(lambda: phase(server) == "Healthy")

                seen = len(server.requests)
                pods.load["edge-0"] = Load(messages=5000, messages_most=100_000)
                pods.load["edge-1"] = Load(messages=12, messages_most=100_000)
                await until(lambda: replicas(server) == 1)
                order = [(one.verb, one.kind, one.name) for one in server.requests[seen:]]
                marked = order.index(("patch", "Pod", "edge-1"))
                assert marked < order.index(("apply", "Deployment", "edge"))
                assert marks(server) == {"edge-1": "-1"}
                await until(lambda: phase(server) == "ScalingDown")
                await until(lambda: told(server, "ScalingDown"))
                assert "edge-1 (12 messages)" in told(server, "ScalingDown")[0]
                await pods.deploy("edge", NS)
                await until(lambda: told(server, "PodLeft"))
                assert "edge-1 has left" in told(server, "PodLeft")[0]
                await until(lambda: phase(server) == "Healthy")
                assert server.get("MTA", "edge", NS)["spec"].get("replicas", 1) == 1

    asyncio.run(story())


def test_a_second_pass_of_a_scaling_mta_writes_nothing() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(scaling())
            async with operated(server) as (pods, _):
                await running(server, pods)
                await until(lambda: is_(server, "MTA", "edge", "ScalingActive", reason="WithinTargets"))
                before = len(server.writes)
                for cpu in (0.31, 0.35, 0.33):  # numbers move all the time
                    pods.load["edge-0"] = Load(cpu=cpu, messages=int(cpu * 1000), messages_most=100_000)
                    await asked_again(pods)
                assert server.writes[before:] == []

    asyncio.run(story())


def test_another_leader_goes_on_with_the_number_of_pods_it_finds() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(scaling(min=1, behavior={"scaleUp": {"stabilization": "0s"}}))
            async with operated(server) as (pods, _):
                await running(server, pods)
                pods.load["edge-0"] = Load(cpu=1.0, sessions=1.0)
                await scale_to(server, pods, 2)
            async with operated(server) as (pods, _):
                await pods.deploy("edge", NS)
                await asked_again(pods)
                await asked_again(pods)
                assert replicas(server) == 2  # few pods would do, and it has not looked for five minutes yet
                assert is_(server, "MTA", "edge", "ScalingActive", reason="Stabilizing")

    asyncio.run(story())


def test_whoever_asks_for_fewer_pods_mail_that_would_not_fit_keeps_them() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta(replicas=3))
            async with operated(server) as (pods, _):
                await running(server, pods)
                assert condition(server, "MTA", "edge", "ScalingActive") == {}
                for name in ("edge-0", "edge-1", "edge-2"):
                    pods.load[name] = Load(messages=500, messages_most=1000)
                await asked_again(pods)
                server.put(mta(replicas=1))
                await until(lambda: replicas(server) == 2)
                await until(lambda: is_(server, "MTA", "edge", "ScalingActive", reason="HeldByMemory"))
                text = condition(server, "MTA", "edge", "ScalingActive")["message"]
                assert text.startswith("2 pods: the queue does not fit into the memory of 1.")
                assert told(server, "HeldByMemory") == ["1500 messages are queued, and 1 pod holds 1000 in memory."]
                for name in ("edge-0", "edge-1", "edge-2"):
                    pods.load[name] = Load(messages=10, messages_most=1000)
                await until(lambda: replicas(server) == 1)
                await until(lambda: condition(server, "MTA", "edge", "ScalingActive") == {})

    asyncio.run(story())


def test_a_new_leader_asks_the_pods_before_it_takes_one_away() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta(replicas=3))
            async with operated(server) as (pods, _):
                await running(server, pods)
            server.put(mta(replicas=1))
            async with operated(server) as (pods, _):
                for name in ("edge-0", "edge-1", "edge-2"):
                    pods.load[name] = Load(messages=700, messages_most=1000)
                await pods.deploy("edge", NS)
                await until(lambda: is_(server, "MTA", "edge", "ScalingActive", reason="HeldByMemory"))
                assert replicas(server) == 3

    asyncio.run(story())


def test_an_external_scaler_owns_spec_replicas_and_is_obeyed() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(scaling("External"))
            async with operated(server) as (pods, _):
                await running(server, pods)
                pods.load["edge-0"] = BUSY
                for count in (3, 2, 4):
                    raw = server.get("MTA", "edge", NS)
                    server.put({**raw, "spec": {**raw["spec"], "replicas": count}})  # as /scale does
                    await scale_to(server, pods, count)
                    assert is_(server, "MTA", "edge", "ScalingActive", reason="Delegated")
                assert server.get("MTA", "edge", NS)["spec"]["replicas"] == 4
                assert [one for one in server.writes if one.kind == "MTA" and one.verb != "apply_status"] == []
                assert server.names("HorizontalPodAutoscaler") == []

    asyncio.run(story())


def test_an_hpa_is_made_and_its_words_are_passed_on_and_it_goes_with_the_mode() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(scaling("HPA"))
            async with operated(server) as (pods, _):
                await running(server, pods)
                hpa = server.get("HorizontalPodAutoscaler", "edge", NS)
                assert hpa["spec"]["scaleTargetRef"]["kind"] == "MTA"
                words = {"type": "ScalingActive", "status": "False", "message": "no metrics known for pods"}
                server.set_status("HorizontalPodAutoscaler", "edge", NS, {"conditions": [words]})
                await until(lambda: is_(server, "MTA", "edge", "ScalingActive", "False", "ScalerFailed"))
                assert "no metrics known for pods" in condition(server, "MTA", "edge", "ScalingActive")["message"]
                assert is_(server, "MTA", "edge", "Ready")
                server.put(scaling())
                await until(lambda: server.names("HorizontalPodAutoscaler") == [])

    asyncio.run(story())


def test_without_keda_that_is_said_and_with_it_a_scaled_object_and_its_service_are_made() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(scaling("KEDA"))
            async with operated(server) as (pods, _):
                await running(server, pods)
                await until(lambda: is_(server, "MTA", "edge", "ScalingActive", "False", "KEDAMissing"))
                server.put(scaling("KEDA", min=3))
                await until(lambda: server.get("MTA", "edge", NS)["status"]["observedGeneration"] == 2)
                assert replicas(server) == 1
                assert "mode: Builtin" in condition(server, "MTA", "edge", "ScalingActive")["message"]
            server.missing.discard("keda.sh")
            async with operated(server) as (pods, _):
                await pods.deploy("edge", NS)
                await until(lambda: server.get("ScaledObject", "edge", NS))
                await until(lambda: server.get("Service", "edge-load", NS))
                await until(lambda: is_(server, "MTA", "edge", "ScalingActive", reason="Delegated"))
                status = server.get("MTA", "edge", NS)["status"]["service"]
                assert status["internalName"] == "edge-internal"
                assert "edge-load" not in str(status)

    asyncio.run(story())


def test_at_the_maximum_a_warning_says_what_would_need_more() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(scaling(max=1))
            async with operated(server) as (pods, _):
                await running(server, pods)
                pods.load["edge-0"] = Load(sessions=0.95)
                await until(lambda: is_(server, "MTA", "edge", "ScalingActive", reason="AtMaximum"))
                await until(lambda: "AtMaximum" in events(server))
                assert "95% of the sessions are taken (target 70%)" in told(server, "AtMaximum")[0]

    asyncio.run(story())


def test_a_pod_that_may_not_be_marked_holds_up_nothing() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta(replicas=2))
            async with operated(server) as (pods, _):
                await running(server, pods)

                def forbidden(request: Request) -> None:
                    if request.kind == "Pod" and request.verb == "patch":
                        raise Failure(403, "Forbidden", "the old role knows no such right")

                server.before = forbidden
                server.put(mta(replicas=1))
                await scale_to(server, pods, 1)

    asyncio.run(story())
