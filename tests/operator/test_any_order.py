"""Whatever happens in whatever order (edits, strangers' edits, failing requests, dead operators): when it is quiet
again, pods run exactly what the objects say, all children are there, and nothing more is written."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.fakeapi import Failure, FakeApi, Request, until
from kit.operated import NS, bind_claim, condition, config_of, domain, is_, mta, operated, policy
from posthof_crds.fleet import assemble, part_of

CHILDREN = st.sampled_from(["Role", "Service", "ConfigMap", "Deployment"])
NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.one_of(
    st.tuples(st.just("domain"), NAMES, st.sampled_from(["LMTP", "Reject"])),
    st.tuples(st.just("same domain"), NAMES, NAMES),
    st.tuples(st.just("broken domain"), NAMES, st.none()),
    st.tuples(st.just("no domain"), NAMES, st.none()),
    st.tuples(st.just("policy"), NAMES, st.integers(0, 3)),
    st.tuples(st.just("no policy"), NAMES, st.none()),
    st.tuples(st.just("replicas"), st.integers(1, 3), st.none()),
    st.tuples(st.just("stranger scales"), st.integers(1, 9), st.none()),
    st.tuples(st.just("somebody else scales"), st.integers(1, 4), st.none()),
    st.tuples(st.just("the operator scales"), st.integers(1, 3), st.integers(1, 5)),
    st.tuples(
        st.just("stranger deletes"), st.sampled_from(["Role", "Service", "ConfigMap", "Deployment"]), st.none()
    ),
    st.tuples(st.just("requests fail"), st.integers(1, 12), st.none()),
    st.tuples(st.just("watches forget"), st.none(), st.none()),
    st.tuples(st.just("a moment"), st.none(), st.none()),
    st.tuples(st.just("operator dies"), st.none(), st.none()),
)
INBOUND = {
    "LMTP": {"mode": "LMTP", "nextHops": [{"host": "dovecot.mail.svc"}], "recipients": {"any": True}},
    "Reject": {"mode": "Reject"},
}


class Trouble:
    def __init__(self) -> None:
        self.failing = 0

    def __call__(self, request: Request) -> None:
        if self.failing and request.verb != "watch":
            self.failing -= 1
            raise Failure(503, "ServiceUnavailable", "not now")


def do(server: FakeApi, trouble: Trouble, step: tuple[str, Any, Any]) -> None:
    what, one, two = step
    if what == "domain":
        server.put(domain(one, inbound=INBOUND[two]))
    elif what == "same domain":
        server.put(domain(one, f"{two}.example"))
    elif what == "broken domain":
        server.put(domain(one, inbound={"mode": "Sideways"}))
    elif what == "policy":
        server.put(policy(one, priority=two, match={"clients": ["10.0.0.0/8"]}, action={"type": "Direct"}))
    elif what == "replicas":
        server.put(mta(replicas=one))
    elif what == "somebody else scales":
        server.put(mta(replicas=one, autoscaling={"mode": "External"}))
    elif what == "the operator scales":
        server.put(mta(replicas=two, autoscaling={"min": one, "max": one}))
    elif what == "stranger scales":
        deployment = server.get("Deployment", "edge", NS)
        if deployment is not None:
            server.put({**deployment, "spec": {**deployment["spec"], "replicas": one}})
    elif what == "requests fail":
        trouble.failing = one
    elif what == "watches forget":
        server.forget()
    else:
        _remove(server, what, one)


def _remove(server: FakeApi, what: str, one: Any) -> None:
    kind, name = {
        "no domain": ("MailDomain", one),
        "no policy": ("RelayPolicy", one),
        "stranger deletes": (one, "edge-config-0" if one == "ConfigMap" else "edge"),
    }.get(what, ("", ""))
    if server.get(kind, name, NS) is not None:
        server.remove(kind, name, NS)


def mended(server: FakeApi) -> None:
    """What is broken is put right, so that what is wanted follows from the objects alone."""
    for name in server.names("MailDomain"):
        if server.get("MailDomain", name, NS)["spec"]["inbound"]["mode"] == "Sideways":
            server.put(domain(name))


def expected(server: FakeApi) -> Any:
    parts = [
        part_of(kind, raw) for (kind, _, _), raw in server.objects.items() if kind in ("MailDomain", "RelayPolicy")
    ]
    return assemble(server.get("MTA", "edge", NS), parts, namespaces={}).config


def is_quiet(server: FakeApi, world: Any) -> bool:
    if server.get("PersistentVolumeClaim", "edge-spool", NS):
        bind_claim(server)
    deployment = server.get("Deployment", "edge", NS)
    spec = server.get("MTA", "edge", NS)["spec"]
    wanted = spec.get("autoscaling", {}).get("min") or spec.get("replicas", 1)
    return (
        deployment is not None
        and deployment["spec"]["replicas"] == wanted
        and server.get("Role", "edge", NS) is not None
        and server.get("Service", "edge", NS) is not None
        and server.get("ConfigMap", "edge-config-0", NS) is not None
        and config_of(server) == expected(server)
        and is_(server, "MTA", "edge", "ConfigConverged")
        and is_(server, "MTA", "edge", "Ready")
        and condition(server, "MTA", "edge", "ScalingActive").get("status") != "Unknown"  # the next look knows more
        and world.queue.is_idle
    )


async def story(steps: list[tuple[str, Any, Any]]) -> None:
    async with FakeApi() as server:
        server.put(mta())
        trouble = Trouble()
        server.before = trouble
        lives: list[list[tuple[str, Any, Any]]] = [[]]
        for step in steps:
            if step[0] == "operator dies":
                lives.append([])
            else:
                lives[-1].append(step)
        for life in lives[:-1]:
            async with operated(server):
                await play(server, trouble, life)
        async with operated(server) as (pods, world):
            await play(server, trouble, lives[-1])
            trouble.failing = 0
            mended(server)
            playing = asyncio.create_task(deploy(server, pods))
            await until(lambda: is_quiet(server, world))
            before = len(server.writes)
            world.enqueue_all("MTA")
            world.enqueue_all("MailDomain")
            await asyncio.sleep(0.3)
            await until(lambda: is_quiet(server, world))
            playing.cancel()
            assert [one for one in server.writes[before:] if one.kind != "Event"] == []


async def play(server: FakeApi, trouble: Trouble, life: list[tuple[str, Any, Any]]) -> None:
    for step in life:
        if step[0] == "a moment":
            await asyncio.sleep(0.03)
        else:
            do(server, trouble, step)
        await asyncio.sleep(0)


async def deploy(server: FakeApi, pods: Any) -> None:
    while True:
        if server.get("Deployment", "edge", NS):
            await pods.deploy("edge", NS)
        await asyncio.sleep(0.01)


@pytest.mark.timeout(600)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, max_size=12))
def test_when_it_is_quiet_again_all_is_as_the_objects_say(steps: list[tuple[str, Any, Any]]) -> None:
    asyncio.run(story(steps))
