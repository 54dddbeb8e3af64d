"""How keys of the state folder travel from the supervisor to the workers: one value beside the other secrets."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

KEYS = "posthof:dkim"  # no SecretRef is called so: a Secret's name has no colon


class StateKey(msgspec.Struct, frozen=True, array_like=True):
    domain: str
    selector: str
    pem: bytes

    def __repr__(self) -> str:
        return f"StateKey({self.domain}, {self.selector})"


def packed(keys: Sequence[StateKey]) -> bytes:
    return msgspec.msgpack.encode(keys)


def unpacked(value: bytes) -> list[StateKey]:
    return msgspec.msgpack.decode(value, type=list[StateKey]) if value else []
