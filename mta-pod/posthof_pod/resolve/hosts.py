"""The hosts file: names a machine, a container or a pod was given by hand. Only for names of next hops."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable

HOSTS = "/etc/hosts"
_RECHECK = 5.0


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """hosts(5): name -> addresses, IPv4 first. "localhost" is always there (RFC 6761 6.3)."""
    known: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.split("#")[0].split()
        try:
            address = str(ipaddress.ip_address(words[0])) if words else ""
        except ValueError:
            continue
        for name in words[1:]:
            known.setdefault(name.rstrip(".").lower(), []).append(address)
    known.setdefault("localhost", ["127.0.0.1", "::1"])
    return {name: tuple(sorted(dict.fromkeys(found), key=lambda one: ":" in one)) for name, found in known.items()}


class HostsFile:
    """The file as it is now: read again when it changes, looked at once in 5 s. Call it with a name."""

    def __init__(self, clock: Callable[[], float], path: str = HOSTS) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._path = path
        self._looked = float("-inf")
        self._stamp: tuple[int, int] | None = None
        self._known = parse_hosts("")

    def __call__(self, name: str) -> tuple[str, ...]:
        now = self._clock()
        if now - self._looked >= _RECHECK:
            self._looked = now
            self._look()
        return self._known.get(name, ())

    def _look(self) -> None:
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._known = parse_hosts(file.read())
                self._stamp = stamp
        except OSError:
            self._known = parse_hosts("")  # no file: only localhost
