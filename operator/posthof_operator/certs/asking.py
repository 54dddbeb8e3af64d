"""What it takes to ask an ACME server or a signer of the cluster, and how far it has come: the edge around plan.py.

Rules of this file
- What is missing is a Finding with the mend; what failed is told with the words of whoever refused.
- How often it failed, and when it is tried again, stands in the object's status: a new process goes on from there. A
  changed spec begins anew.
- Account keys are in Secrets that no TLSCert owns: accounts outlive certificates.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Mapping
from typing import Any

from posthof_certs import acme, issue, pair, renewal
from posthof_certs.acme import Account, Refused
from posthof_certs.pair import BadPair, Pair, unix_time
from posthof_certs.solvers import ByHTTP, ByUpdate
from posthof_certs.zone import Key as TSIGKey
from posthof_certs.zone import Record, Server
from posthof_crds.parts import THUMBPRINT
from posthof_crds.reasons import Reason
from posthof_operator import publishing
from posthof_operator.api import ApiError
from posthof_operator.certs import certmanager
from posthof_operator.certs.orders import ByEndpoint, Orders
from posthof_operator.certs.plan import Asking, Finding, next_key_of
from posthof_operator.certs.plan import Snapshot as Seen
from posthof_operator.certs.status import Service
from posthof_operator.certs.wish import Solver, Source, Wish
from posthof_operator.resources import MANAGED_BY, MANAGER, RESOURCES, Key, Raw, owner_reference
from posthof_operator.world import World

log = logging.getLogger("posthof_operator.certificates")

ACCOUNT_KEY = "account.key"
LOOK = 3.0  # seconds between looks at what is missing
POLL = 10.0  # seconds between looks at a request that somebody has to approve

_REQUEST_USAGES = {"ECDSA": ["digital signature", "server auth"]}
_REQUEST_USAGES["RSA"] = ["digital signature", "key encipherment", "server auth"]


class Failure(Exception):
    """What is missing for asking."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.finding = Finding(reason, message)


