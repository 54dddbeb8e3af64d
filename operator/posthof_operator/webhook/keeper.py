"""The webhook's certificate: an authority of its own, a serving pair, and the bundle the API server trusts.

    Secret <service>-ca    the authority (newest first, then those before it that are still valid) and its key
    Secret <service>-tls   the serving pair, which the webhook's pods read
    ValidatingWebhookConfiguration   webhooks[].clientConfig.caBundle, by server-side apply

Rules of this file
- What to do is decided purely (`plan`) from what is there; each pass does one step and looks again.
- A new authority is trusted before it is used: the serving pair is signed by it only when the bundle in the
  configuration has it. An old one is trusted until it ends.
- Only the leader runs this. Without a webhook (no service is set) it does nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import enum
import logging
from typing import NamedTuple

from cryptography.hazmat.primitives import serialization

from posthof_certs import issue, pair, renewal
from posthof_certs.issue import ECDSA, Order
from posthof_certs.pair import BadPair, Facts, Pair
from posthof_operator.api import ApiError
from posthof_operator.resources import MANAGED_BY, MANAGER, RESOURCES, Raw
from posthof_operator.settings import Settings
from posthof_operator.world import World

AUTHORITY_DURATION = 5 * 365 * 86400.0
SERVING_DURATION = 90 * 86400.0
EVERY = 60.0  # seconds between looks
SOON = 0.5  # after a step, and after a failure
FIELD_MANAGER = f"{MANAGER}-webhook"
KIND = "ValidatingWebhookConfiguration"

log = logging.getLogger("posthof_operator.webhook")


class Place(NamedTuple):
    """What there is: pairs as they are in their Secrets, the bundles of the configuration's webhooks by name."""

    authority: Pair | None
    serving: Pair | None
    bundles: dict[str, bytes]


class Step(enum.Enum):
    NONE = "nothing"
    AUTHORITY = "make an authority"
    TRUST = "let the API server trust it"
    SERVE = "make a serving pair"


def plan(place: Place, names: tuple[str, ...], now: float) -> Step:
    """The next step."""
    if place.authority is None or not _is_usable(place.authority, now):
        return Step.AUTHORITY
    bundle = place.authority.chain
    if any(trusted != bundle for trusted in place.bundles.values()):
        return Step.TRUST
    if place.serving is None or not _serves(place.serving, place.authority, names, now):
        return Step.SERVE
    return Step.NONE


def renewed(authority: Pair | None, now: float) -> Pair:
    """A new authority; its chain also has those before it that are still valid, which is what a bundle is."""
    fresh = issue.make_authority("Posthof webhook", AUTHORITY_DURATION, now)
    old = b""
    if authority is not None:
        try:
            valid = [one for one in pair.certificates(authority.chain) if one.not_valid_after_utc.timestamp() > now]
            old = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in valid)
        except BadPair as error:
            log.warning("the authority before is left out: %s", error)
    return Pair(fresh.chain + old, fresh.key)


def _first(authority: Pair) -> Pair:
    """The newest authority alone."""
    newest = pair.certificates(authority.chain)[0]
    return Pair(newest.public_bytes(serialization.Encoding.PEM), authority.key)


def _is_usable(authority: Pair, now: float) -> bool:
    try:
        newest = _first(authority)
        issue.read_authority(newest, now)
        return now < _due(pair.read(newest))
    except BadPair:
        return False


def _serves(serving: Pair, authority: Pair, names: tuple[str, ...], now: float) -> bool:
    try:
        facts = pair.read(serving)
    except BadPair:
        return False
    newest = pair.certificates(authority.chain)[0]
    is_signed = pair.signed_by(pair.certificates(serving.chain)[0], newest)
    return is_signed and set(facts.names) == set(names) and now < _due(facts)


class Keeper:
    """`run` until cancelled."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._service = settings.webhook_service

    @property
    def names(self) -> tuple[str, ...]:
        """What the API server calls the webhook by."""
        host = f"{self._service}.{self._settings.namespace}"
        return (f"{host}.svc", f"{host}.svc.cluster.local")

    async def run(self, world: World) -> None:
        while self._service:
            try:
                step = await self.step(world)
                pause = EVERY if step is Step.NONE else SOON
            except ApiError as error:
                log.warning("the webhook's certificate: %s", error)
                pause = EVERY if error.is_final else SOON
            await asyncio.sleep(pause)

    async def step(self, world: World) -> Step:
        """One look, and what it asks for."""
        place = await self._look(world)
        now = world.now().timestamp()
        step = plan(place, self.names, now)
        if step is Step.AUTHORITY:
            await world.api.apply(self._secret("ca", renewed(place.authority, now)))
        elif step is Step.TRUST and place.authority is not None:
            await self._trust(place, world)
        elif step is Step.SERVE and place.authority is not None:
            order = Order(self.names, ECDSA, SERVING_DURATION)
            made = issue.by_authority(order, issue.read_authority(_first(place.authority), now), now)
            await world.api.apply(self._secret("tls", made))
        if step is not Step.NONE:
            log.info("the webhook's certificate: %s", step.value)
        return step

    async def _look(self, world: World) -> Place:
        namespace = self._settings.namespace
        authority = await world.api.get("Secret", namespace, f"{self._service}-ca")
        serving = await world.api.get("Secret", namespace, f"{self._service}-tls")
        registered = await world.api.get(KIND, "", self._settings.webhook_configuration)
        bundles = {
            hook["name"]: _decoded(hook.get("clientConfig", {}).get("caBundle", ""))
            for hook in (registered or {}).get("webhooks") or ()
        }
        return Place(_pair(authority), _pair(serving), bundles)

    async def _trust(self, place: Place, world: World) -> None:
        assert place.authority is not None
        bundle = base64.b64encode(place.authority.chain).decode()
        body: Raw = {
            "apiVersion": RESOURCES[KIND].api_version,
            "kind": KIND,
            "metadata": {"name": self._settings.webhook_configuration},
            "webhooks": [{"name": name, "clientConfig": {"caBundle": bundle}} for name in sorted(place.bundles)],
        }
        await world.api.apply(body, manager=FIELD_MANAGER)

    def _secret(self, end: str, made: Pair) -> Raw:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "namespace": self._settings.namespace,
                "name": f"{self._service}-{end}",
                "labels": {"app.kubernetes.io/name": "posthof", MANAGED_BY: MANAGER},
            },
            "type": "kubernetes.io/tls",
            "data": {
                "tls.crt": base64.b64encode(made.chain).decode(),
                "tls.key": base64.b64encode(made.key).decode(),
            },
        }


def _pair(secret: Raw | None) -> Pair | None:
    data = (secret or {}).get("data") or {}
    if "tls.crt" not in data or "tls.key" not in data:
        return None
    return Pair(_decoded(data["tls.crt"]), _decoded(data["tls.key"]))


def _decoded(text: str) -> bytes:
    """What is no base64 is as good as nothing: it is made anew."""
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return b""


def _due(facts: Facts) -> float:
    return renewal.due(facts.not_before, facts.not_after, None)
