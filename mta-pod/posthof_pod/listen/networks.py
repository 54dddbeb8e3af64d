"""Sets of IP networks, and one spelling of an address.

Rules: pure; an IPv4-mapped IPv6 address is its IPv4 address; what is no address is in no network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Networks:
    """`texts`: as `ipaddress.ip_network` takes them, host bits allowed."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(text, strict=False) for text in texts)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: str) -> bool:
        if not self._networks:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


@lru_cache(maxsize=1024)
def plain(address: str) -> str:
    """The address as `ipaddress` writes it: no zone, IPv4 where it is IPv4-mapped. Raises ValueError."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


def client_key(address: str) -> str:
    """What limits count together: an IPv4 address, an IPv6 /64. "" (not known) is a client of its own."""
    if ":" not in address:
        return address
    return str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(address)) >> 64 << 64))


def client_network(address: str) -> str:
    """`client_key` as people write it: "192.0.2.1", "2001:db8::/64"."""
    key = client_key(address)
    return f"{key}/64" if ":" in key else key
