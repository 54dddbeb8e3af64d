"""Real worker processes for the crash tests: a real spool on a real folder, one short scripted run per transition.

Started once, it is the mother of all workers: for each line on its standard input, a JSON request, it forks one (so a
tracer that is attached to it counts the calls of each new thread from one), and when that ended it answers with one
line. The lines a worker writes between are its ledger (tests/kit/ledger.py), each written before the client would see
its reply. Ids, lanes and bodies are the same in each run: only the moment of the crash differs.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import pickle
import random
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kit.disk import RecordingVolume
from kit.ledger import TRACE, body_of
from posthof_crds.engine import SpoolSettings
from posthof_pod.model import Envelope, Held, Recipient, Settlement
from posthof_pod.replies import Temporary
from posthof_pod.spool import Damaged, FlockLiveness, Gone, Live, Spool, Stored, Volume, new_worker

HANGS = 60  # seconds after which a worker is ended: it hangs
FENCED = 3
SMALL = {
    "reserve_bytes": 0,
    "settle_delay": 0.01,
    "max_usage": 1.0,
    "segment_bytes": 3000,
    "blob_threshold": 2000,
    "lane_messages": 8,
}
LATER = Settlement((0,), (Held(1, 2e9, 1),), "GreetingRefused", "421 busy")

Script = Callable[["Worker"], Awaitable[None]]
SCRIPTS: dict[str, Script] = {}
PREPARED: dict[str, str] = {"take_over": "left", "take_freed": "left_free", "stop_again": "left"}
SETTINGS: dict[str, dict[str, object]] = {"reserve": {"reserve_bytes": 6000}}


def say(*entry: object) -> None:
    os.write(1, json.dumps(entry).encode() + b"\n")


def script(act: Script) -> Script:
    SCRIPTS[act.__name__] = act
    return act


class Worker:
    """One spool and the few things a script does with it. All that is promised is said."""

    def __init__(self, request: dict[str, Any]) -> None:
        name, seed = request["script"], request.get("seed", request["script"])
        chance = random.Random(seed)
        self.request = request
        self.lives: list[Live] = []
        self.events: list[tuple[str, dict[str, object]]] = []
        values = {"path": request["path"], **SMALL, **SETTINGS.get(name, {}), **request.get("settings", {})}
        settings = SpoolSettings(**values)
        self.volume: RecordingVolume | None = None
        if request.get("record"):
            more = {name: request[name] for name in ("fail_sync", "forgets") if name in request}
            self.volume = RecordingVolume(settings.path, sync=settings.sync, **more)
        self.spool = Spool(
            settings,
            worker_id=new_worker(chance.randbytes(10)),
            loop=asyncio.get_running_loop(),
            liveness=FlockLiveness(),
            on_live=self.lives.extend,
            on_event=self._on_event,
            clock=lambda: 1_000_000.0,
            volume=self.volume or Volume(settings.path, sync=settings.sync),
            random=chance.randbytes,
            has_mate=bool(request.get("has_mate")),
        )
        self.core = self.spool._core
        self.refs: dict[str, int] = {}

    def _on_event(self, name: str, /, **fields: object) -> None:
        self.events.append((name, fields))

    def tell(self, *entry: object) -> None:
        if self.volume is not None:
            self.volume.mark(*entry)
        say(*entry)

    async def put(self, label: str, size: int = 200, *, to: int = 1, at_once: bool = True) -> int | None:
        """Commit one message; its ref, or None where it was refused."""
        body = body_of(label, size)
        message = self.spool.next_id()
        self.tell("begin", message, label, size)
        try:
            stored = await self.spool.commit(self._envelope(message, to, body), TRACE, body, at_once=at_once)
        except Temporary:
            self.tell("refuse", message)
            return None
        self.tell("ack", message)
        self.refs[label] = stored.ref
        return stored.ref

    async def stream(self, label: str, size: int, *, is_aborted: bool = False) -> int | None:
        """As `put`, through a blob written in pieces."""
        body = body_of(label, size)
        blob = self.spool.blob()
        self.tell("begin", blob.id, label, size)
        try:
            for at in range(0, len(body), 1500):
                blob.write(body[at : at + 1500])
                blob._pass_on()  # the usual piece is 256 KiB: too much to record
                await blob.drain()
            if is_aborted:
                blob.abort()
                return None
            stored = await self.spool.commit(self._envelope(blob.id, 1, body), TRACE, blob, at_once=True)
        except Temporary:
            blob.abort()
            self.tell("refuse", blob.id)
            return None
        self.tell("ack", blob.id)
        self.refs[label] = stored.ref
        return stored.ref

    def _envelope(self, message: str, to: int, body: bytes) -> Envelope:
        return Envelope(message, "a@x.test", tuple(Recipient(f"{n}@y.test") for n in range(to)), 1000.0, len(body))

    def id_of(self, ref: int | None) -> str | None:
        """None for what was refused, is not ours any more, or may not be settled now."""
        if ref is None:
            return None
        try:
            message = self.spool.id_of(ref)
        except Gone:
            return None
        return message if self.lane(ref).is_writable and not self.spool.is_fenced else None

    def done(self, ref: int | None, recipients: int = 1) -> None:
        """All recipients have it."""
        message = self.id_of(ref)
        if message is not None and ref is not None:
            self.tell("settle", message)
            self.spool.settle(ref, Settlement(tuple(range(recipients))))

    def part(self, ref: int | None) -> None:
        """The first of two recipients has it, the other one later."""
        message = self.id_of(ref)
        if message is not None and ref is not None:
            self.tell("part", message, 0)
            self.spool.settle(ref, LATER)

    async def failed(self, ref: int | None, label: str, recipients: int = 1) -> int | None:
        """It bounces: done, with a report that is a new message."""
        message = self.id_of(ref)
        if message is None or ref is None:
            return None
        body = body_of(label, 100)
        report = self.spool.next_id(ref)
        self.tell("begin", report, label, 100)
        self.tell("settle", message)
        notice = (self._envelope(report, 1, body), TRACE, body)
        future = self.spool.settle(ref, Settlement(tuple(range(recipients))), notice)
        if future is None:
            return None
        try:
            stored = await future
        except Temporary:
            return None
        self.tell("ack", report)
        return stored.ref

    async def tried(self, *refs: int | None) -> None:
        try:
            await self.spool.tried([ref for ref in refs if ref is not None])
        except Temporary:
            return

    async def synced(self) -> bool:
        """Wait until all that was told is on the volume; False: it cannot be had."""
        try:
            for lane in list(self.core.lanes.values()):
                await self.core.settle_down(lane)
        except (OSError, TimeoutError):
            return False
        if self.spool.is_fenced:
            return False
        self.tell("synced")
        return True

    def lane(self, ref: int) -> Any:
        return self.core.lanes[ref >> 32]

    async def compact(self) -> None:
        """As the keeper does once a second."""
        for lane in list(self.core.lanes.values()):
            self.core.tidy(lane)
            await self.spool._keeper._compactor.compact(lane)
        await self.synced()
        for lane in list(self.core.lanes.values()):
            self.core.tidy(lane)
        await self.synced()


# -- one run per transition ------------------------------------------------------------------------------------------


@script
async def accept(worker: Worker) -> None:
    """The first message makes the lane; several share a turn; one needs a `try`."""
    await worker.put("first")
    await asyncio.gather(*[worker.put(f"together {n}") for n in range(3)])
    await worker.put("big", 1200)
    later = await worker.put("later", at_once=False)
    await worker.tried(later)
    await worker.put("last", to=2)


@script
async def settle(worker: Worker) -> None:
    """Done, done in part, failed with a report; each is synced."""
    refs = [await worker.put(f"m{n}", to=1 + n % 2) for n in range(5)]
    worker.done(refs[0])
    await worker.synced()
    worker.part(refs[1])
    await worker.failed(refs[2], "report")
    await worker.synced()
    worker.done(refs[1], 2)
    worker.done(refs[4])
    await worker.put("after")
    await worker.synced()


@script
async def blob(worker: Worker) -> None:
    """Content in files of their own: written at once, streamed, aborted, done."""
    first = await worker.put("small")
    whole = await worker.put("whole", 2500)
    streamed = await worker.stream("streamed", 5000)
    await worker.stream("aborted", 4000, is_aborted=True)
    await worker.stream("empty lane", 3000)
    worker.done(whole)
    await worker.synced()
    worker.done(streamed)
    worker.done(first)
    await worker.synced()


@script
async def roll(worker: Worker) -> None:
    """Segments fill, are sealed, and leave oldest first."""
    refs = [await worker.put(f"m{n}", 900) for n in range(7)]
    for ref in refs[:5]:
        worker.done(ref)
    await worker.synced()
    await worker.put("after", 900)
    worker.done(refs[5])
    await worker.synced()


@script
async def compaction(worker: Worker) -> None:
    """What is live in the oldest segment is written again, then that goes."""
    refs = [await worker.put(f"m{n}", 900 if n else 100, to=2 if n == 0 else 1) for n in range(7)]
    worker.part(refs[0])
    for ref in refs[1:6]:
        worker.done(ref)
    await worker.synced()
    await worker.compact()
    worker.done(refs[6])
    await worker.compact()
    worker.done(refs[0], 2)
    await worker.put("after")
    await worker.synced()


@script
async def remove_lane(worker: Worker) -> None:
    """A full lane is closed; once all in it is done it is taken away."""
    refs = [await worker.put(f"m{n}", 300) for n in range(10)]
    for ref in refs[:8]:
        worker.done(ref)
    await worker.synced()
    await worker.compact()
    await worker.put("after")
    worker.done(refs[8])
    await worker.synced()


@script
async def reserve(worker: Worker) -> None:
    """The reserve is written, and dropped where the disk is full."""
    for _ in range(200):
        if worker.spool.stats()["reserve_bytes"]:
            break
        await asyncio.sleep(0.005)
    first = await worker.put("first")
    worker.core.on_full()
    await worker.put("second")
    worker.done(first)
    await worker.synced()


@script
async def release(worker: Worker) -> None:
    """A closed lane is given away, and claimed back as nobody wants it."""
    refs = [await worker.put(f"m{n}", 300) for n in range(9)]
    assert None not in refs or worker.request.get("is_failing")
    if refs[0] is None or worker.id_of(refs[0]) is None:
        return
    lane = worker.lane(refs[0])
    worker.done(refs[1])
    sharer = worker.spool._keeper._sharer
    await sharer.leave(lane)
    for _ in range(4):
        if lane.state.value != "offered":
            break
        await worker.put("meanwhile")
        try:
            await sharer.claim_back(lane)
        except OSError:
            continue  # the keeper asks again, too
    assert lane.state.value == "closed"
    worker.done(refs[2])
    await worker.put("after")
    await worker.synced()


@script
async def stop(worker: Worker) -> None:
    """A clean stop: what is live is given free, the rest and the worker's folder go."""
    refs = [await worker.put(f"m{n}", 300, to=1 + n % 2) for n in range(10)]
    for ref in refs[:8:2]:
        worker.done(ref)
    worker.part(refs[1])
    await worker.stream("big", 2500)
    await _stop(worker)


