"""A million queued messages of 4 KiB to 1,000 destinations: memory each, replay after a cold start, accept beside it.

Every destination is a domain with an MX host of its own on loopback where nobody listens on port 25, told by a DNS
server of ours, so each message is tried, fails to connect, and waits for its retry. Beside them mail for one more
domain goes to an smtp-sink: how fast that is accepted, with an empty queue and with a full one. Posthof alone.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench import place
from bench.systems import PosthofSystem
from bench.tools import Load, Sink, Source, Stalled, sink
from kit import peers
from kit.dns import DNSServer
from kit.posthof import direct, relay_policy

PARALLEL = 5  # smtp-sources at a time while the queue is filled
BESIDE = 20_000  # messages for the accept rate
LOADING = Load(4096, is_reused=True, sessions=4)


class Million(NamedTuple):
    """Bytes are PSS sums of all processes; seconds are wall-clock."""

    messages: int
    destinations: int
    empty_bytes: int
    full_bytes: int
    load_seconds: float
    stop_seconds: float
    replay_seconds: float
    replayed_bytes: int
    accept_empty: float  # messages/s taken with an empty queue
    accept_full: float  # and beside the full one
    spool_bytes: int

    @property
    def bytes_each(self) -> float:
        """What a queued message costs by itself: after a replay no body is in the cache."""
        return (self.replayed_bytes - self.empty_bytes) / self.messages


def measure(messages: int, folder: Path, say: Callable[[str], None]) -> Million:
    """Fill, look, stop, start cold, look again; `say` hears how far it is."""
    destinations = max(1, min(1000, messages // 100))
    with DNSServer(zone(destinations), ttl=86_400) as dns, sink() as target, place.below(folder, "million") as own:
        system = PosthofSystem(own, 0, documents=_ways_out(target.port), mta={"resolver": [dns.address]})
        system.start()
        try:
            accept_empty = _accept_rate(system, target)
            _settled(system, 0)
            empty = system.pss_bytes()
            say(f"filling the queue with {messages} messages to {destinations} destinations")
            started = time.monotonic()
            total = _fill(system.port, messages, destinations)
            _settled(system, total)
            loaded = time.monotonic() - started
            full = system.pss_bytes()
            say(f"{total} queued in {loaded:.0f} s, {full / 1e6:.0f} MB; accepting beside them")
            accept_full = _accept_rate(system, target)
            _settled(system, total)
            started = time.monotonic()
            system.stop()
            stopped = time.monotonic() - started
            drop_caches()
            say("cold start")
            started = time.monotonic()
            system.start()
            _settled(system, total)
            replayed = time.monotonic() - started
            spool = sum(path.stat().st_size for path in (own / "spool").rglob("*") if path.is_file())
            result = Million(
                total, destinations, empty, full, loaded, stopped, replayed, system.pss_bytes(),
                accept_empty, accept_full, spool,
            )  # fmt: skip
        finally:
            system.stop()
    return result


def zone(destinations: int) -> dict[str, dict[str, str]]:
    """Each domain has an MX host with an address of its own below 127.2.0.0/16."""
    zone: dict[str, dict[str, str]] = {}
    for n in range(destinations):
        zone[f"d{n}.bench"] = {"MX": f"10 mx.d{n}.bench"}
        zone[f"mx.d{n}.bench"] = {"A": f"127.2.{n // 250}.{n % 250 + 1}"}
    return zone


def _ways_out(sink_port: int) -> list[dict[str, object]]:
    match = {"clients": ["127.0.0.0/8"], "recipients": ["*@sink.bench"]}
    hops = [{"host": "127.0.0.1", "port": sink_port}]
    return [relay_policy("sink", {"type": "Smarthost", "nextHops": hops}, match=match, priority=10), direct()]


def _fill(port: int, messages: int, destinations: int) -> int:
    """Send every destination its share, a few at a time; how many were sent in all."""
    share = messages // destinations
    running: deque[Source] = deque()
    for n in range(destinations):
        if len(running) == PARALLEL:
            running.popleft().wait(600)
        running.append(Source(LOADING, share, port, recipient=f"to@d{n}.bench"))
    while running:
        running.popleft().wait(600)
    return share * destinations


def _accept_rate(system: PosthofSystem, target: Sink) -> float:
    """Messages/s that smtp-source gets rid of; waits until they have left for the sink."""
    before, started = target.count(), time.monotonic()
    Source(Load(4096, is_reused=True), BESIDE, system.port).wait(600)
    rate = BESIDE / (time.monotonic() - started)
    target.wait_for(before + BESIDE)
    return rate


def _settled(system: PosthofSystem, messages: int) -> None:
    """Until the spool holds exactly that many live messages."""
    what = f"{messages} live messages"
    try:
        peers.wait_for(lambda: system.posthof.waiting() == messages, what, timeout=600, every=0.1)
    except peers.NotReady as failure:
        raise Stalled(f"{failure}; there are {system.posthof.waiting()}") from None


def drop_caches() -> None:
    """Make the start a cold one, where we may: write everything back and forget the page cache."""
    os.sync()
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