class Asker:
    """Remembers why the last try of each TLSCert failed."""

    def __init__(self) -> None:
        self._orders = Orders()
        self._failures: dict[Key, tuple[int, Asking]] = {}  # generation, what is known

    def forget(self, key: Key) -> None:
        self._orders.forget(key)
        self._failures.pop(key, None)

    async def close(self) -> None:
        await self._orders.close()

    # ------------------------------------------------------------------ how it stands

    async def look(
        self, seen: Seen, raw: Raw, service: Service, world: World, now: float
    ) -> tuple[Asking, Pair | None]:
        """How it stands, and a pair that has come since the last look."""
        wish = seen.wish
        key = Key("TLSCert", wish.namespace, wish.name)
        asking = self._known(key, raw)
        if wish.source is Source.CSR:
            return await self._look_at_request(seen, raw, asking, world, now)
        ended = self._orders.take(key)
        if ended is not None and ended.refused is not None:
            asking = self._failed(raw, asking, _finding(ended.refused), now, ended.refused.retry_after)
        elif ended is not None:
            self._failures.pop(key, None)
            return Asking(), ended.pair
        if self._orders.is_running(key):
            return asking._replace(is_running=True), None
        try:
            account = await self._account(wish, world)
            _check_answers(wish, service)
            asking = asking._replace(advised=await self._advised(key, account, seen, now))
        except Failure as failure:
            return asking._replace(obstacle=failure.finding, check=now + LOOK), None
        return asking, None

    async def ask(self, seen: Seen, raw: Raw, world: World) -> Asking:
        """Begin. The next key is there: see plan.py."""
        wish, private = seen.wish, next_key_of(seen)
        assert private is not None, "a key is staged before it is asked for"
        if wish.source is Source.CSR:
            await world.api.create(request_of(wish, private))
            return seen.asking._replace(is_running=True, check=world.now().timestamp() + POLL)
        key = Key("TLSCert", wish.namespace, wish.name)
        try:
            account, solver = await self._account(wish, world), await self._solver(wish, raw, world)
        except Failure as failure:
            return seen.asking._replace(obstacle=failure.finding, check=world.now().timestamp() + LOOK)

        def wake(ended: Key) -> None:
            world.enqueue(ended, room="certificates")

        names = wish.order.names
        self._orders.begin(key, account, names=names, private=private, solver=solver, wake=wake)
        return seen.asking._replace(is_running=True)

    def _known(self, key: Key, raw: Raw) -> Asking:
        """What this process remembers, else what the status says."""
        generation = raw["metadata"].get("generation", 0)
        known = self._failures.get(key)
        if known is not None and known[0] == generation:
            return known[1]
        status: Mapping[str, Any] = raw.get("status") or {}
        if not status.get("failures") or status.get("observedGeneration") != generation:
            return Asking()
        again = unix_time(status["nextAttempt"]) if status.get("nextAttempt") else 0.0
        before: Raw = next((one for one in status.get("conditions", ()) if one["type"] == "Ready"), {})
        failure = Finding(Reason.ISSUER_FAILED, str(before.get("message", "the last try failed")).partition(";")[0])
        return Asking(failure=failure, failures=status["failures"], again=again)

    def _failed(self, raw: Raw, asking: Asking, why: Finding, now: float, retry_after: float = 0.0) -> Asking:
        metadata, failures = raw["metadata"], asking.failures + 1
        fresh = Asking(failure=why, failures=failures, again=now + renewal.pause(failures, retry_after))
        key = Key("TLSCert", metadata["namespace"], metadata["name"])
        self._failures[key] = (metadata.get("generation", 0), fresh)
        return fresh

    async def _advised(self, key: Key, account: Account, seen: Seen, now: float) -> float | None:
        if seen.current is None:
            return None
        try:
            facts = pair.read(seen.current)
        except BadPair:
            return None
        return await self._orders.advice(key, account, facts.serial, seen.current.chain, now)

    # ------------------------------------------------------------------ what is needed

    async def _account(self, wish: Wish, world: World) -> Account:
        """The account, whose key is made where there is none. Raises Failure."""
        order = wish.acme
        assert order is not None
        found = await world.api.get("Secret", wish.namespace, order.account)
        data = (found or {}).get("data") or {}
        if found is None:
            key = acme.account_key()
        elif ACCOUNT_KEY in data:
            key = base64.b64decode(data[ACCOUNT_KEY])
        else:
            text = f"Secret {order.account} has no {ACCOUNT_KEY}: name another one in issuer.acme.accountSecretName"
            raise Failure(Reason.SECRET_KEY_MISSING, text)
        try:
            word = acme.thumbprint(key)
        except ValueError:
            text = f"{ACCOUNT_KEY} in Secret {order.account} is no ECDSA P-256 key in PEM"
            raise Failure(Reason.PAIR_INVALID, text) from None
        if found is None:
            await world.api.create(
                _account_secret(wish, order.account, {ACCOUNT_KEY: key, THUMBPRINT: word.encode()})
            )
        elif data.get(THUMBPRINT) != base64.b64encode(word.encode()).decode():
            await world.api.apply(_account_secret(wish, order.account, {THUMBPRINT: word.encode()}))
        eab = None
        if order.eab_key is not None:
            secret = await self._text(wish, order.eab_key.name, order.eab_key.key, world)
            eab = (order.eab_id, secret)
        return Account(order.directory, key, order.contact, order.roots, eab)

    async def _solver(self, wish: Wish, raw: Raw, world: World) -> acme.Solver:
        """Raises Failure."""
        settings = world.settings
        if wish.solver is Solver.HTTP:
            return ByHTTP()
        if wish.solver is Solver.UPDATE:
            update = wish.acme.update if wish.acme is not None else None
            assert update is not None
            secret = await self._text(wish, update.key_secret.name, update.key_secret.key, world)
            key = TSIGKey(update.key_name, update.key_algorithm, secret)
            server = Server(update.server, key, update.zone, update.ttl)
            return ByUpdate(server, settings.resolver, settings.dns_port, warn=log.warning)
        if not await world.api.has(RESOURCES["DNSEndpoint"]):
            text = "this cluster has no DNSEndpoint objects: install ExternalDNS with its definitions, or use rfc2136"
            raise Failure(Reason.CHALLENGE_FAILED, text)
        refused = publishing.why_not(world.store, wish.namespace, wish.order.names)
        if refused:
            raise Failure(Reason.CHALLENGE_FAILED, refused)
        owner, name = owner_reference(raw, "TLSCert"), f"{wish.name}-acme"

        async def put(records: list[Record]) -> None:
            await world.api.apply(certmanager.endpoint(wish, name, records, owner))

        async def take() -> None:
            await world.api.delete(Key("DNSEndpoint", wish.namespace, name))

        return ByEndpoint(asyncio.get_running_loop(), put, take, settings.resolver, settings.dns_port)

    async def _text(self, wish: Wish, name: str, key: str, world: World) -> str:
        secret = await world.api.get("Secret", wish.namespace, name)
        if secret is None:
            raise Failure(Reason.SECRET_MISSING, f"Secret {name} is not there")
        data = secret.get("data") or {}
        if key not in data:
            raise Failure(Reason.SECRET_KEY_MISSING, f"Secret {name} has no {key} in its data: add it")
        return base64.b64decode(data[key]).decode("ascii", "replace").strip()

    # ------------------------------------------------------------------ a signer of the cluster

    async def _look_at_request(
        self, seen: Seen, raw: Raw, asking: Asking, world: World, now: float
    ) -> tuple[Asking, Pair | None]:
        """A request is named after what it asks: a changed wish makes another."""
        wish, private = seen.wish, next_key_of(seen)
        if private is None:
            return asking, None
        key = Key("CertificateSigningRequest", "", request_name(wish, private))
        try:
            live = await world.api.get(key.kind, "", key.name)
        except ApiError as error:
            if error.status != 403:
                raise
            text = "the operator may not make CertificateSigningRequests: it is installed for single namespaces"
            return asking._replace(obstacle=Finding(Reason.ISSUER_FAILED, text)), None
        if live is None:
            return asking, None
        status = live.get("status") or {}
        refused = next((one for one in status.get("conditions", ()) if one["type"] in ("Denied", "Failed")), None)
        if refused is not None:
            await world.api.delete(key, uid=live["metadata"]["uid"])
            said = refused.get("message") or refused.get("reason") or ""
            why = Finding(Reason.ISSUER_FAILED, f"the request was {refused['type'].lower()}: {said}".rstrip(": "))
            return self._failed(raw, asking, why, now), None
        if "certificate" in status:
            self._failures.pop(Key("TLSCert", wish.namespace, wish.name), None)
            return Asking(), Pair(base64.b64decode(status["certificate"]), private)
        is_approved = any(one["type"] == "Approved" for one in status.get("conditions", ()))
        mend = f"signer {wish.signer} has not signed it yet" if is_approved else "kubectl certificate approve it"
        waits = Finding(Reason.APPROVAL_PENDING, f"CertificateSigningRequest {key.name} waits: {mend}")
        return asking._replace(is_running=True, obstacle=waits, check=now + POLL), None

    def refuse(self, seen: Seen, raw: Raw, why: Finding, now: float) -> Asking:
        """What came cannot be served."""
        return self._failed(raw, seen.asking, why, now)

    async def done(self, seen: Seen, made: Pair, world: World) -> None:
        """What it made is stored: the request is not needed any more."""
        if seen.wish.source is Source.CSR:
            name = request_name(seen.wish, made.key)
            await world.api.delete(Key("CertificateSigningRequest", "", name))


