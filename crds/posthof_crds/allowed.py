"""What an MTA allows other namespaces: `allowedNamespaces`, and whether it covers a domain or a next hop.

Patterns are those of patterns.py without a local part: `example.org` is that name, `*.example.org` everything below
it, `*` everything. `{namespace}` stands for the name of the namespace that asks, so that one entry gives each its
own: `*.{namespace}.svc.cluster.local`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field

from posthof_crds import patterns
from posthof_crds.engine import HopKind, NextHop
from posthof_crds.fields import Part, wrong
from posthof_crds.selectors import LabelSelector

_PLACEHOLDER = "{namespace}"


def domain_pattern(value: str) -> str:
    """A glob over domains, perhaps with `{namespace}` in it; in the form `covers_domain` compares."""
    return _normalised(value, "Write acme.example, *.acme.example or *.")


def hop_pattern(value: str) -> str:
    """A glob over host names, or a network for hops that are addresses."""
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        return _normalised(value, "Write smtp.example.org, *.example.org, 192.0.2.0/24 or *.")


def _normalised(value: str, hint: str) -> str:
    probe = value.replace(_PLACEHOLDER, "namespace")
    try:
        if "@" in value or value == "<>":
            raise ValueError("an address stands where a name should")
        normal = patterns.normalise(probe)
    except ValueError as error:
        raise wrong(f"{value!r} is not a pattern of names: {error}", hint) from None
    return value.lower() if _PLACEHOLDER in value else normal


DomainPattern = Annotated[str, AfterValidator(domain_pattern), Field(min_length=1, max_length=253)]
HopPattern = Annotated[str, AfterValidator(hop_pattern), Field(min_length=1, max_length=253)]


class AllowedNamespace(Part):
    """Namespaces whose MailDomains and RelayPolicies this MTA obeys, and how far."""

    selector: LabelSelector
    """Labels of the namespaces; the label `kubernetes.io/metadata.name` has a namespace's name. `{}`: every
    namespace."""

    domains: Annotated[tuple[DomainPattern, ...], Field(max_length=256)] = ()
    """Domains they may receive for without a proof: acme.example, *.acme.example, *.{namespace}.example.org, `*`. Any
    other domain needs the TXT record that the MailDomain's status names."""

    next_hops: Annotated[tuple[HopPattern, ...], Field(max_length=256)] = ()
    """Hosts their mail may be sent to: names, patterns such as *.{namespace}.svc.cluster.local, networks for hops
    that are addresses, `*` for any host (and for action Direct). Default: none."""


class Allowance:
    """What the entries that select one namespace allow it together. Made once, asked for every object."""

    __slots__ = ("_domains", "_hops", "_networks", "has_any_hop")

    def __init__(self, entries: Iterable[AllowedNamespace], namespace: str) -> None:
        entries = tuple(entries)
        hops = {pattern for each in entries for pattern in each.next_hops}
        domains = {pattern for each in entries for pattern in each.domains}
        self.has_any_hop = "*" in hops  # mail may be sent to every host there is
        self._domains = [patterns.Glob(each.replace(_PLACEHOLDER, namespace)) for each in sorted(domains)]
        self._hops = [
            patterns.Glob(each.replace(_PLACEHOLDER, namespace)) for each in sorted(hops) if "/" not in each
        ]
        self._networks = [ipaddress.ip_network(each) for each in sorted(hops) if "/" in each]

    def covers_domain(self, domain: str) -> bool:
        """`domain` in its one form."""
        return any(glob.matches(domain) for glob in self._domains)

    def covers_hop(self, hop: NextHop) -> bool:
        """A socket is never covered; a host is compared as it is written, without asking DNS."""
        if hop.kind is HopKind.UNIX:
            return False
        if self.has_any_hop:
            return True
        try:
            address = ipaddress.ip_address(hop.name)
        except ValueError:
            return any(glob.matches(hop.name) for glob in self._hops)
        return any(address in network for network in self._networks)


def _globs(found: Iterable[str], namespace: str) -> list[patterns.Glob]:
    return [patterns.Glob(each.replace(_PLACEHOLDER, namespace)) for each in sorted(found)]
