"""One MTA, from the manifest to pods that run its configuration, as the cluster sees it."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from kit.fakeapi import Failure, FakeApi, Request, until
from kit.operated import (
    NS,
    access,
    condition,
    config_of,
    credential,
    domain,
    events,
    is_,
    mta,
    operated,
    policy,
    running,
)
from posthof_crds import verifiers
from posthof_crds.report import ClientCounts, QueueCounts, SpoolState
from posthof_crds.shards import read_keys, read_pods
from posthof_operator.resources import FINALIZER, PAUSED


def test_an_mta_and_a_domain_become_pods_that_run_them() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta(replicas=2))
            server.put(domain("acme"))
            async with operated(server) as (pods, _):
                await running(server, pods)
                status = server.get("MTA", "edge", NS)["status"]
                assert status["ready"] == "2/2"
                assert status["phase"] == "Healthy"
                assert status["domains"] == 1
                assert status["observedGeneration"] == 1
                assert status["configRevision"]["desired"] == status["configRevision"]["oldestLoaded"]
                assert list(config_of(server).domains) == ["acme.example"]
                await until(lambda: is_(server, "MailDomain", "acme", "Accepted"))
                assert server.get("MailDomain", "acme", NS)["status"]["bindings"][0]["mta"] == "edge"
                assert server.names("Service") == ["edge", "edge-internal"]
                assert not [one for one in server.names("Event") if one.startswith("acme")]  # it began so

    asyncio.run(story())


def test_a_second_pass_writes_nothing_and_neither_does_another_leader() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            server.put(domain("acme"))
            async with operated(server) as (pods, world):
                await running(server, pods)
                await until(lambda: is_(server, "MailDomain", "acme", "Ready"))
                await until(lambda: world.queue.is_idle)
                before = len(server.writes)
                for kind in ("MTA", "MailDomain"):
                    world.enqueue_all(kind)
                await until(lambda: world.queue.is_idle)
                assert server.writes[before:] == []
            before = len(server.writes)
            async with operated(server) as (pods, world):
                await pods.deploy("edge", NS)
                await until(lambda: world.reports and world.queue.is_idle)
                assert server.writes[before:] == []

    asyncio.run(story())


def test_what_somebody_else_changed_or_removed_is_put_right() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta(replicas=2))
            async with operated(server) as (pods, _):
                await running(server, pods)
                deployment = server.get("Deployment", "edge", NS)
                deployment["spec"]["replicas"] = 7
                server.put(deployment)
                await until(lambda: server.get("Deployment", "edge", NS)["spec"]["replicas"] == 2)
                server.remove("Role", "edge", NS)
                await until(lambda: server.get("Role", "edge", NS))
                server.put({"kind": "ConfigMap", "metadata": {"name": "other", "namespace": NS}, "data": {}})
                assert server.get("ConfigMap", "other", NS)

    asyncio.run(story())


def test_a_change_is_in_the_shards_and_pods_that_lag_are_waited_for() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            server.put(domain("acme"))
            async with operated(server) as (pods, _):
                await running(server, pods)
                pods.lag["edge-0"] = pods.revision(f"{NS}/edge")
                server.put(domain("beta"))
                await until(lambda: is_(server, "MTA", "edge", "ConfigConverged", "False", "Converging"))
                assert "beta.example" in config_of(server).domains
                assert is_(server, "MTA", "edge", "Reconciling")
                assert is_(server, "MTA", "edge", "Ready")  # pods that run the one before are well
                pods.lag.clear()
                await until(lambda: is_(server, "MTA", "edge", "ConfigConverged"))
                assert condition(server, "MTA", "edge", "Reconciling") == {}
                pods.lag["edge-0"], pods.refuse["edge-0"] = "old", "port 25 cannot be bound"
                await until(lambda: is_(server, "MTA", "edge", "ConfigConverged", "False", "ConfigRefused"))
                assert "port 25 cannot be bound" in condition(server, "MTA", "edge", "Ready")["message"]
                await until(lambda: events(server).count("ConfigRefused") == 1)

    asyncio.run(story())


def test_what_became_wrong_stays_in_force_as_it_was_also_with_another_leader() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            server.put(domain("acme"))
            server.put(domain("fine"))
            async with operated(server) as (pods, _):
                await running(server, pods)
                server.put(domain("acme", inbound={"mode": "Sideways"}))
                await until(lambda: is_(server, "MailDomain", "acme", "Accepted", "False", "Invalid"))
                assert is_(server, "MailDomain", "acme", "Stalled")
                assert "acme.example" in config_of(server).domains
            async with operated(server) as (pods, _):
                await pods.deploy("edge", NS)
                server.put(domain("third"))
                await until(lambda: "third.example" in config_of(server).domains)
                assert "acme.example" in config_of(server).domains
                broken = mta()
                broken["spec"]["listeners"] = []
                server.put(broken)
                await until(lambda: is_(server, "MTA", "edge", "Stalled", reason="Invalid"))
                assert server.get("MTA", "edge", NS)["status"]["phase"] == "Invalid"
            async with operated(server) as (pods, _):
                await pods.deploy("edge", NS)
                server.put(domain("fourth"))
                await until(lambda: "fourth.example" in config_of(server).domains)
                assert [one.port for one in config_of(server).listeners] == [2525, 5587]
                server.put(domain("acme"))
                await until(lambda: is_(server, "MailDomain", "acme", "Ready"))

    asyncio.run(story())


def test_pods_stand_on_many_nodes_where_the_claim_allows_it() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta(replicas=3, spool={"accessMode": "ReadWriteMany"}))
            async with operated(server) as (pods, _):
                await until(lambda: server.get("Deployment", "edge", NS) is not None)
                assert server.get("Deployment", "edge", NS)["spec"]["replicas"] == 3
                pod = server.get("Deployment", "edge", NS)["spec"]["template"]["spec"]
                assert "podAffinity" not in pod.get("affinity", {})
                assert "topologySpreadConstraints" in pod
                await running(server, pods)

    asyncio.run(story())


def test_a_paused_mta_is_left_alone_until_it_is_not() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            async with operated(server) as (pods, world):
                await running(server, pods)
                paused = mta(replicas=2)
                paused["metadata"]["annotations"] = {PAUSED: ""}
                server.put(paused)
                await until(lambda: is_(server, "MTA", "edge", "Ready", "Unknown", "Paused"))
                await until(lambda: world.queue.is_idle)
                assert server.get("Deployment", "edge", NS)["spec"]["replicas"] == 1
                assert server.get("MTA", "edge", NS)["status"]["phase"] == "Paused"
                paused["metadata"]["annotations"] = {}
                server.put(paused)
                await until(lambda: server.get("Deployment", "edge", NS)["spec"]["replicas"] == 2)

    asyncio.run(story())


def test_a_paused_mta_hears_which_addresses_its_pods_have_left() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            server.put({"kind": "Namespace", "metadata": {"name": NS, "labels": {}}})
            server.put(
                policy("ours", match={"podSelector": {"matchLabels": {"app": "web"}}}, action={"type": "Direct"})
            )
            head = {"name": "web", "namespace": NS, "labels": {"app": "web"}}
            web = {"kind": "Pod", "metadata": head, "spec": {}, "status": {"podIP": "10.1.0.1", "phase": "Running"}}
            server.put(web)

            def listed() -> list[str]:
                raw = server.get("ConfigMap", "edge-pods", NS)
                return sorted(read_pods(base64.b64decode(raw["binaryData"]["pods"]))) if raw else []

            async with operated(server) as (pods, _):
                await running(server, pods)
                await until(lambda: listed() == ["10.1.0.1"])
                paused = mta()
                paused["metadata"]["annotations"] = {"posthof.dev/paused": ""}
                server.put(paused)
                await until(lambda: is_(server, "MTA", "edge", "Ready", "Unknown", "Paused"))
                server.remove("Pod", "web", NS)
                await until(lambda: listed() == [] and server.get("ConfigMap", "edge-pods", NS))

    asyncio.run(story())


def test_a_deleted_mta_leaves_its_mail_and_under_drain_delivers_it_first() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            async with operated(server) as (pods, _):
                await running(server, pods)
                assert server.get("MTA", "edge", NS)["metadata"].get("finalizers") is None
                server.remove("MTA", "edge", NS)
                assert server.names("Deployment") == []
                assert server.names("PersistentVolumeClaim") == ["edge-spool"]

                server.put(mta(spool={"deletionPolicy": "Drain"}))
                await running(server, pods)
                await until(lambda: server.get("MTA", "edge", NS)["metadata"].get("finalizers") == [FINALIZER])
                pods.queue["edge-0"] = QueueCounts(deferred=2)
                server.remove("MTA", "edge", NS)
                await until(lambda: is_(server, "MTA", "edge", "Reconciling", reason="Draining"))
                await until(lambda: server.names("Service") == [])
                assert server.names("Deployment") == ["edge"]
                pods.spool["edge-0"] = SpoolState(healthy=False, reason="no worker has the spool open")
                pods.queue.clear()  # a pod that has read nothing counts nothing
                asked = pods.asked
                await until(lambda: pods.asked > asked + 3)
                assert server.get("MTA", "edge", NS) is not None
                pods.spool.clear()
                await until(lambda: server.get("MTA", "edge", NS) is None)
                assert server.names("PersistentVolumeClaim") == ["edge-spool"]

    asyncio.run(story())


def test_mail_goes_with_its_mta_only_if_that_is_what_the_policy_says_at_the_end() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            for last, claims in (("Retain", ["edge-spool"]), ("Delete", [])):
                server.put(mta(spool={"deletionPolicy": "Delete"}))
                async with operated(server) as (pods, _):
                    await running(server, pods)
                    await until(lambda: server.get("MTA", "edge", NS)["metadata"].get("finalizers") == [FINALIZER])
                server.put(mta(spool={"deletionPolicy": last}))  # and nobody there to hear of it
                server.remove("MTA", "edge", NS)
                async with operated(server):
                    await until(lambda: server.get("MTA", "edge", NS) is None)
                    assert server.names("PersistentVolumeClaim") == claims

    asyncio.run(story())


def test_a_namespace_that_is_deleted_does_not_wait_for_mail_that_went_with_it() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta(spool={"deletionPolicy": "Drain"}))
            async with operated(server) as (pods, _):
                await running(server, pods)
                await until(lambda: server.get("MTA", "edge", NS)["metadata"].get("finalizers") == [FINALIZER])

                def terminating(request: Request) -> None:
                    if request.verb == "apply" and server.get(request.kind, request.name, NS) is None:
                        raise Failure(403, "Forbidden", "the namespace is being terminated")

                server.before = terminating
                server.remove("MTA", "edge", NS)
                server.remove("Pod", "edge-0", NS)
                server.remove("PersistentVolumeClaim", "edge-spool", NS)
                await until(lambda: server.get("MTA", "edge", NS) is None)

    asyncio.run(story())


def test_secrets_that_rules_need_reach_the_pods_and_missing_ones_are_said() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            server.put(
                policy(
                    "provider",
                    match={"clients": ["10.0.0.0/8"], "listenerRoles": ["Internal"]},
                    action={
                        "type": "Smarthost",
                        "nextHops": [{"host": "smtp.example.net", "port": 587}],
                        "auth": {"secretName": "login"},
                    },
                    tls="Verify",
                )
            )
            async with operated(server) as (pods, _):
                await running(server, pods)
                await until(lambda: is_(server, "RelayPolicy", "provider", "ResolvedRefs", "False", "SecretMissing"))
                status = server.get("RelayPolicy", "provider", NS)["status"]
                assert status["target"] == "smtp.example.net:587"
                encoded = {key: base64.b64encode(key.encode()).decode() for key in ("username", "password")}
                server.put({"kind": "Secret", "metadata": {"name": "login", "namespace": NS}, "data": encoded})
                await until(lambda: is_(server, "RelayPolicy", "provider", "Ready"))
                found = [server.get("Secret", f"edge-keys-{n}", NS)["data"]["keys"] for n in range(4)]
                keys = read_keys([base64.b64decode(one) for one in found])
                assert keys == {"mail/login/username": b"username", "mail/login/password": b"password"}

    asyncio.run(story())


def test_a_tenants_secret_that_is_no_login_does_not_fill_the_shards_of_all() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put({"kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "shop"}}})
            allowed = {"selector": {"matchLabels": {"team": "shop"}}, "nextHops": ["*"]}
            server.put(mta(allowedNamespaces=[allowed]))
            action = {
                "type": "Smarthost",
                "nextHops": [{"host": "smtp.example.net"}],
                "auth": {"secretName": "login"},
            }
            rule = policy("out", match={"podSelector": {}}, action=action, tls="Verify", mtaRef={"name": "edge"})
            rule["metadata"]["namespace"], rule["spec"]["mtaRef"]["namespace"] = "shop", NS
            server.put(rule)
            words = {"username": b"shop", "password": bytes(1_000_000)}
            data = {key: base64.b64encode(value).decode() for key, value in words.items()}
            server.put({"kind": "Secret", "metadata": {"name": "login", "namespace": "shop"}, "data": data})
            async with operated(server) as (pods, world):
                await running(server, pods)

                def keys() -> dict[str, bytes]:
                    found = [server.get("Secret", f"edge-keys-{n}", NS) for n in range(4)]
                    return read_keys([base64.b64decode(one["data"]["keys"]) for one in found if one])

                await until(lambda: keys() == {"shop/login/username": b"shop"})
                data["password"] = base64.b64encode(b"secret").decode()
                server.put({"kind": "Secret", "metadata": {"name": "login", "namespace": "shop"}, "data": data})
                whole = {"shop/login/username": b"shop", "shop/login/password": b"secret"}
                await until(lambda: keys() == whole)
                rule["metadata"]["annotations"] = {"posthof.dev/paused": ""}
                server.put(rule)  # goes on as it is

                def told() -> Any:
                    return condition(server, "RelayPolicy", "out", "Accepted", "shop").get("status")

                await until(lambda: told() == "False" and world.queue.is_idle)
                assert keys() == whole

    asyncio.run(story())


def test_where_clients_come_with_nodes_addresses_no_rule_believes_them_until_the_spec_says_more() -> None:
    """A balancer that translates addresses makes the whole world look like a node: `clients` would let it relay."""

    def believed(server: FakeApi) -> dict[str, bool]:
        return {one.name: one.client_ip_preserved for one in config_of(server).listeners}

    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            async with operated(server) as (pods, _):
                await running(server, pods)
                assert believed(server) == {"smtp": True, "inside": True}
                node = server.get("Pod", "edge-0", NS)["status"]["hostIP"]
                pods.clients = ClientCounts(total=60, private=60, addresses=(node,))
                await until(lambda: believed(server) == {"smtp": False, "inside": True})
                await until(lambda: is_(server, "MTA", "edge", "ClientIPPreserved", "False", "NodeAddressesSeen"))
                asked = pods.asked
                pods.clients = ClientCounts(total=3, private=3, addresses=(node,))  # a quiet night
                await until(lambda: pods.asked > asked + 3)
                assert believed(server) == {"smtp": False, "inside": True}
                pods.clients = ClientCounts(total=60, private=1, addresses=("192.0.2.1",))
                await until(lambda: believed(server) == {"smtp": True, "inside": True})

    asyncio.run(story())


def test_only_pods_that_a_rule_is_about_are_listed_and_only_then_watched() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put({"kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "shop"}}})
            server.put(mta())

            def pod(name: str, ip: str, **spec: Any) -> dict[str, Any]:
                head = {"name": name, "namespace": "shop", "labels": {"app": name}}
                return {"kind": "Pod", "metadata": head, "spec": spec, "status": {"podIP": ip, "phase": "Running"}}

            server.put(pod("web", "10.1.0.1"))
            server.put(pod("hosty", "198.18.0.10", hostNetwork=True))
            async with operated(server) as (pods, world):
                await running(server, pods)
                assert not world.watches.has("Pod", "shop") or server.names("ConfigMap") == ["edge-config-0"]
                rule = policy(
                    "shops",
                    match={"namespaces": {"matchLabels": {"team": "shop"}}},
                    action={"type": "Direct"},
                )
                server.put(rule)
                await until(lambda: server.get("ConfigMap", "edge-pods", NS))

                def listed() -> list[str]:
                    raw = server.get("ConfigMap", "edge-pods", NS)
                    return sorted(read_pods(base64.b64decode(raw["binaryData"]["pods"])))

                assert listed() == ["10.1.0.1"]
                server.put(pod("new", "10.1.0.2"))
                await until(lambda: listed() == ["10.1.0.1", "10.1.0.2"])
                server.remove("Pod", "web", "shop")
                await until(lambda: listed() == ["10.1.0.2"])
                server.remove("RelayPolicy", "shops", NS)
                await until(lambda: server.get("ConfigMap", "edge-pods", NS) is None)

    asyncio.run(story())


def test_a_name_that_is_somebody_elses_is_not_taken() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            foreign = {
                "kind": "Service",
                "metadata": {"name": "edge", "namespace": NS},
                "spec": {"type": "ClusterIP"},
            }
            server.put(foreign)
            server.put(mta())
            async with operated(server) as (_, _):
                await until(lambda: is_(server, "MTA", "edge", "Stalled", reason="ApplyFailed"))
                assert "rename" in condition(server, "MTA", "edge", "Stalled")["message"]
                assert server.get("Service", "edge", NS)["spec"] == {"type": "ClusterIP"}
                assert server.names("Deployment") == ["edge"]

    asyncio.run(story())


def test_an_access_policy_reaches_the_pods_and_says_who_obeys_it() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            server.put(access("trust", dmarc={"reject": "Reject"}))
            async with operated(server) as (pods, _):
                await running(server, pods)
                assert config_of(server).access.name == "mail/trust"
                await until(lambda: is_(server, "AccessPolicy", "trust", "Ready"))
                server.put(access("trust", dmarc={"reject": "Accept"}))
                await until(lambda: config_of(server).access.dmarc.reject == "Accept")
                server.remove("AccessPolicy", "trust", NS)
                await until(lambda: config_of(server).access.name == "")

    asyncio.run(story())


def test_an_account_gets_its_password_and_pods_get_what_checks_it() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            server.put(credential("shop", generate={"length": 20}, allowedSenders=["shop@example.org"]))
            async with operated(server) as (pods, _):
                await running(server, pods)
                await until(lambda: server.get("Secret", "shop-smtp", NS))
                made = server.get("Secret", "shop-smtp", NS)
                data = {key: base64.b64decode(value).decode() for key, value in made["data"].items()}
                assert data["username"] == "shop"
                assert len(data["password"]) == 20
                await until(lambda: "mail/shop-smtp/password.hash" in keys_of(server))
                keys = keys_of(server)
                found = verifiers.parse(keys["mail/shop-smtp/password.hash"].decode())
                assert verifiers.check(found, data["password"])
                assert keys["/accounts"]
                assert data["password"].encode() not in repr(keys).encode()
                assert config_of(server).credentials["mail/shop"].senders == ("shop@example.org",)
                await until(lambda: is_(server, "SMTPCredential", "shop", "Ready"))
                server.put(credential("shop", generate={}, allowedSenders=["*"], expires="2020-01-01T00:00:00Z"))
                await until(lambda: condition(server, "SMTPCredential", "shop", "Usable")["reason"] == "Expired")

    asyncio.run(story())


def keys_of(server: FakeApi) -> dict[str, bytes]:
    found = [server.get("Secret", f"edge-keys-{n}", NS) for n in range(4)]
    return read_keys(base64.b64decode(raw["data"]["keys"]) for raw in found if raw)


def test_a_secret_that_is_somebody_elses_is_nobodys_password() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            data = {"password": "eA=="}
            server.put({"kind": "Secret", "metadata": {"name": "shop-smtp", "namespace": NS}, "data": data})
            server.put(credential("shop", generate={}, allowedSenders=["shop@example.org"]))
            async with operated(server) as (pods, _):
                await running(server, pods)
                await until(lambda: is_(server, "SMTPCredential", "shop", "Accepted"))
                found = condition(server, "SMTPCredential", "shop", "ResolvedRefs")
                assert found["reason"] == "SecretTaken"
                assert server.get("Secret", "shop-smtp", NS)["data"] == {"password": "eA=="}

    asyncio.run(story())
