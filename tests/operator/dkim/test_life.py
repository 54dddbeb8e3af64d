"""DKIMKeys at work against the small API server: made, published, active, changed for new ones, revoked, gone."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from kit.dkim import pem
from kit.fakeapi import FakeApi, until
from kit.fakepods import FakePods
from kit.operated import NS, condition, config_of, domain, is_, mta, running
from kit.rooms import Clock, at_work
from posthof_certs import dkim
from posthof_certs.zone import Record, Server, Unpublished
from posthof_crds.shards import read_keys
from posthof_operator.dkim import Domains, Keys
from posthof_operator.domains import Domains as Bindings
from posthof_operator.flow import MTARoom
from posthof_operator.reports import Reporters
from posthof_operator.workloads import Workloads
from posthof_operator.world import World

AUTO = {"dkim": {"auto": {}}}


class Zone:
    """An authoritative server: what it shows, and what it was told to change."""

    def __init__(self) -> None:
        self.shown: set[tuple[str, str]] = set()
        self.servers: list[Server] = []
        self.is_away = False

    def lacking(self, records: Sequence[Record], resolver: Sequence[str] = ()) -> list[str]:
        if self.is_away:
            raise Unpublished("no answer in time")
        missing = [one for one in records if (one.name, one.text) not in self.shown]
        return [f"ns.example (192.0.2.1) has no TXT {one.name}" for one in missing]

    def add(self, server: Server, records: Sequence[Record]) -> None:
        self.servers.append(server)
        self.shown |= {(one.name, one.text) for one in records}

    def remove(self, server: Server, records: Sequence[Record]) -> None:
        self.shown -= {(one.name, one.text) for one in records}

    def publish(self, server: FakeApi, name: str) -> None:
        record = server.get("DKIMKey", name, NS)["status"]["record"]  # type: ignore[index]  # it is there
        self.shown.add((record["name"], record["expected"]))


@contextlib.asynccontextmanager
async def at_dkim(server: FakeApi, zone: Zone, clock: Clock | None = None) -> AsyncIterator[World]:
    keys = Keys(ask=zone.lacking, add=zone.add, remove=zone.remove)
    async with at_work([keys, Domains(remove=zone.remove)], server=server, clock=clock) as world:
        yield world


def key(name: str, **spec: Any) -> dict[str, Any]:
    body = {"domainRef": {"name": "acme"}, "selector": "s1", **spec}
    return {"kind": "DKIMKey", "metadata": {"name": name, "namespace": NS}, "spec": body}


def status(server: FakeApi, name: str, kind: str = "DKIMKey") -> dict[str, Any]:
    found = server.get(kind, name, NS) or {}
    return dict(found.get("status") or {})


def reason(server: FakeApi, name: str, type_: str) -> str:
    found = [one for one in status(server, name).get("conditions", ()) if one["type"] == type_]
    return f"{found[0]['status']} {found[0]['reason']}" if found else ""


def phases(server: FakeApi) -> list[str]:
    return [status(server, name).get("phase", "") for name in sorted(server.names("DKIMKey"))]


def record_of(server: FakeApi, name: str) -> str:
    return str(status(server, name)["record"]["expected"])


def again(world: World, server: FakeApi) -> None:
    world.enqueue_all("DKIMKey")
    world.enqueue_all("MailDomain")


def test_auto_makes_a_key_of_each_algorithm_and_says_what_to_publish() -> None:
    async def story() -> None:
        zone = Zone()
        async with FakeApi() as server:
            server.put(domain("acme", outbound=AUTO))
            async with at_dkim(server, zone) as world:
                await until(lambda: phases(server) == ["Publishing", "Publishing"])
                await until(lambda: status(server, "acme", "MailDomain").get("dkim", {}).get("state") == "missing")
                for name in server.names("DKIMKey"):
                    told = status(server, name)
                    secret = server.get("Secret", f"{name}-dkim", NS)
                    assert secret is not None
                    text = dkim.record(base64.b64decode(secret["data"]["private.pem"]))
                    assert told["record"]["expected"] == text
                    assert told["record"]["name"].endswith("._domainkey.acme.example")
                    assert text[:40] in condition(server, "DKIMKey", name, "Ready")["message"]
                    zone.publish(server, name)
                again(world, server)
                await until(lambda: phases(server) == ["Active", "Active"])
                await until(lambda: status(server, "acme", "MailDomain")["dkim"]["state"] == "ok")
                assert is_(server, "MailDomain", "acme", "DKIMReady")
                await asyncio.sleep(0.5)
                before = len(server.writes)
                again(world, server)
                await asyncio.sleep(0.3)
                assert [(one.verb, one.kind) for one in server.writes[before:]] == []

    asyncio.run(story())


def test_a_key_gets_old_retires_is_revoked_and_goes() -> None:
    async def story() -> None:
        zone, clock = Zone(), Clock()
        tsig = {"name": "k.example", "secretName": "tsig"}
        auto = {"dkim": {"auto": {"algorithms": ["RSA"], "rotation": {"interval": "10d", "overlap": "2d"}}}}
        dns = {"rfc2136": {"server": "192.0.2.1", "tsig": tsig}}
        async with FakeApi() as server:
            secret = {"secret": base64.b64encode(b"c2VjcmV0").decode()}
            server.put({"kind": "Secret", "metadata": {"name": "tsig", "namespace": NS}, "data": secret})
            server.put(domain("acme", outbound=auto, dns=dns))
            async with at_dkim(server, zone, clock) as world:

                async def settle(wanted: list[str]) -> None:
                    async def turn() -> bool:
                        again(world, server)
                        await asyncio.sleep(0.05)
                        return sorted(phases(server)) == sorted(wanted)

                    for _ in range(200):
                        if await turn():
                            return
                    raise AssertionError(f"{phases(server)}, not {wanted}")

                await settle(["Active"])
                (first,) = server.names("DKIMKey")
                assert zone.servers[0].key.secret == "c2VjcmV0"
                clock.forward(days=11)
                await settle(["Active", "Retiring"])
                assert status(server, first)["phase"] == "Retiring"
                clock.forward(days=3)
                await settle(["Active", "Revoked"])
                name = status(server, first)["record"]["name"]
                assert [text for at, text in zone.shown if at == name] == ["v=DKIM1; p="]
                clock.forward(days=3)
                await settle(["Active"])
                assert first not in server.names("DKIMKey")
                assert not [text for at, text in zone.shown if at == name]

    asyncio.run(story())


def test_a_key_that_somebody_deletes_leaves_the_zone_and_gets_a_successor() -> None:
    async def story() -> None:
        zone = Zone()
        auto = {"dkim": {"auto": {"algorithms": ["Ed25519"]}}}
        dns = {"rfc2136": {"server": "192.0.2.1", "tsig": {"name": "k.example", "secretName": "tsig"}}}
        async with FakeApi() as server:
            secret = {"secret": base64.b64encode(b"c2VjcmV0").decode()}
            server.put({"kind": "Secret", "metadata": {"name": "tsig", "namespace": NS}, "data": secret})
            server.put(domain("acme", outbound=auto, dns=dns))
            async with at_dkim(server, zone):
                await until(lambda: phases(server) == ["Active"])
                (first,), before = server.names("DKIMKey"), set(zone.shown)
                server.remove("DKIMKey", first, NS)
                await until(lambda: first not in server.names("DKIMKey") and phases(server) == ["Active"])
                await until(lambda: not before & zone.shown)
                assert len(zone.shown) == 1

    asyncio.run(story())


def test_a_key_of_ones_own_is_never_written_and_may_be_wrong() -> None:
    async def story() -> None:
        zone = Zone()
        async with FakeApi() as server:
            server.put(domain("acme", outbound={"dkim": {"keyRefs": [{"name": "mine"}]}}))
            server.put(key("mine", secretRef={"name": "given", "key": "k"}, algorithm="RSA"))
            async with at_dkim(server, zone) as world:
                await until(lambda: reason(server, "mine", "Generated") == "False SecretMissing")
                data = {"k": base64.b64encode(pem("ed25519")).decode()}
                server.put({"kind": "Secret", "metadata": {"name": "given", "namespace": NS}, "data": data})
                again(world, server)
                await until(lambda: reason(server, "mine", "Generated") == "False KeyInvalid")
                data = {"k": base64.b64encode(pem("rsa2048")).decode()}
                server.put({"kind": "Secret", "metadata": {"name": "given", "namespace": NS}, "data": data})
                again(world, server)
                await until(lambda: phases(server) == ["Publishing"])
                zone.is_away = True
                again(world, server)
                await until(lambda: reason(server, "mine", "Published") == "Unknown ResolverFailed")
                zone.is_away = False
                zone.publish(server, "mine")
                again(world, server)
                await until(lambda: is_(server, "DKIMKey", "mine", "Ready"))
                zone.is_away = True
                again(world, server)
                await asyncio.sleep(0.2)
                assert phases(server) == ["Active"]
                assert server.names("Secret") == ["given"]

    asyncio.run(story())


def test_a_domain_that_does_not_name_the_mta_of_another_namespace_is_told_so() -> None:
    async def story() -> None:
        zone = Zone()
        async with FakeApi() as server:
            server.put(domain("acme", outbound={"dkim": {"auto": {"algorithms": ["Ed25519"]}}}))
            async with at_dkim(server, zone) as world:
                server.set_status("MailDomain", "acme", NS, {"bindings": [{"mta": "edge", "namespace": "house"}]})
                await until(lambda: phases(server) == ["Publishing"])
                zone.publish(server, server.names("DKIMKey")[0])
                again(world, server)
                await until(lambda: phases(server) == ["Active"])
                await until(lambda: "mtaRef" in condition(server, "MailDomain", "acme", "DKIMReady")["message"])
                assert not is_(server, "MailDomain", "acme", "DKIMReady")

    asyncio.run(story())


def test_external_dns_gets_an_object_for_each_key() -> None:
    async def story() -> None:
        zone = Zone()
        async with FakeApi() as server:
            server.put(
                domain("acme", outbound={"dkim": {"keyRefs": [{"name": "mine"}]}}, dns={"publish": "ExternalDNS"})
            )
            server.missing.discard("externaldns.k8s.io")
            server.put(key("mine", algorithm="Ed25519"))
            async with at_dkim(server, zone) as world:
                await until(lambda: reason(server, "mine", "Published") == "False PublishFailed")
                assert server.names("DNSEndpoint") == []
                accepted = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}
                generation = server.get("MailDomain", "acme", NS)["metadata"]["generation"]  # type: ignore[index]
                before = [accepted | {"observedGeneration": generation - 1}]  # it had another domain then
                server.set_status("MailDomain", "acme", NS, {"conditions": before})
                await asyncio.sleep(0.1)
                again(world, server)
                await asyncio.sleep(0.3)
                assert server.names("DNSEndpoint") == []
                accepted["observedGeneration"] = generation
                server.set_status("MailDomain", "acme", NS, {"conditions": [accepted]})
                await asyncio.sleep(0.1)
                again(world, server)
                await until(lambda: "mine-dkim" in server.names("DNSEndpoint"))
                (entry,) = server.get("DNSEndpoint", "mine-dkim", NS)["spec"]["endpoints"]  # type: ignore[index]
                assert entry["dnsName"] == "s1._domainkey.acme.example"
                assert entry["targets"][0].startswith('"v=DKIM1; k=ed25519; p=')

    asyncio.run(story())


def test_pods_sign_with_a_key_once_it_is_active() -> None:
    async def story() -> None:
        zone = Zone()
        async with FakeApi() as server, FakePods(server) as pods:
            reporters = Reporters(pods.port)
            keys = Keys(ask=zone.lacking, add=zone.add, remove=zone.remove)
            server.put(mta())
            server.put(domain("acme", outbound={"dkim": {"auto": {"algorithms": ["Ed25519"]}}}))
            try:
                rooms = lambda store: [MTARoom(store, reporters), Workloads(), Bindings(), keys, Domains()]  # noqa: E731
                async with at_work(rooms, server=server) as world:
                    await running(server, pods)
                    await until(lambda: phases(server) == ["Publishing"])
                    assert config_of(server).domains["acme.example"].outbound is None
                    (name,) = server.names("DKIMKey")
                    zone.publish(server, name)
                    again(world, server)
                    await until(lambda: config_of(server).domains["acme.example"].outbound is not None)
                    out = config_of(server).domains["acme.example"].outbound
                    assert out is not None
                    (signing,) = out.dkim
                    assert signing.secret is not None
                    assert (signing.algorithm, signing.secret.name) == ("Ed25519", f"mail/{name}-dkim")

                    def keys() -> dict[str, bytes]:
                        found = [server.get("Secret", f"edge-keys-{n}", NS) for n in range(4)]
                        return read_keys([base64.b64decode(one["data"]["keys"]) for one in found if one])

                    await until(keys)
                    assert dkim.record(keys()[f"mail/{name}-dkim/private.pem"]) == record_of(server, name)
            finally:
                await reporters.close()

    asyncio.run(story())
