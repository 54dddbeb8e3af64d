"""What a destination publishes about TLS, as a Demand on each of its hosts: DANE (RFC 7672), then MTA-STS (RFC 8461).

Asked by mx.py for destinations of the levels Best, DANE and MTASTS, and for no others.

Rules
- DANE is looked for where the MX records and the host's addresses were validated (7672 2.2): else TLSA records say
  nothing. A host that is an alias has them at the end of its aliases, if all of them were validated, else at its own
  name, if that alias was (2.2.2, 2.2.3).
- A TLSA look-up that fails leaves the host out: an attacker must not be able to switch DANE off by silence (2.1.2).
- Usable records: level DANE. Secure records, none of them usable: level Encrypt (2.2).
- A certificate under a trust anchor (usage 2) may name the host or the domain the mail is for (3.2.2).
- DANE goes before MTA-STS (8461 section 2): on a host with TLSA records these decide. Hosts without get what the
  MTA-STS policy wants. An enforced policy leaves out the hosts that it does not name, before anything else.
- Level DANE: hosts without TLSA records are left out. Level MTASTS: a domain without a policy gets no mail.
- Nothing left is Temporary: the destination, or an attacker, may mend it.
- Mail with REQUIRETLS (RFC 8689 4.2.1) needs MX records that are signed, or in an MTA-STS policy, whatever its mode;
  and hosts that prove who they are, by DANE or by a CA. Otherwise it goes back to its sender.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from posthof_crds.engine import TLSLevel
from posthof_pod.model import Demand, Destination, DestinationKind, Host, PolicyType
from posthof_pod.replies import Permanent, Reply, Temporary
from posthof_pod.resolve import tlsa
from posthof_pod.resolve.follow import AliasLoop, Found, Lookup, find
from posthof_pod.resolve.sts import Policies
from posthof_pod.resolve.stspolicy import Mode, Policy
from posthof_pod.resolve.tlsa import TLSA
from posthof_pod.resolve.validation import Validation
from posthof_pod.resolve.wire import BadName, Unanswered

FOREVER = float("inf")
PUBLISHED = frozenset({TLSLevel.BEST, TLSLevel.DANE, TLSLevel.MTASTS})

NO_DANE = Reply(451, "4.7.5", "TLS by DANE is demanded here and the destination offers none")
NO_POLICY = Reply(451, "4.7.5", "An MTA-STS policy is demanded here and the domain has none")
NOT_IN_POLICY = Reply(451, "4.7.5", "No mail server of the domain is in its MTA-STS policy")
NOT_SAFE = Reply(550, "5.7.30", "REQUIRETLS: the mail servers of the domain cannot be found securely")
TLSA_FAILED = Reply(451, "4.7.5", "The TLSA records of the destination cannot be looked up securely")


class Place(NamedTuple):
    """A host that records may be about, before its addresses count."""

    name: str
    port: int


class Wanted(NamedTuple):
    """What was found. `key`: for the site's key; `until`: when the first of it ends."""

    demands: dict[Place, Demand | None]  # None: the host must not be used
    key: str
    until: float
    why: str = ""  # why hosts must not be used


class Secured(NamedTuple):
    """The TLSA records of a host. `failure`: they could not be looked up."""

    base: str
    records: tuple[TLSA, ...]
    until: float
    failure: str = ""