@script
async def stop_empty(worker: Worker) -> None:
    """A clean stop with nothing live leaves nothing."""
    ref = await worker.put("only")
    worker.done(ref)
    await _stop(worker)


@script
async def take_over(worker: Worker) -> None:
    """The lanes of a worker that was killed: fenced, claimed, read, worked on."""
    await worker.spool.adopt_now()
    await _work_on(worker)


@script
async def take_freed(worker: Worker) -> None:
    """The lanes of a worker that stopped."""
    await worker.spool.adopt_now()
    await _work_on(worker)


@script
async def stop_again(worker: Worker) -> None:
    """Take over, compact, stop: a lane goes on from hand to hand."""
    await worker.spool.adopt_now()
    for live in worker.lives[::2]:
        worker.done(live.ref, len(live.envelope.recipients))
    await worker.synced()
    await worker.compact()
    await _stop(worker)


async def _work_on(worker: Worker) -> None:
    lives = sorted(worker.lives, key=lambda live: live.envelope.id)
    for live in lives[:4]:
        worker.done(live.ref, len(live.envelope.recipients))
    await worker.synced()
    await worker.put("mine")
    for live in lives[4:6]:
        await worker.failed(live.ref, f"report on {live.envelope.id}", len(live.envelope.recipients))
    await worker.compact()


