"""Where records are published by dynamic updates (RFC 2136), and with which key (RFC 8945). For every kind that
publishes: a TLSCert's proofs, a MailDomain's records."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from posthof_crds.fields import FQDN, ObjectName, Part, ResolverAddress, SecretKey


class TSIG(Part):
    """The key that signs the updates."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=253)]
    """The key's name, as the server knows it."""

    algorithm: Literal["HMAC-SHA256", "HMAC-SHA384", "HMAC-SHA512"] = "HMAC-SHA256"
    """The key's algorithm."""

    secret_name: ObjectName
    """The Secret that holds the key."""

    secret_key: SecretKey = "secret"
    """The key of that Secret: the shared secret in base64, as tsig-keygen and keymgr print it."""


class RFC2136(Part):
    """A server that takes dynamic updates."""

    server: ResolverAddress
    """The primary server of the zone: an IP address, or address@port."""

    zone: FQDN | None = None
    """The zone that is changed. Default: the server is asked which of its zones holds the name."""

    tsig: TSIG
    """The key. Updates that nobody signed are not sent."""

    ttl: Annotated[int, Field(ge=1, le=86400, strict=True)] = 300
    """TTL of the records, in seconds."""
