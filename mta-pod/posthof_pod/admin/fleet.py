"""This house among the pods that share its spool: its Lease follows its workers, its workers hear of the others.

Rules of this file
- The Lease is renewed while every worker that has begun saw its latch within LOOK_MAX. One that hangs alone is
  killed, so that it does not cost the others their lanes; where all hang, the volume does, and the pod falls silent.
- A worker that was reaped, or that an earlier container of this pod ran, is proven dead: the Lease says so, and every
  pod may take its lanes over at once.
- On one machine there is no Lease: the fleet is this house.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from posthof_pod.admin.channel import ChannelClosed, Refused
from posthof_pod.admin.crew import Crew
from posthof_pod.admin.process import State, WorkerProcess
from posthof_pod.admin.shares import Sharing
from posthof_pod.admin.takeovers import Adopted, TakeOvers
from posthof_pod.admin.visibility import Visibility
from posthof_pod.members import WORD, Members
from posthof_pod.observe.events import Events

if TYPE_CHECKING:
    from posthof_pod.cluster.api import ApiServer
    from posthof_pod.cluster.leases import Leases, Me, Told

LOOK_MAX = 5.0  # seconds since a worker's last good look until the Lease is not renewed for it
HANGS = 10.0  # seconds until a worker that hangs alone is killed
ASK = 1.0  # seconds a worker has to say when it looked last
SLEPT = 10.0  # seconds between two looks that nothing but a stopped process explains
LASTING = 30.0  # seconds until trouble with the Leases is told to the operator
LAST_WORDS = 2.5  # seconds: the others list every one or two
TOLD_EVERY = 1.0  # seconds
PROOFS = "workers"  # folder in the state folder: lock files of this pod's workers


class Home(NamedTuple):
    """A pod's place in its cluster."""

    api: ApiServer
    me: Me


