"""THE STORY of a certificate: read what is wished and what is there, plan, make or copy or order or ask, tell.

Rules of this file
- Secrets are read from the API server when they are needed and forgotten at once: the store has no values.
- A pair is written in one request, so certificate and key change together or not at all.
- Nothing here decides what a certificate should be: see plan.py.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time

from posthof_certs import issue
from posthof_certs.pair import Pair
from posthof_certs.zone import Record, Unpublished
from posthof_crds.reasons import Condition, Reason
from posthof_operator import publishing
from posthof_operator.apply import Foreign
from posthof_operator.certs import certmanager, dane, status
from posthof_operator.certs.asking import Asker, unusable
from posthof_operator.certs.plan import Do, Finding, Plan, Snapshot, maker, next_key_of, plan
from posthof_operator.certs.status import Service
from posthof_operator.certs.wish import Source, Unreadable, Wish, wish_of
from posthof_operator.pods import is_alive, is_reached
from posthof_operator.resources import (
    MANAGED_BY,
    MANAGER,
    MTA_LABEL,
    PAUSED,
    RESOURCES,
    Key,
    Raw,
    key_of,
    owner_reference,
)
from posthof_operator.telling import Voice, tell
from posthof_operator.watches import Subject
from posthof_operator.world import Postponed, Requeue, World

ROOM = "certificates"
LONGEST = 6 * 3600.0  # seconds: clocks change, so dates far away are looked at now and then
PATIENCE = 10.0  # for the first list of a namespace's Secrets
WAITING = 15.0  # for somebody else: cert-manager's words, an API that is installed
STEPS = 3  # a key is staged, then asked with, then the one after it is staged
ASKED = (Source.ACME, Source.CSR)
MADE_BY = "posthof.dev/issuer"  # annotation of a result Secret: who made the pair
ASKING = 300.0  # seconds for which "cert-manager is here" is believed

VOICE = Voice(
    fields=frozenset(
        {
            "observedGeneration",
            "serial",
            "notBefore",
            "notAfter",
            "renewalTime",
            "issuer",
            "secretName",
            "served",
            "servedBy",
            "failures",
            "nextAttempt",
            "nextKey",
            "tlsa",
        }
    ),
    types=frozenset(
        {
            Condition.READY,
            Condition.ISSUING,
            Condition.SERVED,
            Condition.DANE_READY,
            Condition.RECONCILING,
            Condition.STALLED,
        }
    ),
)

log = logging.getLogger("posthof_operator.certificates")


class Certificates:
    """The reconciler of TLSCert."""

    room = ROOM
    kind = "TLSCert"

    def __init__(self) -> None:
        self._asker = Asker()
        self._publisher = dane.Publisher()
        self._cert_manager_until = 0.0  # when the answer "it is here" is asked for again

    async def reconcile(self, key: Key, world: World) -> Requeue | None:
        await _watch(key.namespace, world)
        raw = world.store.get(key)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            self._asker.forget(key)
            self._publisher.forget(key)
            return None  # what was made for it goes with it: it is the owner
        if PAUSED in raw["metadata"].get("annotations", {}):
            says = status.paused()
            await tell(world, raw, says, _kept(raw), VOICE)
            return None
        try:
            wish = wish_of(raw)
        except Unreadable as error:
            await tell(world, raw, status.invalid(str(error)), _kept(raw), VOICE)
            return None
        now = world.now().timestamp()
        service = service_of(key, world)
        snapshot = await self._snapshot(wish, raw, world)
        if wish.source in ASKED:
            snapshot = await self._hear(snapshot, raw, service, world, now)
        standing = await self._dane(snapshot, raw, service, world, now)
        snapshot = snapshot._replace(key_from=_key_from(snapshot, standing))
        found, has_acted = plan(snapshot, now), False
        for _ in range(STEPS):
            if found.do is Do.NOTHING:
                break
            has_acted = True
            snapshot = await self._act(snapshot, found, raw, world, now)
            found = plan(snapshot, now)
        if has_acted:
            standing = await self._dane(snapshot, raw, service, world, now)
        old = raw.get("status") or {}
        says = status.conditions(wish, found, service, old) + dane.condition(wish, standing)
        fields = status.fields(snapshot, found, service, old) | {"tlsa": dane.told(standing)}
        await tell(world, raw, says, fields, VOICE)
        return _sooner(_requeue(wish, found, now), dane.again(standing, now))

    # ------------------------------------------------------------------ what is there

    async def _snapshot(self, wish: Wish, raw: Raw, world: World) -> Snapshot:
        result = await world.api.get("Secret", wish.namespace, wish.result)
        is_given = (wish.source, wish.secret) == (Source.SECRET, wish.result) and wish.has_usual_keys
        snapshot = Snapshot(
            wish,
            current=_pair(result),
            is_foreign=result is not None and not is_given and not _is_ours(result, raw),
            made_by=_maker(result),
        )
        if wish.rotation != "Always" or wish.source in ASKED:
            snapshot = snapshot._replace(next_key=_key(await world.api.get("Secret", wish.namespace, wish.next)))
        if wish.source is Source.CERT_MANAGER:
            return await self._with_order(snapshot, raw, world)
        if is_given:
            return snapshot._replace(source=_source(result, wish))
        if wish.secret:
            return snapshot._replace(source=_source(await world.api.get("Secret", wish.namespace, wish.secret), wish))
        return snapshot

    async def _with_order(self, snapshot: Snapshot, raw: Raw, world: World) -> Snapshot:
        if not await self._has_cert_manager(world):
            return snapshot._replace(has_cert_manager=False)
        wish = snapshot.wish
        live = await world.api.get("Certificate", wish.namespace, wish.name)
        wanted = certmanager.certificate(wish, owner_reference(raw, self.kind))
        return snapshot._replace(ordered=certmanager.ordered(wanted, live))

    async def _has_cert_manager(self, world: World) -> bool:
        if time.monotonic() < self._cert_manager_until:
            return True
        found = await world.api.has(RESOURCES["Certificate"])
        if found:
            self._cert_manager_until = time.monotonic() + ASKING
        return found

    # ------------------------------------------------------------------ what is done

    async def _dane(self, snapshot: Snapshot, raw: Raw, service: Service, world: World, now: float) -> dane.Standing:
        """The TLSA records of the present and the next key: published, looked for, taken away."""
        wish = snapshot.wish
        if wish.dane is None or snapshot.current is None:
            return dane.Standing()
        owner = owner_reference(raw, self.kind)

        async def text(name: str, key: str) -> str:
            secret = await world.api.get("Secret", wish.namespace, name)
            data = (secret or {}).get("data") or {}
            if key not in data:
                raise LookupError(f"Secret {name} is not there, or has no {key}: add it")
            return base64.b64decode(data[key]).decode("ascii", "replace").strip()

        async def endpoint(records: list[Record]) -> None:
            refused = publishing.why_not(world.store, wish.namespace, wish.order.names)
            if refused:
                raise Unpublished(refused)
            await world.api.apply(certmanager.endpoint(wish, f"{wish.name}-dane", records, owner))

        return await self._publisher.stand(
            Key(self.kind, wish.namespace, wish.name),
            wish,
            raw,
            dane.wanted(wish, snapshot.current, next_key_of(snapshot)),
            is_served=status.is_served(snapshot.current, service),
            now=now,
            world=dane.Surroundings(world.settings.resolver, world.settings.dns_port, text, endpoint),
        )

    async def _hear(self, snapshot: Snapshot, raw: Raw, service: Service, world: World, now: float) -> Snapshot:
        """How it stands with an order, and what has come of it. A bad pair never takes the place of a good one."""
        asking, made = await self._asker.look(snapshot, raw, service, world, now)
        snapshot = snapshot._replace(asking=asking)
        if made is None or snapshot.is_foreign:
            return snapshot
        why = unusable(snapshot.wish, made, now)
        if why is not None:
            return snapshot._replace(asking=self._asker.refuse(snapshot, raw, why, now))
        stored = await _store(snapshot, made, raw, world)
        await self._asker.done(snapshot, made, world)
        return stored

    async def _act(self, snapshot: Snapshot, found: Plan, raw: Raw, world: World, now: float) -> Snapshot:
        """Returns the snapshot as it is then."""
        wish, owner = snapshot.wish, owner_reference(raw, self.kind)
        log.info("TLSCert %s/%s: %s: %s", wish.namespace, wish.name, found.do.value, found.why and found.why.message)
        if found.do is Do.ORDER:
            wanted = certmanager.certificate(wish, owner)
            live = await world.api.get("Certificate", wish.namespace, wish.name)
            if live is not None and not _is_ours(live, raw):
                raise Foreign(key_of(wanted))
            return snapshot._replace(ordered=certmanager.ordered(wanted, await world.api.apply(wanted)))
        if found.do is Do.ASK:
            return snapshot._replace(asking=await self._asker.ask(snapshot, raw, world))
        if found.do is Do.STAGE:
            key = issue.pem_key(wish.order.key)
            await world.api.apply(next_secret(wish, key, owner))
            world.metrics.applies.labels("Secret").inc()
            return snapshot._replace(next_key=key)
        if found.do is Do.ISSUE:
            made = make(snapshot, now)
        elif isinstance(snapshot.source, Pair):
            made = snapshot.source
        else:
            return snapshot
        return await _store(snapshot, made, raw, world)


async def _store(snapshot: Snapshot, made: Pair, raw: Raw, world: World) -> Snapshot:
    wish = snapshot.wish
    answer = await world.api.apply(secret_of(wish, made, owner_reference(raw, "TLSCert")))
    world.metrics.applies.labels("Secret").inc()
    return snapshot._replace(current=_pair(answer) or made, made_by=maker(wish))


async def _watch(namespace: str, world: World) -> None:
    """Changes of Secrets (their metadata) are told of wherever there are TLSCerts."""
    is_wanted = next(world.store.keys("TLSCert", namespace), None) is not None
    subjects = [Subject("Secret", namespace)] if is_wanted else []
    try:
        async with asyncio.timeout(PATIENCE):
            await world.watches.want(f"{ROOM}/{namespace}", subjects)
    except TimeoutError:
        raise Postponed("SecretsUnseen", f"the Secrets of namespace {namespace} cannot be listed") from None


def make(snapshot: Snapshot, now: float) -> Pair:
    """A fresh pair, as the wish has it."""
    order = snapshot.wish.order
    key = next_key_of(snapshot)
    if snapshot.wish.source is Source.CA and isinstance(snapshot.source, Pair):
        return issue.by_authority(order, issue.read_authority(snapshot.source, now), now, key=key)
    return issue.self_signed(order, now, key=key)


def secret_of(wish: Wish, made: Pair, owner: Raw) -> Raw:
    """The result Secret."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "namespace": wish.namespace,
            "name": wish.result,
            "labels": certmanager.labels(wish),
            "annotations": {MADE_BY: maker(wish)},
            "ownerReferences": [owner],
        },
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": base64.b64encode(made.chain).decode(),
            "tls.key": base64.b64encode(made.key).decode(),
        },
    }


