"""What sessions have to say, written together at the end of a turn of the loop.

A write to a socket passes the whole network stack and wakes the peer, who then competes for the processor. Between
two pieces of our own work that costs both their caches; one behind the other, a dozen writes cost far less than a
dozen times one.

Rules
- Octets of one transport leave in the order they were given, and so does its end (`close`). Whoever shuts a transport
  half or puts TLS on it calls `flush` first; what was for a transport that closed otherwise is dropped.
- Nothing waits for more than the end of the present turn.
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

Pieces = bytes | memoryview | tuple[bytes | memoryview, ...]


class Outbox:
    """One for each loop (`outbox_of`)."""

    __slots__ = ("_is_due", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[asyncio.WriteTransport, Pieces | None]] = []  # None: close
        self._is_due = False

    def put(self, transport: asyncio.WriteTransport, data: Pieces) -> None:
        """Octets, or several pieces of them, for a transport."""
        self._waiting.append((transport, data))
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self.flush)

    def close(self, transport: asyncio.WriteTransport) -> None:
        """Close a transport once all that was put for it is written."""
        self._waiting.append((transport, None))
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write now."""
        self._is_due = False
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            try:
                if transport.is_closing():
                    continue
                if isinstance(data, tuple):
                    transport.writelines(data)
                elif data is not None:
                    transport.write(data)
                else:
                    transport.close()
            except Exception as error:  # a fault with one session is not the others'; it must not wait for ever
                self._loop.call_exception_handler({"message": "a write to a session", "exception": error})
                transport.abort()


_OUTBOXES: WeakKeyDictionary[asyncio.AbstractEventLoop, Outbox] = WeakKeyDictionary()


def outbox_of(loop: asyncio.AbstractEventLoop) -> Outbox:
    """The loop's outbox."""
    found = _OUTBOXES.get(loop)
    if found is None:
        found = _OUTBOXES[loop] = Outbox(loop)
    return found
