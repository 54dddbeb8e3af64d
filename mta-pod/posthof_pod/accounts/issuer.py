"""How an issuer of tokens is asked: what tokens.py needs of the outside, without the library it checks them with."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol
from urllib.parse import urlsplit


class Unanswered(Exception):
    """The issuer could not be asked. The text says why."""


class Ask(Protocol):
    """One question by HTTPS; its answer is JSON. Raises Unanswered."""

    def __call__(self, url: str, *, form: bytes | None = None, authorization: str = "") -> Awaitable[bytes]: ...


def parts_of(url: str) -> tuple[str, int, str]:
    """Host, port, path with query."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 443, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