def next_secret(wish: Wish, key: bytes, owner: Raw) -> Raw:
    """The Secret of the key that the next certificate will have."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "namespace": wish.namespace,
            "name": wish.next,
            "labels": certmanager.labels(wish),
            "ownerReferences": [owner],
        },
        "type": "Opaque",
        "data": {"tls.key": base64.b64encode(key).decode()},
    }


def service_of(key: Key, world: World) -> Service:
    """Which pods should serve it, and what they report."""
    pods: dict[str, str] = {}
    answering: set[str] = set()
    is_used, is_known = False, True
    for mta, held in world.store.all("MTA", key.namespace):
        raw = held.raw()
        if not _names(raw, key.name):
            continue
        is_used = True
        is_known = is_known and mta in world.reports
        reports = world.reports.get(mta, {})
        for name, pod in _living(mta, world):
            served = reports[name].certificates.get(key.name) if name in reports else None
            pods[name] = served.serial if served else ""
            if name in reports and key.name in reports[name].challenges and is_reached(pod, world.now()):
                answering.add(name)
    return Service(pods, is_used, is_known, frozenset(answering))


def _living(mta: Key, world: World) -> list[tuple[str, Raw]]:
    """The MTA's pods by name, but for those that end."""
    found = [
        (pod.name, held.raw())
        for pod, held in world.store.all("Pod", mta.namespace)
        if held.labels.get(MTA_LABEL) == mta.name
    ]
    return [(name, raw) for name, raw in found if is_alive(raw)]


