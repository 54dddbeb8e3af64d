"""What the workers need to check logins: verifiers in place of passwords, the key that salts them, made passwords.

Rules
- A worker never gets a password of an account: what stands marked as one (verifiers.UNHASHED) is hashed here. Hashing
  costs some 50 ms, so what was hashed is remembered, by a hash whose key lives in this process alone.
- On one machine the key is `accounts.key` below the state folder, made once: salts stay what they are over restarts.
- An account with `generate` gets its password here once, in a manifest of a Secret that only its owner may read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets as random
import string
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from posthof_crds import verifiers
from posthof_crds.engine import EngineConfig
from posthof_crds.shards import ACCOUNTS_KEY
from posthof_crds.verifiers import HASHED, UNHASHED
from posthof_pod.config.secrets import key as key_of

LENGTH = 32
FOLDER = "credentials"
_LETTERS = string.ascii_letters + string.digits


class Logins:
    """`state_dir` must be writable when `complete` is called. Thread-safe: it is called by one at a time."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._memo_key = random.token_bytes(32)
        self._memo: dict[bytes, bytes] = {}

    def complete(self, config: EngineConfig, secrets: dict[str, bytes]) -> dict[str, bytes]:
        """The secrets with verifiers in place of passwords, and the key for salts. Raises OSError."""
        if not config.credentials:
            return secrets
        key = secrets.get(ACCOUNTS_KEY) or self._key()
        unhashed = {name: value for name, value in secrets.items() if value.startswith(UNHASHED)}
        passwords = {
            name: value.removeprefix(UNHASHED) or self._made(config, name) for name, value in unhashed.items()
        }
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            hashed = pool.map(lambda item: self._hashed(key, *item), passwords.items())
            return {**secrets, **dict(zip(passwords, hashed, strict=True)), ACCOUNTS_KEY: key}

    def _hashed(self, key: bytes, name: str, password: bytes) -> bytes:
        print_ = hashlib.blake2b(name.encode() + b"\0" + password, key=self._memo_key).digest()
        found = self._memo.get(print_)
        if found is None:
            try:
                text = password.decode().removesuffix("\n").removesuffix("\r")
                found = verifiers.make(text, verifiers.salt_for(key, name)).encode()
            except ValueError:
                found = b"this password cannot be used"  # no verifier: the worker says so, with the account's name
            self._memo[print_] = found
        return found

    def _key(self) -> bytes:
        path = self._state_dir / "accounts.key"
        if not path.exists():
            _write(path, random.token_bytes(32))
        return path.read_bytes()

    def _made(self, config: EngineConfig, name: str) -> bytes:
        """The password that was made for the account whose verifier this is, or a new one."""
        secret = name.rpartition("/")[0]
        credential = next(
            one for one in config.credentials.values() if one.verifier is not None and key_of(one.verifier) == name
        )
        path = self._state_dir / FOLDER / f"{secret}.yaml"
        if not path.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _write(path, json.dumps(manifest(secret, credential.username, make()), indent=2).encode() + b"\n")
        found = json.loads(path.read_bytes())["stringData"][name.rpartition("/")[2].removesuffix(HASHED)]
        return str(found).encode()


def make(length: int = LENGTH) -> str:
    """A password."""
    return "".join(random.choice(_LETTERS) for _ in range(length))


def manifest(secret: str, username: str, password: str) -> dict[str, object]:
    """The Secret of a made password; JSON of it is YAML too."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret},
        "type": "kubernetes.io/basic-auth",
        "stringData": {"username": username, "password": password},
    }


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, for its owner alone; who came first has made it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()
