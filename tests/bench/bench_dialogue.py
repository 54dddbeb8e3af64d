"""What receiving costs, without a spool.

`PYTHONPATH=tests python tests/bench/bench_dialogue.py [messages] [sessions] [size]`

Prints microseconds of CPU a message of the dialogue alone (octets in, octets out), of the native listener with the
kernel's share (a client in a process of its own, accept answers at once), messages a second, and the memory of idle
sessions, in the clear and after STARTTLS. It is no test: the machine decides the numbers.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import uvloop

from kit.dialogue import HOSTNAME, PlainGate, Setting, Talk
from posthof_crds.engine import TLSMode
from posthof_pod.listen import tls
from posthof_pod.listen.native import NativeListener
from posthof_pod.observe.events import RecordedEvents
from posthof_pod.replies import Reply
from posthof_pod.smtp.server import Incoming

LINE = b"A line of text as people write them, about seventy octets, or so.\r\n"
TAKEN = Reply(250, "2.0.0", "Queued")


class NoGate(PlainGate):
    """Takes everything and keeps nothing."""

    async def accept(self, mail: Incoming) -> Reply:
        return TAKEN


def content(size: int) -> bytes:
    head = b"From: a@example.test\r\nTo: b@example.test\r\nSubject: a message\r\n\r\n"
    return (head + LINE * (size // len(LINE) + 1))[: size - 2] + b"\r\n"


def exchanges(body: bytes) -> list[bytes]:
    mail = b"MAIL FROM:<sender@example.test> SIZE=%d\r\n" % len(body)
    return [mail, b"RCPT TO:<someone@example.test>\r\n", b"DATA\r\n", body + b".\r\n"]


def dialogue_alone(count: int, size: int) -> float:
    """Microseconds a message, best of five."""
    talk = Talk(gate=NoGate())
    talk.say(b"EHLO client.test\r\n")
    talk.session.has_xclient = False
    steps = exchanges(content(size))
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        for _ in range(count):
            for step in steps:
                talk.say(step)
            talk.writes.clear()
        best = min(best, (time.process_time() - start) / count)
    return best * 1e6


def client(port: int, count: int, size: int, started: Any) -> None:
    """One session that sends `count` messages without pipelining."""
    body = content(size)
    steps = exchanges(body)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.recv(1024)
        sock.sendall(b"EHLO client.test\r\n")
        sock.recv(1024)
        started.wait()
        for _ in range(count):
            for step in steps:
                sock.sendall(step)
                sock.recv(1024)


def clients(port: int, sessions: int, count: int, size: int) -> None:
    started = threading.Event()
    threads = [threading.Thread(target=client, args=(port, count, size, started)) for _ in range(sessions)]
    for thread in threads:
        thread.start()
    started.set()
    for thread in threads:
        thread.join()


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def listener(mode: TLSMode = TLSMode.OFF) -> tuple[NativeListener, int]:
    pair = tls.self_signed([HOSTNAME], 86400, time.time())
    context = tls.server_context([tls.Certificate((HOSTNAME,), (pair,))])
    limits = {"client_sessions": 0, "sessions": 20000}
    settings = Setting(tls=mode, limits=limits)
    native = NativeListener(settings.listener(), HOSTNAME, NoGate(), contexts=lambda: context, watch=RecordedEvents())
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    await native.start(sock)
    return native, sock.getsockname()[1]


async def over_sockets(messages: int, sessions: int, size: int) -> tuple[float, float]:
    """Microseconds of the server's CPU a message, and messages a second."""
    native, port = await listener()
    each = messages // sessions
    peer = multiprocessing.get_context("spawn").Process(target=clients, args=(port, sessions, each, size))
    peer.start()
    await until(lambda: native.sessions == sessions)
    start, used = time.perf_counter(), cpu()
    await until(lambda: not native.sessions)
    seconds, used = time.perf_counter() - start, cpu() - used
    await native.drain(1)
    peer.join()
    return used / (each * sessions) * 1e6, each * sessions / seconds


async def until(is_met: Callable[[], bool]) -> None:
    for _ in range(100_000):
        if is_met():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


def pss() -> int:
    with open("/proc/self/smaps_rollup", encoding="ascii") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))


def hold(port: int, count: int, with_tls: bool, ready: Any, over: Any) -> None:
    """Opens `count` sessions, greets, perhaps begins TLS, and waits."""
    context = ssl._create_unverified_context()
    held = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.recv(1024)
        sock.sendall(b"EHLO client.test\r\n")
        sock.recv(1024)
        if with_tls:
            sock.sendall(b"STARTTLS\r\n")
            sock.recv(1024)
            sock = context.wrap_socket(sock)
            sock.sendall(b"EHLO client.test\r\n")
            sock.recv(1024)
        held.append(sock)
    ready.set()
    over.wait()


async def idle(count: int, *, with_tls: bool) -> tuple[int, int]:
    """KiB of PSS with no session, and with `count` of them."""
    native, port = await listener(TLSMode.STARTTLS)
    before = pss()
    processes = multiprocessing.get_context("spawn")
    ready, over = processes.Event(), processes.Event()
    peer = processes.Process(target=hold, args=(port, count, with_tls, ready, over))
    peer.start()
    await until(ready.is_set)
    held = pss()
    over.set()
    await until(lambda: not native.sessions)
    await native.drain(1)
    peer.join()
    return before, held


def main() -> None:
    messages, sessions, size = (int(word) for word in (*sys.argv[1:], "20000", "20", "4096")[:3])
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    print(f"dialogue alone        {dialogue_alone(min(messages, 3000), size):8.1f} us a message")
    used, rate = uvloop.run(over_sockets(messages, sessions, size))
    print(f"listener and kernel   {used:8.1f} us a message, {rate:.0f} messages a second")
    for count, with_tls in ((10_000, False), (1_000, True)):
        before, held = uvloop.run(idle(count, with_tls=with_tls))
        what = "after STARTTLS" if with_tls else "idle"
        print(f"{count:6} sessions {what:15} {held / 1024:6.1f} MiB ({(held - before) / count:.1f} KiB each)")


if __name__ == "__main__":
    main()