class Fleet:
    """`members`: as the Leases showed them last. `home` None: one machine. `stop(why)`: end the house."""

    def __init__(
        self,
        crew: Crew,
        events: Events,
        home: Home | None,
        proofs: Path,
        spool: Path,
        *,
        stop: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.members = Members()
        self._crew, self._events, self._clock = crew, events, clock
        self._proofs, self._spool = proofs, spool
        self.take_overs = TakeOvers(
            home.me.pod if home is not None else "",
            on_told=events.taken_over,
            pod_of=self._pod_of,
            is_alive=self._is_alive,
        )
        self._stop = stop
        self._leases: Leases | None = None
        self.visibility: Visibility | None = None
        self._sharing: Sharing | None = None
        self._looked_at: float | None = None
        self._trouble, self._since = "", 0.0
        if home is not None:
            from posthof_pod.cluster.leases import Leases

            self._leases = Leases(home.api, home.me, look=self.look, tell=self._hear)
            self.visibility = Visibility(
                spool,
                home.me.pod,
                say=lambda word: self.annotate({WORD: word}),
                on_late=events.volume_blind,
                on_blind=self._blind,
            )
            self._sharing = Sharing(home.me.pod, crew, events, self.annotate, proofs.parent)

    @property
    def trouble(self) -> str:
        """Why peers may think that this pod is dead, or it cannot see who is: what lasts, for people."""
        is_lasting = self._trouble and self._clock() - self._since > LASTING
        return self._trouble if is_lasting else ""

    @property
    def has_share(self) -> bool:
        """Whether anything of the fleet's limits is ours."""
        return self._sharing is None or self._sharing.has_some

    @property
    def renewals(self) -> int:
        return self._leases.renewals if self._leases is not None else 0

    def annotate(self, annotations: dict[str, str]) -> None:
        """Put these into this pod's Lease, soon. Nothing happens on one machine."""
        if self._leases is not None:
            self._leases.annotate(annotations)

    # ------------------------------------------------------------------ its life

    def begin(self) -> None:
        """Before the first worker."""
        self._crew.on_change = self._changed
        self._crew.on_adopted = self._adopted
        if self._leases is None:
            return
        self._leases.prove_ended(self._earlier())

    async def run(self) -> None:
        """Keep the Lease and our share of the limits, and tell of take-overs, until cancelled."""
        works = [self._keep("take-overs", self._tell_of_take_overs)]
        if self._leases is not None and self._sharing is not None:
            assert self.visibility is not None
            works.append(self._keep("visibility", self.visibility.run))
            works += [self._keep("leases", self._leases.run), self._keep("shares", self._sharing.run)]
        await asyncio.gather(*works)

    async def _tell_of_take_overs(self) -> None:
        while True:
            self.take_overs.settle()
            await asyncio.sleep(TOLD_EVERY)

    async def _keep(self, what: str, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await run()
            except Exception as error:  # our own fault: it must go on
                self._events.internal_error(what, error)
                await asyncio.sleep(1.0)

    async def leave(self) -> None:
        """The last worker has ended. If one left lanes behind, the others read of its end first."""
        if self._leases is not None:
            if self.visibility is not None:
                await self.visibility.leave()
            others = any(one.pod != self.members.own for one in self.members.pods)
            left = self._earlier()
            self._leases.prove_ended(left)  # also of one that stopped by itself and could not free all of its lanes
            await self._leases.leave(heard=LAST_WORDS if others and left else 0.0)

    def _earlier(self) -> list[str]:
        """Workers of this pod whose process has ended and whose folder is still on the volume. Forgets the others."""
        from posthof_pod.spool.liveness import has_ended

        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in list(self._proofs.iterdir()):
                if not has_ended(self._proofs, path.name):
                    continue
                if (self._spool / "workers" / path.name).exists():
                    found.append(path.name)
                else:
                    path.unlink(missing_ok=True)
        return found

    # ------------------------------------------------------------------ our own workers

    def _changed(self, worker: WorkerProcess) -> None:
        """A worker told its name, or was reaped."""
        if self._leases is None:
            return
        if not worker.is_alive and worker.status != 0 and worker.spool_id:
            self._leases.prove_ended([worker.spool_id])
        named = [one.spool_id for one in self._crew.workers if one.spool_id and not one.is_given_up]
        self._leases.name_workers(named)

    async def look(self) -> bool:
        """Whether all workers saw their latches lately; kills one that hangs alone. Directly after a sleep of all
        of us nobody: one may not have come to look yet, and another has."""
        has_slept = self._notice_sleep()
        workers = [one for one in self._crew.workers if one.state is not State.STOPPING and not one.is_given_up]
        ages = await asyncio.gather(*(self._age(one) for one in workers))
        begun = [(worker, age) for worker, age in zip(workers, ages, strict=True) if age is not None]
        late = [(worker, age) for worker, age in begun if age >= LOOK_MAX]
        if len(late) < len(begun) and not has_slept:
            for worker, age in late:
                if age >= HANGS:
                    self._give_up(worker, age)
        return all(worker.is_given_up for worker, _ in late)

    async def _age(self, worker: WorkerProcess) -> float | None:
        """Seconds since its last good look. None: it owns nothing yet."""
        try:
            age = await worker.channel.ask("look", within=ASK)
        except (ChannelClosed, Refused, TimeoutError):
            return self._clock() - worker.looked if worker.looked is not None else None
        if age is not None:
            worker.looked = self._clock() - age
        return age if age is None else float(age)

    def _give_up(self, worker: WorkerProcess, age: float) -> None:
        self._events.worker_stuck(worker.name, worker.pid, age)
        worker.is_given_up = True
        worker.kill()
        self._changed(worker)

    def _notice_sleep(self) -> bool:
        now = self._clock()
        last, self._looked_at = self._looked_at, now
        has_slept = last is not None and now - last > SLEPT
        if last is not None and has_slept:
            self._events.slept(now - last)
        return has_slept

    # ------------------------------------------------------------------ the others

    def _adopted(self, told: object) -> None:
        self.take_overs.note(msgspec.convert(told, Adopted))

    def _blind(self, why: str) -> None:
        """The volume hides what others write. While the Leases cannot be read the word may only be an old one."""
        if self.members.known:
            self._stop(why)

    def _pod_of(self, worker: str) -> str:
        return self._leases.pod_of(worker) if self._leases is not None else ""

    def _is_alive(self, worker: str) -> bool:
        """Whether it goes on: what it gave away was a share of its backlog."""
        own = {one.spool_id for one in self._crew.workers}
        return worker in own or (self._leases is not None and self._leases.names(worker))

    def _hear(self, told: Told) -> None:
        assert self._leases is not None
        self._crew.know_leases(told.heard)
        if self._sharing is not None:
            self._sharing.hear(told.members)
        if told.members != self.members:
            self._tell_of_members(self.members, told.members)
            self.members = told.members
        if self.visibility is not None:
            self.visibility.hear(told.words)
        self._tell_of_trouble(self._leases.trouble)

    def _tell_of_members(self, old: Members, new: Members) -> None:
        if not new.known:
            return
        before, now = {one.pod for one in old.pods}, {one.pod for one in new.pods}
        for pod in sorted(now - before):
            self._events.member_joined(pod)
        for pod in sorted(before - now):
            self._events.member_left(pod)

    def _tell_of_trouble(self, trouble: str) -> None:
        if trouble and not self._trouble:
            self._since = self._clock()
            self._events.lease_lost(trouble)
        elif not trouble and self._trouble:
            self._events.lease_back(self._clock() - self._since)
        self._trouble = trouble