def _names(mta: Raw, certificate: str) -> bool:
    """Whether a listener of the MTA names it."""
    listeners = mta.get("spec", {}).get("listeners", ())
    return any(
        ref.get("name") == certificate for one in listeners for ref in (one.get("tls") or {}).get("certRefs", ())
    )


def _is_ours(live: Raw, owner: Raw) -> bool:
    """Made for this very TLSCert: or by cert-manager for it, or for one of its name before."""
    labels = live["metadata"].get("labels") or {}
    owners = {ref.get("uid") for ref in live["metadata"].get("ownerReferences", ()) if ref.get("controller")}
    name = certmanager.label_value(owner["metadata"]["name"])
    is_labelled = labels.get(MANAGED_BY) == MANAGER and labels.get(certmanager.LABEL) == name
    return is_labelled and (not owners or owner["metadata"].get("uid") in owners or _is_by_cert_manager(live))


def _is_by_cert_manager(live: Raw) -> bool:
    return "cert-manager.io/certificate-name" in (live["metadata"].get("annotations") or {})


def _pair(secret: Raw | None, cert_key: str = "tls.crt", private_key_key: str = "tls.key") -> Pair | None:
    data = (secret or {}).get("data") or {}
    if cert_key not in data or private_key_key not in data:
        return None
    try:
        return Pair(base64.b64decode(data[cert_key]), base64.b64decode(data[private_key_key]))
    except binascii.Error:
        return None


