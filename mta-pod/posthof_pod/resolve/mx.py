"""From a Destination to the addresses to try, in order: RFC 5321 section 5.

Owns: the rules of MX, SRV and address records, and the key of a site. Asks through a `lookup` (cache.py), takes
random numbers from `rng`, and learns of this machine through `Own` and `has_route`.

Rules
- MX by preference, in random order inside one; no MX: the domain itself (implicit MX); only ".": no mail (RFC 7505).
- Our own name, or an address where we listen, in the list: it ends before that preference; nothing left: a loop.
- Per preference the hosts take turns, and so do the families, IPv4 first: it reaches nearly everything, and IPv6
  stands in. The family of a source address the policy names goes first; IPv6 without a route goes last.
- At most 5 addresses; where there is a second preference, one of them is from there.
- What an address says decides (its domain does not exist: 5.1.2); what our configuration names may be broken for a
  while: whatever is wrong with a smarthost or an LMTP host is Temporary.
- One host whose look-up fails is passed over while another is found; only when none is, the failure is told, and it
  is Temporary if any look-up was.
- 0.0.0.0 and :: would be this machine: never tried, nor are multicast addresses.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from typing import NamedTuple

from posthof_crds.engine import HopKind, NextHop
from posthof_pod.model import Destination, DestinationKind, Host, Route
from posthof_pod.replies import Failure, Permanent, Reply, Temporary
from posthof_pod.resolve.demands import NOT_IN_POLICY, PUBLISHED, Demands, Place, is_lenient, left
from posthof_pod.resolve.follow import AliasLoop, Found, Lookup, find
from posthof_pod.resolve.own import Own, has_route
from posthof_pod.resolve.stspolicy import Policy
from posthof_pod.resolve.tlsa import TLSA
from posthof_pod.resolve.wire import BadName, Unanswered

MOST_ADDRESSES = 5
MOST_HOSTS = 20  # MX or SRV records looked at
SHORTEST_ROUTE = 10.0
FOREVER = float("inf")

DNS_FAILED = Reply(451, "4.4.3", "DNS does not answer for this destination at the moment")
UNKNOWN_DOMAIN = Reply(550, "5.1.2", "The domain does not exist or has no mail server")
NO_MAIL = Reply(556, "5.1.10", "The domain takes no mail (null MX)")
LOOP = Reply(550, "5.4.6", "Mail for this domain would come back to this server")
NO_HOST = Reply(550, "5.4.4", "No mail server of the domain has an address")
NO_HOST_NOW = Reply(451, "4.4.4", "No address of the next hop is known at the moment")
LOOP_NOW = Reply(451, "4.4.6", "The next hop is this server")


class Target(NamedTuple):
    """A name (or an address, or a path) and a port to find addresses for."""

    name: str
    port: int


class Plan(NamedTuple):
    """Where mail goes before addresses are known: ranks of targets, the best first, in the order to try."""

    ranks: tuple[tuple[Target, ...], ...]
    until: float = FOREVER
    is_path: bool = False
    is_secure: bool = False  # validated, or named by the configuration


class Resolver:
    """Makes Routes. One per worker."""

    def __init__(
        self,
        lookup: Lookup,
        *,
        own: Own,
        rng: Callable[[], float],
        direct_port: int = 25,
        search: Callable[[], tuple[tuple[str, ...], int]] = lambda: ((), 1),
        hosts: Callable[[str], Sequence[str]] = lambda _: (),
        route_known: Callable[[str], bool] = has_route,
        peek: Callable[[str, str, float], object | None] = lambda _name, _kind, _now: None,
        demands: Demands | None = None,
        outside_policy: Callable[[Policy, str], object] = lambda _policy, _host: None,
    ) -> None:
        """`search`: search domains and ndots, `hosts`: addresses in /etc/hosts; both only for names of next hops.

        `peek`: what the cache holds, None where `lookup` would have to ask. `outside_policy(policy, host)` is told of
        an MX host that the domain's MTA-STS policy does not name.
        """
        self._demands = demands or Demands(lookup)
        self._outside_policy = outside_policy
        self._lookup = lookup
        self._peek = peek
        self._own = own
        self._rng = rng
        self._direct_port = direct_port
        self._search = search
        self._hosts = hosts
        self._route_known = route_known

    async def route(self, destination: Destination, now: float) -> Route:
        """The addresses to try, up to 5. Raises Temporary and Permanent; `now` in seconds of the cache's epoch."""
        hops = destination.hops
        if destination.kind is DestinationKind.DIRECT:
            if not destination.name.startswith("[") and address_literal(destination.name):
                raise Permanent(UNKNOWN_DOMAIN, f"{destination.name}: an address without brackets is no domain")
            hops = (NextHop(kind=HopKind.MX, name=destination.name, port=self._direct_port),)
        failures: list[Failure] = []
        plans: list[Plan] = []
        hosts: list[Host] = []
        until = FOREVER
        is_published = destination.tls in PUBLISHED and destination.kind is not DestinationKind.LMTP
        policy = await self._demands.policy(destination, now) if is_published else None
        for hop in hops:
            try:
                plan = await self._plan(hop, now)
                if policy is not None:
                    plan = self._within(plan, policy, destination)
                plans.append(plan)
                found, ends = await self._addresses(plan, destination, now)
            except (Temporary, Permanent) as failure:
                failures.append(failure)
                continue
            hosts += [host for host in found if host not in hosts]
            until = min(until, plan.until, ends)
        if not hosts:
            raise _worst(failures, is_configured=destination.kind is not DestinationKind.DIRECT)
        ranks = [rank for plan in plans for rank in plan.ranks]
        tls = str(destination.tls)
        if is_published:
            places = [Place(target.name, target.port) for rank in ranks for target in rank]
            is_secure = all(plan.is_secure for plan in plans)
            wanted = await self._demands.of(destination, places, policy, now, is_secure=is_secure)
            hosts, tls, until = left(destination, hosts, wanted), wanted.key, min(until, wanted.until)
        site = site_key(destination, ranks, tls)
        return Route(site, tuple(hosts[:MOST_ADDRESSES]), max(until, now + SHORTEST_ROUTE))

    def _within(self, plan: Plan, policy: Policy, destination: Destination) -> Plan:
        """The hosts that the domain's MTA-STS policy names (RFC 8461 4.1); in testing all of them, and it is told."""
        outside = {target.name for rank in plan.ranks for target in rank if not policy.has(target.name)}
        for name in sorted(outside):
            self._outside_policy(policy, name)
        if not outside or is_lenient(policy, destination):
            return plan
        ranks = (tuple(target for target in rank if target.name not in outside) for rank in plan.ranks)
        kept = tuple(rank for rank in ranks if rank)
        if not kept:
            raise Temporary(NOT_IN_POLICY, f"{policy.domain}: its policy names {', '.join(policy.mx)}")
        return plan._replace(ranks=kept)

    async def _plan(self, hop: NextHop, now: float) -> Plan:
        if hop.kind is HopKind.UNIX:
            return Plan(((Target(hop.name, 0),),), is_path=True)
        if hop.kind is HopKind.SRV:
            return await self._srv(hop.name, now)
        literal = address_literal(hop.name)
        if literal or hop.kind is HopKind.HOST:
            return Plan(((Target(literal or hop.name.rstrip(".").lower(), hop.port),),), is_secure=not literal)
        return await self._mx(hop.name, hop.port, now)

    async def _mx(self, domain: str, port: int, now: float) -> Plan:
        """The MX rules (RFC 5321 5.1, RFC 7505)."""
        if domain.startswith("["):
            raise Permanent(Reply(550, "5.1.3", "This address literal is not understood"), f"{domain}: no IP address")
        found = await self._find(domain.rstrip(".").lower(), "MX", now)
        records = sorted(data for data in found.data if isinstance(data, tuple) and len(data) == 2)
        usable = [record for record in records if record[1] != "."][:MOST_HOSTS]
        if not usable:
            if records:
                raise Permanent(NO_MAIL, f"{domain}: null MX")
            # NXDOMAIN for MX is not believed alone: some servers answer so for a name that has an address
            return Plan(((Target(found.name, port),),), found.until, is_secure=found.is_secure)
        own = min((preference for preference, host in usable if self._own.is_name(host)), default=1 << 16)
        ranks = [
            tuple(self._shuffled([Target(host, port) for p, host in usable if p == preference]))
            for preference in sorted({preference for preference, _ in usable})
            if preference < own
        ]
        if not ranks:
            raise Permanent(LOOP, f"{domain}: the best MX is this server")
        return Plan(tuple(ranks), found.until, is_secure=found.is_secure)

    async def _srv(self, name: str, now: float) -> Plan:
        """RFC 2782: by priority, inside one in an order drawn by weight."""
        found = await self._find(name.rstrip(".").lower(), "SRV", now)
        records = sorted(
            data for data in found.data if isinstance(data, tuple) and len(data) == 4 and not isinstance(data, TLSA)
        )[:MOST_HOSTS]
        usable = [record for record in records if record[3] != "."]
        if not usable:
            said = "the service is not offered" if records else "no SRV record"
            raise Permanent(NO_HOST, f"{name}: {said}")
        ranks = []
        for priority in sorted({record[0] for record in usable}):
            weighted = [(record[1], Target(record[3], record[2])) for record in usable if record[0] == priority]
            ranks.append(tuple(self._drawn(weighted)))
        return Plan(tuple(ranks), found.until, is_secure=found.is_secure)

    async def look_ahead(self, now: float) -> None:
        """Find out, and tell, whether the resolver validates, before the first mail needs to know."""
        if self._demands.validation is not None:
            await self._demands.validation.holds(now)

    async def addresses(self, name: str, now: float) -> list[str]:
        """The addresses of a host of the world, IPv4 first. Raises Temporary, Permanent."""
        return [address for address in (await self._both_families(name, now))[0] if _is_usable(address)]

    def _shuffled(self, targets: list[Target]) -> list[Target]:
        return [target for _, target in sorted((self._rng(), target) for target in targets)]

    def _drawn(self, weighted: list[tuple[int, Target]]) -> list[Target]:
        """Draw one after the other, each with the chance of its weight; weight 0 has a very small one."""
        left = sorted(weighted)
        order = []
        while left:
            point = self._rng() * sum(weight or 0.01 for weight, _ in left)
            at = 0
            while at < len(left) - 1 and point >= (left[at][0] or 0.01):
                point -= left[at][0] or 0.01
                at += 1
            order.append(left.pop(at)[1])
        return order

    async def _addresses(self, plan: Plan, destination: Destination, now: float) -> tuple[list[Host], float]:
        """Hosts with addresses, rank by rank, until there are enough; and until when that holds."""
        if plan.is_path:
            return [Host(target.name, target.name, 0) for rank in plan.ranks for target in rank], FOREVER
        is_hop = destination.kind is not DestinationKind.DIRECT
        ranks: list[list[Host]] = []
        failures: list[Failure] = []
        until = FOREVER
        for rank in plan.ranks:
            await self._warm(rank, now)
            hosts: list[list[Host]] = []
            for target in rank:
                try:
                    found, ends = await self._hosts_of(target, is_hop, now)
                except (Temporary, Permanent) as failure:
                    failures.append(failure)
                    continue
                hosts.append(found)
                until = min(until, ends)
            if any(self._own.is_endpoint(host.address, host.port) for group in hosts for host in group):
                failures.append(Permanent(LOOP, f"{rank[0].name}: an address of the list is this server"))
                break
            ranks.append(self._ordered(hosts, destination))
            if len(ranks) > 1 and sum(map(len, ranks)) >= MOST_ADDRESSES:
                break
        ranks = [rank for rank in ranks if rank]
        if not ranks:
            raise _worst(failures, is_configured=is_hop)
        return _cut(ranks), until

    async def _warm(self, rank: Sequence[Target], now: float) -> None:
        """Ask for all addresses of a rank at once, so that the answers are in the cache one by one later."""
        missing = [
            (target.name, kind)
            for target in rank
            for kind in ("A", "AAAA")
            if not address_literal(target.name) and self._peek(target.name, kind, now) is None
        ]
        if len(missing) > 1:
            asked = [self._lookup(name, kind, now) for name, kind in missing]
            await asyncio.gather(*asked, return_exceptions=True)  # what fails fails again below, from the cache

    async def _hosts_of(self, target: Target, is_hop: bool, now: float) -> tuple[list[Host], float]:
        """All addresses of one name. Raises Permanent (it has none) and Temporary."""
        literal = address_literal(target.name)
        if literal:
            return [Host(target.name, literal, target.port)], FOREVER
        if is_hop and (known := self._hosts(target.name)):
            return [Host(target.name, address, target.port) for address in known], now + 60.0
        failure: Failure | None = None
        for name in self._candidates(target.name) if is_hop else (target.name,):
            try:
                addresses, until = await self._both_families(name, now)
            except Permanent as error:
                failure = error
                continue
            usable = [address for address in addresses if _is_usable(address)]
            if usable:
                return [Host(target.name, address, target.port) for address in usable], until
            failure = Permanent(LOOP, f"{name}: only addresses that mean this machine: {', '.join(addresses)}")
        raise failure or Permanent(NO_HOST, f"{target.name}: no address")

    def _candidates(self, name: str) -> list[str]:
        """What a short name of a next hop may stand for (resolv.conf's search and ndots)."""
        domains, ndots = self._search()
        longer = [f"{name}.{domain}" for domain in domains]
        return [name, *longer] if name.count(".") >= ndots else [*longer, name]

    async def _both_families(self, name: str, now: float) -> tuple[list[str], float]:
        """The A and AAAA records of a name. One family that fails is passed over where the other has an address."""
        addresses: list[str] = []
        until = FOREVER
        exists = False
        failure: Temporary | None = None
        for kind in ("A", "AAAA"):
            try:
                found = await self._find(name, kind, now)
            except Temporary as error:
                failure = error
                continue
            exists = exists or found.exists
            until = min(until, found.until)
            addresses += [data for data in found.data if isinstance(data, str)]
        if addresses:
            return addresses, until
        if failure is not None:
            raise failure
        if not exists:
            raise Permanent(UNKNOWN_DOMAIN, f"{name}: no such domain")
        raise Permanent(NO_HOST, f"{name}: neither A nor AAAA")

    async def _find(self, name: str, kind: str, now: float) -> Found:
        """`find` with its failures as ours: the one place where DNS errors become Temporary and Permanent."""
        try:
            return await find(self._lookup, name, kind, now)
        except Unanswered as error:
            raise Temporary(DNS_FAILED, str(error)) from error
        except AliasLoop as error:
            raise Temporary(NO_HOST_NOW, str(error)) from error
        except BadName as error:
            raise Permanent(UNKNOWN_DOMAIN, str(error)) from error

    def _ordered(self, hosts: list[list[Host]], destination: Destination) -> list[Host]:
        """One rank: hosts in turn, families in turn, without a route last."""
        v4 = _in_turn([[host for host in group if ":" not in host.address] for group in hosts])
        v6 = _in_turn([[host for host in group if ":" in host.address] for group in hosts])
        egress = destination.egress
        if egress.ipv6 and not egress.ipv4:
            order = v6 + v4
        elif egress.ipv4 and not egress.ipv6:
            order = v4 + v6
        else:
            order = _in_turn([v4, v6])
        if len(order) == 1:
            return order
        return sorted(order, key=lambda host: ":" in host.address and not self._route_known(host.address))


