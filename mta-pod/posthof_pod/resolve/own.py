"""Who we are, so that mail does not go round in a circle: our name, and the addresses where we listen ourselves."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable

_ALL = ("", "*", "0.0.0.0", "::")


def is_local_address(address: str) -> bool:
    """Whether a socket of this machine may have the address: the kernel is asked by a bind, no packet is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def has_route(address: str) -> bool:
    """Whether the kernel knows a way to the address: a connected UDP socket, no packet is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
    except OSError:
        return False
    return True


class Own:
    """Our names (lower case, without the final dot) and listeners (host, port); host "": every address."""

    def __init__(
        self,
        names: Iterable[str] = (),
        listeners: Iterable[tuple[str, int]] = (),
        *,
        is_local: Callable[[str], bool] = is_local_address,
    ) -> None:
        self._names = frozenset(name.rstrip(".").lower() for name in names)
        self._open_ports: set[int] = set()  # on every address
        self._endpoints: set[tuple[str, int]] = set()
        self._is_local = is_local
        for host, port in listeners:
            if host in _ALL:
                self._open_ports.add(port)
            else:
                self._endpoints.add((_canonical(host), port))

    def is_name(self, name: str) -> bool:
        return name in self._names

    def is_endpoint(self, address: str, port: int) -> bool:
        """Whether a connection to there would reach a listener of ours."""
        if (_canonical(address), port) in self._endpoints:
            return True
        return port in self._open_ports and self._is_local(address)


def _canonical(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address
