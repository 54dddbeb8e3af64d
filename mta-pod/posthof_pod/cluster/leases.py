"""This pod's Lease, and what the others' say: who lives, counted on this pod's own clock.

Rules of this file
- A Lease says who may be judged dead, and nothing else: it never decides who owns a lane.
- It is renewed while the looks of this pod's workers succeed (`look`), so a pod whose volume hangs falls silent.
- `renewTime` and everybody's clocks are never compared with anything: a Lease is young while it is seen to change.
- `counted` runs only over time that lies between two answered lists, close together, while our own Lease is renewed.
  So with the API server away nobody grows older, and when it returns, or this process wakes up from a long sleep,
  nobody is condemned by what stood still meanwhile.
- Lists, not watches: a watch that went silent looks like a fleet that died. A list is what the API server's store has
  now. One a second, two while somebody seems late, fewer the more pods there are (the API server's load is theirs to
  the square).
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from posthof_pod.cluster.api import LEASES, ApiServer, Away, Conflict, Denied, Lease
from posthof_pod.members import ENDED, SHARE, WORD, WORKERS, Heard, Member, Members

T = TypeVar("T")

RENEW = 5.0  # seconds
SOON = 0.25  # until a Lease that was removed is made again
AGAIN = 1.0  # until a renewal that failed is tried again
LIST = 1.0  # seconds between two lists, for up to MANY pods
LIST_CLOSE = 0.5  # the same while some Lease is LATE
MANY = 30
LATE = 10.0  # seconds without a change
GAP = 2.0  # seconds more than was meant to lie between two lists: these still count
DEAD_AFTER = 20  # seconds; as in spool/liveness.py, and written into the Lease for people
KEPT = 64  # of the workers whose end was proven, how many a Lease names
REMEMBERED = 500  # workers that no Lease names any more: that they ended, and whose they were
MTA_LABEL = "posthof.dev/mta"
POD_UID = "posthof.dev/pod-uid"  # annotation: which pod of this name


class Me(NamedTuple):
    """Which pod this is. `uid`: "" where it is not known; then nobody removes a dead pod's Lease with the pod."""

    mta: str
    pod: str
    uid: str = ""
    node: str = ""


class Told(NamedTuple):
    """What a step found out. `words`: of pods whose Lease was seen to change and is young: what a Lease names that a
    dead pod left may long have been removed."""

    heard: Heard
    members: Members
    words: Mapping[str, str] = {}  # pod -> what it says it wrote on the volume


class _Seen(NamedTuple):
    print: tuple[str, ...]
    changed: float  # `counted` when it was last seen to change
    has_changed: bool  # or only when it was first seen
    workers: tuple[str, ...]
    share: str
    word: str


