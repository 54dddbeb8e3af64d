"""Short words for a test that sends over one session to a `kit.peer.Peer`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from kit.peer import Peer
from posthof_crds.engine import Egress, Timeouts, TLSLevel
from posthof_pod.deliver.connection import BodyReader, Connection, Outgoing
from posthof_pod.model import Destination, DestinationKind, Envelope, Host, Recipient

TIMES = Timeouts(connect=20.0, command=20.0, data=20.0, block=20.0, dot=20.0)
TRACE = b"Received: by me.test\r\n"
BODY = b"Subject: hi\r\n\r\nhello\r\n"


def destination(*, lmtp: bool = False, tls: TLSLevel = TLSLevel.NONE, helo: str = "", ipv4: str = "") -> Destination:
    kind = DestinationKind.LMTP if lmtp else DestinationKind.DIRECT
    return Destination("test", kind, "peer.test", tls=tls, egress=Egress(helo=helo, ipv4=ipv4))


def host(peer: Peer, name: str = "peer.test") -> Host:
    return Host(name, str(peer.path) if peer.path else "127.0.0.1", peer.port)


async def connect(peer: Peer, *, name: str = "peer.test", times: Timeouts = TIMES, **given: Any) -> Connection:
    """A session in plain text, unless `destination` or others are given as for Connection.open."""
    to = given.pop("destination", None) or destination(lmtp=peer.lmtp)
    return await Connection.open(host(peer, name), to, hostname="me.test", timeouts=times, **given)


def mail(
    *to: str | Recipient,
    body: bytes | BodyReader = BODY,
    sender: str = "from@a.test",
    permit: Callable[[], bool | Awaitable[bool]] = lambda: True,
    trace: bytes = TRACE,
    **envelope: Any,
) -> Outgoing:
    people = tuple(Recipient(each) if isinstance(each, str) else each for each in to or ("to@b.test",))
    size = len(body) if isinstance(body, bytes) else body.size
    made = Envelope("lane-1", sender, people, 0.0, size, **envelope)
    return Outgoing(made, tuple(range(len(people))), trace, body, permit)


class Reader:
    """A content that comes in these chunks."""

    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self.chunks = chunks
        self.size = sum(map(len, chunks))
        self.error = error

    async def __aiter__(self):
        for chunk in self.chunks:
            yield chunk
        if self.error:
            raise self.error