async def _stop(worker: Worker) -> None:
    before = len(worker.events)
    await worker.spool.stop()
    if not worker.spool.is_fenced and not any(name == "stop_failed" for name, _ in worker.events[before:]):
        worker.tell("synced")


# -- what others build on --------------------------------------------------------------------------------------------


@script
async def left(worker: Worker) -> None:
    """A worker that died with two lanes, a blob, half-done mail and a sealed segment."""
    refs = [await worker.put(f"l{n}", 700 if n % 3 else 200, to=1 + n % 2) for n in range(11)]
    await worker.stream("left big", 4000)
    worker.done(refs[0])
    worker.done(refs[9], 2)
    worker.part(refs[1])
    await worker.tried(refs[2])
    await worker.synced()


@script
async def left_free(worker: Worker) -> None:
    """A worker that stopped with live mail."""
    await left(worker)
    await _stop(worker)


@script
async def left_bad(worker: Worker) -> None:
    """As `left`, and a bit of a message that was done goes bad, with sound records behind it."""
    await left(worker)
    _spoil(worker.request["path"], body_of("l9", 200)[-40:])


def _spoil(path: str, what: bytes) -> None:
    for segment in Path(path).glob("lanes/*/*.seg"):
        data = segment.read_bytes()
        if what in data:
            segment.write_bytes(data.replace(what, bytes([what[0] ^ 1]) + what[1:]))


