"""From accept to delivered: how long after its 250 a message is whole at the next hop.

One process is client and next hop, so one clock reads both ends. The client sends at a fixed pace that every system
keeps up with, one message after the other over one session; the figures are about waiting, not about load. A message
that arrived before the client had read its 250 counts as 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection

BODY = b"Subject: probe\r\n\r\n" + (b"0123456789abcdef" * 4 + b"\r\n") * 62
PACE = 0.02  # seconds from message to message


class Stopwatch:
    """A next hop that notes when the message with a number in its sender's address was whole."""

    def __init__(self) -> None:
        self.arrived: dict[bytes, float] = {}
        self.port = 0
        self._news = asyncio.Event()

    @contextlib.asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[Stopwatch]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def has_all(self, numbers: Collection[bytes]) -> None:
        """Until all of these have arrived."""
        while not self.arrived.keys() >= set(numbers):
            self._news.clear()
            await self._news.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = b""
        writer.write(b"220 stopwatch ESMTP\r\n")
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    writer.write(b"250-stopwatch\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
                elif verb == b"DATA":
                    writer.write(b"354 go on\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                    self.arrived[number] = time.perf_counter()
                    self._news.set()
                    writer.write(b"250 2.0.0 taken\r\n")
                elif verb == b"QUIT":
                    writer.write(b"221 2.0.0 bye\r\n")
                    break
                else:
                    if verb == b"MAIL":
                        number = line.partition(b"<")[2].partition(b"@")[0]
                    writer.write(b"250 2.0.0 ok\r\n")
        writer.close()


class Prober:
    """A client that sends numbered messages over one session and notes when each was answered 250."""

    def __init__(self, recipient: str) -> None:
        self.accepted: dict[bytes, float] = {}
        self._recipient = recipient.encode()

    async def send(self, port: int, count: int, *, pace: float = PACE, first: int = 0) -> None:
        """Messages `first` to `first + count - 1`, one every `pace` seconds."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        await _ask(reader, writer, b"EHLO prober.bench\r\n")
        begun = time.perf_counter()
        for number in range(first, first + count):
            name = b"%d" % number
            await _ask(reader, writer, b"MAIL FROM:<%s@prober.bench>\r\n" % name)
            await _ask(reader, writer, b"RCPT TO:<%s>\r\n" % self._recipient)
            await _ask(reader, writer, b"DATA\r\n")
            await _ask(reader, writer, BODY + b".\r\n")
            self.accepted[name] = time.perf_counter()
            await asyncio.sleep(max(0.0, begun + (number - first + 1) * pace - time.perf_counter()))
        await _ask(reader, writer, b"QUIT\r\n")
        writer.close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: bytes) -> None:
    writer.write(command)
    while True:
        line = await asyncio.wait_for(reader.readline(), 60)
        if not line or line[:1] not in (b"2", b"3"):
            raise ConnectionError(f"{command[:60]!r} was answered {line!r}")
        if line[3:4] == b" ":
            return


async def delays(
    watch: Stopwatch,
    port: int,
    count: int,
    *,
    recipient: str,
    pace: float = PACE,
    patience: float = 60.0,
    first: int = 0,
) -> list[float]:
    """Send `count` messages; their seconds from 250 to arrival, sorted. TimeoutError if one does not come."""
    prober = Prober(recipient)
    await prober.send(port, count, pace=pace, first=first)
    await asyncio.wait_for(watch.has_all(prober.accepted), patience)
    return sorted(max(0.0, watch.arrived[name] - accepted) for name, accepted in prober.accepted.items())


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the sorted values do not exceed."""
    return values[min(len(values) - 1, int(len(values) * share))]
