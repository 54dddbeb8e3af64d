"""Take-overs become Events about the MTA, once each."""

from __future__ import annotations

import asyncio

from kit.fakeapi import FakeApi, until
from kit.operated import NS, condition, is_, mta, operated, running
from posthof_crds.report import SpoolState, TakeOver, VolumeNumbers
from posthof_operator.takeovers import words


def test_the_words_say_who_took_what_from_whom_and_how_many_may_repeat() -> None:
    one = TakeOver(id="1", worker="w1", pod="a", lanes=("x", "y"), count=3, messages=120, seconds=1.44, at=0.0)
    assert words("b", one) == (
        "Pod b took over 3 lanes (x, y, ...) with 120 messages in 1.4 s from worker w1 of pod a, which ended without "
        "freeing them, at 00:00:00 UTC. If the volume is a restored snapshot, all 120 may be sent again."
    )
    freed = TakeOver(id="1", worker="w1", lanes=("x",), count=1, messages=1, freed=True)
    assert words("b", freed) == (
        "Pod b took over 1 lane (x) with 1 messages in 0.0 s from worker w1, which handed them over at 00:00:00 UTC."
    )


def told(server: FakeApi) -> list[tuple[str, str]]:
    found = (server.get("Event", name, NS) for name in server.names("Event"))
    return sorted((one["type"], one["reason"]) for one in found if one and one["reason"].startswith("Lanes"))


def test_a_take_over_is_an_event_about_the_mta_once() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta(replicas=2))
            async with operated(server) as (pods, world):
                await running(server, pods)
                one, two = await pods.deploy("edge", NS)
                at = world.now().timestamp()
                pods.take_overs[one] = (TakeOver(id="1", worker="w1", pod="gone", lanes=("x",), count=1, at=at),)
                pods.take_overs[two] = (TakeOver(id="2", worker="w2", lanes=("y",), count=1, freed=True, at=at - 5),)
                for _ in range(3):
                    world.enqueue_all("MTA")
                    await until(lambda: world.queue.is_idle)
                await until(lambda: len(told(server)) >= 2)
                assert told(server) == [("Normal", "LanesHandedOver"), ("Warning", "LanesTakenOver")]

    asyncio.run(story())


def test_what_a_pod_measured_is_in_the_condition_and_a_refused_volume_says_why() -> None:
    numbers = VolumeNumbers(
        file_system="nfs4",
        sync_median_seconds=0.002,
        sync_p99_seconds=0.009,
        folder_sync_p99_seconds=0.0005,
        free_bytes=3 * 2**29,
        free_inodes=77,
        clock_offset_seconds=-0.2,
        visible_seconds=0.001,
        warnings=("whether the server exports with sync cannot be seen",),
    )

    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            async with operated(server) as (pods, world):
                await running(server, pods)
                (pod,) = await pods.deploy("edge", NS)
                pods.spool[pod] = SpoolState(volume=numbers)
                world.enqueue_all("MTA")
                await until(lambda: "nfs4" in condition(server, "MTA", "edge", "SpoolHealthy")["message"])
                message = condition(server, "MTA", "edge", "SpoolHealthy")["message"]
                for words in (
                    "a sync takes 2.0 ms, 99% under 9.0 ms, one of a folder under 0.5 ms; its clock is -0.2 s from",
                    "another sees within 1.0 ms; at the start of pods at least 1.5 GiB and 77 inodes were free.",
                    "Whether the server exports",
                ):
                    assert words in message
                pods.spool[pod] = SpoolState(healthy=False, refused=True, reason="the mount option nocto")
                world.enqueue_all("MTA")
                await until(lambda: is_(server, "MTA", "edge", "SpoolHealthy", "False", reason="VolumeRefused"))

    asyncio.run(story())
