"""Can sessions leave with the source addresses the configuration names? Asked at start and at every change.

A socket that cannot be bound fails at the first mail, hours later; here it is an error with the name of the rule. The
kernel is asked (`is_local` binds a socket, no packet is sent), because it knows of addresses that were added to an
interface, of transparent ones and of namespaces. HELO names are checked by form when manifests are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from posthof_crds.engine import Egress, EngineConfig


def unusable(config: EngineConfig, is_local: Callable[[str], bool]) -> list[str]:
    """One sentence for each address that is not this machine's. `is_local`: resolve.own.is_local_address."""
    known: dict[str, bool] = {}
    problems: list[str] = []
    for owner, egress in _all(config):
        for address in (egress.ipv4, egress.ipv6):
            if address and address not in known:
                known[address] = is_local(address)
            if address and not known[address]:
                problems.append(
                    f"{owner}: egress address {address} is not an address of this machine. "
                    "Add it to an interface, or remove it from egress.addresses."
                )
    return problems


def _all(config: EngineConfig) -> Iterator[tuple[str, Egress]]:
    """The MTA's, and those of rules that have one of their own."""
    yield f"MTA/{config.name}", config.egress
    for rule in config.rules:
        if rule.egress != config.egress:
            own = Egress(
                ipv4="" if rule.egress.ipv4 == config.egress.ipv4 else rule.egress.ipv4,
                ipv6="" if rule.egress.ipv6 == config.egress.ipv6 else rule.egress.ipv6,
            )
            yield f"RelayPolicy/{rule.name}", own