def address_literal(name: str) -> str:
    """The address in "[192.0.2.1]", "[IPv6:2001:db8::1]" (RFC 5321 4.1.3) or given bare, else ""."""
    text = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if text[:5].lower() == "ipv6:":
        text = text[5:]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def site_key(destination: Destination, ranks: Sequence[Sequence[Target]], tls: str) -> str:
    """What two destinations must share to share sessions: hosts by rank, ports, protocol, TLS, identity, policy.

    `tls`: the level, or what was found to be published: of two domains with the same hosts, one with an MTA-STS
    policy and one without, neither gets the other's sessions."""
    ports = {target.port for rank in ranks for target in rank}
    names = ">".join(
        ",".join(sorted(target.name if len(ports) == 1 else f"{target.name}:{target.port}" for target in rank))
        for rank in ranks
    )
    port = f":{ports.pop()}" if len(ports) == 1 else ""
    kind = "lmtp" if destination.kind is DestinationKind.LMTP else "smtp"
    egress = destination.egress
    parts = [f"{kind}://{names}{port}", f"tls={tls}"]
    if destination.requires_tls and "REQUIRETLS" not in tls:
        parts.append("REQUIRETLS")
    if destination.rule:
        parts.append(f"rule={destination.rule}")
    if egress.ipv4 or egress.ipv6 or egress.helo:
        parts.append(f"from={egress.ipv4},{egress.ipv6},{egress.helo}")
    if destination.client_certificate:
        parts.append(f"cert={destination.client_certificate}")
    if destination.username is not None:
        parts.append(f"auth={destination.username.name}/{destination.username.key}")
    return " ".join(parts)


def _is_usable(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_unspecified or parsed.is_multicast)


def _in_turn(groups: Sequence[Sequence[Host]]) -> list[Host]:
    """The first of each group, then the second of each, ..."""
    longest = max(map(len, groups), default=0)
    return [group[n] for n in range(longest) for group in groups if n < len(group)]


def _cut(ranks: list[list[Host]]) -> list[Host]:
    """The best addresses; if there is a second rank, it has at least one place."""
    if len(ranks) > 1 and len(ranks[0]) >= MOST_ADDRESSES:
        return [*ranks[0][: MOST_ADDRESSES - 1], ranks[1][0]]
    return [host for rank in ranks for host in rank][:MOST_ADDRESSES]


def _worst(failures: Sequence[Failure], *, is_configured: bool) -> Failure:
    """The failure that counts: Temporary before Permanent; a next hop of the configuration fails only for now."""
    for failure in failures:
        if isinstance(failure, Temporary):
            return failure
    if not failures:
        return Temporary(NO_HOST_NOW, "no next hop is configured")
    loops = [failure for failure in failures if failure.reply is LOOP]
    failure = loops[0] if loops else failures[0]
    if is_configured:
        return Temporary(LOOP_NOW if loops else NO_HOST_NOW, failure.reason)
    return failure
