"""What MailDomains and RelayPolicies are told: who obeys them, and what to do where nobody does."""

from __future__ import annotations

import asyncio
from typing import Any

from kit.fakeapi import FakeApi, until
from kit.operated import NS, condition, config_of, domain, is_, mta, operated, policy, running
from posthof_operator.resources import PAUSED


def served(server: FakeApi) -> list[str]:
    return [name for name in config_of(server).domains if name.endswith(".example")]


def test_without_an_mta_an_object_says_what_to_write() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(domain("acme"))
            async with operated(server):
                await until(lambda: is_(server, "MailDomain", "acme", "Accepted", "False", "NoMTA"))
                assert "mtaRef" in condition(server, "MailDomain", "acme", "Ready")["message"]
                server.put(mta())
                await until(lambda: is_(server, "MailDomain", "acme", "Accepted"))
                server.remove("MTA", "edge", NS)
                await until(lambda: is_(server, "MailDomain", "acme", "Accepted", "False", "NoMTA"))
                assert "bindings" not in server.get("MailDomain", "acme", NS)["status"]

    asyncio.run(story())


def test_of_two_with_one_domain_one_has_it_and_the_other_says_which() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            server.put(domain("acme"))
            server.put(domain("thief", "acme.example"))
            async with operated(server):
                await until(lambda: is_(server, "MailDomain", "thief", "Conflicted"))
                assert "mail/acme" in condition(server, "MailDomain", "thief", "Conflicted")["message"]
                await until(lambda: is_(server, "MailDomain", "acme", "Ready"))
                server.remove("MailDomain", "acme", NS)
                await until(lambda: is_(server, "MailDomain", "thief", "Ready"))
                assert condition(server, "MailDomain", "thief", "Conflicted") == {}

    asyncio.run(story())


def test_a_paused_domain_goes_on_as_it_was() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            server.put(domain("acme"))
            async with operated(server):
                await until(lambda: is_(server, "MailDomain", "acme", "Ready"))
                paused = domain("acme", inbound={"mode": "Reject"})
                paused["metadata"]["annotations"] = {PAUSED: ""}
                server.put(paused)
                await until(lambda: is_(server, "MailDomain", "acme", "Ready", "Unknown", "Paused"))
                assert config_of(server).domains["acme.example"].mode == "LMTP"
            async with operated(server):  # another leader knows it too
                server.put(domain("more"))
                await until(lambda: "more.example" in served(server))
                assert config_of(server).domains["acme.example"].mode == "LMTP"
                paused["metadata"]["annotations"] = {}
                server.put(paused)
                await until(lambda: config_of(server).domains["acme.example"].mode == "Reject")

    asyncio.run(story())


def test_a_memory_that_somebody_garbled_keeps_nobody_from_work() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            server.put(domain("acme"))
            async with operated(server):
                await until(lambda: server.get("ConfigMap", "edge-config-0", NS))
            shard = server.get("ConfigMap", "edge-config-0", NS)
            assert shard is not None
            server.put({**shard, "data": dict.fromkeys(shard["data"], "{ no JSON")})
            async with operated(server):
                server.put(domain("more"))
                await until(lambda: served(server) == ["acme.example", "more.example"])

    asyncio.run(story())


def test_a_tenant_says_only_what_it_may() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            labels = {"kubernetes.io/metadata.name": "shop", "team": "shop"}
            server.put({"kind": "Namespace", "metadata": {"name": "shop", "labels": labels}})
            allowed = [
                {"selector": {"matchLabels": {"team": "shop"}}, "domains": ["shop.example"], "nextHops": ["*"]}
            ]
            server.put(mta(allowedNamespaces=allowed))
            server.put(domain("mine", "shop.example", "shop"))
            server.put(domain("stolen", "bank.example", "shop"))
            server.put(domain("far", "far.example", "elsewhere"))
            async with operated(server) as (_, world):

                def said(name: str, namespace: str = "shop") -> str:
                    return str(condition(server, "MailDomain", name, "Accepted", namespace).get("reason"))

                await until(lambda: (said("mine"), said("stolen")) == ("Accepted", "ProofMissing"))
                await until(lambda: said("far", "elsewhere") == "NoMTA")
                await until(lambda: server.get("ConfigMap", "edge-config-0", NS))
                assert served(server) == ["shop.example"]
                world.prove("bank.example", ["shop/stolen"])
                await until(lambda: said("stolen") == "Accepted")
                labels.pop("team")
                server.put({"kind": "Namespace", "metadata": {"name": "shop", "labels": labels}})
                await until(lambda: said("mine") == "NoMTA")
                await until(lambda: served(server) == [])

    asyncio.run(story())


def test_mailboxes_from_a_config_map_are_followed_and_a_bad_line_changes_nothing() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            inbound = {"mode": "Maildir", "recipients": {"listFrom": {"name": "people", "key": "list"}}}
            server.put(domain("acme", inbound=inbound))

            def people(text: str) -> dict[str, Any]:
                return {"kind": "ConfigMap", "metadata": {"name": "people", "namespace": NS}, "data": {"list": text}}

            async with operated(server):
                await until(lambda: is_(server, "MailDomain", "acme", "Accepted", "False", "ConfigMapMissing"))
                server.put(people("bob\n"))
                await until(lambda: is_(server, "MailDomain", "acme", "Ready"))
                server.put(people("bob\nalice\n"))
                await until(lambda: config_of(server).domains["acme.example"].recipients == {"bob", "alice"})
                server.put(people("bob\na lice\n"))
                await until(lambda: is_(server, "MailDomain", "acme", "Accepted", "False", "ConfigMapInvalid"))
                assert config_of(server).domains["acme.example"].recipients == {"bob", "alice"}

    asyncio.run(story())


def test_a_rule_that_is_never_asked_says_which_one_comes_before() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(mta())
            match = {"clients": ["10.0.0.0/8"]}
            server.put(policy("first", priority=2, match=match, action={"type": "Direct"}))
            server.put(policy("second", priority=1, match=match, action={"type": "Reject"}))
            async with operated(server) as (pods, _):
                await running(server, pods)
                await until(lambda: is_(server, "RelayPolicy", "second", "Ready"))
                assert server.get("RelayPolicy", "second", NS)["status"]["shadowedBy"] == "mail/first"
                assert server.get("RelayPolicy", "first", NS)["status"]["target"] == "MX"
                assert server.get("MTA", "edge", NS)["status"]["policies"] == 2

    asyncio.run(story())
