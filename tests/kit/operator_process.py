"""The operator as a process of its own, against the API server of fakeapi.py."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TextIO

import yaml

from kit.fakeapi import FakeApi

PORTS = {"POSTHOF_METRICS_PORT": "0", "POSTHOF_NAMESPACE": "posthof"}


def kubeconfig(server: FakeApi, folder: Path) -> str:
    path = folder / "kubeconfig"
    config = {
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": server.url}}],
        "users": [{"name": "a", "user": {"token": "word"}}],
    }
    path.write_text(yaml.safe_dump(config))
    return str(path)


@contextlib.asynccontextmanager
async def process(server: FakeApi, folder: Path, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**PORTS, "KUBECONFIG": kubeconfig(server, folder), "HOME": str(folder), **more}
    one = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "posthof_operator.main",
        "run",
        env=environment,
        stderr=_log(folder),
    )
    try:
        yield one
    finally:
        if one.returncode is None:
            one.kill()
        await one.wait()


def _log(folder: Path) -> TextIO:
    return (folder / f"log-{len(list(folder.iterdir()))}").open("w")
