"""DKIMKey: one selector of one domain, from its making to its revocation.

A MailDomain with `outbound.dkim.auto` has its DKIMKeys made for it; one with `keyRefs` names its own. In a cluster
the operator makes the key, says or publishes its record, and lets the pods sign with it once every authoritative
server of the zone answers with it. On one machine `posthof up` does the same with keys below the MTA's stateDir, and
`posthof dkim` shows the records.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, model_validator

from posthof_crds.core import Resource, SecretKeyRef
from posthof_crds.fields import ObjectName, Part, wrong

_SELECTOR = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")


def _is_selector(value: str) -> str:
    if len(value) > 63 or not _SELECTOR.fullmatch(value):
        raise wrong(f"{value!r} is no selector", "Write lower-case letters, digits and hyphens, such as mail-2026a.")
    return value


Selector = Annotated[str, AfterValidator(_is_selector)]
Bits = Literal[1024, 2048, 3072, 4096]
Algorithm = Literal["RSA", "Ed25519"]


class MailDomainRef(Part):
    """A MailDomain of the same folder or namespace."""

    name: ObjectName
    """The MailDomain's metadata.name."""


class DKIMKeySpec(Part):
    """A key and its selector."""

    domain_ref: MailDomainRef
    """Whose mail it signs. The MailDomain signs with it when its `outbound.dkim.keyRefs` names it."""

    selector: Selector
    """Where its record stands: `<selector>._domainkey.<domain>`. Never use one again for another key: what was signed
    with the old one is still on its way."""

    algorithm: Algorithm = "RSA"
    """RSA (rsa-sha256): every verifier knows it. Ed25519 (RFC 8463): short records and quick, and not yet known
    everywhere, so it should stand beside an RSA key."""

    size: Bits = 2048
    """Bits of an RSA key. 2048 fits everywhere; 1024 is only just believed (RFC 8301); more than 2048 makes records
    that some DNS services cannot hold, and not every verifier takes."""

    secret_ref: SecretKeyRef | None = None
    """The private key, PEM without a password, where you have one already. Default: it is made, in a cluster in the
    Secret `<name>-dkim` (key private.pem), on one machine below the MTA's stateDir."""

    state: Literal["Active", "Retired", "Revoked"] = "Active"
    """Active: it signs, once its record is seen at every authoritative server of the zone. Retired: it signs no more,
    and its record stays for what is on its way. Revoked: its record says so (`p=` is empty), and whatever was signed
    with it is not believed any more."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.algorithm == "Ed25519" and "size" in self.model_fields_set:
            raise wrong("an Ed25519 key has no choice of size", "Remove size, or write algorithm: RSA.")
        return self


class DKIMKey(Resource):
    """A DKIM key and its selector."""

    short: ClassVar[str] = "dkim"

    api_version: Literal["posthof.dev/v1alpha1"]
    """posthof.dev/v1alpha1"""

    kind: Literal["DKIMKey"]
    """DKIMKey"""

    spec: DKIMKeySpec
    """What it shall be."""