class Demands:
    """One per worker. Without `validation` there is no DANE, without `policies` no MTA-STS."""

    def __init__(
        self, lookup: Lookup, *, validation: Validation | None = None, policies: Policies | None = None
    ) -> None:
        self._lookup = lookup
        self.validation = validation
        self.policies = policies

    async def policy(self, destination: Destination, now: float) -> Policy | None:
        """The MTA-STS policy that counts. Raises Temporary where level MTASTS finds none."""
        if destination.kind is not DestinationKind.DIRECT or destination.tls is TLSLevel.DANE:
            return None
        found = None
        if self.policies is not None and not destination.name.startswith("["):
            found = await self.policies.find(destination.name.rstrip(".").lower(), now)
        if found is None and destination.tls is TLSLevel.MTASTS:
            raise Temporary(NO_POLICY, f"{destination.name}: no MTA-STS policy of mode enforce or testing")
        return found

    async def of(
        self,
        destination: Destination,
        places: Sequence[Place],
        policy: Policy | None,
        now: float,
        *,
        is_secure: bool,
    ) -> Wanted:
        """`is_secure`: the MX records were validated, or the configuration names the hosts. Raises Temporary."""
        is_validated = is_secure and await self._validates(now)
        is_dane = destination.tls is not TLSLevel.MTASTS and is_validated
        if destination.requires_tls and destination.kind is DestinationKind.DIRECT and not (is_validated or policy):
            why = "its MX records are not signed, and it has no MTA-STS policy"
            raise Permanent(NOT_SAFE, f"{destination.name}: {why}")
        if destination.tls is TLSLevel.DANE and not is_dane:
            why = "its MX records are not signed" if await self._validates(now) else "the resolver does not validate"
            raise Temporary(NO_DANE, f"{destination.name}: {why}")
        until = policy.until if policy is not None else FOREVER
        secured: dict[Place, Secured] = {}
        if is_dane:
            places = list(dict.fromkeys(places))
            found = await asyncio.gather(*(self._secured(place, now) for place in places))
            secured = dict(zip(places, found, strict=True))
            until = min([until, *(one.until for one in found)])
        demands = {place: _demand(destination, secured.get(place), policy) for place in places}
        failures = [one.failure for one in secured.values() if one.failure]
        return Wanted(demands, _key(destination, demands, policy), until, "; ".join(failures))

    async def _validates(self, now: float) -> bool:
        return self.validation is not None and await self.validation.holds(now)

    async def _secured(self, place: Place, now: float) -> Secured:
        """The TLSA records that count for a host."""
        until = FOREVER
        for name in await self._bases(place.name, now):
            where = tlsa.base(name, place.port)
            try:
                found = await find(self._lookup, where, "TLSA", now)
            except (Unanswered, AliasLoop) as error:
                return Secured(name, (), now + 60.0, f"{where}: {error}")
            except BadName:
                continue
            until = min(until, found.until)
            records = tuple(data for data in found.data if isinstance(data, TLSA))
            if records and found.is_secure:
                return Secured(name, records, until)
        return Secured(place.name, (), until)

    async def _bases(self, name: str, now: float) -> list[str]:
        """The names that TLSA records of a host may stand below, the best first; none: no address is secure."""
        if "." not in name:
            return []
        found: list[Found] = []
        for kind in ("A", "AAAA"):
            try:
                found.append(await find(self._lookup, name, kind, now))
            except (Unanswered, AliasLoop, BadName):
                continue
        having = [one for one in found if one.data]
        if not having:
            return []
        end = having[0].name
        if all(one.is_secure for one in having):
            return [end] if end == name else [end, name]
        if end == name:
            return []
        try:
            alias = await self._lookup(name, "CNAME", now)
        except (Unanswered, BadName):
            return []
        return [name] if alias.is_secure else []


def is_lenient(policy: Policy, destination: Destination) -> bool:
    """Whether a policy that is not met is only told of."""
    is_strict = destination.tls is TLSLevel.MTASTS or destination.requires_tls
    return policy.mode is Mode.TESTING and not is_strict


def _demand(destination: Destination, secured: Secured | None, policy: Policy | None) -> Demand | None:
    """What one host must meet; None: it must not be used."""
    if secured is not None and secured.failure:
        return None
    if secured is not None and secured.records:
        records = tlsa.usable(secured.records)
        text = tuple(map(str, sorted(secured.records)))
        if records:
            names = [secured.base]
            if any(record.usage == tlsa.DANE_TA for record in records):
                names.append(destination.name.rstrip(".").lower())
            return Demand(
                TLSLevel.DANE, PolicyType.TLSA, secured.base, records, tuple(dict.fromkeys(names)), text=text
            )
        if destination.requires_tls:
            return Demand(TLSLevel.VERIFY, PolicyType.TLSA, secured.base, text=text)
        if destination.tls is not TLSLevel.DANE:
            return Demand(TLSLevel.ENCRYPT, PolicyType.TLSA, secured.base, text=text)
    if destination.tls is TLSLevel.DANE:
        return None
    if policy is None:
        return Demand(TLSLevel.VERIFY if destination.requires_tls else TLSLevel.MAY)
    is_testing = is_lenient(policy, destination)
    return Demand(
        TLSLevel.VERIFY, PolicyType.STS, policy.domain, is_testing=is_testing, text=policy.lines(), mx=policy.mx
    )


def _key(destination: Destination, demands: dict[Place, Demand | None], policy: Policy | None) -> str:
    """What two destinations must share beside their hosts, so that no session serves one under the other's demand."""
    parts: list[str] = []
    having = {place: one for place, one in demands.items() if one is None or one.policy is PolicyType.TLSA}
    if having:
        digest = hashlib.sha256()
        for place, one in sorted(having.items()):
            digest.update(f"{place.name}:{place.port}".encode())
            digest.update(b"-" if one is None else "\n".join(one.text).encode())
        parts.append(f"dane:{digest.hexdigest()[:12]}")
    if any(one is not None and len(one.names) > 1 for one in having.values()):
        parts.append(f"for:{destination.name}")
    if policy is not None:
        parts.append(f"sts:{policy.domain}/{policy.id}/{policy.mode}")
    if destination.tls is not TLSLevel.BEST:
        parts.append(str(destination.tls))
    if destination.requires_tls:
        parts.append("REQUIRETLS")
    return "+".join(parts) or str(TLSLevel.MAY)


def left(destination: Destination, hosts: Sequence[Host], wanted: Wanted) -> list[Host]:
    """The hosts with their demands, without those that must not be used. Raises Temporary where none is left."""
    used: list[Host] = []
    for host in hosts:
        demand = wanted.demands.get(Place(host.name, host.port))
        if demand is not None:
            used.append(host._replace(demand=demand))
    if used or not hosts:
        return used
    if wanted.why:
        raise Temporary(TLSA_FAILED, f"{destination.name}: {wanted.why}")
    raise Temporary(NO_DANE, f"{destination.name}: none of its hosts has TLSA records that can be used")
