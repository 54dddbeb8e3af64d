"""THE STORY of a domain's DNS: what to expect, what was seen, tell both; and look again when it is time.

Rules of this file
- A reconcile never waits for DNS. A look runs beside it, and when it ends the MailDomain is reconciled again.
- What DNS did not answer is as it was before: neither a status nor a proof is lost because a resolver is away.
- A proof counts from the answer that has it until an answer that has it not.
- At most `LOOKS` domains are looked at at a time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from posthof_crds.reasons import Condition
from posthof_operator.api import ApiError
from posthof_operator.dns import agenda, proof, status
from posthof_operator.dns.agenda import Entry
from posthof_operator.dns.ledger import Damaged, Ledger
from posthof_operator.dns.observe import observe
from posthof_operator.dns.publisher import Publisher
from posthof_operator.dns.rows import Rows, Seen, State, Want, expected_mx, remembered, rows
from posthof_operator.dns.spf import Ask
from posthof_operator.dns.want import House, certificates_of, domain_of, house_of, want_of
from posthof_operator.dns.wire import Wire
from posthof_operator.owned import owned
from posthof_operator.resources import MANAGER, PAUSED, Key, Raw
from posthof_operator.telling import Voice, tell
from posthof_operator.world import Postponed, Requeue, World

ROOM = "dns"
HOUSES_ROOM = "dns-houses"
LOOKS = 16
GATHER = 1.0  # seconds in which new proofs become one write

VOICE = Voice(
    fields=frozenset({"dnsRecords", "dns", "proof"}),
    types=frozenset({Condition.DNS_READY, Condition.MTA_STS_READY}),
    manager=f"{MANAGER}-dns",
)

log = logging.getLogger("posthof_operator.dns")


@dataclass
class Known:
    """What is remembered of one MailDomain."""

    want: Want
    entry: Entry
    seen: Seen | None = None
    look: asyncio.Task[None] | None = None
    looks: int = 0
    told: tuple[int, int, str, list[Raw]] | None = None  # generation, after how many looks, hint, records of keys


class Domains:
    """The reconciler of a MailDomain's DNS. `ask` replaces the configured resolver in tests."""

    room = ROOM
    kind = "MailDomain"

    def __init__(self, *, ask: Ask | None = None, chance: Callable[[], float] = random.random) -> None:
        self._ask, self._chance = ask, chance
        self._known: dict[Key, Known] = {}
        self._ledger: Ledger | None = None
        self._looks = asyncio.Semaphore(LOOKS)
        self._storing: asyncio.Task[None] | None = None
        self._publisher = Publisher()
        self._houses: dict[Key, tuple[str, House, tuple[str, ...]]] = {}  # by resourceVersions; its TLSCerts
        self._domain_of: dict[str, str] = {}  # "namespace/name" -> the domain it has proven

    async def prepare(self, world: World) -> None:
        """Before any MTA is reconciled: who has proven what. Raises ApiError, Postponed."""
        ledger = Ledger(world.api, world.settings.namespace)
        try:
            await ledger.load()
        except Damaged as error:
            raise Postponed("ProofsDamaged", str(error)) from None
        self._ledger = ledger
        for domain, names in ledger.proven.items():
            standing = [name for name in names if _domain_of(world, name) == domain]  # others vanished meanwhile
            self._domain_of |= dict.fromkeys(standing, domain)
            world.prove(domain, standing)

    async def reconcile(self, key: Key, world: World) -> Requeue | None:
        ledger = await self._loaded(world)
        raw = world.store.get(key)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            self._forget(key, world)
            self._publisher.forget(key)
            return None
        if PAUSED in raw["metadata"].get("annotations", {}):
            return None
        want = want_of(
            raw,
            lambda *mta: self._house(world, *mta),
            ledger.salt,
            is_proven=f"{key.namespace}/{key.name}" in self._domain_of,
        )
        if want is None:
            self._forget(key, world)
            if _is_judged(raw):
                await tell(world, raw, [status.not_checked()], {}, VOICE)
            await self._publisher.publish(raw, None, world)
            return None
        known = self._remember(key, raw, want, world)
        hint = await self._publisher.publish(raw, want, world)
        await self._tell(raw, want, known, hint, world)
        return self._next(key, known, world)

    async def _tell(self, raw: Raw, want: Want, known: Known, hint: str, world: World) -> None:
        """Once per look, and when something else is expected. Before the first look, what an earlier process told
        stands."""
        seen, generation = known.seen, raw["metadata"].get("generation", 0)
        keys = _key_records(raw, world)
        if seen is None or known.told == (generation, known.looks, hint, keys):
            return
        found = rows(want, seen)
        says = [status.ready(want, found, seen, hint), *filter(None, [status.policy_ready(want, found)])]
        await tell(world, raw, says, status.fields(want, found, keys), VOICE)
        known.told = (generation, known.looks, hint, keys)

    # ------------------------------------------------------------------ what is remembered

    def _house(self, world: World, namespace: str, name: str) -> House | None:
        """An MTA, read once per version: ten thousand domains ask for the same."""
        key = Key("MTA", namespace, name)
        held = world.store.held(key)
        if held is None:
            return None
        known = self._houses.get(key)
        names = known[2] if known is not None and known[0].startswith(f"{held.version} ") else None
        if names is None:
            names = tuple(certificates_of(held.raw()))
        certs = [cert for one in names if (cert := world.store.held(Key("TLSCert", namespace, one))) is not None]
        version = " ".join([held.version, *(cert.version for cert in certs)])
        if known is None or known[0] != version:
            house = house_of(held.raw(), [cert.raw() for cert in certs])
            known = self._houses[key] = (version, house, names)
        return known[1]

    async def _loaded(self, world: World) -> Ledger:
        if self._ledger is None:
            await self.prepare(world)
        assert self._ledger is not None
        return self._ledger

    def _remember(self, key: Key, raw: Raw, want: Want, world: World) -> Known:
        now = world.now().timestamp()
        known = self._known.get(key)
        if known is not None and known.want.domain != want.domain:
            self._forget(key, world)
            known = None
        if known is None:
            is_known = _was_right(raw, want)
            known = self._known[key] = Known(want, agenda.first(now, self._chance(), is_known=is_known))
        elif known.want != want:
            known.want, known.entry, known.told = want, Entry(now), None
        return known

    def _forget(self, key: Key, world: World) -> None:
        """It is gone, or no longer looked at; what it had proven it has not proven any more."""
        known = self._known.pop(key, None)
        if known is not None and known.look is not None:
            known.look.cancel()
        name = f"{key.namespace}/{key.name}"
        domain = self._domain_of.get(name)
        if domain is not None:
            self._prove(world, domain, name, is_proven=False)

    # ------------------------------------------------------------------ looking

    def _next(self, key: Key, known: Known, world: World) -> Requeue | None:
        """Begin a look when it is due, else come back then. A look that runs brings us back by itself."""
        if known.look is not None:
            return None
        wait = known.entry.due - world.now().timestamp()
        if wait > 0:
            return Requeue(wait, "NextLook")
        known.look = asyncio.create_task(self._look(key, known, world), name=f"dns {key.namespace}/{key.name}")
        return None

    async def _look(self, key: Key, known: Known, world: World) -> None:
        try:
            want = known.want
            async with self._looks:
                fresh = await observe(want, self._asker(world))
            known.seen = remembered(known.seen, fresh)
            known.looks += 1
            found = rows(want, known.seen)
            self._judge_proof(key, want, fresh, world)
            if known.want == want:  # else what changed meanwhile is looked at at once
                known.entry = agenda.following(
                    known.entry,
                    world.now().timestamp(),
                    self._chance(),
                    is_right=not fresh.troubles and _is_right(found),
                    is_answered=not fresh.troubles,
                )
        except Exception:
            log.exception("a look at the DNS of %s", key)
            known.entry = agenda.following(
                known.entry, world.now().timestamp(), self._chance(), is_right=False, is_answered=False
            )
        finally:
            known.look = None
            world.enqueue(key, room=ROOM)

    def _asker(self, world: World) -> Ask:
        if self._ask is None:
            self._ask = Wire(world.settings.resolver).ask
        return self._ask

    # ------------------------------------------------------------------ proofs

    def _judge_proof(self, key: Key, want: Want, fresh: Seen, world: World) -> None:
        """Only an answer changes what is proven."""
        if fresh.challenge is None:
            return
        is_proven = bool(want.proof) and proof.holds(want.proof, fresh.challenge)
        self._prove(world, want.domain, f"{key.namespace}/{key.name}", is_proven=is_proven)

    def _prove(self, world: World, domain: str, name: str, *, is_proven: bool) -> None:
        before = world.proven.get(domain, frozenset())
        after = before | {name} if is_proven else before - {name}
        if is_proven:
            self._domain_of[name] = domain
        else:
            self._domain_of.pop(name, None)
        if not world.prove(domain, after):
            return
        log.info("%s %s %s", name, "has proven" if is_proven else "has no proof any more of", domain)
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store(world), name="proofs")

    async def _store(self, world: World) -> None:
        """Until what is kept is what is known."""
        while True:
            await asyncio.sleep(GATHER)
            ledger = self._ledger
            proven = {domain: sorted(names) for domain, names in sorted(world.proven.items())}
            try:
                if ledger is None or not await ledger.store(proven):
                    return
            except ApiError as error:
                log.warning("proofs are not kept yet: %s", error)


