"""What all sessions of one listener share: its configuration, its gate, its limits, and who is told what happens.

Rules
- It is the `Reception` a dialogue asks (smtp/gate.py), for both listeners.
- `swap` puts a new configuration in place at once; a dialogue takes it up between two messages.
- A certificate is asked for at each handshake, so that a new one serves the next session.
- Where addresses may be a node's (`client_ip_preserved` is False) and the listener is not Internal, no rule may
  believe one, unless a trusted balancer or front end named it: `Session.vouched` is "" then.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from posthof_crds.engine import Listener, ListenerRole, TLSMode
from posthof_pod.listen.limits import FULL, OF_A_CLIENT, Clients
from posthof_pod.listen.networks import Networks, client_network
from posthof_pod.listen.seen import Seen
from posthof_pod.replies import Reply
from posthof_pod.smtp.gate import Exchange, Gate, Session
from posthof_pod.smtp.terms import Terms

Contexts = Callable[[], ssl.SSLContext | None]

SHUTDOWN = Reply(421, "4.3.2", "The system is shutting down, try again later")
TIMED_OUT = Reply(421, "4.4.2", "Nothing came for too long")

BACKLOG = 4096  # connections the kernel holds for us; it cuts the number to net.core.somaxconn

_STAGES = {
    "": "session",
    "AUTH": "auth",
    "EHLO": "helo",
    "HELO": "helo",
    "MAIL": "mail",
    "RCPT": "rcpt",
    "DATA": "data",
    "BDAT": "data",
}


class Watch(Protocol):
    """The part of observe.events.Events that listeners call."""

    def refused(
        self,
        stage: str,
        reply: Reply,
        *,
        client: str = "",
        client_name: str = "",
        listener: str = "",
        role: str = "",
        sender: str | None = None,
        recipient: str = "",
        tls: str = "",
    ) -> None: ...

    def turned_away(self, reply: Reply, *, client: str, network: str, listener: str = "", role: str = "") -> None: ...

    def session_ended(
        self,
        *,
        client: str,
        client_name: str = "",
        listener: str = "",
        commands: int,
        messages: int = 0,
        seconds: float = 0.0,
        tls: str = "",
        reason: str = "",
    ) -> None: ...

    def internal_error(self, where: str, error: BaseException) -> None: ...


class Listening(Protocol):
    """A listener as the worker holds it. Both implementations are one."""

    async def start(self, sock: socket.socket) -> None:
        """Listens on a bound socket, which is its own from now on."""
        ...

    def swap(self, listener: Listener, hostname: str, gate: Gate) -> None:
        """A new configuration, without dropping a session. The address and TLS mode are the socket's: unchanged."""
        ...

    async def drain(self, grace: float) -> None:
        """No new sessions; 421 4.3.2 to each once no message is on its way; after `grace` seconds it is over."""
        ...

    @property
    def sessions(self) -> int: ...

    @property
    def coming(self) -> int:
        """Messages on their way in; 0 where nobody counts them."""
        ...

    @property
    def desk(self) -> FrontDesk: ...


class FrontDesk:
    """The Reception of a listener."""

    def __init__(
        self,
        listener: Listener,
        hostname: str,
        gate: Gate,
        *,
        contexts: Contexts,
        watch: Watch,
        blob_threshold: int,
        clock: Callable[[], float],
    ) -> None:
        self.watch = watch
        self.contexts = contexts
        self.clock = clock  # monotonic seconds
        self.clients = Clients(listener.limits)
        self.coming = 0
        self.seen = Seen()
        self._blob_threshold = blob_threshold
        self.swap(listener, hostname, gate)

    def swap(self, listener: Listener, hostname: str, gate: Gate) -> None:
        self.listener = listener
        self.gate = gate
        self.clients.limits = listener.limits
        self.proxies = Networks(listener.proxy_trusted)
        self.front_ends = Networks(listener.xclient_trusted)
        self._vouches = listener.client_ip_preserved or listener.role is ListenerRole.INTERNAL
        has_certificate = listener.tls is not TLSMode.OFF and self.contexts() is not None
        self.terms = Terms(listener, hostname, has_certificate=has_certificate, blob_threshold=self._blob_threshold)

    def session(self, client: str, port: int, *, is_named: bool = False) -> Session:
        """The facts of a session that begins. `is_named`: a trusted balancer's PROXY header named the client."""
        listener = self.listener
        session = Session(client, listener=listener.name, role=listener.role, client_port=port)
        if not (self._vouches or is_named):
            session.vouched = ""
        if client and listener.role is not ListenerRole.INTERNAL:
            self.seen.add(client)
        session.has_xclient = session.vouched in self.front_ends
        return session

    # ---- asked by the dialogue

    def admits_message(self, session: Session) -> Reply | None:
        return self.clients.message(session.client, self.clock())

    def authenticate(self, session: Session, mechanism: str) -> Exchange | Reply:
        return self.gate.authenticate(session, mechanism)

    def moves(self, session: Session, client: str) -> Reply | None:
        return self.clients.move(session.client, client, self.clock())

    def refused(self, session: Session, verb: str, sender: str | None, recipient: str | None, reply: Reply) -> None:
        self.watch.refused(
            _STAGES.get(verb, "command"),
            reply,
            client=session.client,
            client_name=session.client_name or session.helo,
            listener=session.listener,
            role=session.role,
            sender=sender,
            recipient=recipient or "",
            tls=session.tls,
        )

    def failed(self, where: str, error: BaseException) -> None:
        self.watch.internal_error(f"listener {self.listener.name}: {where}", error)

    # ---- told by the listener

    def turned_away(self, client: str, reply: Reply) -> None:
        """A connection that was closed before it was a session."""
        listener = self.listener
        if reply in OF_A_CLIENT or reply == FULL:
            network = "" if reply == FULL else client_network(client)
            self.watch.turned_away(reply, client=client, network=network, listener=listener.name, role=listener.role)
        else:
            self.watch.refused("connect", reply, client=client, listener=listener.name, role=listener.role)

    def ended(self, session: Session, *, commands: int, messages: int, begun: float, reason: str) -> None:
        self.watch.session_ended(
            client=session.client,
            client_name=session.client_name or session.helo,
            listener=session.listener,
            commands=commands,
            messages=messages,
            seconds=self.clock() - begun,
            tls=session.tls,
            reason=reason,
        )


def cipher_of(transport: asyncio.BaseTransport) -> str:
    """ "TLSv1.3 TLS_AES_256_GCM_SHA384" of a transport whose handshake is done."""
    cipher = transport.get_extra_info("cipher")
    return f"{cipher[1]} {cipher[0]}" if cipher else "TLS"
