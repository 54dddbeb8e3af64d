"""TLS for sessions we open: contexts, one per level, set of CAs and client certificate; and sessions to resume.

TLS 1.2 is the oldest version (RFC 8996, RFC 9325). `May` and `Encrypt` look at no certificate: any encryption beats
plain text (RFC 7435). `Verify` demands a chain to a known CA and the host's name in it (RFC 9525). `DANE` encrypts by
the context that checks nothing, and dane.py looks at the chain before a word is said.

Resumption
- A session is resumed only for the same host, port and demand, and by the context that made it: what was proven under
  one demand proves nothing under another, and a session that was never checked never passes for one that was.
- A resumed session shows no chain (OpenSSL keeps none for TLS 1.3), so the verdict is kept beside it, for an hour.
- `ssl` takes a session only where a connection is made, and the loop makes that: the context hands over what the task
  that opens the connection has laid down (`RESUME`).
- Hosts of MTA-STS policies and of reports get a context of their own, which resumes nothing.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import time
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import Any, NamedTuple

from posthof_crds.engine import TLSLevel

LONGEST = 3600.0  # seconds a verdict is believed
MOST = 2000  # sessions kept
RESUME: ContextVar[ssl.SSLSession | None] = ContextVar("posthof_tls_resume", default=None)


class ClientPair(NamedTuple):
    """A client certificate (PEM chain) and its key (PEM, not encrypted)."""

    chain: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"ClientPair(chain={self.chain!r})"


class Kept(NamedTuple):
    """A session that may be resumed, and what was proven when it was made."""

    session: ssl.SSLSession
    verdict: str
    until: float


class _Context(ssl.SSLContext):
    """Resumes the session that the task which opens the connection has laid down."""

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(
            incoming,
            outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
            session=session or RESUME.get(),
        )


class ClientTLS:
    """The contexts and sessions of a worker. `ca_file`: PEM file of the CAs that `Verify` trusts, "" = the system's.
    `clock`: seconds, monotonic."""

    __slots__ = ("_ca_data", "_ca_file", "_clock", "_contexts", "_kept", "_policies")

    def __init__(self, ca_file: str = "", ca_data: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._ca_file = ca_file
        self._ca_data = ca_data
        self._clock = clock
        self._contexts: dict[
            tuple[bool, ClientPair | None], ssl.SSLContext
        ] = {}  # the CAs are read when first needed
        self._policies: ssl.SSLContext | None = None
        self._kept: dict[Hashable, Kept] = {}

    def context(self, level: TLSLevel, pair: ClientPair | None = None) -> ssl.SSLContext:
        """The context for a level above None, made when first asked for. Raises OSError (ssl.SSLError) where the CAs
        or `pair` cannot be read."""
        is_checked = level is TLSLevel.VERIFY
        found = self._contexts.get((is_checked, pair))
        if found is None:
            found = _verifying(self._ca_file, self._ca_data) if is_checked else _unchecked()
            if pair is not None:
                _load_pair(found, pair)
            self._contexts[is_checked, pair] = found
        return found

    def policies(self) -> ssl.SSLContext:
        """For the hosts of MTA-STS policies (RFC 8461 3.3). Raises OSError."""
        if self._policies is None:
            self._policies = _verifying(self._ca_file, self._ca_data, ssl.SSLContext)
        return self._policies

    def kept(self, key: Hashable) -> Kept | None:
        """The session that may be resumed for `key`: host, port, demand and client certificate."""
        found = self._kept.get(key)
        if found is not None and found.until < self._clock():
            del self._kept[key]
            return None
        return found

    def keep(self, key: Hashable, session: ssl.SSLSession | None, verdict: str, *, until: float = 0.0) -> None:
        """Lay a session by. `until`: of a verdict that was itself resumed; it does not grow younger by that."""
        if session is None or not session.has_ticket:
            return
        lifetime = min(LONGEST, float(session.timeout or LONGEST))
        self._kept.pop(key, None)
        self._kept[key] = Kept(session, verdict, until or self._clock() + lifetime)
        while len(self._kept) > MOST:
            del self._kept[next(iter(self._kept))]

    def forget(self, key: Hashable) -> None:
        """The session was of no use."""
        self._kept.pop(key, None)


def _verifying(ca_file: str, ca_data: str, kind: type[ssl.SSLContext] = _Context) -> ssl.SSLContext:
    context = kind(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file or ca_data:
        context.load_verify_locations(cafile=ca_file or None, cadata=ca_data or None)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def _unchecked() -> ssl.SSLContext:
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _load_pair(context: ssl.SSLContext, pair: ClientPair) -> None:
    """OpenSSL wants paths, so it gets some of files in memory: key bytes touch no disk."""
    descriptors = [os.memfd_create("posthof-client-tls") for _ in pair]
    try:
        for descriptor, content in zip(descriptors, pair, strict=True):
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
        chain, key = (f"/proc/self/fd/{one}" for one in descriptors)
        context.load_cert_chain(chain, key, password=_no_password)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _no_password() -> str:
    raise ssl.SSLError("the client certificate's key is encrypted")


def chain_of(connection: Any) -> list[bytes]:
    """What the peer showed (DER, its own first), unverified; [] for a resumed session. `connection`: ssl.SSLObject.

    Before Python 3.13 `ssl` has no name for it: the object below it does.
    """
    found = connection._sslobj.get_unverified_chain() or ()
    return [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in found]


def server_name(name: str, level: TLSLevel) -> str:
    """What to send as SNI and, for Verify, to check: "" where the name cannot stand in a certificate and need not."""
    name = name.rstrip(".")
    if level is TLSLevel.VERIFY:
        return name
    try:
        ipaddress.ip_address(name)
    except ValueError:
        is_name = 0 < len(name) < 254 and name.isascii() and all(0 < len(label) < 64 for label in name.split("."))
        return name if is_name else ""
    return ""
