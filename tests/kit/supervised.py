"""A supervisor in this process over fake workers (kit/fakeworker.py), from manifests in a folder.

async with Supervised(tmp_path) as house:
    assert await house.get("/readyz") == (200, ...)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from posthof_pod.admin.compiled import Compiled, compile_here
from posthof_pod.admin.prepare import Prepared
from posthof_pod.admin.supervisor import Supervisor
from posthof_pod.observe.events import Events
from posthof_pod.observe.log import Log

MTA = """
apiVersion: posthof.dev/v1alpha1
kind: MTA
metadata: {{name: house}}
spec:
  hostname: {hostname}
  listeners:
{listeners}
  spool: {{path: spool}}
  mailRoot: mail
  stateDir: state
  http: {{address: 127.0.0.1, port: {http}}}
"""


def free_port() -> int:
    """A TCP port that is free now. Below the ephemeral range nobody else is given it by the kernel."""
    while True:
        port = 10_000 + int.from_bytes(os.urandom(2), "big") % 22_000
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Supervised:
    """`log` holds the events so far; `supervisor` the subject."""

    def __init__(self, folder: Path, *, hostname: str = "mail.house.test", workers: int = 2) -> None:
        self.folder = folder
        self.manifests = folder / "manifests"
        self.manifests.mkdir()
        self.http = free_port()
        self.ports = [free_port()]
        self.write(hostname)
        self._workers = workers
        self._changed = asyncio.Event()

    def write(self, hostname: str = "mail.house.test", more: str = "", *, prefix: str = "l") -> None:
        """The MTA, with a listener `<prefix><port>` for each of `ports`; `more` goes behind it."""
        lines = [f"    - {{name: {prefix}{p}, role: MX, address: 127.0.0.1, port: {p}}}" for p in self.ports]
        text = MTA.format(hostname=hostname, listeners="\n".join(lines), http=self.http)
        (self.manifests / "mta.yaml").write_text(text + more)

    @property
    def token(self) -> str:
        """The header that proves who may change something."""
        return f"Authorization: Bearer {self.supervisor.token}"

    async def journal(self) -> list[str]:
        """What the workers were told."""
        _, said = await self.get("/api/v1/trace?q=journal")
        return [event["event"] for event in said["events"]]

    def load(self) -> Compiled:
        return compile_here(self.manifests, self.folder)

    async def changed(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    def announce(self) -> None:
        """What a watcher of the folder would say now."""
        self._changed.set()

    async def __aenter__(self) -> Self:
        compiled = self.load()
        assert compiled.config is not None, compiled.errors
        self._log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        prepared = Prepared(compiled.config, compiled.secrets, self._workers)
        events = Events(Log(self._log, str(self.folder / "log")))
        self.supervisor = Supervisor(
            prepared, self, events, output=self._log, module="kit.fakeworker", stop_within=3.0
        )
        self.running = asyncio.ensure_future(self.supervisor.run())
        await self.until(lambda: self.running.done() or hasattr(self.supervisor, "crew"))
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.supervisor.is_stopping:
            self.supervisor.stop("the test ends")
        await asyncio.wait_for(self.running, 60)
        os.close(self._log)

    @property
    def log(self) -> list[dict[str, Any]]:
        self.supervisor.events.flush()
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines() if line.startswith("{")]

    def names(self) -> list[str]:
        return [event["event"] for event in self.log]

    async def ready(self) -> None:
        await self.until(lambda: self.supervisor.is_ready)

    async def until(self, is_true: Callable[[], Any], *, within: float = 60.0) -> Any:
        end = time.monotonic() + within
        while not (said := is_true()):
            assert time.monotonic() < end, f"not within {within} s"
            await asyncio.sleep(0.02)
        return said

    async def get(self, path: str, *headers: str, method: str = "GET", body: str = "") -> tuple[int, Any]:
        """(status, decoded JSON or text)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.http)
        head = [f"{method} {path} HTTP/1.1", "Connection: close", f"Content-Length: {len(body)}", *headers]
        if not any(header.startswith("Host:") for header in headers):
            head.append(f"Host: 127.0.0.1:{self.http}")
        writer.write(("\r\n".join(head) + "\r\n\r\n" + body).encode())
        answer = await reader.read()
        writer.close()
        status, _, content = answer.partition(b"\r\n\r\n")
        text = content.decode()
        return int(status.split()[1]), json.loads(text) if text.startswith(("{", "[")) else text

    async def greeting(self, port: int) -> str:
        """What a worker says on one of the listeners."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        said = (await reader.read()).decode().strip()
        writer.close()
        return said
