"""What has to outlive a restart: the cluster's salt, and which MailDomains have proven their domain.

It is one ConfigMap `posthof-proofs` in the operator's namespace. Why not the MailDomains' status: an answer of DNS
that decides who receives a domain's mail must not depend on who may write that status; and why kept at all: a restart
while DNS is away must not take a tenant's domain out of service.

Rules of this file
- Nothing in it is secret (see proof.py); whoever may write ConfigMaps in the operator's namespace owns the operator.
- The salt is made once and never changed. A ConfigMap that cannot be read is an error, never a reason for a new salt.
- Writes are gathered: many proofs at once are one request.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import zlib

import msgspec

from posthof_operator.api import Api
from posthof_operator.dns import proof
from posthof_operator.resources import MANAGED_BY, MANAGER, Raw

NAME = "posthof-proofs"

Proven = dict[str, list[str]]  # domain -> "namespace/name", sorted


class Damaged(Exception):
    """The ConfigMap is there and does not say what it should. The text names it and the mend."""


class Ledger:
    """`await load` first. `salt` and `proven` then hold what is kept."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._written: Proven | None = None  # what stands in the ConfigMap
        self.salt = b""
        self.proven: Proven = {}

    async def load(self) -> None:
        """Read it, or make it. ApiError and Damaged: try again later, and decide nothing until then."""
        found = await self._api.get("ConfigMap", self._namespace, NAME)
        if found is None:
            found = await self._api.create(self._body(secrets.token_bytes(proof.SALT_BYTES), {}))
        salt, proven = read(found, f"{self._namespace}/{NAME}")
        self.salt, self.proven, self._written = salt, proven, proven

    async def store(self, proven: Proven) -> bool:
        """Keep these from now on. Returns whether that needed a request."""
        if proven == self._written:
            return False
        await self._api.apply(self._body(self.salt, proven))
        self.proven = self._written = proven
        return True

    def _body(self, salt: bytes, proven: Proven) -> Raw:
        packed = zlib.compress(msgspec.json.encode(dict(sorted(proven.items()))), 9)
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "namespace": self._namespace,
                "name": NAME,
                "labels": {"app.kubernetes.io/name": "posthof", MANAGED_BY: MANAGER},
            },
            "data": {"salt": base64.b64encode(salt).decode()},
            "binaryData": {"proven": base64.b64encode(packed).decode()},
        }


def read(raw: Raw, where: str) -> tuple[bytes, Proven]:
    """Salt and proofs of the ConfigMap. Raises Damaged."""
    try:
        salt = base64.b64decode(raw.get("data", {})["salt"], validate=True)
        packed = base64.b64decode(raw.get("binaryData", {})["proven"], validate=True)
        proven = msgspec.json.decode(zlib.decompress(packed), type=Proven)
    except (KeyError, binascii.Error, zlib.error, msgspec.DecodeError) as error:
        raise Damaged(
            f"ConfigMap {where} is damaged ({type(error).__name__}): restore it, or delete it and have every tenant "
            "publish a new proof"
        ) from None
    if len(salt) < proof.SALT_BYTES:
        raise Damaged(f"ConfigMap {where} has a salt of {len(salt)} bytes: restore it")
    return salt, proven
