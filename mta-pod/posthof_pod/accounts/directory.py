"""The accounts of one configuration, by name; and what stands for names that nobody has. Pure.

Rules
- A name is looked up in its one form (prepared and folded, smtp/sasl.py).
- For a name that nobody has, and for an account without a password, there is a verifier like those that are there:
  the same work, the same SCRAM salt each time, fit for no password. So neither words nor time tell who exists.
- A verifier that cannot be read is a complaint, and the account cannot log in by password; the others can.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import NamedTuple

from posthof_crds import patterns, verifiers
from posthof_crds.engine import Credential, SecretRef
from posthof_crds.verifiers import BadVerifier, Scram, Verifier


class Account(NamedTuple):
    """One SMTPCredential. `print_`: of its verifier, changes with the password."""

    credential: Credential
    verifier: Verifier | None
    print_: bytes
    senders: patterns.AddressSet

    @property
    def name(self) -> str:
        return self.credential.name

    def is_expired(self, now: float) -> bool:
        return 0.0 < self.credential.expires <= now


class Directory:
    """`find` raises LookupError for a secret that is not there. `key`: of this MTA, the same in all its workers."""

    def __init__(self, credentials: Mapping[str, Credential], find: Callable[[SecretRef], bytes], key: bytes) -> None:
        self._key = key
        self.complaints: list[str] = []
        self.accounts = {name: self._account(one, find) for name, one in credentials.items()}
        self._by_username = {
            account.credential.username: account for account in self.accounts.values() if account.credential.username
        }
        self._shapes = sorted({_shape(a.verifier) for a in self._by_username.values() if a.verifier is not None})
        self._models = {_shape(a.verifier): a.verifier for a in self._by_username.values() if a.verifier is not None}
        self._by_certificate = {
            account.credential.certificate: account
            for account in self.accounts.values()
            if account.credential.certificate
        }
        self._by_workload = {
            workload: account for account in self.accounts.values() for workload in account.credential.workloads
        }

    def _account(self, credential: Credential, find: Callable[[SecretRef], bytes]) -> Account:
        verifier: Verifier | None = None
        text = b""
        if credential.verifier is not None:
            try:
                text = find(credential.verifier)
                verifier = verifiers.parse(text.decode())
            except LookupError as error:
                self.complaints.append(f"SMTPCredential {credential.name} cannot log in: {error.args[0]}")
            except (BadVerifier, UnicodeDecodeError) as error:
                where = f"Secret {credential.verifier.name}, key {credential.verifier.key}"
                self.complaints.append(f"SMTPCredential {credential.name} cannot log in: {where}: {error}")
        print_ = hashlib.sha256(text).digest()
        return Account(credential, verifier, print_, patterns.AddressSet(credential.senders))

    @property
    def has_workloads(self) -> bool:
        return bool(self._by_workload)

    def named(self, username: str) -> Account | None:
        return self._by_username.get(username)

    def of_workloads(self, selections: tuple[str, ...]) -> Account | None:
        """The account a pod in these selections is: the first by name, where several are."""
        found = [self._by_workload[one] for one in selections if one in self._by_workload]
        return min(found, key=lambda account: account.name) if found else None

    def of_certificate(self, names: tuple[str, ...]) -> Account | None:
        """The account that one of the names of a client's verified certificate stands for."""
        found = [self._by_certificate[name] for name in names if name in self._by_certificate]
        return min(found, key=lambda account: account.name) if found else None

    def verifier(self, username: str) -> Verifier:
        """What to check a password with, also for a name that nobody has."""
        account = self._by_username.get(username)
        if account is not None and account.verifier is not None:
            return account.verifier
        return verifiers.nobody(self._key, username, self._like(username))

    def scram(self, username: str) -> Scram:
        """The SCRAM keys, also for a name that nobody has."""
        found = self.verifier(username)
        if found.scram is not None:
            return found.scram
        like = next((model for shape, model in self._models.items() if shape[0] == 2), None)
        nobody = verifiers.nobody(self._key, username, like).scram
        assert nobody is not None
        return nobody

    def _like(self, username: str) -> Verifier | None:
        """One of the shapes that are in use, always the same for a name."""
        if not self._shapes:
            return None
        digest = hmac.digest(self._key, b"like\0" + username.encode(), "sha256")
        return self._models[self._shapes[int.from_bytes(digest[:4], "big") % len(self._shapes)]]


def _shape(verifier: Verifier) -> tuple[int, ...]:
    """What a client could tell two verifiers apart by. The first number: 2 where both are there."""
    scrypt, scram = verifier
    one = (scrypt.ln, scrypt.r, scrypt.p, len(scrypt.salt)) if scrypt else ()
    two = (scram.iterations, len(scram.salt)) if scram else ()
    return ((2 if scram else 1), *one, *two)
