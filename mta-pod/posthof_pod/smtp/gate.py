"""What stands around a server dialogue: the client's session, the mail it hands over, and the two it asks.

Owns: Session, Incoming, and the protocols Gate (who decides about mail) and Reception (the listener).

Rules
- Either may be slow only where an Awaitable stands in the signature; everything else answers at once.
- A Gate may raise `replies.Failure` anywhere; its reply goes to the client. Anything else it raises becomes a 451.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol

import msgspec

from posthof_crds.engine import ListenerRole
from posthof_pod.model import Recipient
from posthof_pod.replies import Reply
from posthof_pod.smtp.data import BodySink
from posthof_pod.smtp.grammar import MailParameters, RecipientParameters
from posthof_pod.smtp.terms import Terms


class Session:
    """What is known of one client. The dialogue and its listener write it, all others read."""

    __slots__ = (
        "certificate",
        "client",
        "client_name",
        "client_port",
        "credential",
        "has_xclient",
        "helo",
        "is_extended",
        "listener",
        "proven",
        "role",
        "tls",
        "user",
        "vouched",
    )

    def __init__(self, client: str, *, listener: str, role: ListenerRole, client_port: int = 0) -> None:
        self.client = client  # IP address as `ipaddress` writes it, an IPv4-mapped one as IPv4; "" = not known
        self.client_port = client_port
        self.client_name = ""  # a verified host name, "" = not known
        self.listener = listener  # its name
        self.role = role
        self.helo = ""  # what EHLO or HELO said, "" = nothing yet
        self.is_extended = False  # EHLO
        self.tls = ""  # "TLSv1.3 TLS_AES_256_GCM_SHA384", "" = plain text
        self.has_xclient = False  # the client may use XCLIENT
        self.vouched = client  # `client` where rules may believe it; "" where it may be a node's
        self.credential = ""  # the SMTPCredential it has proven to be, "" = nobody has logged in
        self.user = ""  # the name it logged in with, where that SMTPCredential stands for many; else ""
        self.proven: tuple[str, ...] = ()  # DNS names in it
        self.certificate: dict[str, Any] = {}  # a verified client certificate, as ssl.getpeercert has it

    def protocol(self, *, smtputf8: bool = False) -> str:
        """The word for the Received field (RFC 3848, RFC 6531 4.3)."""
        if self.credential:
            return ("UTF8SMTP" if smtputf8 else "ESMTP") + ("SA" if self.tls else "A")
        if smtputf8:
            return "UTF8SMTPS" if self.tls else "UTF8SMTP"
        if not self.is_extended:
            return "SMTP"
        return "ESMTPS" if self.tls else "ESMTP"


class Incoming(msgspec.Struct):
    """A message whose last octet has just come. Nothing is promised yet. Who takes it owns a sink in `body`."""

    session: Session
    sender: str
    parameters: MailParameters
    recipients: list[Recipient]
    body: bytes | BodySink
    head: bytes  # of a streamed body: the header block with its last CRLF, 64 KiB at most; b"" when body is bytes
    size: int  # octets of content
    has_binary: bool  # a bare CR or LF, or BODY=BINARYMIME (only BDAT brings those)
    protocol: str  # "ESMTPS"

    def header_block(self) -> bytes:
        """The header fields with their last CRLF, without the blank line."""
        body = self.body
        if not isinstance(body, bytes):
            return self.head
        if body.startswith(b"\r\n"):
            return b""
        end = body.find(b"\r\n\r\n")
        return body if end < 0 else body[: end + 2]


class Exchange(Protocol):
    """One AUTH command on its way (accounts/exchange.py)."""

    def respond(self, response: bytes | None, /) -> Coroutine[Any, Any, bytes | Reply]:
        """The client's next response (None: AUTH came without one) -> a challenge, or the reply that ends it. After a
        positive one `session.credential` says who the client is. Raises grammar.Malformed."""
        ...


class Gate(Protocol):
    """Who decides about mail (admit/gate.py)."""

    def sender(
        self, session: Session, address: str, parameters: MailParameters, /
    ) -> Reply | Awaitable[Reply | None] | None:
        """None: go on."""
        ...

    def knows(self, session: Session, /) -> bool:
        """Whether a client that has not logged in is known by what it is (a pod); `session` says as whom from now
        on."""
        ...

    def authenticate(self, session: Session, mechanism: str, /) -> Exchange | Reply:
        """As Reception.authenticate."""
        ...

    def recipient(
        self, session: Session, sender: str, address: str, parameters: RecipientParameters, /
    ) -> Reply | tuple[Recipient, ...] | Awaitable[Reply | tuple[Recipient, ...]]:
        """The recipients this address stands for; none at all: accepted and dropped."""
        ...

    def room(self, size: int, /) -> Reply | None:
        """452 when the spool cannot take `size` octets (0: not declared)."""
        ...

    def accept(self, mail: Incoming, /) -> Coroutine[Any, Any, Reply]:
        """From the last dot to its reply."""
        ...

    def blob(self, session: Session, /) -> BodySink:
        """Where a large message of this session goes as it comes."""
        ...


class Reception(Protocol):
    """What the dialogue's listener gives it, shared by all its sessions."""

    coming: int  # messages on their way in: MAIL was accepted, the last octet is still to come. The dialogues count

    @property
    def terms(self) -> Terms: ...

    @property
    def gate(self) -> Gate: ...

    def admits_message(self, session: Session, /) -> Reply | None:
        """The rate of messages per client; asked at MAIL when `limits.client_message_rate` is set."""
        ...

    def authenticate(self, session: Session, mechanism: str, /) -> Exchange | Reply:
        """AUTH begins. `mechanism`: one of `terms.mechanisms`. A Reply: not now."""
        ...

    def moves(self, session: Session, client: str, /) -> Reply | None:
        """XCLIENT: the session belongs to `client` from now on (counted there), or the reply that ends it."""
        ...

    def refused(
        self, session: Session, verb: str, sender: str | None, recipient: str | None, reply: Reply, /
    ) -> None:
        """A 4xx or 5xx left. `sender` None: no transaction."""
        ...

    def failed(self, where: str, error: BaseException, /) -> None:
        """Our own fault, with its trace."""
        ...
