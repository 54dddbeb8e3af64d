"""How much sooner is a backlog empty that one pod made, when five more pods come?

    python tests/bench/scale_out.py                     # 20,000 messages, 1 pod, then 6; build/scale-out.json
    python tests/bench/scale_out.py --messages 5000

Outbound sessions of a worker are limited to 10, there are 12 destinations with a limit of 20 connections each, and
every message takes the receiver 50 ms: one pod can send 200 a second, whatever the machine. One pod of one worker
takes all mail while the receivers greet nobody; then they do, and in that moment the other pods start. Time runs from
there to the last message. Real pods (`posthof pod`, Leases at an API server of the test's), one spool in a local
folder.

The row holds when the six need a third of the time of the one at most. The sessions that stood at each destination
are counted by the receivers: the limit is the fleet's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.slowsink import SlowSink
from kit import peers
from kit.apiserver import ApiServer
from kit.pod import Pod, replaced
from posthof_crds.engine import (
    Action,
    ActionKind,
    DestinationLimits,
    EngineConfig,
    HopKind,
    Match,
    NextHop,
    Rule,
)

DELAY = 0.05  # seconds a receiver takes for a message
PATIENCE = 900.0  # seconds
RECORD = Path(__file__).resolve().parents[2] / "build" / "scale-out.json"


class Setting(NamedTuple):
    messages: int = 20_000
    destinations: int = 12
    connections: int = 20  # per destination, of the fleet
    sessions: int = 10  # of a worker, outbound
    lane: int = 500  # messages
    per_connection: int = 100
    is_shared_first: bool = False  # the receivers greet when some of the backlog has moved: for tests


class Row(NamedTuple):
    """Seconds until the last message, and how it went. `most`: sessions at one destination at one time."""

    pods: int
    messages: int
    seconds: float
    per_second: float
    most: int
    lanes: int
    delivered_by: dict[str, int]


@contextlib.contextmanager
def fleet(folder: Path, count: int) -> Iterator[list[Pod]]:
    """So many pods on one volume, not started. Each has an API server of its own, for their ports differ; they have
    the Leases in common."""
    with contextlib.ExitStack() as stack:
        pods: list[Pod] = []
        for n in range(count):
            own = folder / f"pod-{n}"
            own.mkdir()
            api = stack.enter_context(ApiServer(own))
            if pods and pods[0].api is not None:
                api.leases = pods[0].api.leases
            pods.append(stack.enter_context(Pod(own, api, name=f"edge-{n}", spool=folder / "volume")))
        yield pods


def config(pod: Pod, setting: Setting, ports: list[int]) -> EngineConfig:
    """One worker; a rule and a receiver for each destination."""
    limits = DestinationLimits(connections=setting.connections, messages_per_connection=setting.per_connection)
    rules = [
        Rule(
            name=f"to-{n}",
            priority=0,
            match=Match(clients=("127.0.0.0/8",), recipients=(f"*@d{n}.bench",)),
            action=Action(kind=ActionKind.SMARTHOST, hops=(NextHop(kind=HopKind.HOST, name="127.0.0.1", port=port),)),
            limits=limits,
        )
        for n, port in enumerate(ports)
    ]
    whole = pod.config(workers=1, outbound_sessions=setting.sessions, rules=rules)
    return replaced(whole, spool=replaced(whole.spool, lane_messages=setting.lane))


async def fill(port: int, setting: Setting) -> None:
    """Send all messages, one session for each destination."""
    each = [setting.messages // setting.destinations] * setting.destinations
    each[0] += setting.messages - sum(each)
    await asyncio.gather(*(_fill_one(port, n, count) for n, count in enumerate(each)))


async def _fill_one(port: int, destination: int, count: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def replies(wanted: int) -> None:
        while wanted:
            line = await reader.readline()
            if line[3:4] == b" ":
                wanted -= 1
                assert line[:1] in b"23", line

    await replies(1)
    writer.write(b"EHLO source.bench\r\n")
    await replies(1)
    envelope = f"MAIL FROM:<a@source.bench>\r\nRCPT TO:<to@d{destination}.bench>\r\nDATA\r\n".encode()
    for n in range(count):
        writer.write(envelope)
        await replies(3)
        writer.write(b"Subject: %d\r\nFrom: <a@source.bench>\r\n\r\n%s.\r\n" % (n, b"x" * 60 + b"\r\n"))
        await replies(1)
    writer.write(b"QUIT\r\n")
    await replies(1)
    writer.close()


def run(count: int, setting: Setting, folder: Path) -> Row:
    """One row: so many pods in the end, one of which made the backlog."""
    ports = [peers.free_port() for _ in range(setting.destinations)]
    with SlowSink(DELAY, ports) as sink, fleet(folder, count) as pods:
        for pod in pods:
            pod.configure(config(pod, setting, ports))
        first, *others = pods
        first.start()
        first.until_ready()
        asyncio.run(fill(first.smtp, setting))
        began = time.monotonic()
        if not setting.is_shared_first:
            sink.open()
        for pod in others:
            pod.start()
        if setting.is_shared_first:
            for pod in others:
                pod.until(lambda pod=pod: pod.events("lane_adopted"), "a lane taken over")
            sink.open()
        while sink.state()["messages"] < setting.messages:
            if time.monotonic() - began > PATIENCE:
                raise TimeoutError(f"{sink.state()} after {PATIENCE:.0f} s")
            time.sleep(0.05)
        seconds = time.monotonic() - began
        found = sink.state()
        lanes = sum(len(pod.events("lane_adopted")) for pod in pods)
        for pod in pods:
            pod.signal()
        for pod in pods:
            pod.wait()
        return Row(
            count,
            setting.messages,
            round(seconds, 2),
            round(setting.messages / seconds, 1),
            max(found["most"].values()),
            lanes,
            {pod.name: len(pod.events("relayed")) for pod in pods},  # by now they have said all
        )


def below(folder: Path, name: str) -> Path:
    own = folder / name
    own.mkdir()
    return own


def table(rows: list[Row]) -> str:
    lines = ["pods  messages  seconds  messages/s  most sessions at a destination  lanes taken"]
    lines += [
        f"{one.pods:4}  {one.messages:8}  {one.seconds:7.1f}  {one.per_second:10.0f}  {one.most:30}  {one.lanes:11}"
        for one in rows
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=Setting().messages)
    parser.add_argument("--pods", type=int, default=6)
    args = parser.parse_args()
    setting = Setting(messages=args.messages)
    rows = []
    with tempfile.TemporaryDirectory(prefix="posthof-scale-", dir="/var/tmp") as name:
        for count in (1, args.pods):
            rows.append(run(count, setting, below(Path(name), str(count))))
            print(table(rows[-1:]), flush=True)
    ratio = rows[1].seconds / rows[0].seconds
    holds = ratio <= 1 / 3 and all(row.most <= setting.connections for row in rows)
    print(table(rows))
    print(f"{args.pods} pods need {ratio:.2f} of the time of one: {'holds' if holds else 'does not hold'}")
    record(rows, ratio)
    return 0 if holds else 1


def record(rows: list[Row], ratio: float) -> None:
    RECORD.parent.mkdir(exist_ok=True)
    content: dict[str, Any] = {"rows": [row._asdict() for row in rows], "ratio": round(ratio, 3), "wanted": 0.333}
    RECORD.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
