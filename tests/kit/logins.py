"""Accounts for tests: names with passwords, checked in earnest and cheaply.

`alice` has the password `secret` and may send as alice@example.test; `shop` has `t\u00f6pf` and sends as *@shop.test;
`old` has expired; `nobody` does not exist.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from typing import Any

from posthof_crds import verifiers
from posthof_crds.engine import Credential, SecretRef
from posthof_pod.accounts.accounts import Accounts
from posthof_pod.accounts.directory import Directory
from posthof_pod.listen.networks import client_key
from posthof_pod.observe.events import Events, RecordedEvents

KEY = b"the key of a test's MTA"


def verifier(password: str, salt: bytes = b"0123456789abcdef") -> bytes:
    """As verifiers.make, and cheap: N of scrypt is 1024, SCRAM iterates 4096 times."""
    octets = verifiers.prepare(password).encode()
    hashed = hashlib.scrypt(octets, salt=salt, n=1024, r=8, p=1, dklen=32)
    scram = verifiers.scram_of(octets, salt, 4096)

    def b64(value: bytes) -> str:
        return base64.b64encode(value).decode()

    return (
        f"$scrypt$ln=10,r=8,p=1${b64(salt)}${b64(hashed)}\n"
        f"SCRAM-SHA-256$4096:{b64(salt)}${b64(scram.stored_key)}:{b64(scram.server_key)}\n"
    ).encode()


def credential(name: str, senders: tuple[str, ...], **more: Any) -> Credential:
    return Credential(
        name=name, username=name, verifier=SecretRef(name=name, key="password.hash"), senders=senders, **more
    )


CREDENTIALS = {
    "alice": credential("alice", ("alice@example.test", "*@alice.test")),
    "shop": credential("shop", ("shop.test",)),
    "old": credential("old", ("*",), expires=1.0),
}
PASSWORDS = {"alice": "secret", "shop": "t\u00f6pf", "old": "secret"}


def directory(
    credentials: Mapping[str, Credential] | None = None, passwords: Mapping[str, str] | None = None
) -> Directory:
    known = {name: verifier(password) for name, password in (passwords or PASSWORDS).items()}

    def find(ref: SecretRef) -> bytes:
        if ref.name not in known:
            raise LookupError(f"there is no Secret {ref.name}")
        return known[ref.name]

    return Directory(credentials if credentials is not None else CREDENTIALS, find, KEY)


class AtOnce:
    """Passwords without a thread, for dialogues that have no loop."""

    waiting = 0

    async def check(self, verifier: verifiers.Verifier, password: str) -> bool:
        return verifiers.check(verifier, password)

    def close(self) -> None:
        self.waiting = 0


class Naps:
    """A sleep that takes no time, and remembers how long it was asked for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def accounts(
    events: Events | None = None, *, is_at_once: bool = True, bindings: tuple[bytes, ...] = (), **more: Any
) -> Accounts:
    made = Accounts(
        events or RecordedEvents(),
        wall=more.pop("wall", time.time),
        clock=more.pop("clock", time.monotonic),
        client_key=client_key,
        sleep=more.pop("sleep", None) or Naps(),
    )
    if is_at_once:
        made.passwords = AtOnce()  # type: ignore[assignment]  # the same, in this thread
    made.take(directory(**more), {"in": bindings})
    return made