@script
async def aside(worker: Worker) -> None:
    """A lane with damage, all of whose mail is done, is set aside."""
    await worker.spool.adopt_now()
    for live in worker.lives:
        worker.done(live.ref, len(live.envelope.recipients))
    await worker.synced()
    await worker.compact()
    await worker.put("after")


@script
async def replay(worker: Worker) -> None:
    """Read everything there is: what a fresh process finds."""
    await worker.spool.adopt_now()
    for live in worker.lives:
        message = live.envelope.id
        try:
            stored = worker.spool.read(live.ref)
            if not isinstance(stored, Stored):
                stored = await stored
            body = stored.body if isinstance(stored.body, bytes) else await stored.body.read()
        except (Temporary, Damaged) as error:
            say("unreadable", message, str(error))
            continue
        say("found", message, (stored.trace + body).hex(), [held.recipient for held in live.waiting])


@script
async def endless(worker: Worker) -> None:
    """Commit until fenced: a zombie to be."""
    count = 0
    while not worker.spool.is_fenced:
        await worker.put(f"z{count}")
        count += 1
    say("fenced")
    os._exit(FENCED)


@script
async def rounds(worker: Worker) -> None:
    """One round of a long life: take what is there, add, settle most, compact; end cleanly or not."""
    await worker.spool.adopt_now()
    number = worker.request["round"]
    refs = [await worker.put(f"r{number} {n}", 700) for n in range(9)]
    for live in worker.lives[1:]:
        worker.done(live.ref)
    for ref in refs[:6]:
        worker.done(ref)
    await worker.synced()
    for _ in range(3):
        await worker.compact()
    for ref in refs[6:8]:
        worker.done(ref)
    await worker.synced()
    if worker.request["is_clean"]:
        await _stop(worker)


@script
async def chosen(worker: Worker) -> None:
    """Commit what the request lists."""
    for label, size in worker.request["messages"]:
        await worker.put(label, size)


# -- the process -----------------------------------------------------------------------------------------------------


async def _live(request: dict[str, Any]) -> None:
    worker = Worker(request)
    try:
        await worker.spool.start()
    except OSError as error:
        say("not started", str(error))
        return
    await SCRIPTS[request["script"]](worker)
    for name, fields in worker.events:
        say("event", name, {key: str(value) for key, value in fields.items()})
    if worker.volume is not None:
        _keep(request["record"], worker.volume)


def _keep(path: str, volume: RecordingVolume) -> None:
    Path(path).write_bytes(pickle.dumps(volume.log))


def child(request: dict[str, Any]) -> None:
    """One worker: it ends as a crash does, whatever it was doing."""
    signal.alarm(HANGS)
    code = 1
    try:
        asyncio.new_event_loop().run_until_complete(_live(request))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER: any process may trace this one
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()  # loads what a worker loads at its first use
    asyncio.run(asyncio.sleep(0))
    say("ready")
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(request)
        say("pid", pid)
        _, status = os.waitpid(pid, 0)
        say("ended", os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
