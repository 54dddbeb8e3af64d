"""A spool with N queued messages, made through the real spool code without SMTP; and what a start makes of it.

    python tests/bench/run.py --help                              # the whole benchmark
    python tests/bench/queued.py fill DIR --messages 100000       # minutes for a million, 4.5 GB
    python tests/bench/queued.py start DIR                        # cold start of `posthof up`: seconds, CPU, memory
    python tests/bench/queued.py inside DIR --profile             # one worker in this process: time and bytes by part

`start` and `inside` take the lanes over, so the spool is a little longer afterwards; both may be run again.
Every message was tried once and refused, and is due in `--due` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import os
import pstats
import random
import resource
import smtplib
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import uvloop

from bench.million import drop_caches, zone
from bench.systems import PosthofSystem
from kit.dns import DNSServer
from kit.house import House
from kit.posthof import direct
from kit.spools import until
from posthof_crds.engine import SpoolSettings
from posthof_pod.model import Envelope, Held, Recipient, Settlement
from posthof_pod.spool import FlockLiveness, Spool, new_worker

GROUP = 500  # messages committed at once
PATIENCE = 600.0  # seconds
HOUSE = """
apiVersion: posthof.dev/v1alpha1
kind: MTA
metadata: {name: house}
spec:
  hostname: mail.house.test
  listeners:
    - {name: smtp, role: MX, address: 127.0.0.1, port: 2525}
  spool: {path: SPOOL}
  resolver: [RESOLVER]
  mailRoot: mail
  stateDir: state
"""
TRACE = (
    b"Received: from client.bench (client.bench [127.0.0.1])\r\n\tby mail.quickstart.test; " + b"x" * 120 + b"\r\n"
)
WAY_OUT = """
apiVersion: posthof.dev/v1alpha1
kind: RelayPolicy
metadata: {name: direct}
spec:
  match: {clients: [127.0.0.0/8]}
  action: {type: Direct}
