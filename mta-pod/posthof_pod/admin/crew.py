"""All workers of this house: one seat each, filled again when its worker dies.

A seat is a number and the process that has it now; its sockets are the Ports' (sockets.py). The crew restarts with
back-off, tells the survivors who died (reaped, so proven dead: they take over its lanes at once), carries
configurations to everybody, and keeps the counts of those who are gone, so that a sum never falls.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from posthof_crds.engine import EngineConfig, content_hash
from posthof_crds.report import Load
from posthof_pod.admin.channel import ChannelClosed, Refused, SocketInfo, Swap
from posthof_pod.admin.load import Meter, allowance, cpu_seconds, messages_most
from posthof_pod.admin.process import PING, State, Stats, WorkerProcess
from posthof_pod.admin.sockets import Ports, quieten
from posthof_pod.members import Heard
from posthof_pod.observe.events import Events
from posthof_pod.observe.metrics import merged
from posthof_pod.schedule.slices import WHOLE, Slice

STEADY = 60.0  # seconds of life after which a death counts as the first again
DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds until the restart, by deaths in a row
HOPELESS = 4  # deaths in a row before anybody was ever ready: the house gives up
SWAP = 60.0  # seconds a worker may take for another configuration
SHARE = 60.0  # seconds a worker may take to keep to less of the limits
Pods = dict[str, tuple[str, ...]]  # IP address -> ids of the selections of pods it is in

BEGIN = 3600.0  # for its first: it reads its spool before it answers. Pings see whether it hangs
QUIET = 1.0  # a seat that stays empty longer refuses connections meanwhile


class Keys(NamedTuple):
    """What a configuration names and does not hold. Compared to see a change, never told to anybody but workers."""

    secrets: dict[str, bytes]  # "name/key" -> bytes
    certificates: dict[str, tuple[bytes, bytes]]  # TLSCert -> chain and key, PEM


class Seat:
    """A worker's place: its number, its process, what that one was given."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.worker: WorkerProcess | None = None
        self.deaths = 0  # in a row
        self.given: set[SocketInfo] = set()  # what the present worker has
        self.giving = asyncio.Lock()


