"""THE STORY of one reconcile of an MTA: look, decide, make it so, ask the pods, tell.

It may be called at any time, twice, or after a crash in the middle of itself, and ends in the same place. A pass over
a cluster that is as it should be writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from posthof_crds.reasons import Condition, Reason
from posthof_operator import columns, deletion, describe
from posthof_operator.apply import Applier, Outcome
from posthof_operator.assembly import Assemblies
from posthof_operator.conditions import Said
from posthof_operator.deletion import Step
from posthof_operator.hashes import Hashes
from posthof_operator.look import VOICE, Look
from posthof_operator.parts import Parts
from posthof_operator.plan import Plan, decide
from posthof_operator.pods import addresses
from posthof_operator.reports import Reporters
from posthof_operator.resources import PAUSED, Key, Raw, key_of
from posthof_operator.scale.decide import Decision
from posthof_operator.scale.scaler import EVERY, Scaler
from posthof_operator.sharing import share, share_reports, share_selections, withdraw
from posthof_operator.snapshot import Looker, Seen
from posthof_operator.store import Store
from posthof_operator.takeovers import TakeOvers
from posthof_operator.telling import tell
from posthof_operator.world import Requeue, World


class Pace(NamedTuple):
    """Seconds to the next look, if nothing wakes us before."""

    soon: float = 0.5  # pods are taking a configuration
    later: float = 3.0  # something is not as it should be
    calm: float = 10.0


_PACE = Pace()


class MTARoom:
    """The reconciler of MTA."""

    room = "mta"
    kind = "MTA"

    def __init__(self, store: Store, reporters: Reporters, pace: Pace = _PACE) -> None:
        self._pace = pace
        self._looker, self._applier, self._reporters = Looker(), Applier(), reporters
        self._scaler = Scaler()
        self._hashes = Hashes()
        self._take_overs = TakeOvers()
        self._assemblies = Assemblies(store, Parts(store))

    async def reconcile(self, key: Key, world: World) -> Requeue | None:
        mta = world.store.get(key)
        if mta is None:
            await self._forget(key, world)
            return None
        assembly = await self._assemblies.of(world, key, mta)  # what pods shall run, compiled from all objects
        share(world, key, assembly)  # what that says about each object, for their own statuses
        mta = await self._hold(world, key, mta)  # before there is a claim that it could leave behind
        seen = await self._looker.look(world, key, mta, assembly)  # what is there

        seen = replace(seen, assembly=await self._hashes.complete(assembly, seen.token))  # no pod gets a password
        scaling = self._scaler.decide(seen)  # how many pods, by what they reported so far; pure
        count = scaling.pods if scaling is not None else None
        plan = decide(seen, world.settings, count=count) if assembly.is_usable else None  # what shall be there; pure
        outcome = await self._act(world, seen, plan, scaling)  # children written, leftovers removed

        reports = await self._reporters.ask(addresses(seen.pods), seen.token)  # what pods say they run
        share_reports(world, key, reports)
        self._scaler.note(seen, reports)

        trend = self._scaler.phase(seen)
        look = Look(
            seen=seen, plan=plan, outcome=outcome, reports=reports, scaling=scaling, trend=trend, now=world.now()
        )
        says = describe.describe(look)  # how it is; pure
        await tell(world, mta, says, columns.fields(look, says), VOICE)
        await self._take_overs.tell(world, key, seen.uid, reports.values())  # what pods took from others: Events
        await self._finalize(world, look)  # hold it, or let it go, where mail is delivered or deleted first
        return when(look, says, self._pace)

    async def _hold(self, world: World, key: Key, mta: Raw) -> Raw:
        """The MTA with the finalizer its policy asks for. Asked for afresh: the store keeps the version of the last
        change that means something, and a patch of an older one is a conflict."""
        is_paused = PAUSED in (mta["metadata"].get("annotations") or {})
        if is_paused or deletion.step(mta, {}, (), None) is not Step.HOLD:
            return mta
        fresh = await world.api.get(key.kind, key.namespace, key.name)
        if fresh is None or deletion.step(fresh, {}, (), None) is not Step.HOLD:
            return mta
        held = await world.api.patch(key, deletion.change(fresh, Step.HOLD))
        world.store.put("MTA", held)
        return mta | {"metadata": held["metadata"]}

    async def _act(self, world: World, seen: Seen, plan: Plan | None, scaling: Decision | None) -> Outcome:
        if plan is None or seen.is_paused or not deletion.may_act(seen.mta):
            return Outcome()
        change = await self._scaler.prepare(world, seen, plan)  # pods that go are marked before there are fewer
        outcome = await self._applier.apply(world, plan.children, salt=seen.token)
        await self._applier.prune(world, plan.leftovers, outcome)
        if scaling is not None and not outcome.refused:
            await self._scaler.did(world, seen, plan, scaling, change)
        share_selections(world, seen.key, plan.want, seen.assembly)
        return outcome

    async def _finalize(self, world: World, look: Look) -> None:
        mta = world.store.get(look.seen.key)  # as it is after its status was told
        if mta is None:
            return
        if "deletionTimestamp" in mta["metadata"] and "deletionTimestamp" not in look.seen.mta["metadata"]:
            return  # it was deleted after we looked: the next look sees what must go with it
        claim = look.seen.claim
        step = deletion.step(mta, look.reports, look.living, claim)
        if step is Step.NOTHING or look.seen.is_paused:
            return
        if step is Step.DELETE and claim is not None:
            await world.api.delete(key_of(claim), uid=claim["metadata"]["uid"])
        fresh = await world.api.get("MTA", look.seen.key.namespace, look.seen.key.name)  # as in _hold
        if fresh is not None and fresh["metadata"]["uid"] == look.seen.uid:
            await world.api.patch(look.seen.key, deletion.change(fresh, step))

    async def _forget(self, key: Key, world: World) -> None:
        """It is gone; its children follow by themselves."""
        self._assemblies.forget(key)
        self._looker.forget(key)
        self._scaler.forget(key)
        await world.watches.withdraw(f"mta {key}")
        withdraw(world, key)


def when(look: Look, says: Sequence[Said], pace: Pace) -> Requeue | None:
    """When to look again, if nothing wakes us before."""
    if look.seen.is_paused:
        return None
    if any(describe.is_converging(look, one) for one in says):
        return Requeue(pace.soon, "Converging")
    has_load = any(one.ready and one.load is not None for one in look.reports.values())
    if look.scaling is not None and look.scaling.reason is Reason.NO_REPORTS and has_load:
        return Requeue(pace.soon, "Scaling")  # pods have just said what the decision waits for
    is_ready = any(one.type is Condition.READY and one.is_true for one in says)
    if is_ready and look.seen.spec is not None and look.seen.spec.autoscaling is not None:
        return Requeue(min(pace.calm, EVERY), "Scaling")
    return Requeue(pace.calm, "Calm") if is_ready else Requeue(pace.later, "NotReady")