"""


def body(size: int) -> bytes:
    line = b"x" * 62 + b"\r\n"
    head = b"From: <a@client.bench>\r\nTo: <to@d.bench>\r\nSubject: queued\r\nMessage-ID: <1@client.bench>\r\n\r\n"
    return (head + line * (size // len(line) + 1))[: size - 2] + b"\r\n"


def envelope(name: str, n: int, host: int, now: float, size: int) -> Envelope:
    """As the listener makes it."""
    to = (Recipient(f"to@d{host}.bench", "direct"),)
    sent_by = ("127.0.0.1", "client.bench", "MX")
    return Envelope(name, "a@client.bench", to, now, size, *sent_by, message_id=f"<{n}@client.bench>")


def refused(host: int, due: float) -> Settlement:
    """What a try leaves when nobody listens there."""
    where = f"mx.d{host}.bench[127.2.{host // 250}.{host % 250 + 1}]:25"
    return Settlement((), (Held(0, due, 1),), "ConnectFailed", f"{where}: connection refused")


async def fill(
    folder: Path, messages: int, destinations: int, *, size: int, due: float, spread: float, is_killed: bool
) -> None:
    """Put the messages into a spool of one worker, and settle each as refused by its host."""
    settings = SpoolSettings(path=str(folder), reserve_bytes=0, cache_bytes=0, max_usage=1.0, sync=False)
    spool = Spool(
        settings,
        worker_id=new_worker(),
        loop=asyncio.get_running_loop(),
        liveness=FlockLiveness(),
        on_live=lambda lives: None,
        on_event=lambda name, **fields: print(name, fields, flush=True) if name != "offered" else None,
    )
    await spool.start()
    content = body(size)
    started = time.monotonic()
    for first in range(0, messages, GROUP):
        now = time.time()
        numbers = range(first, min(first + GROUP, messages))
        waiting = [
            spool.commit(envelope(spool.next_id(), n, n % destinations, now, size), TRACE, content, at_once=True)
            for n in numbers
        ]
        for n, stored in zip(numbers, await asyncio.gather(*waiting), strict=True):
            spool.settle(stored.ref, refused(n % destinations, now + due + spread * random.random()))
        if first % 50_000 == 0:
            print(f"{first} in {time.monotonic() - started:.1f} s", flush=True)
    if is_killed:
        await asyncio.sleep(2.0)
        spool.abandon()
    else:
        await spool.stop()
    os.sync()
    print(f"filled with {messages} in {time.monotonic() - started:.1f} s")


def pss() -> int:
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


# ---- as a black box


def start(folder: Path, messages: int) -> None:
    """A cold start of the real thing over that spool, a look at its memory, a stop."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, DNSServer(zone(1000), ttl=86_400) as dns:
        own = Path(name)
        own.chmod(0o755)
        system = PosthofSystem(own, 0, documents=[direct()], mta={"resolver": [dns.address]})
        system.start()
        empty = system.pss_bytes()
        system.stop()
        (own / "spool").rename(own / "spool-empty")
        (own / "spool").symlink_to(folder.resolve())
        drop_caches()
        began = time.monotonic()
        system.start()
        ready = time.monotonic() - began
        probes = Probes(system.port, own / "mail")
        probes.start()
        while system.posthof.waiting() < messages and time.monotonic() - began < PATIENCE:
            time.sleep(0.1)
        seconds, cpu, full = time.monotonic() - began, system.cpu_seconds(), system.pss_bytes()
        probes.stop()
        print(
            f"{system.posthof.waiting()} of {messages} replayed in {seconds:.2f} s cold (ready after {ready:.2f}),"
            f" CPU {cpu:.2f} s = {cpu / messages * 1e6:.0f} us each; {empty / 1e6:.0f} -> {full / 1e6:.0f} MB,"
            f" {(full - empty) / messages:.0f} bytes each"
        )
        time.sleep(3.0)  # the last probes arrive
        print(probes.told(began))
        print(f"3 s later: {system.pss_bytes() / 1e6:.0f} MB, CPU {system.cpu_seconds():.2f} s")
        began = time.monotonic()
        system.stop()
        print(f"stopped in {time.monotonic() - began:.2f} s")
        (own / "spool").unlink()


class Probes(threading.Thread):
    """Mail for a Maildir, ten a second over one session, while the replay runs."""

    def __init__(self, port: int, folder: Path) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._folder = folder
        self._is_over = threading.Event()
        self._accepted: dict[str, tuple[float, float]] = {}  # text -> unix time it was begun, seconds until 250

    def run(self) -> None:
        session = smtplib.SMTP("127.0.0.1", self._port, timeout=60)
        while not self._is_over.wait(0.1):
            begun, name = time.time(), f"probe {len(self._accepted)}"
            session.sendmail("a@client.bench", ["alice@quickstart.test"], f"Subject: {name}\r\n\r\n{name}\r\n")
            self._accepted[name] = (begun, time.time() - begun)
        session.quit()

    def stop(self) -> None:
        self._is_over.set()
        self.join()

    def told(self, began: float) -> str:
        arrived = {}
        for path in self._folder.rglob("new/*"):
            arrived[path.read_text().splitlines()[-1]] = path.stat().st_mtime
        delays = sorted(arrived[name] - begun for name, (begun, _) in self._accepted.items() if name in arrived)
        accepts = sorted(seconds for _, seconds in self._accepted.values())
        if not delays:
            return "no probe arrived"
        first = min(arrived.values()) - (time.time() - (time.monotonic() - began))
        return (
            f"{len(accepts)} probes during the replay, {len(delays)} arrived, the first after {first:.2f} s;"
            f" until 250: p50 {_at(accepts, 0.5):.0f}, p99 {_at(accepts, 0.99):.0f} ms;"
            f" until in the Maildir: p50 {_at(delays, 0.5):.0f}, p99 {_at(delays, 0.99):.0f} ms"
        )