def _maker(secret: Raw | None) -> str:
    return str(((secret or {}).get("metadata", {}).get("annotations") or {}).get(MADE_BY, ""))


def _key(secret: Raw | None) -> bytes | None:
    """The key of a Secret that holds no certificate."""
    data = (secret or {}).get("data") or {}
    try:
        return base64.b64decode(data["tls.key"]) if "tls.key" in data else None
    except binascii.Error:
        return None


def _source(secret: Raw | None, wish: Wish) -> Pair | Finding | None:
    """The pair of a Secret that was named, or which of its keys is missing."""
    if secret is None:
        return None
    cert_key, private_key_key = wish.cert_key, wish.private_key_key
    data = secret.get("data") or {}
    lacking = [name for name in (cert_key, private_key_key) if name not in data]
    if lacking:
        text = f"Secret {wish.secret} has no {' and no '.join(lacking)} in its data: add it"
        return Finding(Reason.SECRET_KEY_MISSING, text)
    return _pair(secret, cert_key, private_key_key)


def _kept(raw: Raw) -> Raw:
    """What was told of the last good one stays told while the object cannot be obeyed."""
    old = raw.get("status", {})
    return {name: old[name] for name in VOICE.fields - {"observedGeneration"} if name in old}


def _key_from(snapshot: Snapshot, standing: dane.Standing) -> float:
    """When another key may be served; at once where no records go before it."""
    if snapshot.wish.dane is None or snapshot.current is None:
        return 0.0
    return standing.key_from(snapshot.wish.dane.ttl)


def _sooner(one: Requeue | None, seconds: float | None) -> Requeue | None:
    if seconds is None:
        return one
    return Requeue(seconds, "DANE") if one is None or seconds < one.after else one


def _requeue(wish: Wish, found: Plan, now: float) -> Requeue | None:
    if wish.source is Source.CERT_MANAGER and (found.trouble is not None or found.why is not None):
        return Requeue(WAITING, "CertManager")
    if found.again is None:
        return None
    return Requeue(min(LONGEST, max(1.0, found.again - now)), "Renewal")
