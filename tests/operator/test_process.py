"""The operator as a process: kopf's watches, the Lease, health, signals."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import aiohttp

from kit.fakeapi import FakeApi, until
from kit.operated import NS, domain, is_, mta
from kit.operator_process import process
from posthof_operator.resources import FINALIZER


def holder(server: FakeApi) -> str:
    lease = server.get("Lease", "posthof-operator", "posthof")
    return lease["spec"]["holderIdentity"] if lease else ""


def test_kopf_sees_everything_writes_nothing_and_asks_with_selectors(tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            server.put(domain("acme"))
            async with process(server, tmp_path) as one:
                await until(lambda: server.get("Deployment", "edge", NS))
                await until(lambda: is_(server, "MailDomain", "acme", "Accepted"))
                server.put(domain("beta"))
                await until(lambda: is_(server, "MailDomain", "beta", "Accepted"))
                server.remove("MailDomain", "beta", NS)
                await until(lambda: server.get("MTA", "edge", NS)["status"]["domains"] == 1)
                watched = {
                    plural: query.get("labelSelector", "") for plural, query in server.queries if "watch" in query
                }
                assert watched["pods"] == "posthof.dev/mta"
                assert watched["deployments"] == "app.kubernetes.io/managed-by=posthof-operator"
                assert watched["mtas"] == ""
                assert ("configmaps", "posthof.dev/canary") in {
                    (plural, query.get("labelSelector")) for plural, query in server.queries
                }
                raw = server.get("MailDomain", "acme", NS)
                assert "finalizers" not in raw["metadata"]
                assert "annotations" not in raw["metadata"]
                one.send_signal(signal.SIGTERM)
                assert await one.wait() == 0
                assert holder(server) == ""

    asyncio.run(story())


def test_the_finalizer_of_an_mta_whose_mail_goes_with_it_stands_and_is_written_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta(spool={"deletionPolicy": "Delete"}))
            async with process(server, tmp_path):
                await until(lambda: server.get("Deployment", "edge", NS))
                for name in ("acme", "beta", "gamma"):  # each is a change of the MTA's status, told by its watch
                    server.put(domain(name))
                    await until(lambda name=name: is_(server, "MailDomain", name, "Accepted"))
                await until(lambda: server.get("MTA", "edge", NS)["status"]["domains"] == 3)
                patched = [one for one in server.requests if (one.verb, one.kind) == ("patch", "MTA")]
                assert server.get("MTA", "edge", NS)["metadata"]["finalizers"] == [FINALIZER]
                assert len(patched) == 1

    asyncio.run(story())


def test_one_replica_holds_the_lease_and_the_other_takes_it_over(tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeApi() as server, process(server, tmp_path) as one:
            await until(lambda: holder(server))
            first = holder(server)
            async with process(server, tmp_path) as two:
                one.send_signal(signal.SIGTERM)
                assert await one.wait() == 0
                await until(lambda: holder(server) not in ("", first))
                lease = server.get("Lease", "posthof-operator", "posthof")
                assert lease["spec"]["leaseTransitions"] >= 1
                lease["spec"]["holderIdentity"] = "somebody"
                server.put(lease)
                assert await two.wait() == 1

    asyncio.run(story())


def test_a_waiting_replica_is_alive_and_stops_when_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeApi() as server:
            lease = {"holderIdentity": "another", "leaseDurationSeconds": 3600}
            head = {"name": "posthof-operator", "namespace": "posthof"}
            server.put({"kind": "Lease", "metadata": head, "spec": lease})
            port = str(free_port())
            async with process(server, tmp_path, POSTHOF_METRICS_PORT=port) as one, aiohttp.ClientSession() as http:

                async def said(path: str) -> tuple[int, str]:
                    async with http.get(f"http://127.0.0.1:{port}{path}") as answer:
                        return answer.status, await answer.text()

                await until(lambda: server.counts()["get"] > 1)
                assert await said("/healthz") == (200, "ok\n")
                assert (await said("/readyz"))[0] == 200
                assert "posthof_operator_leader 0.0" in (await said("/metrics"))[1]
                one.send_signal(signal.SIGTERM)
                assert await one.wait() == 0
            assert holder(server) == "another"

    asyncio.run(story())


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_in_namespaces_it_asks_for_nothing_of_the_whole_cluster(tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            server.put(domain("elsewhere", namespace="other"))
            watch = f"{NS},shop"
            async with process(server, tmp_path, POSTHOF_WATCH_NAMESPACES=watch, POSTHOF_NAMESPACE=NS) as one:
                await until(lambda: server.get("Deployment", "edge", NS))
                one.send_signal(signal.SIGTERM)
                assert await one.wait() == 0
            asked = {request.namespace for request in server.requests if request.verb in ("list", "watch")}
            assert asked == {NS, "shop"}
            assert server.get("MailDomain", "elsewhere", "other").get("status") is None

    asyncio.run(story())


def test_wrong_settings_are_said_in_one_line(tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeApi() as server, process(server, tmp_path, POSTHOF_WORKERS="many") as one:
            assert await one.wait() == 2

    asyncio.run(story())
    (log,) = tmp_path.glob("log-*")
    assert log.read_text().strip() == "posthof-operator: POSTHOF_WORKERS is 'many': write a number"