def _at(ordered: list[float], share: float) -> float:
    """A percentile, in milliseconds."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3


# ---- inside


async def inside(folder: Path, messages: int, *, is_profiled: bool) -> None:
    """One worker's replay in this process."""

    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, DNSServer(zone(1000), ttl=86_400) as dns:
        manifests = HOUSE.replace("SPOOL", str(folder)).replace("RESOLVER", dns.address)
        house = House(Path(name), WAY_OUT, mta=manifests)
        before = pss()
        drop_caches()
        profile = cProfile.Profile()
        wall, cpu = time.monotonic(), time.process_time()
        switches = resource.getrusage(resource.RUSAGE_SELF)
        if is_profiled:
            profile.enable()
        await house.__aenter__()
        mta = house.worker.mta
        spool = mta.spool
        await until(lambda: spool.live >= messages, 300)
        if is_profiled:
            profile.disable()
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        more = resource.getrusage(resource.RUSAGE_SELF)
        print(
            f"{spool.live} replayed in {wall:.2f} s, CPU {cpu:.2f} s: {wall / spool.live * 1e6:.1f} us, CPU"
            f" {cpu / spool.live * 1e6:.1f} us each; switches {more.ru_nvcsw - switches.ru_nvcsw} +"
            f" {more.ru_nivcsw - switches.ru_nivcsw}"
        )
        after = pss()
        gc.collect()
        print(
            f"memory {before / 1e6:.1f} -> {after / 1e6:.1f} MB ({pss() / 1e6:.1f} after a collection): "
            f"{(after - before) / spool.live:.0f} bytes each"
        )
        lanes = list(spool._core.lanes.values())
        tell_parts("lanes", lanes, spool.live)
        tell_parts("segments", [segment for lane in lanes for segment in lane.segments], spool.live)
        tell_parts("backlog", [mta.backlog, mta.backlog._agenda], spool.live)
        print(Counter(type(thing).__name__ for thing in gc.get_objects()).most_common(12))
        if is_profiled:
            pstats.Stats(profile).sort_stats("tottime").print_stats(45)
        spool.abandon()
        os._exit(0)


def tell_parts(name: str, things: list[Any], messages: int) -> None:
    """Bytes of each attribute that is an array, bytes, dict or list, summed over the things; the greatest first."""
    found: Counter[str] = Counter()
    for thing in things:
        names = getattr(type(thing), "__slots__", None) or vars(thing)
        found[type(thing).__name__] += sys.getsizeof(thing) + sys.getsizeof(getattr(thing, "__dict__", ()))
        for attribute in names:
            found[attribute] += size_of(getattr(thing, attribute))
    print(f"{name}: {sum(found.values()) / messages:.1f} bytes a message: "
          + ", ".join(f"{key} {value / messages:.1f}" for key, value in found.most_common(14)))  # fmt: skip


def size_of(value: Any) -> int:
    if isinstance(value, array | bytes | bytearray):
        return sys.getsizeof(value)
    if isinstance(value, dict):
        return sys.getsizeof(value) + sum(size_of(one) for one in value.values())
    if isinstance(value, list):
        return sys.getsizeof(value) + sum(size_of(one) for one in value)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=("fill", "start", "inside"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--destinations", type=int, default=1000)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--due", type=float, default=86_400.0)
    parser.add_argument("--spread", type=float, default=0.0, help="seconds over which the due times are spread")
    parser.add_argument("--killed", action="store_true", help="end without a word: the last segments have no end")
    parser.add_argument("--profile", action="store_true")
    chosen = parser.parse_args()
    chosen.folder = chosen.folder.resolve()
    if chosen.act == "fill":
        asyncio.run(
            fill(
                chosen.folder, chosen.messages, chosen.destinations,
                size=chosen.size, due=chosen.due, spread=chosen.spread, is_killed=chosen.killed,
            )
        )  # fmt: skip
    elif chosen.act == "start":
        start(chosen.folder, chosen.messages)
    else:
        uvloop.run(inside(chosen.folder, chosen.messages, is_profiled=chosen.profile))


if __name__ == "__main__":
    main()