def unusable(wish: Wish, made: Pair, now: float) -> Finding | None:
    """Why what came cannot be served, and is thrown away."""
    try:
        facts = pair.read(made)
        pair.check_dates(facts, now)
        pair.check_names(facts, wish.order.names)
    except BadPair as error:
        return Finding(Reason.ISSUER_FAILED, f"what was issued cannot be served: {error.message}")
    return None


def request_name(wish: Wish, private: bytes) -> str:
    asked = f"{wish.namespace}/{wish.name} {wish.signer} {wish.order.names} {pair.pin(private)}"
    return f"posthof-{hashlib.sha256(asked.encode()).hexdigest()[:32]}"


def request_of(wish: Wish, private: bytes) -> Raw:
    """The CertificateSigningRequest. It belongs to the whole cluster, so no TLSCert can own it."""
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {
            "name": request_name(wish, private),
            "labels": {"app.kubernetes.io/name": "posthof", MANAGED_BY: MANAGER},
            "annotations": {"posthof.dev/tlscert": f"{wish.namespace}/{wish.name}"},
        },
        "spec": {
            "request": base64.b64encode(issue.request(wish.order.names, private)).decode(),
            "signerName": wish.signer,
            "expirationSeconds": max(600, int(wish.order.duration)),
            "usages": _REQUEST_USAGES[wish.order.key.algorithm],
        },
    }


def _check_answers(wish: Wish, service: Service) -> None:
    """Raises Failure while nobody would answer the authority."""
    if wish.solver is not Solver.HTTP:
        return
    if not service.is_used:
        text = "no listener of an MTA names it, so nobody answers the authority over HTTP: name it in tls.certRefs"
        raise Failure(Reason.CHALLENGE_FAILED, f"{text}, or use solver.dns01")
    silent = sorted(pod for pod in service.pods if pod not in service.answering)
    if not service.pods or silent:
        who = f"{len(silent)} of {len(service.pods)} pods" if service.pods else "no pod"
        verb = "do not answer the authority over HTTP yet" if service.pods else "is there to answer the authority"
        raise Failure(Reason.ISSUING, f"{who} {verb}")


def _finding(refused: Refused) -> Finding:
    return Finding(Reason.RATE_LIMITED if refused.is_limited else Reason.ISSUER_FAILED, refused.message)


def _account_secret(wish: Wish, name: str, data: Mapping[str, bytes]) -> Raw:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "namespace": wish.namespace,
            "name": name,
            "labels": {"app.kubernetes.io/name": "posthof", MANAGED_BY: MANAGER},
        },
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }
