"""DNS as a table, behind the Lookup that sender authentication is given: no socket, and every question counted."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from posthof_pod.mailauth.dns import LookupFailed

Rows = Mapping[str, Iterable[Any]]


class Zones:
    """`rows`: name -> entries, each {"TXT": text}, {"A": address}, {"MX": [preference, host]}, ... or "TIMEOUT": then
    every question of a kind that is not listed fails. Names of any case."""

    def __init__(self, rows: Rows) -> None:
        self._rows: dict[tuple[str, str], list[Any]] = {}
        self._failing: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        for name, entries in rows.items():
            self._add(_folded(name), list(entries))

    def _add(self, name: str, entries: list[Any]) -> None:
        has_text = any(isinstance(entry, Mapping) and "TXT" in entry for entry in entries)
        for entry in entries:
            if not isinstance(entry, Mapping):
                self._failing.add(name)
                continue
            for kind, value in entry.items():
                if kind == "SPF" and not has_text:  # the vectors write the old type where they mean both
                    self._rows.setdefault((name, "TXT"), []).append(value)
                elif value != "NONE":  # the vectors' word for: what SPF says is not meant for TXT
                    self._rows.setdefault((name, kind), []).append(value)

    def _find(self, name: str, kind: str, aliases: int = 0) -> list[Any]:
        name = _folded(name)
        self.asked.append((name, kind))
        if any(not 0 < len(label) < 64 for label in name.split(".")):
            return []
        if alias := self._rows.get((name, "CNAME")):
            if aliases > 8:
                raise LookupFailed(f"{name}: aliases in a circle")
            return self._find(str(alias[0]), kind, aliases + 1)
        if (name, kind) not in self._rows and name in self._failing:
            raise LookupFailed(f"{name}: no answer")
        return self._rows.get((name, kind), [])

    async def txt(self, name: str) -> tuple[bytes, ...]:
        return tuple(_joined(value) for value in self._find(name, "TXT"))

    async def a(self, name: str) -> tuple[str, ...]:
        return tuple(str(value) for value in self._find(name, "A"))

    async def aaaa(self, name: str) -> tuple[str, ...]:
        return tuple(str(value) for value in self._find(name, "AAAA"))

    async def mx(self, name: str) -> tuple[tuple[int, str], ...]:
        return tuple((int(rank), _folded(host)) for rank, host in self._find(name, "MX"))

    async def ptr(self, address: str) -> tuple[str, ...]:
        return tuple(_folded(value) for value in self._find(ipaddress.ip_address(address).reverse_pointer, "PTR"))


def _folded(name: str) -> str:
    return str(name).rstrip(".").lower()


def _joined(value: Any) -> bytes:
    parts = value if isinstance(value, list) else [value]
    return b"".join(part if isinstance(part, bytes) else str(part).encode("latin-1", "replace") for part in parts)
