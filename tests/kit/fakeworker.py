"""A worker that speaks the channel and takes no mail: `python -m kit.fakeworker` in the place of posthof_pod.worker.

What a test may ask of it stands in the configuration's hostname, so that nothing but the channel is needed:
  crash.*     ends with status 3 as soon as it has its configuration
  refuse.*    refuses the configuration
  stubborn.*  answers `stop` and does not end
It greets every connection on its sockets with its process id and closes, and keeps a journal of what it was told:
`trace.search` of "journal" returns that.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time

import msgspec

from posthof_crds.engine import EngineConfig
from posthof_pod.admin.channel import Refused, SocketInfo, Swap, WorkerStart, worker_channel
from posthof_pod.admin.waiting import QueueFilter, QueueItem, QueuePage, QueueRecipient, item_test


class FakeWorker:
    def __init__(self, start: WorkerStart) -> None:
        self.start = start
        self.journal: list[str] = []
        self.config: EngineConfig | None = None
        self.servers: dict[SocketInfo, asyncio.Server] = {}
        self.held = False
        self.end = asyncio.Event()
        handlers = {
            "config": self.swap,
            "stats": self.stats,
            "stop": self.stop,
            "adopt": self.note("adopt"),
            "reopen": self.note("reopen"),
            "queue.list": self.list,
            "queue.show": self.show,
            "queue.content": self.content,
            "queue.hold": self.hold,
            "queue.flush": self.count,
            "queue.release": self.count,
            "queue.delete": self.count,
            "trace.search": self.search,
            "hang": self.hang,
            "end": self.leave,
        }
        self.channel = worker_channel(start, handlers, on_close=self.end.set)
        self.channel.tell("hello", {"spool": f"spool-of-{os.getpid()}"})

    def note(self, what: str):
        async def handler(payload: object) -> None:
            self.journal.append(f"{what} {payload}")

        return handler

    async def swap(self, payload: object) -> dict[str, str]:
        swap = msgspec.convert(payload, Swap)
        config = msgspec.msgpack.decode(swap.config, type=EngineConfig) if swap.config else self.config
        assert config is not None, "keys alone come only beside a configuration that runs"
        if config.hostname.startswith("crash."):
            os._exit(3)
        if config.hostname.startswith("refuse."):
            for descriptor in swap.fds:
                os.close(descriptor)
            raise Refused("this worker cannot live with that name")
        for info in swap.removed:
            self.servers.pop(info).close()
        for info, descriptor in zip(swap.added, swap.fds, strict=True):
            bound = socket.socket(fileno=descriptor)
            self.servers[info] = await asyncio.start_server(self.greet, sock=bound)
        is_first = self.config is None
        self.config = config
        self.journal.append(f"config {config.hostname} {sorted(swap.secrets)} {sorted(swap.certificates)}")
        if is_first:
            self.channel.tell("ready", {})
        return {"revision": swap.revision}

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{os.getpid()}\n".encode())
        await writer.drain()
        writer.close()

    async def stats(self, payload: object) -> dict[str, float]:
        return {"posthof_messages_accepted_total": 5, 'posthof_queue_messages{state="ready"}': 1}

    async def stop(self, payload: object) -> None:
        for server in self.servers.values():
            server.close()
        if self.config is not None and not self.config.hostname.startswith("stubborn."):
            asyncio.get_running_loop().call_later(0.01, self.end.set)

    def item(self) -> QueueItem:
        waiting = QueueRecipient(
            "b@example.net", "held" if self.held else "deferred", time.time() + 60, 2, "DNSFailed"
        )
        waiting.destination = "direct:example.net"
        arrived = 1000.0 + int(self.start.name)
        return QueueItem(f"lane{self.start.name}-1", "a@example.org", arrived, 4096, [waiting], recipients=1)

    async def list(self, payload: object) -> QueuePage:
        wanted = msgspec.convert(payload, QueueFilter)
        found = [item for item in [self.item()] if item_test(wanted)(item)]
        return QueuePage(found[: wanted.limit], len(found))

    async def show(self, payload: dict[str, str]) -> QueueItem | None:
        return self.item() if payload["id"] == self.item().id else None

    async def content(self, payload: dict[str, str]) -> bytes | None:
        return b"Subject: x\r\n\r\nhello\r\n" if payload["id"] == self.item().id else None

    async def hold(self, payload: object) -> dict[str, int]:
        answer = await self.count(payload)
        self.held = self.held or answer["count"] > 0
        return answer

    async def count(self, payload: object) -> dict[str, int]:
        return {"count": int(item_test(msgspec.convert(payload, QueueFilter))(self.item()))}

    async def search(self, payload: dict[str, object]) -> list[bytes]:
        if payload["wanted"] == "journal":
            return [msgspec.json.encode({"time": self.start.name, "event": one}) for one in self.journal]
        time_ = f"2026-01-01T00:00:0{self.start.name}.000Z"
        return [msgspec.json.encode({"time": time_, "event": "accepted", "queue_id": f"lane{self.start.name}-1"})]

    async def leave(self, payload: object) -> None:
        """End unasked, with last words."""
        self.channel.tell("stats", {"posthof_messages_accepted_total": 7})
        self.end.set()

    async def hang(self, payload: object) -> None:
        time.sleep(3600)  # noqa: ASYNC251 -- a loop that does not turn is what this is for


async def main() -> None:
    worker = FakeWorker(WorkerStart.from_argv())
    await worker.end.wait()
    worker.channel.close()


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
