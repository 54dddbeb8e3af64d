"""How a session comes about: connect, banner, EHLO, TLS, AUTH. Foreign errors become Unreachable here, once."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar

from posthof_crds.engine import Timeouts, TLSLevel
from posthof_pod.deliver.auth import Credentials, authenticate
from posthof_pod.deliver.tls import ClientTLS, server_name
from posthof_pod.deliver.wire import Wire
from posthof_pod.model import Destination, DestinationKind, Host, Reason
from posthof_pod.smtp.client import Ask, Hello, Refused, introduce
from posthof_pod.smtp.extensions import Extensions
from posthof_pod.smtp.replyline import Broken, PeerReply

SUBMISSIONS = 465  # TLS from the first byte (RFC 8314 3.3)
HANDSHAKE_PATIENCE = 60.0  # seconds

ENHANCED = {
    Reason.CONNECT_FAILED: "4.4.1",
    Reason.CONNECT_TIMEOUT: "4.4.1",
    Reason.PEER_CLOSED: "4.4.2",
    Reason.PEER_TIMEOUT: "4.4.2",
    Reason.PEER_BROKEN: "4.5.0",
    Reason.TLS_FAILED: "4.7.5",
    Reason.TLS_REQUIRED: "4.7.4",
    Reason.AUTH_FAILED: "4.7.8",
}
"""The enhanced code of a failure that no reply of the peer explains; 4.3.0 for the others."""

_SHAKEN = PeerReply(220, b"")
_T = TypeVar("_T")


class Unreachable(Exception):
    """No session with this host.

    `reply` is the peer's full reply or our own words; `code` is 0 where no reply of the peer said so. `is_permanent`:
    the host itself said 5xx to the banner or to EHLO. A refused AUTH is never permanent for the mail.
    """

    def __init__(
        self, reason: Reason, host: str, reply: str, *, code: int = 0, enhanced: str = "", is_permanent: bool = False
    ) -> None:
        super().__init__(f"{host}: {reply}")
        self.reason = reason
        self.host = host
        self.reply = reply
        self.code = code
        self.enhanced = enhanced or ENHANCED.get(reason, "4.3.0")
        self.is_permanent = is_permanent


class Opened(NamedTuple):
    wire: Wire
    extensions: Extensions
    tls: str  # "TLSv1.3 TLS_AES_256_GCM_SHA384", "" for plain text
    tls_failure: str  # why a session of level May is in plain text although TLS was offered


class _HandshakeFailed(Exception):
    """TLS did not come about; the text says why."""


def readable(host: Host) -> str:
    """How a host is named to people: "mx.example.org[192.0.2.1]:25"."""
    return f"{host.name}[{host.address}]:{host.port}" if host.port else f"{host.name}[{host.address}]"


class Opening:
    """One attempt to get a session, in plain text a second time where level May allows it."""

    def __init__(
        self,
        host: Host,
        destination: Destination,
        *,
        hostname: str,
        timeouts: Timeouts,
        tls: ClientTLS,
        auth: Credentials | None,
        local_address: str,
    ) -> None:
        egress = destination.egress
        self._host = host
        self._who = readable(host)
        self._level = destination.tls
        self._name = egress.helo or hostname
        self._timeouts = timeouts
        self._tls = tls
        self._auth = auth
        self._source = local_address or (egress.ipv6 if ":" in host.address else egress.ipv4)
        self._is_lmtp = destination.kind is DestinationKind.LMTP
        self._is_path = not host.port
        self._is_implicit = host.port == SUBMISSIONS and self._level is not TLSLevel.NONE and not self._is_lmtp

    async def run(self) -> Opened:
        """Raises Unreachable."""
        try:
            return await self._try(self._level)
        except _HandshakeFailed as error:
            failure = str(error)
        if self._level is not TLSLevel.MAY or self._is_implicit:
            raise Unreachable(Reason.TLS_FAILED, self._who, failure)
        opened = await self._try(TLSLevel.NONE)
        return opened._replace(tls_failure=failure)

    async def _try(self, level: TLSLevel) -> Opened:
        wire = await self._connect()
        try:
            return await self._greet(wire, level)
        except Refused as error:
            wire.quit()
            is_host = error.reason in {Reason.GREETING_REFUSED, Reason.EHLO_REFUSED}
            raise Unreachable(
                error.reason,
                self._who,
                error.text,
                code=error.code,
                enhanced=error.enhanced,
                is_permanent=is_host and error.code >= 500,
            ) from None
        except Broken as error:
            wire.give_up(Reason.PEER_BROKEN, str(error))
            raise Unreachable(Reason.PEER_BROKEN, self._who, f"the host does not speak SMTP: {error}") from None
        except BaseException:
            wire.give_up(Reason.SHUTDOWN, "the session was given up here")
            raise

    async def _greet(self, wire: Wire, level: TLSLevel) -> Opened:
        hello = Hello(self._name, level, self._is_lmtp, is_encrypted=self._is_implicit or self._is_path)
        offer = await self._talk(wire, introduce(hello))
        cipher = wire.transport.get_extra_info("cipher")
        if self._auth is not None:
            is_private = bool(cipher) or self._level is TLSLevel.NONE or self._is_path or self._is_loopback()
            await self._talk(wire, authenticate(self._auth, offer, is_private=is_private))
        return Opened(wire, offer, f"{cipher[1]} {cipher[0]}" if cipher else "", "")

    def _is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self._host.address).is_loopback
        except ValueError:
            return False

    async def _connect(self) -> Wire:
        """Raises Unreachable, _HandshakeFailed (implicit TLS)."""
        loop = asyncio.get_running_loop()
        times = self._timeouts
        period = min(1.0, times.command / 4, times.data / 4, times.block / 4, times.dot / 4)

        def make() -> Wire:
            return Wire(loop, period)

        try:
            async with asyncio.timeout(times.connect):
                if self._is_path:
                    return (await loop.create_unix_connection(make, self._host.address))[1]
                extra: dict[str, Any] = {}
                if self._is_implicit:
                    extra = {"ssl": self._tls.context(self._level), "server_hostname": self._server_name()}
                source = (self._source, 0) if self._source else None
                host = self._host
                return (await loop.create_connection(make, host.address, host.port, local_addr=source, **extra))[1]
        except ssl.SSLError as error:
            raise _HandshakeFailed(_tls_words(error)) from None
        except TimeoutError as error:
            is_ours = error.errno is None
            text = f"no connection within {times.connect:g} s" if is_ours else "the connection timed out"
            raise Unreachable(Reason.CONNECT_TIMEOUT, self._who, text) from None
        except OSError as error:
            source_text = f" from {self._source}" if self._source else ""
            text = f"cannot connect{source_text}: {error.strerror or error}"
            raise Unreachable(Reason.CONNECT_FAILED, self._who, text) from None

    async def _talk(self, wire: Wire, dialogue: Generator[Ask, PeerReply, _T]) -> _T:
        """Ask what the dialogue wants asked, until it returns. Raises what it raises, and Unreachable."""
        try:
            ask = next(dialogue)
            while True:
                ask = dialogue.send(await self._answer(wire, ask))
        except StopIteration as end:
            result: _T = end.value
            return result

    async def _answer(self, wire: Wire, ask: Ask) -> PeerReply:
        if ask.is_tls:
            await self._encrypt(wire)
            return _SHAKEN
        if ask.command and not wire.is_over:
            wire.say(ask.command, 1)
        replies = await wire.replies(1, ask.step, self._timeouts.command)
        if replies:
            return replies[0]
        reason, text = wire.failure or (Reason.PEER_CLOSED, "the host closed the connection")
        raise Unreachable(reason, self._who, f"at {ask.step}: {text}")

    async def _encrypt(self, wire: Wire) -> None:
        """TLS after a 220. Anything the peer said behind that 220 was said by nobody we know: the session ends."""
        if wire.is_over:
            reason, text = wire.failure or (Reason.PEER_CLOSED, "the host closed the connection")
            raise Unreachable(reason, self._who, f"after STARTTLS: {text}")
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(
                wire.transport,
                wire,
                self._tls.context(self._level),
                server_hostname=self._server_name() or None,
                ssl_handshake_timeout=min(HANDSHAKE_PATIENCE, self._timeouts.command),
            )
        except (
            OSError,
            ValueError,
        ) as error:  # ssl.SSLError is an OSError; a name no certificate can have: ValueError
            raise _HandshakeFailed(_tls_words(error)) from None
        if transport is None:
            raise _HandshakeFailed("TLS handshake failed: the host closed the connection")
        wire.transport = transport
        if wire.is_over:
            raise Unreachable(
                Reason.PEER_BROKEN, self._who, "the host spoke in plain text behind its 220 to STARTTLS"
            )

    def _server_name(self) -> str:
        return server_name(self._host.name, self._level)


def _tls_words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate does not hold: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS handshake failed: {error.reason or error}"
    return f"TLS handshake failed: {error or type(error).__name__}"
