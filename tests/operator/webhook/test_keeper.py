"""The webhook's certificate: trusted before it is used, renewed before it ends."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from kit.fakeapi import FakeApi
from kit.rooms import Clock, at_work
from posthof_certs import issue, pair
from posthof_certs.issue import ECDSA, Order
from posthof_certs.pair import Pair
from posthof_operator.settings import Settings
from posthof_operator.webhook.keeper import AUTHORITY_DURATION, Keeper, Place, Step, plan, renewed

NOW = 1_800_000_000.0
NAMES = ("posthof-webhook.posthof.svc", "posthof-webhook.posthof.svc.cluster.local")
SETTINGS = Settings(namespace="posthof", webhook_service="posthof-webhook")


def serving(authority: Pair, now: float = NOW) -> Pair:
    return issue.by_authority(Order(NAMES, ECDSA, 90 * 86400.0), issue.read_authority(authority, now), now)


def test_the_steps_come_in_an_order_in_which_the_api_server_always_trusts() -> None:
    authority = renewed(None, NOW)
    assert plan(Place(None, None, {}), NAMES, NOW) is Step.AUTHORITY
    assert plan(Place(authority, None, {"validate.posthof.dev": b""}), NAMES, NOW) is Step.TRUST
    trusting = {"validate.posthof.dev": authority.chain}
    assert plan(Place(authority, None, trusting), NAMES, NOW) is Step.SERVE
    assert plan(Place(authority, serving(authority), trusting), NAMES, NOW) is Step.NONE


def test_a_serving_pair_is_renewed_and_follows_its_names() -> None:
    authority = renewed(None, NOW)
    place = Place(authority, serving(authority), {"w": authority.chain})
    assert plan(place, NAMES, NOW + 61 * 86400) is Step.SERVE
    assert plan(place, ("other.posthof.svc",), NOW) is Step.SERVE
    assert plan(place._replace(serving=Pair(authority.chain, b"x")), NAMES, NOW) is Step.SERVE


def test_an_old_authority_stays_trusted_until_it_ends() -> None:
    old = renewed(None, NOW)
    later = NOW + AUTHORITY_DURATION * 0.7
    assert plan(Place(old, None, {}), NAMES, later) is Step.AUTHORITY
    both = renewed(old, later)
    assert len(pair.certificates(both.chain)) == 2
    standing = serving(old, later)
    # the pair signed by the old one stands until the new one is trusted
    assert plan(Place(both, standing, {"w": old.chain}), NAMES, later) is Step.TRUST
    assert plan(Place(both, standing, {"w": both.chain}), NAMES, later) is Step.SERVE
    after = renewed(both, NOW + AUTHORITY_DURATION + 1)
    assert len(pair.certificates(after.chain)) == 2  # the first has ended


def test_a_damaged_authority_is_replaced() -> None:
    damaged = Pair(b"x", b"y")
    assert plan(Place(damaged, None, {}), NAMES, NOW) is Step.AUTHORITY
    assert issue.read_authority(renewed(damaged, NOW), NOW)


def test_the_configuration_is_trusting_at_the_end_and_the_secrets_are_there() -> None:
    async def story() -> None:
        clock = Clock()
        async with FakeApi() as server, at_work([], server=server, settings=SETTINGS, clock=clock) as world:
            server.put(
                {
                    "apiVersion": "admissionregistration.k8s.io/v1",
                    "kind": "ValidatingWebhookConfiguration",
                    "metadata": {"name": SETTINGS.webhook_configuration},
                    "webhooks": [{"name": "validate.posthof.dev", "clientConfig": {"service": {"name": "x"}}}],
                }
            )
            keeper = Keeper(SETTINGS)
            steps = []
            while not steps or steps[-1] is not Step.NONE:
                steps.append(await keeper.step(world))
            assert steps == [Step.AUTHORITY, Step.TRUST, Step.SERVE, Step.NONE]
            authority, made = (_secret(server, f"posthof-webhook-{end}") for end in ("ca", "tls"))
            assert pair.read(made).names == NAMES
            assert pair.signed_by(pair.certificates(made.chain)[0], pair.certificates(authority.chain)[0])
            assert _bundle(server) == authority.chain
            clock.forward(days=61)
            assert await keeper.step(world) is Step.SERVE
            assert await keeper.step(world) is Step.NONE
            assert _secret(server, "posthof-webhook-tls") != made

    asyncio.run(story())


def test_the_configuration_is_found_under_the_charts_name() -> None:
    assert SETTINGS.webhook_configuration == "posthof-posthof"
    named = Settings(webhook_service="x", webhook_registration="mine")
    assert named.webhook_configuration == "mine"


def _secret(server: FakeApi, name: str) -> Pair:
    raw: dict[str, Any] = server.get("Secret", name, "posthof") or {}
    return Pair(base64.b64decode(raw["data"]["tls.crt"]), base64.b64decode(raw["data"]["tls.key"]))


def _bundle(server: FakeApi) -> bytes:
    raw: dict[str, Any] = server.get("ValidatingWebhookConfiguration", SETTINGS.webhook_configuration) or {}
    hook = raw["webhooks"][0]
    return base64.b64decode(hook["clientConfig"]["caBundle"])
