"""What the pods say of themselves: asked for over the pod network, with the key that only the operator and they have.

Rules of this file
- A pod that does not answer is no error: it has not said anything, and that is what the status says.
- All pods are asked at once; the slowest decides within `TIMEOUT`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

import aiohttp

from posthof_crds.ports import HEALTH
from posthof_crds.report import Report, decode

TIMEOUT = 2.0
LARGEST = 1024 * 1024


class PodAddress(NamedTuple):
    name: str
    ip: str


class Reporters:
    """Asks pods. One connection pool; `port` is another one in tests."""

    def __init__(self, port: int = HEALTH) -> None:
        self._port = port
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, pods: Iterable[PodAddress], token: str) -> dict[str, Report]:
        """Reports by pod; those that did not answer are left out."""
        asked = [pod for pod in pods if pod.ip]
        answers = await asyncio.gather(*(self._one(pod, token) for pod in asked))
        return {pod.name: answer for pod, answer in zip(asked, answers, strict=True) if answer is not None}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _one(self, pod: PodAddress, token: str) -> Report | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        headers = {"Authorization": f"Bearer {token}"}
        limits = aiohttp.ClientTimeout(total=TIMEOUT)
        try:
            url = f"http://{host}:{self._port}/report"
            async with self._session.get(url, headers=headers, timeout=limits) as response:
                if response.status != 200:
                    return None
                return decode(await response.content.read(LARGEST))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            return None  # it starts, ends, or is not ours any more: its silence is told in the status
