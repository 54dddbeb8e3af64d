"""Durations and sizes as manifests write them. Workers and the CLI may import it: no pydantic, no yaml."""

from __future__ import annotations

import re
from typing import Any


class Unclear(ValueError):
    """`what` is wrong, and what to write `instead`."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what}: {instead}")
        self.what, self.instead = what, instead


UNITS = ("d", "h", "m", "s", "ms")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile("".join(rf"(?:([0-9]{{1,9}}){unit})?" for unit in UNITS))
_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SIZE = re.compile(r"([0-9]{1,16})(Ki|Mi|Gi|Ti|k|M|G|T)?")


def duration(value: Any) -> float:
    """`"90s"`, `"5m"`, `"1h30m"`, `"5d"` -> seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise Unclear("a duration needs a unit", f'Write "{value}s" for seconds, or ms, m, h, d.')
    found = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if found is None:
        hint = 'Write a number and d, h, m, s or ms, the largest first, such as "5m" or "1h30m".'
        raise Unclear("this is not a duration", hint)
    return float(sum(int(n or 0) * _SECONDS[unit] for n, unit in zip(found.groups(), UNITS, strict=True)))


def duration_text(seconds: float) -> str:
    """The shortest text that `duration` reads back: 5400.0 -> `1h30m`."""
    if seconds == 0:
        return "0s"
    left, text = round(seconds * 1000), ""
    for unit in UNITS:
        count, left = divmod(left, round(_SECONDS[unit] * 1000))
        text += f"{count}{unit}" if count else ""
    return text


def size(value: Any) -> int:
    """`"35Mi"`, `"2G"`, `4096` -> bytes (the Kubernetes quantity suffixes)."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise Unclear("this is not a size", 'Write bytes, or a number and Ki, Mi, Gi, Ti (or k, M, G, T): "35Mi".')
    return int(found[1]) * _BYTES[found[2] or ""]


def size_text(count: int) -> str:
    """The shortest exact text that `size` reads back: 36700160 -> `35Mi`."""
    for unit in ("Ti", "Gi", "Mi", "Ki"):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{unit}"
    return str(count)