class Leases:
    """`look()`: whether this pod's Lease may be renewed now. `tell(told)` after each list, and when lists fail.

    `trouble`: why the Lease is not renewed or the others' are not seen, "" while all is well.
    """

    def __init__(
        self,
        api: ApiServer,
        me: Me,
        *,
        look: Callable[[], Awaitable[bool]],
        tell: Callable[[Told], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._me, self._look, self._tell, self._clock = api, me, look, tell, clock
        self._holder = f"{me.pod}_{os.urandom(4).hex()}"
        self._uid = ""  # of our Lease; "": there is none that we know of
        self._annotations: dict[str, str] = {POD_UID: me.uid, WORKERS: "[]"}
        self._wake = asyncio.Event()
        self._is_dirty = False
        self._renew_at = float("-inf")
        self._renewed: float | None = None  # the last renewal, where it succeeded
        self._list_at = float("-inf")
        self._listed: float | None = None  # the last list, where it was answered
        self._paused = LIST  # meant to lie between that one and the next
        self._counted = 0.0
        self._pods: dict[str, _Seen] = {}
        self._ended: dict[str, None] = {}
        self._pods_of: dict[str, str] = {}  # worker -> pod, of all that were ever named
        self._members = Members(own=me.pod)
        self._troubles: dict[str, str] = {}
        self.renewals = 0

    @property
    def trouble(self) -> str:
        return "; ".join(self._troubles.values())

    def pod_of(self, worker: str) -> str:
        """Where a worker runs, or ran; "": no Lease was seen to name it."""
        return self._pods_of.get(worker, "")

    def names(self, worker: str) -> bool:
        """Whether a Lease names it now."""
        return any(worker in one.workers for one in self._pods.values())

    def annotate(self, annotations: Mapping[str, str]) -> None:
        """Put these into the Lease, soon; what is there already costs nothing."""
        if any(self._annotations.get(name) != value for name, value in annotations.items()):
            self._annotations.update(annotations)
            self._is_dirty = True
            if self._renewed is not None:  # else it is tried again soon, and not sooner
                self._renew_at = float("-inf")
            self._wake.set()

    def name_workers(self, workers: Iterable[str]) -> None:
        """Whom this Lease speaks for."""
        self.annotate({WORKERS: json.dumps(sorted(workers))})

    def prove_ended(self, workers: Iterable[str]) -> None:
        """Their processes have ended: everybody may take their lanes over at once."""
        mine = json.loads(self._annotations.get(ENDED, "[]"))
        mine += [one for one in workers if one not in mine]
        self._ended.update(dict.fromkeys(mine))
        self.annotate({ENDED: json.dumps(mine[-KEPT:])})

    # ------------------------------------------------------------------ its life

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            pause = await self.step()
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
            except TimeoutError:
                continue

    async def step(self) -> float:
        """Renew and list, where either is due. Seconds until something is."""
        if self._clock() >= self._renew_at:
            await self._renew()
        if self._clock() >= self._list_at:
            await self._list()
        return max(0.05, min(self._renew_at, self._list_at) - self._clock())

    async def leave(self, *, heard: float = 0.0) -> None:
        """Remove the Lease: nobody is to wait for us. What fails leaves it to grow old. `heard`: seconds in which the
        others shall read its last words first."""
        if not self._uid:
            return
        if self._is_dirty:
            await self._renew()
        await asyncio.sleep(heard)
        try:
            await self._api.delete_lease(self._me.pod, self._uid)
        except (Away, Denied, Conflict) as error:
            self._note("leave", str(error))
        self._uid = ""

    # ------------------------------------------------------------------ our own

    async def _renew(self) -> None:
        if not await self._look():
            self._fail("renew", "the workers do not see their volume: this pod's Lease is not renewed", AGAIN)
            return
        at = self._clock()
        self._is_dirty = False
        try:
            lease = await (self._patch({}) if self._uid else self._take())
        except (Away, Denied, Conflict) as error:
            self._is_dirty = True
            if isinstance(error, Conflict):
                self._uid = ""  # somebody removed it, and another stands in its place
            self._fail("renew", f"the Lease {self._me.pod} could not be renewed: {error}", AGAIN)
            return
        if lease is None:  # somebody removed it
            self._uid, self._renew_at = "", at + SOON
            return
        self._uid = lease.metadata.uid
        self._renewed, self._renew_at = at, at if self._is_dirty else at + RENEW
        self.renewals += 1
        self._note("renew", "")

    async def _take(self) -> Lease | None:
        """A new one, or the one that an earlier container of this pod left. None: try again."""
        try:
            return await self._api.create_lease(self._body())
        except Conflict:
            found = await self._api.get_lease(self._me.pod)
        if found is None:
            return None
        if (found.metadata.annotations or {}).get(POD_UID, "") != self._me.uid:
            await self._api.delete_lease(self._me.pod, found.metadata.uid)  # of another pod that had our name
            return None
        self._uid = found.metadata.uid
        changes = (found.spec.leaseTransitions or 0) + 1
        return await self._patch({"leaseTransitions": changes, "acquireTime": _now()})

    async def _patch(self, spec: Mapping[str, Any]) -> Lease | None:
        body = {
            "metadata": {"uid": self._uid, "annotations": self._annotations},
            "spec": {"holderIdentity": self._holder, "renewTime": _now(), **spec},
        }
        return await self._api.patch_lease(self._me.pod, body)

    def _body(self) -> Mapping[str, Any]:
        me = self._me
        head: dict[str, Any] = {
            "name": me.pod,
            "labels": {MTA_LABEL: me.mta, "app.kubernetes.io/component": "mta"},
            "annotations": self._annotations,
        }
        if me.uid:
            head["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", "name": me.pod, "uid": me.uid}]
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": head,
            "spec": {
                "holderIdentity": self._holder,
                "leaseDurationSeconds": DEAD_AFTER,
                "acquireTime": _now(),
                "renewTime": _now(),
                "leaseTransitions": 0,
            },
        }

    # ------------------------------------------------------------------ everybody's

    async def _list(self) -> None:
        asked = self._clock()
        try:
            found = await self._api.leases(f"{MTA_LABEL}={self._me.mta}")
        except (Away, Denied, Conflict) as error:
            self._lost(f"the Leases of the other pods are not seen: {error}")
            return
        answered = self._clock()
        if answered - asked > LEASES + 1.0:  # this process slept meanwhile: the answer is old
            self._lost("")
            return
        evidence = self._count(asked, answered)
        self._take_in(found)
        self._note("list", "")
        self._members = Members(True, self._me.pod, tuple(self._alive(evidence)))
        self._paused = self._pause(evidence)
        self._list_at = answered + self._paused
        self._say(evidence)

    def _count(self, asked: float, answered: float) -> float:
        """Let `counted` run on, where this time counts. Returns what it was when the list was asked for: what did not
        change in it had not changed by then."""
        last, self._listed = self._listed, answered
        is_renewed = self._renewed is not None and asked - self._renewed <= RENEW + GAP + LIST
        if last is None or not is_renewed or asked - last > self._paused + GAP:
            return self._counted
        evidence = self._counted + (asked - last)
        self._counted += answered - last
        return evidence

    def _take_in(self, found: list[Lease]) -> None:
        pods: dict[str, _Seen] = {}
        ended: dict[str, None] = {}
        for lease in found:
            name = lease.metadata.name
            print_ = (lease.metadata.uid, lease.spec.holderIdentity or "", lease.spec.renewTime or "")
            old = self._pods.get(name)
            is_same = old is not None and old.print == print_
            changed = old.changed if old is not None and is_same else self._counted
            has_changed = old is not None and (old.has_changed or not is_same)
            annotations = lease.metadata.annotations or {}
            ended.update(dict.fromkeys(_names(annotations.get(ENDED, ""))))
            workers = _names(annotations.get(WORKERS, ""))
            share, word = annotations.get(SHARE, ""), annotations.get(WORD, "")
            pods[name] = _Seen(print_, changed, has_changed, workers, share, word)
        self._pods = pods
        self._ended = _newest(self._ended, ended)
        self._pods_of = _newest(self._pods_of, {worker: pod for pod, one in pods.items() for worker in one.workers})
        if self._uid and self._me.pod not in pods:  # somebody removed ours
            self._uid, self._renew_at = "", float("-inf")

    def _alive(self, evidence: float) -> Iterable[Member]:
        for name, seen in sorted(self._pods.items()):
            if evidence - seen.changed < DEAD_AFTER:
                yield Member(name, seen.share)

    def _pause(self, evidence: float) -> float:
        if any(LATE <= evidence - one.changed < DEAD_AFTER for one in self._pods.values()):
            return LIST_CLOSE
        return LIST * max(1.0, len(self._pods) / MANY)

    def _lost(self, why: str) -> None:
        self._listed = None
        self._list_at = self._clock() + LIST
        if why:
            self._note("list", why)
        self._members = Members(False, self._me.pod, self._members.pods)
        self._say(self._counted)

    def _say(self, evidence: float) -> None:
        seen: dict[str, float] = {}
        for one in self._pods.values():
            for worker in one.workers:
                seen[worker] = max(seen.get(worker, one.changed), one.changed)
        words = {
            pod: one.word
            for pod, one in self._pods.items()
            if one.has_changed and evidence - one.changed < DEAD_AFTER
        }
        self._tell(Told(Heard(evidence, seen, frozenset(self._ended)), self._members, words))

    # ------------------------------------------------------------------ telling

    def _fail(self, what: str, why: str, again: float) -> None:
        self._renewed = None
        self._renew_at = self._clock() + again
        self._note(what, why)

    def _note(self, what: str, why: str) -> None:
        if why:
            self._troubles[what] = why
        else:
            self._troubles.pop(what, None)


def _newest(known: Mapping[str, T], named: dict[str, T]) -> dict[str, T]:
    """All that are named now, and of the others the newest: pods and workers come and go for as long as we live."""
    former = [(key, value) for key, value in known.items() if key not in named]
    return dict(former[-REMEMBERED:]) | named


def _now() -> str:
    """As Kubernetes writes a MicroTime: for people, and so that each renewal differs."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _names(text: str) -> tuple[str, ...]:
    """A JSON list of names; nothing for anything else."""
    try:
        found = json.loads(text) if text else []
    except ValueError:
        return ()
    return tuple(str(one) for one in found) if isinstance(found, list) else ()