class Crew:
    """`settled` is set once every first worker was ready; `hopeless` once none can be started."""

    def __init__(
        self,
        events: Events,
        ports: Ports,
        *,
        module: str,
        output: int,
        log: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.events, self.ports = events, ports
        self.seats: list[Seat] = []
        self.settled, self.hopeless = asyncio.Event(), asyncio.Event()
        self.is_stopping = False
        self._module, self._output, self._log, self._clock = module, output, log, clock
        self._config: EngineConfig | None = None
        self._keys = Keys({}, {})
        self._generation = 0  # of configurations given out; keys are part of them and not of the content hash
        self._edition = 0  # of configurations alone
        self._encoded, self._revision = b"", ""
        self.pods: Pods = {}
        self.heard = Heard()
        self.slice = WHOLE  # of the limits: all workers together
        self.pod = self.proofs = ""  # for the workers' starts: see WorkerStart
        self.on_change: Callable[[WorkerProcess], object] = lambda worker: None  # it has a name, or is gone
        self.meter = Meter()
        self.on_adopted: Callable[[object], object] = lambda told: None  # a worker took a lane over
        self._was_ready: set[int] = set()
        self._departed: Stats = {}
        self._tasks: set[asyncio.Future[None]] = set()

    @property
    def workers(self) -> list[WorkerProcess]:
        """Those that live."""
        return [seat.worker for seat in self.seats if seat.worker is not None and seat.worker.is_alive]

    @property
    def ready(self) -> list[WorkerProcess]:
        return [worker for worker in self.workers if worker.state is State.READY]

    # ------------------------------------------------------------------ life and death

    def start(self, config: EngineConfig, keys: Keys, revision: str = "") -> None:
        """Fill every seat. Returns at once; see `settled` and `hopeless`. `revision`: the content hash, or what the
        configuration's maker calls it."""
        self._use(config, keys, revision)
        self.seats = [Seat(number + 1) for number in range(self.ports.copies)]
        for seat in self.seats:
            self._fill(seat)
        self._run(self._watch())

    def _fill(self, seat: Seat) -> None:
        assert self._config is not None
        worker = WorkerProcess(
            seat.number,
            module=self._module,
            output=self._output,
            log=self._log,
            level=self._config.log_level,
            pod=self.pod,
            proofs=self.proofs,
            share=self._part(seat),
            most=messages_most(len(self.seats), self._config.spool.cache_bytes),
            on_hello=self.on_change,
            on_adopted=self.on_adopted,
            on_ready=self._on_ready,
            on_dead=lambda worker: self._on_dead(seat, worker),
            on_error=self.events.internal_error,
        )
        seat.worker, seat.given = worker, set()
        self.events.worker_started(worker.name, worker.pid)
        worker.channel.tell("leases", self.heard)
        self._run(self._introduce(seat, worker))

    async def _introduce(self, seat: Seat, worker: WorkerProcess) -> None:
        """The first configuration, with the sockets; again where it changed while the worker read its spool.
        One that cannot use it ends, and `_on_dead` goes on."""
        while worker.is_alive and worker.generation != self._generation:
            if problem := await self._give(seat, worker, within=BEGIN):
                if worker.is_alive:
                    self.events.warned(f"worker {worker.name} cannot start: {problem}")
                    worker.kill()
                return

    def _on_ready(self, worker: WorkerProcess) -> None:
        self.events.worker_ready(worker.name, worker.age)
        self._was_ready.add(worker.number)
        if len(self._was_ready) == len(self.seats):
            self.settled.set()

    def _on_dead(self, seat: Seat, worker: WorkerProcess) -> None:
        self._departed = merged([self._departed, counts_of(worker.stats)])
        self.on_change(worker)
        if worker.spool_id:
            for other in self.workers:
                other.channel.tell("adopt", {"dead": [worker.spool_id]})
        if self.is_stopping:
            return
        if worker.was_stuck:
            self.events.worker_stuck(worker.name, worker.pid, worker.missed * PING)
        seat.deaths = 1 if worker.age > STEADY else seat.deaths + 1
        if not self._was_ready and seat.deaths >= HOPELESS:
            self.hopeless.set()
            return
        delay = DELAYS[min(seat.deaths, len(DELAYS)) - 1]
        self.events.worker_died(worker.name, worker.pid, worker.how_it_ended(), delay)
        self._run(self._refill(seat, delay))

    async def _refill(self, seat: Seat, delay: float) -> None:
        if delay >= QUIET:
            for bound in self.ports.of(seat.number).values():
                quieten(bound)
        await asyncio.sleep(delay)
        if not self.is_stopping:
            self._fill(seat)

    async def _watch(self) -> None:
        """Ping everybody, and keep their counts young: a worker that dies takes little with it."""
        while True:
            await asyncio.gather(asyncio.sleep(PING), *(self._look_after(worker) for worker in self.workers))
            self._measure()

    def _measure(self) -> None:
        """A moment for the meter, of what the workers told last."""
        counts = merged([self._departed, *(worker.stats for worker in self.workers)])
        self.meter.note(self._clock(), counts, cpu_seconds([os.getpid(), *(one.pid for one in self.workers)]))

    def load(self, counts: Stats) -> Load:
        """How busy the house is. `counts`: what `stats` gave just now."""
        return self.meter.load(counts, allowance(len(self.seats)))

    async def _look_after(self, worker: WorkerProcess) -> None:
        await worker.ping()
        if worker.state is State.READY and not worker.missed:
            await worker.refresh()

    async def stop(self, seconds: float) -> int:
        """Ask all to end, then wait, then kill. Returns how many had to be killed."""
        self.is_stopping = True
        end = self._clock() + seconds
        alive = self.workers
        await asyncio.gather(*(worker.quiet(max(seconds - 1.0, 0.5)) for worker in alive))
        self.ports.quieten()
        ends = [asyncio.ensure_future(worker.gone.wait()) for worker in alive]
        if ends:
            await asyncio.wait(ends, timeout=max(end - self._clock(), 0.1))
        for one in ends:
            one.cancel()
        late = [worker for worker in alive if worker.is_alive]
        for worker in late:
            self.events.warned(f"worker {worker.name} (pid {worker.pid}) did not end in {seconds:.0f} s: killed")
            worker.kill()
        for worker in late:
            await asyncio.wait_for(worker.gone.wait(), 10)
        for task in list(self._tasks):
            task.cancel()
        return len(late)

    def kill(self) -> None:
        """The second Ctrl-C. Nobody takes the place of who ends by it."""
        self.is_stopping = True
        for worker in self.workers:
            worker.kill()

    # ------------------------------------------------------------------ configuration

    async def swap(self, config: EngineConfig, keys: Keys, revision: str = "") -> list[str]:
        """Carry a configuration to all workers, with the sockets they lack. Returns problems.

        A worker that still begins is not waited for: `_introduce` gives it the newest when it is done.
        """
        self._use(config, keys, revision)
        seats = [seat for seat in self.seats if seat.worker is not None and seat.worker.generation]
        living = [(seat, seat.worker) for seat in seats if seat.worker is not None and seat.worker.is_alive]
        answers = await asyncio.gather(*(self._give(seat, worker, within=SWAP) for seat, worker in living))
        problems = zip(living, answers, strict=True)
        return [f"worker {worker.name}: {problem}" for (_, worker), problem in problems if problem]

    def _use(self, config: EngineConfig, keys: Keys, revision: str) -> None:
        if config != self._config:
            self._encoded = msgspec.msgpack.encode(config)
            self._edition += 1
        self._config, self._keys = config, keys
        self._revision = revision or content_hash(config)
        self._generation += 1

    def know_pods(self, pods: Pods) -> None:
        """Tell all workers which address is in which selections of pods."""
        self.pods = pods
        self.tell_all("pods", pods)

    def _part(self, seat: Seat) -> Slice:
        """What of the limits is one worker's: every seat has the same, whoever sits there."""
        return self.slice.part(seat.number - 1, 1, self.ports.copies)

    async def share(self, piece: Slice) -> None:
        """Divide another slice of the limits among the workers. When this returns, they keep to it."""
        self.slice = piece
        await asyncio.gather(*(self._tell_share(seat) for seat in self.seats))

    async def _tell_share(self, seat: Seat) -> None:
        """Until it answered, or is gone: who comes after it begins with its part."""
        worker, part = seat.worker, self._part(seat)
        while worker is not None and worker.is_alive:
            try:
                await worker.channel.ask("share", part, within=SHARE)
                return
            except TimeoutError:
                continue  # pings see whether it hangs
            except (ChannelClosed, Refused):
                await worker.gone.wait()

    def know_leases(self, heard: Heard) -> None:
        """Tell all workers what the pods' Leases say of workers."""
        self.heard = heard
        self.tell_all("leases", heard)

    async def _give(self, seat: Seat, worker: WorkerProcess, *, within: float) -> str:
        """The present configuration to one worker, and the sockets it lacks. Returns what went wrong, or ""."""
        assert self._config is not None
        async with seat.giving:
            sockets = self.ports.of(seat.number)
            added = tuple(info for info in sockets if info not in seat.given)
            removed = tuple(info for info in seat.given if info not in sockets)
            generation, edition = self._generation, self._edition
            swap = Swap(
                config=b"" if worker.edition == edition else self._encoded,
                secrets=self._keys.secrets,
                certificates=self._keys.certificates,
                revision=self._revision,
                added=added,
                removed=removed,
                pods=self.pods,
            )
            try:
                await worker.swap(swap, [sockets[info] for info in added], within=within)
            except Refused as error:
                return str(error)
            except TimeoutError:
                return "no answer to a new configuration"
            except ChannelClosed:
                return "" if not worker.is_alive else "closed its channel"
            worker.generation, worker.edition = generation, edition
            seat.given |= set(added)
            seat.given -= set(removed)
            return ""

    # ------------------------------------------------------------------ questions to all

    async def stats(self) -> Stats:
        """The sum over the living, and the counts of the dead."""
        ready = self.ready
        await asyncio.gather(*(worker.refresh() for worker in ready))
        states = {f'posthof_workers{{state="{state}"}}': 0 for state in (State.STARTING, State.READY, State.STOPPING)}
        configs: Stats = {}
        for worker in self.workers:
            states[f'posthof_workers{{state="{worker.state}"}}'] += 1
            if worker.revision:
                key = f'posthof_config_info{{hash="{worker.revision}"}}'
                configs[key] = configs.get(key, 0) + 1
        return merged([self._departed, *(worker.stats for worker in self.workers), states, configs])

    async def ask_all(self, name: str, payload: object = None) -> tuple[list[tuple[WorkerProcess, Any]], list[str]]:
        """The same question to all that are ready: answers, and the names of workers that gave none."""
        ready = self.ready
        answers = await asyncio.gather(*(_ask(worker, name, payload) for worker in ready))
        found = [(worker, answer) for worker, (has, answer) in zip(ready, answers, strict=True) if has]
        there = {worker.name for worker, _ in found}
        return found, [str(seat.number) for seat in self.seats if str(seat.number) not in there]

    def tell_all(self, name: str, payload: object = None) -> None:
        for worker in self.workers:
            worker.channel.tell(name, payload)

    def _run(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.events.internal_error("crew", error)


async def _ask(worker: WorkerProcess, name: str, payload: object) -> tuple[bool, Any]:
    try:
        return True, await worker.channel.ask(name, payload)
    except (ChannelClosed, Refused, TimeoutError):
        return False, None


def counts_of(stats: Stats) -> Stats:
    """What only grows: counters and the parts of histograms."""
    ends = ("_total", "_bucket", "_sum", "_count")
    return {key: value for key, value in stats.items() if key.partition("{")[0].endswith(ends)}
