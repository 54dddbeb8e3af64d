"""The proof that a tenant holds a domain: a TXT record that only this tenant is asked for.

    _posthof-challenge.acme.example.  TXT  "posthof-proof=k3v7..."

Rules of this file
- The value is a keyed digest over the namespace and the domain, so it proves that namespace and no other: a tenant
  that reads another's record and claims the domain for itself is asked for another value. The key is the cluster's
  own, so that a namespace of the same name elsewhere is another one.
- Nothing about it is secret: who can publish in the domain's DNS holds the domain, and that is what is asked.
- The value never changes while the cluster keeps its key; whoever leaves a domain to a new owner of the namespace's
  name removes the record.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "posthof-proof="
LABEL = "_posthof-challenge"
SALT_BYTES = 32


def name_of(domain: str) -> str:
    """Where the record stands."""
    return f"{LABEL}.{domain}"


def value_of(salt: bytes, namespace: str, domain: str) -> str:
    """What the record says. `domain` in its one form (lower-case A-labels)."""
    digest = hmac.new(salt, f"{namespace}\0{domain.lower()}".encode(), hashlib.sha256).digest()
    return PREFIX + base64.b32encode(digest[:20]).decode().lower()


def holds(value: str, texts: Sequence[str]) -> bool:
    """Whether one of the TXT records found is the value asked for. Others may stand beside it: of other clusters, of
    other tenants in turn."""
    return any(hmac.compare_digest(text.strip().encode(), value.encode()) for text in texts)
