"""DNSEndpoint objects: there exactly for the MailDomains that ask for ExternalDNS, and as endpoint.py has them.

Rules of this file
- What is there is listed once and again every `ASKING` seconds, not asked for one by one: 10,000 MailDomains that ask
  for nothing cost one list.
- An object with a MailDomain's name that is not ours is left alone, and said.
"""

from __future__ import annotations

from posthof_operator.dns import endpoint
from posthof_operator.dns.rows import Want
from posthof_operator.dns.want import is_in_doubt
from posthof_operator.resources import MANAGED_BY, MANAGER, OWNED, RESOURCES, Key, Raw, key_of, owner_reference
from posthof_operator.world import World

ASKING = 300.0
KIND = "DNSEndpoint"


class Publisher:
    def __init__(self) -> None:
        self._listed = float("-inf")
        self._is_served = False  # this cluster has the API
        self._there: dict[Key, Raw] = {}  # ours -> spec

    async def publish(self, raw: Raw, want: Want | None, world: World) -> str:
        """Make, change or remove the object of one MailDomain. Returns why nothing is published though it is asked
        for, ""."""
        is_asked = (raw.get("spec", {}).get("dns") or {}).get("publish") == "ExternalDNS"
        if not is_asked and not self._there and self._listed > float("-inf"):
            return ""
        await self._list(world)
        if not self._is_served:
            return "dns.publish asks for ExternalDNS, and this cluster has no DNSEndpoint API" if is_asked else ""
        key = Key(KIND, raw["metadata"]["namespace"], raw["metadata"]["name"])
        body = None
        if is_asked and is_in_doubt(raw):
            return ""  # what is published stays: the MX of a domain that is in force must not go with a mistake
        if is_asked and want is not None and want.may_publish:
            body = endpoint.endpoint(key.namespace, key.name, want, owner_reference(raw, "MailDomain"))
        if body is None:
            await self._remove(key, world)
            return ""
        return await self._write(key, body, world)

    def forget(self, domain: Key) -> None:
        """The MailDomain is gone; its object goes with it, because it is the owner."""
        self._there.pop(domain._replace(kind=KIND), None)

    async def _list(self, world: World) -> None:
        now = world.now().timestamp()
        if now - self._listed < ASKING:
            return
        self._is_served = await world.api.has(RESOURCES[KIND])
        self._there = {}
        if self._is_served:
            for namespace in world.settings.watch or ("",):
                found = await world.api.list_(KIND, namespace, labels=OWNED)
                self._there |= {key_of(one, KIND): one.get("spec", {}) for one in found}
        self._listed = now

    async def _remove(self, key: Key, world: World) -> None:
        if key in self._there:
            await world.api.delete(key)
            del self._there[key]

    async def _write(self, key: Key, body: Raw, world: World) -> str:
        if self._there.get(key) == body["spec"]:
            return ""
        if key not in self._there:
            live = await world.api.get(KIND, key.namespace, key.name)
            if live is not None and (live["metadata"].get("labels") or {}).get(MANAGED_BY) != MANAGER:
                return f"DNSEndpoint {key.name} is there and somebody else's: remove or rename it"
        answer = await world.api.apply(body)
        world.metrics.applies.labels(KIND).inc()
        self._there[key] = answer.get("spec") or body["spec"]
        return ""
