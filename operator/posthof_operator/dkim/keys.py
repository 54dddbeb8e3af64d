"""THE STORY of a DKIMKey: have a private key, publish its record, look until every server shows it, let it sign.

Rules of this file
- Level-triggered: each pass finds out what is there and does the next thing; a crash in between costs a pass.
- Once active a key stays active until its spec says otherwise: a server that is away for an hour must not switch
  signatures off. That its record is gone is told.
- Keys of others (secretRef) are read and never written. A Secret with our name that is somebody else's is left alone.
- What is put into a zone by RFC 2136 is taken out when it is replaced (revoked) or not wanted any more.
- Looks and updates are made in threads: a reconcile waits for them, and only this object's does.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime
import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from posthof_certs import dkim, zone
from posthof_certs.dkim import ENTRY, State
from posthof_certs.zone import Record, Unpublished
from posthof_crds.dkimkey import DKIMKey
from posthof_crds.dnsupdate import RFC2136
from posthof_crds.maildomain import MailDomain
from posthof_crds.parts import read
from posthof_crds.reasons import Condition, Reason
from posthof_operator.conditions import Said, moment, said
from posthof_operator.dkim import told
from posthof_operator.dkim.told import Look
from posthof_operator.publishing import is_accepted
from posthof_operator.resources import MANAGED_BY, MANAGER, PAUSED, RESOURCES, Key, Raw, owner_reference
from posthof_operator.telling import Voice, tell
from posthof_operator.world import Requeue, World

HURRIED = 10.0  # seconds between looks while a key waits for DNS
SLOWEST = 120.0
SETTLED = 1800.0  # and when it does not

VOICE = Voice(
    fields=frozenset({"observedGeneration", "phase", "domain", "secretName", "record", "activeSince"}),
    types=frozenset(
        {
            Condition.READY,
            Condition.GENERATED,
            Condition.PUBLISHED,
            Condition.ACTIVE,
            Condition.RETIRING,
            Condition.REVOKED,
            Condition.RECONCILING,
            Condition.STALLED,
        }
    ),
)

log = logging.getLogger("posthof_operator.dkim")

Ask = Callable[[Sequence[Record], Sequence[str]], list[str]]
Change = Callable[[zone.Server, Sequence[Record]], None]


class Keys:
    """The reconciler of DKIMKey. The arguments replace DNS in tests."""

    room = "dkim"
    kind = "DKIMKey"

    def __init__(self, *, ask: Ask | None = None, add: Change = zone.add, remove: Change = zone.remove) -> None:
        self._ask, self._add, self._remove = ask, add, remove
        self._tries: dict[Key, int] = {}
        self._published: dict[Key, tuple[str, str, str]] = {}  # what this process put into the zone, for whom

    async def reconcile(self, key: Key, world: World) -> Requeue | None:
        raw = world.store.get(key)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            self._tries.pop(key, None)
            return await self._gone(key, world)
        if PAUSED in (raw["metadata"].get("annotations") or {}):
            return None
        model, flaws = read("DKIMKey", raw)
        if not isinstance(model, DKIMKey) or flaws:
            await tell(world, raw, _invalid(" ".join(map(str, flaws))), {"phase": "Invalid"}, VOICE)
            return None
        look = await self._look(key, raw, model, world)
        await tell(world, raw, told.conditions(look), told.fields(look), VOICE)
        return self._next(key, look)

    async def _gone(self, key: Key, world: World) -> Requeue | None:
        """Somebody deleted it: what we put into the zone goes as well, for whoever did may not trust the key."""
        published = self._published.get(key)
        if published is None:
            return None
        name, text, domain_name = published
        raw = world.store.get(Key("MailDomain", key.namespace, domain_name))
        domain = read("MailDomain", raw)[0] if raw is not None else None
        if isinstance(domain, MailDomain):
            try:
                await withdraw(key.namespace, domain, [Record(name, "TXT", text)], world, self._remove)
            except Unpublished as error:
                log.warning("%s is gone, and its record is not out of the zone yet: %s", key, error)
                return Requeue(SLOWEST, "RecordStays")
        del self._published[key]
        return None

    def _next(self, key: Key, look: Look) -> Requeue:
        if look.trouble is None and look.is_seen:
            self._tries.pop(key, None)
            return Requeue(SETTLED * random.uniform(0.9, 1.1), "NextLook")
        tries = self._tries[key] = self._tries.get(key, 0) + 1
        return Requeue(min(SLOWEST, HURRIED * 1.5 ** min(tries - 1, 8)), "WaitsForDNS")

    # ------------------------------------------------------------------ one pass

    async def _look(self, key: Key, raw: Raw, model: DKIMKey, world: World) -> Look:
        spec, state = model.spec, State(model.spec.state)
        domain_raw = world.store.get(Key("MailDomain", key.namespace, spec.domain_ref.name))
        domain = read("MailDomain", domain_raw)[0] if domain_raw is not None else None
        if not isinstance(domain, MailDomain):
            text = f"there is no MailDomain {spec.domain_ref.name} in this namespace that can be read: make it"
            return Look(state, trouble=(Reason.DOMAIN_MISSING, text))
        place = domain.spec.domain
        secret = spec.secret_ref.name if spec.secret_ref else f"{key.name}-dkim"
        found = await self._pem(key, raw, model, world)
        if isinstance(found, tuple):
            return Look(state, place, secret, trouble=found)
        try:
            text = dkim.record(found)
        except dkim.BadKey as error:
            trouble = Reason.KEY_INVALID, f"Secret {secret}: {error}: put a key there that can sign"
            return Look(state, place, secret, trouble=trouble)
        if f"k={'rsa' if spec.algorithm == 'RSA' else 'ed25519'};" not in text:
            trouble = Reason.KEY_INVALID, f"Secret {secret} holds no {spec.algorithm} key: correct algorithm"
            return Look(state, place, secret, trouble=trouble)
        look = Look(state, place, secret, dkim.name_of(spec.selector, place), text, text)
        if state is State.REVOKED:
            look = look._replace(text=dkim.REVOKED)
        look = look._replace(active_since=str((raw.get("status") or {}).get("activeSince") or ""))
        look = look._replace(publishing=await self._publish(key, raw, domain, look, world=world))
        return self._seen(await self._asked(look, world), world.now())

    def _seen(self, look: Look, now: datetime.datetime) -> Look:
        if look.is_seen and not look.active_since and look.state is State.ACTIVE:
            return look._replace(active_since=moment(now))
        return look

    async def _asked(self, look: Look, world: World) -> Look:
        record, settings = Record(look.name, "TXT", look.text), world.settings
        ask = self._ask or partial(zone.lacking, port=settings.dns_port)
        try:
            return look._replace(lacking=await asyncio.to_thread(ask, [record], settings.resolver))
        except Unpublished as error:
            return look._replace(lacking=[str(error)], is_asked=False)

    # ------------------------------------------------------------------ the private key

    async def _pem(self, key: Key, raw: Raw, model: DKIMKey, world: World) -> bytes | tuple[Reason, str]:
        """The private key, made where it is not there yet; or why there is none."""
        ref = model.spec.secret_ref
        name, entry = (ref.name, ref.key) if ref else (f"{key.name}-dkim", ENTRY)
        secret = await world.api.get("Secret", key.namespace, name)
        if secret is None:
            if ref is not None:
                return Reason.SECRET_MISSING, f"there is no Secret {name}: make it, or remove secretRef"
            pem = await asyncio.to_thread(dkim.make, model.spec.algorithm, model.spec.size)
            await world.api.create(_secret(key, raw, pem))
            return pem
        if ref is None and (secret["metadata"].get("labels") or {}).get(MANAGED_BY) != MANAGER:
            return (
                Reason.SECRET_TAKEN,
                f"Secret {name} is there and somebody else's: rename it, or name it in secretRef",
            )
        value = (secret.get("data") or {}).get(entry)
        try:
            return base64.b64decode(value or "", validate=True) if value else _no_entry(name, entry)
        except binascii.Error:
            return Reason.KEY_INVALID, f"Secret {name}: {entry} is no base64"

    # ------------------------------------------------------------------ the record

    async def _publish(self, key: Key, raw: Raw, domain: MailDomain, look: Look, *, world: World) -> str:
        """Put the record where the MailDomain says. Returns why it cannot be, ""."""
        dns = domain.spec.dns
        if dns.rfc2136 is not None:
            if self._published.get(key, ())[:2] == (look.name, look.text):
                return ""
            stale = [Record(look.name, "TXT", look.plain)] if look.text != look.plain else []
            try:
                server = await server_of(dns.rfc2136, key.namespace, world)
                if stale:
                    await asyncio.to_thread(self._remove, server, stale)
                await asyncio.to_thread(self._add, server, [Record(look.name, "TXT", look.text)])
            except Unpublished as error:
                return str(error)
            self._published[key] = (look.name, look.text, domain.metadata.name)
            return ""
        if dns.publish == "ExternalDNS":
            live = world.store.get(Key("MailDomain", key.namespace, domain.metadata.name))
            # Whoever may write a MailDomain must not publish under anybody's domain by it, nor by renaming it.
            if not is_accepted(live) or live is None or live["spec"]["domain"].lower() != domain.spec.domain.lower():
                return "it is published when an MTA accepts the MailDomain: see its condition Accepted"
            if not await world.api.has(RESOURCES["DNSEndpoint"]):
                return "dns.publish asks for ExternalDNS, and this cluster has no DNSEndpoint API"
            await world.api.apply(_endpoint(key, raw, look))
        return ""


async def withdraw(
    namespace: str, domain: MailDomain, records: Sequence[Record], world: World, remove: Change
) -> None:
    """Take records out of the zone; those that are not there are no error. Raises Unpublished."""
    rfc2136 = domain.spec.dns.rfc2136
    if rfc2136 is not None:
        server = await server_of(rfc2136, namespace, world)
        await asyncio.to_thread(remove, server, list(records))


async def server_of(part: RFC2136, namespace: str, world: World) -> zone.Server:
    """Where updates go, with the key of its Secret. Raises Unpublished."""
    tsig = part.tsig
    secret = await world.api.get("Secret", namespace, tsig.secret_name)
    value = ((secret or {}).get("data") or {}).get(tsig.secret_key)
    if not value:
        raise Unpublished(f"Secret {tsig.secret_name} has no {tsig.secret_key}: the key of dns.rfc2136 is not there")
    try:
        text = base64.b64decode(value).decode("ascii").strip()
    except (binascii.Error, UnicodeDecodeError):
        raise Unpublished(f"Secret {tsig.secret_name}: {tsig.secret_key} is no TSIG secret in base64") from None
    return zone.Server(part.server, zone.Key(tsig.name, tsig.algorithm, text), part.zone or "", part.ttl)


def _no_entry(name: str, entry: str) -> tuple[Reason, str]:
    return Reason.SECRET_KEY_MISSING, f"Secret {name} has no {entry} in its data: add it"


def _secret(key: Key, owner: Raw, pem: bytes) -> Raw:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(key, f"{key.name}-dkim", owner),
        "type": "Opaque",
        "data": {ENTRY: base64.b64encode(pem).decode("ascii")},
    }


def _endpoint(key: Key, owner: Raw, look: Look) -> Raw:
    entry: dict[str, Any] = {
        "dnsName": look.name,
        "recordType": "TXT",
        "recordTTL": 3600,
        "targets": [dkim.quoted(look.text)],
    }
    return {
        "apiVersion": RESOURCES["DNSEndpoint"].api_version,
        "kind": "DNSEndpoint",
        "metadata": _metadata(key, f"{key.name}-dkim", owner),
        "spec": {"endpoints": [entry]},
    }


def _metadata(key: Key, name: str, owner: Raw) -> Raw:
    return {
        "namespace": key.namespace,
        "name": name,
        "labels": {"app.kubernetes.io/name": "posthof", MANAGED_BY: MANAGER},
        "ownerReferences": [owner_reference(owner, "DKIMKey")],
    }


def _invalid(text: str) -> list[Said]:
    return [
        said(Condition.READY, False, Reason.INVALID, text),
        said(Condition.STALLED, True, Reason.INVALID, text),
    ]
