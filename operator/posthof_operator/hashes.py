"""Passwords of accounts become what checks them, before they are put where pods read them.

Rules of this file
- A pod never gets a password of an account. The salt comes from the MTA's own secret and the Secret's name, so that
  the same password has the same verifier with every leader, and a second pass writes nothing.
- Hashing costs some 50 ms: in threads, once for each change. What is remembered is a hash under a key of this
  process.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from posthof_crds import verifiers
from posthof_crds.shards import ACCOUNTS_KEY
from posthof_crds.verifiers import UNHASHED
from posthof_operator.assembly import Assembly

BAD = b"this password cannot be used"  # no verifier: the pod says so, with the account's name


class Hashes:
    """Of all MTAs."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, bytes] = {}

    async def complete(self, assembly: Assembly, token: str) -> Assembly:
        """With verifiers in place of passwords, and the key that salts them. `token`: the MTA's secret."""
        if assembly.fleet.config is None or not assembly.fleet.config.credentials:
            return assembly
        key = hmac.digest(token.encode(), b"accounts", "sha256")
        wanted = {name: value for name, value in assembly.keys.items() if value.startswith(UNHASHED)}
        fresh = {name: value for name, value in wanted.items() if self._print(key, name, value) not in self._known}
        if fresh:
            await asyncio.to_thread(self._hash, key, fresh)
        made = {name: self._known[self._print(key, name, value)] for name, value in wanted.items()}
        return replace(assembly, keys={**assembly.keys, **made, ACCOUNTS_KEY: key})

    def _hash(self, key: bytes, passwords: Mapping[str, bytes]) -> None:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            made = pool.map(lambda item: _verifier(key, *item), passwords.items())
            for (name, value), verifier in zip(passwords.items(), made, strict=True):
                self._known[self._print(key, name, value)] = verifier

    def _print(self, key: bytes, name: str, value: bytes) -> bytes:
        return hashlib.blake2b(name.encode() + b"\0" + key + value, key=self._key).digest()


def _verifier(key: bytes, name: str, value: bytes) -> bytes:
    try:
        password = value.removeprefix(UNHASHED).decode().removesuffix("\n").removesuffix("\r")
        return verifiers.make(password, verifiers.salt_for(key, name)).encode()
    except ValueError:
        return BAD
