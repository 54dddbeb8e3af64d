"""The webhook over HTTPS, as the API server asks it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from kit.fakeapi import FakeApi, until
from posthof_certs import issue
from posthof_certs.issue import ECDSA, KeyKind, Order
from posthof_certs.pair import Pair
from posthof_operator.access import Access
from posthof_operator.api import Api
from posthof_operator.metrics import Metrics
from posthof_operator.settings import Settings
from posthof_operator.webhook import server as webhook

SETTINGS = Settings(namespace="posthof", webhook_service="hook", metrics_port=0, webhook_port=0)


def pair(kind: KeyKind = ECDSA) -> Pair:
    import time

    return issue.self_signed(Order(("hook.posthof.svc",), kind, 86400.0), time.time())


def secret(made: Pair) -> dict[str, Any]:
    data = {"tls.crt": base64.b64encode(made.chain).decode(), "tls.key": base64.b64encode(made.key).decode()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "hook-tls", "namespace": "posthof"},
        "data": data,
    }


@contextlib.asynccontextmanager
async def serving(server: FakeApi) -> AsyncIterator[tuple[int, int]]:
    metrics = Metrics()
    async with Api(Access(server=server.url), metrics) as api, webhook.serve(SETTINGS, api, metrics) as ports:
        yield ports


async def presented(port: int) -> bytes:
    """The certificate, DER."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return bytes(found)


def trusting(made: Pair) -> aiohttp.TCPConnector:
    context = ssl.create_default_context(cadata=made.chain.decode())
    return aiohttp.TCPConnector(ssl=context)


async def come(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Ask until the answer is the one that is wanted."""
    async with asyncio.timeout(20):
        while await ask() != wanted:  # noqa: ASYNC110 -- another process would be asked this way too
            await asyncio.sleep(0.02)


async def ready(port: int) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as response:
        return response.status


async def post(http: aiohttp.ClientSession, port: int, body: Any) -> aiohttp.ClientResponse:
    url = f"https://127.0.0.1:{port}/validate"
    return await http.post(url, json=body, server_hostname="hook.posthof.svc")


def review(raw: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "a-uid",
            "kind": {"kind": raw["kind"]},
            "operation": "CREATE",
            "namespace": raw["metadata"]["namespace"],
            "name": raw["metadata"]["name"],
            "object": raw,
        },
    }


def domain(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "posthof.dev/v1alpha1",
        "kind": "MailDomain",
        "metadata": {"name": name, "namespace": "mail"},
        "spec": {"domain": "acme.example", "inbound": {"mode": "Reject"}},
    }


def test_it_is_ready_when_it_has_a_pair_and_answers_over_tls() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            server.put(
                {
                    "apiVersion": "posthof.dev/v1alpha1",
                    "kind": "MTA",
                    "metadata": {"name": "edge", "namespace": "mail"},
                    "spec": {
                        "hostname": "mx.example.org",
                        "listeners": [{"name": "smtp", "role": "MX", "port": 25}],
                    },
                }
            )
            server.put(domain("first"))
            async with serving(server) as (port, health):
                assert await ready(health) == 503
                made = pair()
                server.put(secret(made))
                await come(lambda: ready(health), 200)
                async with aiohttp.ClientSession(connector=trusting(made)) as http:
                    refused = await (await post(http, port, review(domain("second")))).json()
                    assert refused["apiVersion"] == "admission.k8s.io/v1"
                    assert refused["response"]["uid"] == "a-uid"
                    assert refused["response"]["allowed"] is False
                    assert "MailDomain mail/first" in refused["response"]["status"]["message"]
                    other = domain("other")
                    other["spec"]["domain"] = "other.example"
                    allowed = await (await post(http, port, review(other))).json()
                    assert allowed["response"] == {"uid": "a-uid", "allowed": True}
                    assert (await post(http, port, ["nonsense"])).status == 400
                    broken = review(domain("x"))
                    broken["request"]["object"] = {"spec": 7}
                    passed = await (await post(http, port, broken)).json()
                    assert passed["response"]["allowed"] in (True, False)
            assert not server.writes

    asyncio.run(story())


def test_a_new_pair_of_another_kind_is_presented_without_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "LOOK", 0.05)

    async def story() -> None:
        async with FakeApi() as server:
            first, second = pair(), pair(KeyKind("RSA", 2048))
            server.put(secret(first))
            async with serving(server) as (port, health):
                await come(lambda: ready(health), 200)
                assert await presented(port) == ssl.PEM_cert_to_DER_cert(first.chain.decode())
                async with aiohttp.ClientSession(connector=trusting(first)) as http:
                    await post(http, port, review(domain("a")))  # a session that is open
                    server.put(secret(second))
                    wanted = ssl.PEM_cert_to_DER_cert(second.chain.decode())
                    await come(lambda: presented(port), wanted)
                    assert (await post(http, port, review(domain("a")))).status == 200
                    server.put(secret(Pair(first.chain, second.key)))
                    gets = server.counts()["get"]
                    await until(lambda: server.counts()["get"] > gets + 2)
                    assert await presented(port) == wanted  # a pair that does not fit is not taken

    asyncio.run(story())
