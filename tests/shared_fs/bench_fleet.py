"""`make bench-fleet`: 1, 2 and 4 workers on a local volume and on two JuiceFS mounts; what a lease and a look cost.

    bench_fleet.py [--seconds N] [--queued N]

- messages/s: workers commit mails of 2 KiB, 100 at a time each, and settle them; the client waits for each 250.
- sync: seconds of one turn of a group commit, from its first write to the good look, median and 99th percentile.
- look: processor time of one, and of all of them as a share of one processor while the worker is as busy as can be;
  it must stay under 3 %. The last column is their share of what this worker uses, which does nothing but spool: in an
  engine most of the processor goes to the SMTP around it.
- lease: processor time of keeping a pod's Lease and reading the others', as a share of one processor; under 3 %.
- take-over: seconds until a fresh worker, on the other mount, knows all mails of one that was killed.

build/bench-fleet.json has the numbers. Exit status 1 when looks or leases cost 3 % or more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kit import juicefs
from kit.fakeapi import FakeApi
from posthof_crds.engine import SpoolSettings
from posthof_pod.cluster.api import ApiServer
from posthof_pod.cluster.leases import Leases, Me, Told
from posthof_pod.model import Envelope, Recipient, Settlement
from posthof_pod.spool import FlockLiveness, Live, Spool, Volume, new_worker

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = 100
BODY = b"Subject: bench\r\n\r\n" + b"x" * 2000
TRACE = b"Received: from a by b; now\r\n"
MOST = 0.03  # of a processor
PODS = 6
DONE = Settlement((0,))


class Timed(Volume):
    """A volume that counts the processor time of looks."""

    looks = 0
    looked = 0.0

    def look(self, path: str) -> bytes:
        began = time.thread_time()
        try:
            return super().look(path)
        finally:
            self.looks += 1
            self.looked += time.thread_time() - began


# -- in a worker's process -------------------------------------------------------------------------------------------


def make(folder: str, lives: list[Live]) -> tuple[Spool, Timed]:
    settings = SpoolSettings(path=folder, reserve_bytes=0, max_usage=1.0)
    volume = Timed(folder)
    spool = Spool(
        settings,
        worker_id=new_worker(),
        loop=asyncio.get_running_loop(),
        liveness=FlockLiveness(),
        on_live=lives.extend,
        on_event=lambda name, **fields: None,
        volume=volume,
    )
    return spool, volume


async def commit(folder: str, seconds: float) -> dict[str, Any]:
    """Mails for so many seconds."""
    spool, volume = make(folder, [])
    await spool.start()
    count, turns = 0, list[float]()
    cpu, began = time.process_time(), time.monotonic()
    ends = began + seconds

    async def client() -> None:
        nonlocal count
        while time.monotonic() < ends:
            envelope = Envelope(spool.next_id(), "a@x.test", (Recipient("b@y.test"),), 0.0, len(BODY))
            stored = await spool.commit(envelope, TRACE, BODY, at_once=True)
            spool.settle(stored.ref, DONE)
            count += 1
            turns.append(spool.stats()["turn_seconds"] if count % 20 == 0 else -1.0)

    await asyncio.gather(*[client() for _ in range(AT_ONCE)])
    took, used = time.monotonic() - began, time.process_time() - cpu
    await spool.stop()
    return {
        "messages": count,
        "seconds": took,
        "cpu": used,
        "turns": [one for one in turns if one > 0],
        "looks": volume.looks,
        "look_cpu": volume.looked,
    }


async def queue(folder: str, count: int) -> dict[str, Any]:
    """So many mails that stay; then this process waits to be killed."""
    spool, _ = make(folder, [])
    await spool.start()
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            envelope = Envelope(spool.next_id(), "a@x.test", (Recipient("b@y.test"),), 0.0, len(BODY))
            await spool.commit(envelope, TRACE, BODY, at_once=False)

    await asyncio.gather(*[client() for _ in range(AT_ONCE)])
    return {"queued": spool.live}


async def take(folder: str, count: int) -> dict[str, Any]:
    """Seconds from the start to the last of so many mails."""
    lives: list[Live] = []
    began = time.monotonic()
    spool, _ = make(folder, lives)
    await spool.start()
    while len(lives) < count:
        if time.monotonic() - began > 300:
            raise AssertionError(f"only {len(lives)} of {count} mails came")
        await asyncio.sleep(0.01)
    took = time.monotonic() - began
    spool.abandon()
    return {"seconds": took, "messages": len(lives)}


def in_a_process(act: str, folder: Path, number: float) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--act", act, str(folder), str(number)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(f"a worker ended with {process.wait()}")
    found: dict[str, Any] = json.loads(line)
    return found


def act(what: str, folder: str, number: float) -> None:
    acts = {"commit": lambda: commit(folder, number), "queue": lambda: queue(folder, int(number))}
    acts["take"] = lambda: take(folder, int(number))
    print(json.dumps(asyncio.run(acts[what]())), flush=True)
    if what == "queue":
        sys.stdin.read()  # until it is killed
    os._exit(0)  # what it holds is as after a kill


# -- the measurements ------------------------------------------------------------------------------------------------


@contextmanager
def volumes() -> Iterator[dict[str, list[Path]]]:
    """By kind, where its workers find it: one after the other."""
    local = Path(tempfile.mkdtemp(prefix="posthof-fleet-"))
    try:
        with juicefs.shared() as shared:
            yield {"local": [local], "juicefs": [shared.path(0), shared.path(1)]}
    finally:
        shutil.rmtree(local, ignore_errors=True)


def throughput(points: list[Path], workers: int, seconds: float) -> dict[str, float]:
    folders = [points[number % len(points)] / f"spool-{workers}" for number in range(workers)]
    processes = [in_a_process("commit", folder, seconds) for folder in folders]
    found = [answer(process) for process in processes]
    for process in processes:
        process.communicate()
    turns = sorted(turn for one in found for turn in one["turns"])
    return {
        "messages_per_second": sum(one["messages"] / one["seconds"] for one in found),
        "sync_ms": 1000 * statistics.median(turns),
        "sync_p99_ms": 1000 * turns[int(len(turns) * 0.99)],
        "look_share": sum(one["look_cpu"] / one["seconds"] for one in found) / len(found),
        "look_share_of_spooling": sum(one["look_cpu"] for one in found) / sum(one["cpu"] for one in found),
        "look_us": 1e6 * sum(one["look_cpu"] for one in found) / sum(one["looks"] for one in found),
    }


def take_over(points: list[Path], count: int) -> float:
    spool = f"take-{count}"
    dying = in_a_process("queue", points[0] / spool, count)
    if answer(dying)["queued"] != count:
        raise AssertionError("not all was queued")
    dying.kill()
    dying.communicate()
    taking = in_a_process("take", points[-1] / spool, count)
    seconds = float(answer(taking)["seconds"])
    taking.communicate()
    return seconds


def serve(link: Any) -> None:
    """In a process of its own: an API server with the Leases of the other pods, which they renew."""

    async def main() -> None:
        async with FakeApi() as api:
            link.send(api.url)
            number = 0
            while not link.poll():
                for pod in range(1, PODS):
                    api.put(lease(f"edge-{pod}", number))
                number += 1
                await asyncio.sleep(5.0)

    asyncio.run(main())


def lease(pod: str, number: int) -> dict[str, Any]:
    meta = {"name": pod, "namespace": "mail", "labels": {"posthof.dev/mta": "edge"}}
    meta["annotations"] = {"posthof.dev/workers": json.dumps([f"w{pod}{worker}" for worker in range(4)])}  # type: ignore[assignment]  # a map of texts
    spec = {"holderIdentity": pod, "leaseDurationSeconds": 20, "renewTime": f"2026-01-01T00:00:00.{number:06}Z"}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}


def lease_share(seconds: float) -> float:
    """Processor time of one pod's Lease among PODS, as a share of one processor."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    server.start()

    async def main(url: str) -> float:
        heard: list[Told] = []

        async def look() -> bool:
            return True

        with tempfile.TemporaryDirectory() as account:
            (Path(account) / "token").write_text("none")
            async with ApiServer(url, "mail", Path(account)) as api:
                leases = Leases(api, Me("edge", "edge-0"), look=look, tell=heard.append)
                running = asyncio.create_task(leases.run())
                await asyncio.sleep(2.0)  # the first words
                cpu, began = time.process_time(), time.monotonic()
                await asyncio.sleep(seconds)
                share = (time.process_time() - cpu) / (time.monotonic() - began)
                running.cancel()
        if not heard or len(heard[-1].members.pods) < PODS - 1 or not leases.renewals:
            raise AssertionError(f"not all pods were seen: {leases.trouble or heard[-1:]}")
        return share

    try:
        return asyncio.run(main(ours.recv()))
    finally:
        ours.send("end")
        server.join(20)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--queued", type=int, default=100_000, help="mails of the worker that is killed")
    parser.add_argument("--act", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.act:
        act(args.act[0], args.act[1], float(args.act[2]))
    found: dict[str, Any] = {"lease_share": lease_share(args.seconds), "take_over_queued": args.queued}
    print(
        "| volume | workers | messages/s | sync median (ms) | p99 (ms) | look (µs) | looks, of a CPU | of spooling |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    shares = [found["lease_share"]]
    with volumes() as kinds:
        for kind, points in kinds.items():
            for workers in (1, 2, 4):
                row = throughput(points, workers, args.seconds)
                found[f"{kind}-{workers}"] = row
                shares.append(row["look_share"])
                print(
                    f"| {kind} | {workers} | {row['messages_per_second']:.0f} | {row['sync_ms']:.1f} "
                    f"| {row['sync_p99_ms']:.1f} | {row['look_us']:.0f} | {100 * row['look_share']:.2f} % "
                    f"| {100 * row['look_share_of_spooling']:.2f} % |",
                    flush=True,
                )
        for kind, points in kinds.items():
            found[f"{kind}-take-over"] = took = take_over(points, args.queued)
            print(f"take-over of {args.queued} queued mails, {kind}: {took:.1f} s", flush=True)
    print(f"a Lease among {PODS} pods: {100 * found['lease_share']:.2f} % of one processor")
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "bench-fleet.json").write_text(json.dumps(found, indent=2) + "\n")
    costly = [share for share in shares if share >= MOST]
    print("bench-fleet: looks and leases cost " + (f"{100 * max(costly):.1f} %: too much" if costly else "under 3 %"))
    return 1 if costly else 0


if __name__ == "__main__":
    sys.exit(main())
