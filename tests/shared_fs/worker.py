"""One worker of a shared volume, as a process: commits, delivers, settles, and says each line of its ledger.

    worker.py FOLDER NAME [DEAD...]      FOLDER: the spool on this worker's own mount; DEAD: who is known to be dead

It writes JSON lists, one a line; a line is written before what it tells could be seen by anyone else:

    born WORKER                 its id on the volume
    send LABEL SIZE             a new transaction: content made from its label
    ack LABEL ID | refuse LABEL its 250 or 451; neither: the client got no reply
    dot LABEL                   a delivery: the final dot
    bad ID WHY                  what was to be delivered is not what was sent
    metered N                   possible duplicates this worker has counted so far
    event NAME FIELDS           what the spool told

and obeys the same on its standard input: `dead WORKER proven|unproven`, `rest` (no new mail), `work`, `end` (a clean
stop). Who is dead it is told: safety must not rest on it, so it may be told wrongly.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kit.ledger import TRACE, body_of
from posthof_crds.engine import SpoolSettings
from posthof_pod.model import Envelope, Held, Recipient, Settlement
from posthof_pod.replies import Temporary
from posthof_pod.spool import Damaged, Disk, Gone, Live, Spool, Stored, Verdict, new_worker

FENCED = 3
NO_VOLUME = 4
AT_ONCE = 4  # mails under way
LATER = Settlement((), (Held(0, 0.0, 1),), "ConnectFailed", "451 later")
ENDS = 20.0  # seconds for what runs at a clean stop


def say(*entry: object) -> None:
    os.write(1, json.dumps(entry, default=str).encode() + b"\n")


class Told:
    """A judge that believes what it is told."""

    def __init__(self, proven: set[str]) -> None:
        self.verdicts = dict.fromkeys(proven, Verdict.PROVEN)

    def begin(self, disk: Disk, worker: str) -> None:
        """Nothing on the volume says that this worker lives."""

    def judge(self, worker: str) -> Verdict:
        return self.verdicts.get(worker, Verdict.ALIVE)

    def end(self) -> None:
        """Nothing to take away."""


class Worker:
    """A spool, a client that sends to it, and a server it delivers to."""

    def __init__(self, folder: str, name: str, dead: set[str]) -> None:
        self.name = name
        self.judge = Told(dead)
        self.chance = random.Random(os.getpid())
        self.is_resting = asyncio.Event()
        self.is_over = asyncio.Event()
        self.ready: asyncio.Queue[int] = asyncio.Queue()
        self.busy: set[int] = set()
        self.sent = self.held = 0
        self.told = 0
        settings = SpoolSettings(
            path=folder,
            reserve_bytes=1 << 16,
            settle_delay=0.05,
            max_usage=1.0,
            segment_bytes=1 << 16,
            blob_threshold=6000,
            lane_messages=60,
        )
        self.spool = Spool(
            settings,
            worker_id=new_worker(),
            loop=asyncio.get_running_loop(),
            liveness=self.judge,
            on_live=self.on_live,
            on_gone=self.on_gone,
            on_event=self.on_event,
        )

    # -- what the spool tells ---------------------------------------------------------------------------------------

    def on_live(self, lives: list[Live]) -> None:
        for live in lives:
            self.ready.put_nowait(live.ref)

    def on_gone(self, refs: list[int]) -> list[int]:
        return [ref for ref in refs if ref in self.busy]

    def on_event(self, name: str, /, **fields: object) -> None:
        say("event", name, fields)
        self.meter()

    def meter(self) -> None:
        metered = int(self.spool.stats()["possible_duplicates"]) if hasattr(self, "spool") else 0
        if metered != self.told:
            self.told = metered
            say("metered", metered)

    # -- a client ---------------------------------------------------------------------------------------------------

    async def send(self) -> None:
        """One mail after the other, each a transaction of its own, whatever became of the one before."""
        while not self.is_over.is_set():
            if self.is_resting.is_set():
                await asyncio.sleep(0.02)
                continue
            self.sent += 1
            label = f"{self.name}-{self.sent}"
            size = self.chance.choice((100, 300, 900, 3000, 9000))
            body = body_of(label, size)
            say("send", label, size)
            try:
                message = self.spool.next_id()
                envelope = Envelope(message, "a@x.test", (Recipient("b@y.test"),), 0.0, len(body))
                is_at_once = self.chance.random() < 0.7
                stored = await self.spool.commit(envelope, TRACE, body, at_once=is_at_once)
            except Temporary:
                say("refuse", label)
                self.meter()
                await asyncio.sleep(0.05)
                continue
            say("ack", label, message)
            self.ready.put_nowait(stored.ref)
            await asyncio.sleep(self.chance.random() * 0.02)

    # -- the way out ------------------------------------------------------------------------------------------------

    async def deliver(self) -> None:
        while True:
            ref = await self.ready.get()
            try:
                await self.spool.tried([ref])
                stored = self.spool.read(ref)
                if not isinstance(stored, Stored):
                    stored = await stored
                body = stored.body if isinstance(stored.body, bytes) else await stored.body.read()
            except Gone:
                continue
            except (Temporary, Damaged) as failure:
                # One that was cut off may look for what its successor has delivered and removed.
                if isinstance(failure, Damaged) and await self.spool.look() and self.is_live(ref):
                    say("bad", self.spool.id_of(ref), str(failure))
                    self.held += 1  # for people to look at
                    continue
                await asyncio.sleep(0.2)
                self.ready.put_nowait(ref)
                continue
            await self.attempt(ref, stored.trace + body)

    def is_live(self, ref: int) -> bool:
        try:
            self.spool.id_of(ref)
        except Gone:
            return False
        return True

    async def attempt(self, ref: int, content: bytes) -> None:
        """As a session does: once in a while the server says 451, or the dot gets its reply late."""
        label = content.removeprefix(TRACE).partition(b"\r\n")[0].removeprefix(b"Subject: ").decode(errors="replace")
        size = len(content) - len(TRACE) - len(body_of(label, 0))
        if content != TRACE + body_of(label, max(size, 0)):
            say("bad", self.spool.id_of(ref), f"{label}: other content")
            self.held += 1
            return
        if not self.spool.may_dot(ref) and not (await self.spool.look() and self.spool.may_dot(ref)):
            await asyncio.sleep(0.1)
            self.ready.put_nowait(ref)
            return
        if self.chance.random() < 0.1:
            self.spool.settle(ref, LATER)
            self.meter()
            await asyncio.sleep(0.05)
            self.ready.put_nowait(ref)
            return
        self.busy.add(ref)
        say("dot", label)
        await asyncio.sleep(self.chance.random() * 0.03)
        self.busy.discard(ref)
        self.spool.settle(ref, Settlement((0,)))
        self.meter()

    # -- life -------------------------------------------------------------------------------------------------------

    def obey(self, order: str, *words: Any) -> None:
        if order == "dead":
            self.judge.verdicts[words[0]] = Verdict.PROVEN if words[1] == "proven" else Verdict.DEAD
        elif order == "rest":
            self.is_resting.set()
        elif order == "work":
            self.is_resting.clear()
        elif order == "end":
            self.is_over.set()

    async def listen(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            self.obey(*json.loads(line))
        self.is_over.set()  # whoever started us is gone

    async def watch(self) -> None:
        """A worker that was fenced ends at once, as the engine's do."""
        while not self.spool.is_fenced:  # noqa: ASYNC110  # the spool tells nobody, it is asked
            await asyncio.sleep(0.02)
        self.meter()
        say("fenced")
        os._exit(FENCED)

    async def live(self) -> None:
        tasks = [asyncio.create_task(self.listen()), asyncio.create_task(self.watch())]
        say("born", self.spool.worker_id)
        try:
            await self.spool.start()
        except OSError as error:
            say("stopped", f"it cannot start: {error}")
            os._exit(NO_VOLUME)
        sending = [asyncio.create_task(self.send()) for _ in range(AT_ONCE)]
        delivering = [asyncio.create_task(self.deliver()) for _ in range(AT_ONCE)]
        await self.is_over.wait()
        await asyncio.wait(sending, timeout=ENDS)
        ends = asyncio.get_running_loop().time() + ENDS
        while self.busy or self.spool.live > self.held:
            if asyncio.get_running_loop().time() > ends:
                break
            await asyncio.sleep(0.02)
        for task in delivering:
            task.cancel()
        await asyncio.wait(delivering, timeout=ENDS)
        await self.spool.stop()
        self.meter()
        say("ended")
        for task in tasks:
            task.cancel()


async def main() -> None:
    folder, name, *dead = sys.argv[1:]
    await Worker(folder, name, set(dead)).live()


if __name__ == "__main__":
    asyncio.run(main())
