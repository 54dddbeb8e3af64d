"""When a rule may let mail out: the one place that decides what an open relay is.

Workers import it (no pydantic, no yaml): `load` refuses unbounded rules, and the policy does not obey them either.

A rule is *bounded*, so that it may send mail for foreign domains onward (Direct, Smarthost, LMTP) or keep it (Hold),
if at least one of these holds. All parts of a match must hold together, so one bounded part bounds the rule.
1. `clients` names networks, none of them (nor several joined) wider than /8 (IPv4) or /16 (IPv6), unless private.
2. `listenerRoles` is Internal alone, and every Internal listener is bound to a loopback address and speaks neither
   PROXY nor XCLIENT: then only this host can have sent it. An Internal listener on any other address needs `clients`:
   a port is reachable by more hosts than one remembers.
3. `namespaces` or `podSelector` select pods of the cluster (`workloads` in an EngineConfig): a pod is known by its
   address, and these count only where addresses are the clients' own (the policy sees to that).
4. `recipients` names domains: literal ones, or everything below one of two labels or more (`*.example.org`). Mail can
   then go nowhere else. `*`, `*.org` and `*example.org` are no names.
5. `credentials` names SMTPCredentials, or any of them by `*`: the client has proven who it is.
6. `certificates` names those that the listener's own CA has certified: the client has proven who it is.
Senders and headers never bound anything: whoever connects writes them.
Redirect sends to addresses the rule itself names, and Discard sends nothing: both are bounded by what they do.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from posthof_crds import patterns
from posthof_crds.engine import ActionKind, Listener, ListenerRole, Match

LETS_OUT = frozenset({ActionKind.DIRECT, ActionKind.SMARTHOST, ActionKind.LMTP})

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def why_unbounded(match: Match, listeners: Sequence[Listener]) -> str:
    """ "" for a bounded match, else what each part lacks, as half a sentence."""
    if match.workloads or match.credentials or match.certificates:
        return ""
    reasons: list[str] = []
    if match.clients:
        wide = widest(match.clients)
        if wide is None:
            return ""
        reasons.append(f"clients hold {wide}, which is everybody")
    if match.listener_roles:
        reason = _why_roles_do_not_bound(match.listener_roles, listeners)
        if not reason:
            return ""
        reasons.append(reason)
    if match.recipients:
        loose = [pattern for pattern in match.recipients if not patterns.bounds_domain(pattern)]
        if not loose:
            return ""
        reasons.append(f"recipients hold {loose[0]}, which names no domain")
    if match.senders:
        reasons.append("senders can be forged")
    if match.headers:
        reasons.append("headers can be forged")
    return "; ".join(reasons) or "it matches all mail"


def widest(clients: Iterable[str]) -> str | None:
    """A network, as written or after joining neighbours, that is too wide to trust; None if all are narrow enough."""
    parsed = [ipaddress.ip_network(text) for text in clients]
    joined: list[_Network] = [
        *ipaddress.collapse_addresses(n for n in parsed if isinstance(n, ipaddress.IPv4Network)),
        *ipaddress.collapse_addresses(n for n in parsed if isinstance(n, ipaddress.IPv6Network)),
    ]
    for net in joined:
        floor = 8 if net.version == 4 else 16
        if net.prefixlen < floor and not (net.prefixlen >= 7 and net.is_private):
            return str(net)
    return None


def _why_roles_do_not_bound(roles: Sequence[ListenerRole], listeners: Sequence[Listener]) -> str:
    if set(roles) != {ListenerRole.INTERNAL}:
        return "listenerRoles hold more than Internal"
    for listener in listeners:
        if listener.role is not ListenerRole.INTERNAL:
            continue
        if not listener.host or not ipaddress.ip_address(listener.host).is_loopback:
            place = listener.host or "all addresses"
            return f"the Internal listener {listener.name} is bound to {place} and not to loopback"
        if listener.proxy_trusted or listener.xclient_trusted:
            return f"the Internal listener {listener.name} takes connections for others (PROXY or XCLIENT)"
    return ""
