"""One worker in this process, on its own ports, from manifests: everything but the supervisor is real.

async with House(tmp_path, manifests) as house:
    reply = await house.submit("a@x.test", ["b@ours.test"], b"Subject: hi\r\n\r\nhello\r\n")
"""

from __future__ import annotations

import asyncio
import socket
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from posthof_crds.compile import compile as compile_manifests
from posthof_crds.engine import EngineConfig, content_hash
from posthof_crds.load import load
from posthof_pod import app
from posthof_pod.admin.channel import Channel, SocketInfo, Swap, WorkerStart, pair
from posthof_pod.config.secrets import gather

MTA = """
apiVersion: posthof.dev/v1alpha1
kind: MTA
metadata: {name: house}
spec:
  hostname: mail.house.test
  listeners:
    - {name: smtp, role: MX, address: 127.0.0.1, port: 2525}
  spool: {path: spool}
  mailRoot: mail
  stateDir: state
"""

RETRY = "retry: {intervals: [1s], jitter: 0}"


class House:
    def __init__(self, folder: Path, manifests: str, *, mta: str = MTA) -> None:
        self.folder = folder
        self.manifests = folder / "manifests"
        self.manifests.mkdir(exist_ok=True)
        (self.manifests / "mta.yaml").write_text(textwrap.dedent(mta))
        self.write(manifests)
        self.worker: app.Worker
        self.port = 0

    def write(self, manifests: str) -> None:
        (self.manifests / "rest.yaml").write_text(textwrap.dedent(manifests))

    def config(self) -> EngineConfig:
        return compile_manifests(load(self.manifests), self.folder)

    async def __aenter__(self) -> Self:
        ours, theirs = pair()
        config = self.config()
        start = WorkerStart("1", theirs.detach())
        self.worker = app.Worker(start)
        self.channel = Channel(ours, {"hello": _ignore, "ready": _ignore})
        bound = socket.create_server(("127.0.0.1", 0))
        self.port = bound.getsockname()[1]
        listener = config.listeners[0]
        info = SocketInfo(listener.name, listener.host, listener.port)
        await self.swap(config, (info,), [bound.fileno()])
        bound.close()
        return self

    async def swap(self, config: EngineConfig, added: tuple[SocketInfo, ...] = (), fds: Sequence[int] = ()) -> None:
        secrets = gather(config, load(self.manifests).secret)
        swap = Swap(msgspec.msgpack.encode(config), secrets, {}, content_hash(config), added=added)
        await self.channel.ask("config", swap, fds=fds)

    async def __aexit__(self, *_: object) -> None:
        await self.channel.ask("stop", {"seconds": 5.0})
        await asyncio.wait_for(asyncio.shield(self.worker.ended), 60)
        self.channel.close()
        self.worker.channel.close()
        self.worker.events.close()

    async def ask(self, name: str, payload: object = None) -> Any:
        return await self.channel.ask(name, payload)

    async def queue(self) -> list[dict[str, Any]]:
        return list((await self.ask("queue.list", {}))["items"])

    async def drained(self) -> None:
        """Wait until nothing is queued."""
        await self.asked("queue.list", {}, lambda page: not page["items"])

    async def asked(self, name: str, payload: object, is_it: Callable[[Any], Any], *, within: float = 30.0) -> Any:
        """Ask again and again until the answer is the one, and return that."""
        end = time.monotonic() + within
        while True:
            answer = await self.ask(name, payload)
            if is_it(answer):
                return answer
            assert time.monotonic() < end, f"{name}: still {answer} after {within} s"
            await asyncio.sleep(0.02)

    async def submit(
        self, sender: str, recipients: Sequence[str], content: bytes, *, mail: str = "", client: str = ""
    ) -> str:
        """One transaction in a session of its own; the last reply's first line (of the step that refused). `client`:
        the IPv4 address it comes from, where the listener trusts PROXY."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def say(line: bytes) -> str:
            writer.write(line)
            while True:
                reply = (await reader.readline()).decode()
                if reply[3:4] != "-":
                    return reply.strip()

        try:
            await say(f"PROXY TCP4 {client} 127.0.0.1 1025 25\r\n".encode() if client else b"")
            await say(b"EHLO client.test\r\n")
            reply = await say(f"MAIL FROM:<{sender}>{mail}\r\n".encode())
            if reply[0] != "2":
                return reply
            for recipient in recipients:
                reply = await say(f"RCPT TO:<{recipient}>\r\n".encode())
                if reply[0] != "2":
                    return reply
            await say(b"DATA\r\n")
            stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
            return await say(stuffed + b".\r\n")
        finally:
            writer.close()

    def inbox(self, mailbox: str) -> list[bytes]:
        """What lies in `domain/local`, whole files."""
        folder = self.folder / "mail" / mailbox / "new"
        return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []

    async def until(self, is_true: Callable[[], Any], *, within: float = 30.0) -> Any:
        """Wait for a condition, and return what it said."""
        end = time.monotonic() + within
        while not (said := is_true()):
            assert time.monotonic() < end, f"not within {within} s"
            await asyncio.sleep(0.02)
        return said


async def _ignore(_: object) -> None:
    return None