class Houses:
    """Wakes the MailDomains when what DNS has to do with changes in an MTA."""

    room = HOUSES_ROOM
    kind = "MTA"

    def __init__(self) -> None:
        self._known: dict[Key, House] = defaultdict(lambda: House(""))

    async def reconcile(self, key: Key, world: World) -> Requeue | None:
        raw = world.store.get(key)
        fresh = House("") if raw is None else house_of(raw)
        if fresh != self._known[key]:
            self._known[key] = fresh
            world.enqueue_all("MailDomain", room=ROOM)
        return None


def _key_records(raw: Raw, world: World) -> list[Raw]:
    """The records of its DKIM keys, as the room of these has found them."""
    metadata = raw["metadata"]
    keys = [world.store.get(key) for key in owned(world.store).of(metadata["namespace"], metadata["name"])]
    records = [(key.get("status") or {}).get("record") for key in keys if key is not None]
    return [record for record in records if record][:32]


def _domain_of(world: World, name: str) -> str:
    """The domain of the MailDomain "namespace/name", "" where there is none."""
    namespace, _, short = name.partition("/")
    raw = world.store.get(Key("MailDomain", namespace, short))
    return "" if raw is None else domain_of(raw)


def _is_judged(raw: Raw) -> bool:
    """Whether the MTAs have said something about it yet."""
    return any(one["type"] == Condition.ACCEPTED for one in raw.get("status", {}).get("conditions") or ())


def _was_right(raw: Raw, want: Want) -> bool:
    """Whether an earlier process has looked for the same, and found nothing to wait for."""
    status_, expected = raw.get("status", {}), expected_mx(want)
    records = status_.get("dnsRecords") or ()
    return (
        all(one.get("state") in ("ok", "off", "unknown") for one in records)
        and any(one.get("purpose") == "mx" and one.get("expected", "") == expected for one in records)
        and status_.get("proof", {}).get("value", "") == want.proof
        and {one.get("expected") for one in records if one.get("purpose") in ("mtaSts", "tlsRpt")}
        == ({want.policy.record} if want.policy else set()) | ({want.tls_rpt} if want.tls_rpt else set())
    )


def _is_right(found: Rows) -> bool:
    """Nothing to wait for: what is unknown for want of an expectation stays so."""
    return all(row.state in (State.OK, State.OFF, State.UNKNOWN) for row in found.all)
