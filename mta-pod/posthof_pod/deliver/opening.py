"""How a session comes about: connect, banner, EHLO, TLS, AUTH. Foreign errors become Unreachable here, once.

Rules about TLS
- What the host must prove is its Demand (resolve/demands.py), or the destination's level where it has none. Nothing
  is said to the host, EHLO included, before it is proven.
- Only level May goes on in plain text where TLS fails, and an MTA-STS policy in testing without its proof; both are
  told (`tls_failure`). Every failure is kept with its name in RFC 8460 (`faults`), whether mail went or not.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import Generator, Hashable
from typing import Any, NamedTuple, TypeVar

from posthof_crds.engine import Timeouts, TLSLevel
from posthof_pod.deliver import dane
from posthof_pod.deliver.auth import Credentials, authenticate
from posthof_pod.deliver.tls import RESUME, ClientPair, ClientTLS, Kept, chain_of, server_name
from posthof_pod.deliver.wire import Wire
from posthof_pod.model import Demand, Destination, DestinationKind, Host, Reason, TLSFault
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
        self,
        reason: Reason,
        host: str,
        reply: str,
        *,
        code: int = 0,
        enhanced: str = "",
        is_permanent: bool = False,
        fault: TLSFault | None = None,
    ) -> None:
        super().__init__(f"{host}: {reply}")
        self.faults: tuple[Fault, ...] = (Fault(fault, reply),) if fault is not None else ()
        self.reason = reason
        self.host = host
        self.reply = reply
        self.code = code
        self.enhanced = enhanced or ENHANCED.get(reason, "4.3.0")
        self.is_permanent = is_permanent


class Fault(NamedTuple):
    """A TLS failure, as a report tells it."""

    kind: TLSFault
    why: str


class Opened(NamedTuple):
    wire: Wire
    extensions: Extensions
    tls: str  # "TLSv1.3 TLS_AES_256_GCM_SHA384 DANE 3 1 1": what was proven stands last; "" for plain text
    tls_failure: str  # why a session has less than it was meant to have: level May in plain text, MTA-STS in testing
    faults: tuple[Fault, ...] = ()


class _HandshakeFailed(Exception):
    """TLS did not come about, or proved nothing; the text says why."""

    def __init__(self, fault: TLSFault, why: str) -> None:
        super().__init__(why)
        self.fault = fault


def readable(host: Host) -> str:
    """How a host is named to people: "mx.example.org[192.0.2.1]:25"."""
    return f"{host.name}[{host.address}]:{host.port}" if host.port else f"{host.name}[{host.address}]"


class Opening:
    """One attempt to get a session, with less a second time where the level allows it."""

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
        pair: ClientPair | None = None,
    ) -> None:
        egress = destination.egress
        self._host = host
        self._who = readable(host)
        demand = host.demand
        self._demand = demand
        self._level = _level_of(destination) if demand is None else demand.level
        self._is_testing = demand is not None and demand.is_testing
        self._pair = pair
        self._verdict = ""
        self._resumed: Kept | None = None
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
        faults: list[Fault] = []
        steps = self._steps()
        for level in steps:
            try:
                opened = await self._try(level)
            except _HandshakeFailed as error:
                faults.append(Fault(error.fault, str(error)))
                if level is steps[-1]:
                    raise self._unreachable(Reason.TLS_FAILED, faults) from None
            except Unreachable as error:
                faults += error.faults
                if level is steps[-1] or error.reason is not Reason.TLS_REQUIRED:
                    error.faults = tuple(faults)
                    raise
            else:
                is_less = level is not steps[0] or opened.tls_failure
                faults += opened.faults
                return opened._replace(tls_failure=faults[0].why if is_less else "", faults=tuple(faults))
        raise AssertionError("the last step returns or raises")

    def _steps(self) -> list[TLSLevel]:
        """The levels to try, strictest first. More than one only where the policy allows less."""
        if self._is_testing:
            return [self._level, TLSLevel.MAY, TLSLevel.NONE]
        if self._level is TLSLevel.MAY and not self._is_implicit:
            return [TLSLevel.MAY, TLSLevel.NONE]
        return [self._level]

    def _unreachable(self, reason: Reason, faults: list[Fault]) -> Unreachable:
        error = Unreachable(reason, self._who, faults[-1].why)
        error.faults = tuple(faults)
        return error

    async def _try(self, level: TLSLevel) -> Opened:
        self._trying, self._verdict, self._resumed = level, "", None
        wire = await self._connect()
        try:
            opened = await self._greet(wire, level)
            self._lay_by(wire)
            return opened
        except Refused as error:
            wire.quit()
            is_host = error.reason in {Reason.GREETING_REFUSED, Reason.EHLO_REFUSED}
            is_tls = error.reason is Reason.TLS_REQUIRED
            raise Unreachable(
                error.reason,
                self._who,
                error.text,
                code=error.code,
                enhanced=error.enhanced,
                is_permanent=is_host and error.code >= 500,
                fault=TLSFault.NO_STARTTLS if is_tls else None,
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
        if cipher:
            return Opened(wire, offer, " ".join(filter(None, (cipher[1], cipher[0], self._verdict))), "")
        if level is not TLSLevel.MAY:
            return Opened(wire, offer, "", "")
        why = "STARTTLS was refused" if offer.starttls else "the host does not offer STARTTLS"
        return Opened(wire, offer, "", why if offer.starttls else "", (Fault(TLSFault.NO_STARTTLS, why),))

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

        self._lay_down()

        try:
            async with asyncio.timeout(times.connect):
                if self._is_path:
                    return (await loop.create_unix_connection(make, self._host.address))[1]
                extra: dict[str, Any] = {}
                if self._is_implicit:
                    extra = {"ssl": self._context(), "server_hostname": self._server_name()}
                source = (self._source, 0) if self._source else None
                host = self._host
                wire = (await loop.create_connection(make, host.address, host.port, local_addr=source, **extra))[1]
                if self._is_implicit:
                    self._prove(wire)
                return wire
        except ssl.SSLError as error:
            raise self._not_shaken(error) from None
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
                self._context(),
                server_hostname=self._server_name() or None,
                ssl_handshake_timeout=min(HANDSHAKE_PATIENCE, self._timeouts.command),
            )
        except (
            OSError,
            ValueError,
        ) as error:  # ssl.SSLError is an OSError; a name no certificate can have: ValueError
            raise self._not_shaken(error) from None
        if transport is None:
            raise self._not_shaken(ConnectionResetError("the host closed the connection"))
        wire.transport = transport
        if wire.is_over:
            raise Unreachable(
                Reason.PEER_BROKEN, self._who, "the host spoke in plain text behind its 220 to STARTTLS"
            )
        self._prove(wire)

    # --- what TLS proves

    def _server_name(self) -> str:
        """DANE names the place of the records (RFC 7672 8.1)."""
        names = self._demand.names if self._demand is not None else ()
        return server_name(names[0] if names else self._host.name, self._trying)

    def _key(self) -> Hashable:
        """What must be the same for a session to be resumed."""
        host = self._host
        return host.name, host.port, self._trying, host.demand, self._pair

    def _lay_down(self) -> None:
        """The session to be resumed. Before the connection is made: what the transport does later, the handshake too,
        runs in the context of that moment."""
        self._resumed = None if self._trying is TLSLevel.NONE else self._tls.kept(self._key())
        RESUME.set(self._resumed.session if self._resumed is not None else None)

    def _context(self) -> ssl.SSLContext:
        return self._tls.context(self._trying, self._pair)

    def _prove(self, wire: Wire) -> None:
        """After a handshake: the chain is the one that was demanded. Raises _HandshakeFailed."""
        connection = wire.transport.get_extra_info("ssl_object")
        if connection.session_reused and self._resumed is not None:
            self._verdict = self._resumed.verdict
            return
        self._resumed = None
        if self._trying is TLSLevel.VERIFY:
            self._verdict = "verified"
        elif self._trying is TLSLevel.DANE:
            demand = self._demand or Demand(TLSLevel.DANE)
            try:
                record = dane.verify(chain_of(connection), demand.tlsa, demand.names, time.time())
            except dane.Mismatch as error:
                wire.give_up(Reason.TLS_FAILED, str(error))
                raise _HandshakeFailed(error.fault, f"DANE: {error}") from None
            self._verdict = f"DANE {record}"

    def _lay_by(self, wire: Wire) -> None:
        """Keep the session: its tickets came before the answer to the EHLO inside it."""
        connection = wire.transport.get_extra_info("ssl_object")
        if connection is not None:
            until = self._resumed.until if self._resumed is not None else 0.0
            self._tls.keep(self._key(), connection.session, self._verdict, until=until)

    def _not_shaken(self, error: Exception) -> _HandshakeFailed:
        if self._resumed is not None:
            self._tls.forget(self._key())
        return _HandshakeFailed(_fault_of(error), _tls_words(error))


def _level_of(destination: Destination) -> TLSLevel:
    """Of a host without a Demand: nothing was looked for (a callout, LMTP, a path), so nothing can be proven."""
    if destination.tls is TLSLevel.BEST:
        return TLSLevel.MAY
    return TLSLevel.VERIFY if destination.tls in (TLSLevel.DANE, TLSLevel.MTASTS) else destination.tls


_FAULTS = {
    10: TLSFault.EXPIRED,
    62: TLSFault.HOST_MISMATCH,
    64: TLSFault.HOST_MISMATCH,
    **dict.fromkeys((2, 18, 19, 20, 21, 27), TLSFault.NOT_TRUSTED),
}
"""By OpenSSL's X509_V_ERR_ numbers."""


def _fault_of(error: Exception) -> TLSFault:
    code = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else 0
    return _FAULTS.get(code, TLSFault.VALIDATION)


def _tls_words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate does not hold: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS handshake failed: {error.reason or error}"
    return f"TLS handshake failed: {error or type(error).__name__}"
