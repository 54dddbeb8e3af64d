"""A sink that takes its time: some ports, a process of its own, so many seconds for every message.

    python slowsink.py 0.05 4001 4002 ...      # commands on stdin: open, count; `count` answers with one line of JSON

Rules
- Until `open`, connections are taken and nobody is greeted: what is sent here stays ready at the sender.
- One message at a time in a session; sessions are served side by side.
- `most`: sessions that stood at one time, by port. A session ends with QUIT, whenever its socket is closed.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import uvloop

EHLO = b"250-slow.bench\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
REPLIES = {b"MAIL": b"250 2.1.0 ok\r\n", b"RCPT": b"250 2.1.5 ok\r\n", b"RSET": b"250 2.0.0 ok\r\n"}


class Sink:
    """What all ports share."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.is_open = False
        self.greeted_later: list[Session] = []
        self.messages = 0
        self.standing: Counter[int] = Counter()
        self.most: Counter[int] = Counter()

    def open(self) -> None:
        self.is_open = True
        for session in self.greeted_later:
            session.greet()
        self.greeted_later.clear()

    def state(self) -> dict[str, Any]:
        return {"messages": self.messages, "most": dict(self.most)}


class Session(asyncio.Protocol):
    def __init__(self, sink: Sink, port: int) -> None:
        self.sink, self.port = sink, port
        self.received = bytearray()
        self.is_data = self.is_busy = self.has_quit = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a TCP server's is a Transport
        self.sink.standing[self.port] += 1
        self.sink.most[self.port] = max(self.sink.most[self.port], self.sink.standing[self.port])
        if self.sink.is_open:
            self.greet()
        else:
            self.sink.greeted_later.append(self)

    def greet(self) -> None:
        self.transport.write(b"220 slow.bench\r\n")

    def connection_lost(self, error: Exception | None) -> None:
        self._leave()

    def _leave(self) -> None:
        if not self.has_quit:
            self.has_quit = True
            self.sink.standing[self.port] -= 1

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._go_on()

    def _go_on(self) -> None:
        out = b""
        while not self.is_busy:
            if self.is_data:
                end = self.received.find(b"\r\n.\r\n")
                if end < 0:
                    break
                del self.received[: end + 5]
                self.is_data, self.is_busy = False, True
                asyncio.get_running_loop().call_later(self.sink.delay, self._taken)
                break
            end = self.received.find(b"\r\n")
            if end < 0:
                break
            verb = bytes(self.received[:4]).upper()
            del self.received[: end + 2]
            if verb == b"DATA":
                self.is_data = True
                out += b"354 go on\r\n"
            elif verb == b"QUIT":
                self._leave()
                self.transport.write(out + b"221 2.0.0 bye\r\n")
                self.transport.close()
                return
            else:
                out += EHLO if verb == b"EHLO" else REPLIES.get(verb, b"500 5.5.2 what?\r\n")
        if out:
            self.transport.write(out)

    def _taken(self) -> None:
        self.is_busy = False
        self.sink.messages += 1
        self.transport.write(b"250 2.0.0 taken\r\n")
        self._go_on()


async def serve(delay: float, ports: Sequence[int]) -> None:
    sink = Sink(delay)
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(lambda port=port: Session(sink, port), "127.0.0.1", port, backlog=1000)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line.strip() == "open":
            sink.open()
        print(json.dumps(sink.state()), flush=True)


class SlowSink:
    """One of these as a child process. `with SlowSink(0.05, ports) as sink:`"""

    def __init__(self, delay: float, ports: Sequence[int]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(delay), *map(str, ports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the sink has ended"
        return line

    def _say(self, word: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self._answer()))

    def open(self) -> None:
        """Greet everybody, from now on."""
        self._say("open")

    def state(self) -> dict[str, Any]:
        """`messages` taken so far, `most` sessions at one time by port (as text)."""
        return self._say("count")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


if __name__ == "__main__":
    uvloop.run(serve(float(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
