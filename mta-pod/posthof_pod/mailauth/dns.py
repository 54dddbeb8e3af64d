"""What sender authentication asks of DNS: the Lookup that is passed in, and how it fails.

Rules
- No I/O here: resolve/lookup.py asks, tests hand in tables (tests/kit/zones.py).
- Names are text, with or without the final dot, of any case; what comes back is lower case without it.
- "There is none" is an empty tuple: NXDOMAIN and no data are the same to every standard that asks here
  (RFC 7208 4.3 and 4.6.4, RFC 6376 3.6.2, RFC 9989 4.10). A name DNS cannot be asked for has none either.
- A name's CNAMEs are followed.
"""

from __future__ import annotations

from typing import Protocol


class LookupFailed(Exception):
    """No answer that can be used, for now: a time-out, SERVFAIL, REFUSED. Another time may do better."""


class Lookup(Protocol):
    """Questions to DNS. Every method raises LookupFailed, and nothing else."""

    async def txt(self, name: str) -> tuple[bytes, ...]:
        """Each TXT record with its strings joined (RFC 7208 3.3, RFC 6376 3.6.2.2)."""
        ...

    async def a(self, name: str) -> tuple[str, ...]:
        """IPv4 addresses as text."""
        ...

    async def aaaa(self, name: str) -> tuple[str, ...]:
        """IPv6 addresses as text."""
        ...

    async def mx(self, name: str) -> tuple[tuple[int, str], ...]:
        """(preference, host) in any order."""
        ...

    async def ptr(self, address: str) -> tuple[str, ...]:
        """Names of an IPv4 or IPv6 address given as text: what its reverse name points to."""
        ...
