"""Ten thousand MailDomains: how long a cold operator needs, how large it is, what it writes; and one edit after that.

    python tests/bench/fleet_of_domains.py [COUNT]      prints one JSON object

The API server is the one of tests/kit/fakeapi.py in this process, the operator a process of its own, kopf and all;
nobody answers about DNS, and what is said of that is not counted. The first life writes every status; the second is
the cold start that counts: it is to write nothing but what it is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from kit.fakeapi import FakeApi, Request, until
from kit.operated import NS, domain, mta
from kit.operator_process import process

DEAF = {"POSTHOF_RESOLVER": "127.0.0.1@9"}


def writes(server: FakeApi) -> list[Request]:
    return [one for one in server.writes if one.kind != "Event" and not one.manager.endswith("-dns")]


def cpu(pid: int) -> float:
    """Seconds of CPU it has used: what a busy machine does not change."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def settled(server: FakeApi, quiet: float = 8.0) -> None:
    """Nothing was written for a while."""
    count, at = -1, time.monotonic()
    while time.monotonic() - at < quiet:
        if len(writes(server)) != count:
            count, at = len(writes(server)), time.monotonic()
        await asyncio.sleep(0.2)


def memory(pid: int) -> tuple[int, int]:
    """Resident now and at most, MiB."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) // 1024, int(lines["VmHWM"].split()[0]) // 1024


def judged(server: FakeApi) -> int:
    return sum(
        1
        for (kind, _, _), raw in server.objects.items()
        if kind == "MailDomain" and raw.get("status", {}).get("bindings")
    )


async def measure(count: int) -> dict[str, object]:
    found: dict[str, object] = {"domains": count}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        async with FakeApi() as server:
            server.put(mta(spool={"size": "1Gi"}))
            for number in range(count):
                server.put(domain(f"d{number}", dns={"publish": "None"}))
            began = time.monotonic()
            async with process(server, Path(folder), **DEAF) as one:
                await until(lambda: server.get("Deployment", "edge", NS), 600)
                found["first_deployment_s"] = round(time.monotonic() - began, 1)
                await until(lambda: judged(server) >= count, 600)
                found["first_all_statuses_s"] = round(time.monotonic() - began, 1)
                await settled(server)
                found["first_mib"] = memory(one.pid)
                one.send_signal(signal.SIGTERM)
                await one.wait()
            before, lists = len(writes(server)), server.counts()["list"]
            began = time.monotonic()
            async with process(server, Path(folder), **DEAF) as one:
                await until(lambda: server.counts()["list"] > lists)
                found["cold_start_process_s"] = round(time.monotonic() - began, 1)
                revision = config(server)
                server.put(domain("d7", inbound={"mode": "Reject"}))
                await until(lambda: config(server) != revision, 600)
                found["cold_start_to_a_served_edit_s"] = round(time.monotonic() - began, 1)
                found["cold_start_cpu_s"] = cpu(one.pid)
                await settled(server)
                found["cold_writes"] = sorted({f"{w.verb} {w.kind} {w.name}" for w in writes(server)[before:]})[:20]
                found["cold_write_count"] = len(writes(server)) - before
                found["cold_mib"] = memory(one.pid)
                used = cpu(one.pid)
                before, revision, began = len(writes(server)), config(server), time.monotonic()
                server.put(domain("d9", inbound={"mode": "Reject"}))
                await until(lambda: config(server) != revision, 600)
                found["edit_to_shard_s"] = round(time.monotonic() - began, 2)
                found["edit_cpu_s"] = round(cpu(one.pid) - used, 2)
                await settled(server)
                found["edit_writes"] = [f"{w.verb} {w.kind} {w.name}" for w in writes(server)[before:]]
    return found


def config(server: FakeApi) -> str:
    raw = server.objects.get(("ConfigMap", NS, "edge-config-0"))
    return str(raw["metadata"]["resourceVersion"]) if raw else ""


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(json.dumps(asyncio.run(measure(count)), indent=1))
