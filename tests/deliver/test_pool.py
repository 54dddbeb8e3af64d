"""The pool in virtual time: who gets sessions, when, and what comes back."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.poolworld import Session, World, direct, local, play
from posthof_crds.engine import DestinationLimits, Retry
from posthof_pod.deliver.connection import Unreachable
from posthof_pod.model import Destination, DestinationKind, Reason, Taken
from posthof_pod.replies import Permanent, Reply, Temporary
from posthof_pod.schedule.backlog import State


def refused(reason: Reason = Reason.CONNECT_FAILED, code: int = 0, *, is_permanent: bool = False) -> Unreachable:
    return Unreachable(reason, "mx[192.0.2.1]:25", f"{code} no", code=code, is_permanent=is_permanent)


def test_one_mail_leaves_by_one_session_that_then_idles_and_quits():
    async def story(world: World) -> None:
        world.add(direct("a.test"))
        await asyncio.sleep(1)
        assert [(d, w) for w, d, _ in world.left] == [("a.test", pytest.approx(0.25))]
        assert world.pool.status("direct:a.test").idle == 1
        await asyncio.sleep(6)
        assert world.sessions[0].has_quit
        assert world.pool.open_sessions == 0

    play(story)


def test_a_ready_unit_meets_an_idle_session_in_the_next_turn_of_the_loop():
    async def story(world: World) -> None:
        world.add(direct("a.test"))
        await asyncio.sleep(1)
        world.add(direct("a.test"))
        await asyncio.sleep(0)  # kick woke the session's task
        await asyncio.sleep(0)
        assert world.batches == [1, 1]
        assert len(world.connects) == 1

    play(story)


def test_what_becomes_ready_in_one_turn_of_the_loop_leaves_in_one_batch_of_a_brisk_session():
    async def story(world: World) -> None:
        world.send_time = 0.001
        world.add(direct("a.test"))
        await asyncio.sleep(1)
        for _ in range(8):  # as a sync of the spool releases them: each is told by itself
            world.add(direct("a.test"))
        await asyncio.sleep(1)
        assert world.batches == [1, 8]
        assert len(world.connects) == 1

    play(story)


def test_messages_of_one_batch_share_the_sessions_of_a_host():
    async def story(world: World) -> None:
        world.add(direct("a.test"), 100)
        await asyncio.sleep(60)
        assert len(world.left) == 100
        assert len(world.connects) < 20

    play(story)


def test_a_session_ends_after_messages_per_connection():
    async def story(world: World) -> None:
        world.add(direct("a.test", connections_start=1, connections=1, messages_per_connection=10), 35)
        await asyncio.sleep(60)
        assert len(world.left) == 35
        assert len(world.sessions) == 4

    play(story)


def test_domains_with_the_same_hosts_share_sessions_in_turn():
    async def story(world: World) -> None:
        world.sites = {"a.test": ["mx"], "b.test": ["mx"]}
        world.add(direct("a.test", connections_start=1, connections=1), 50)
        world.add(direct("b.test", connections_start=1, connections=1), 1)
        await asyncio.sleep(60)
        assert len(world.connects) == 1
        when = next(w for w, name, _ in world.left if name == "b.test")
        assert when < 5

    play(story)


def test_with_100_000_to_a_one_mail_to_b_leaves_as_if_the_queue_were_empty():
    def latency(flood: int) -> float:
        async def story(world: World) -> None:
            world.add(direct("a.test"), flood)
            await asyncio.sleep(10)
            world.add(direct("b.test"))
            await asyncio.sleep(2)

        world = play(story)
        return next(when for when, name, _ in world.left if name == "b.test") - 10

    assert latency(100_000) == pytest.approx(latency(0), abs=0.01)


def test_one_sender_of_50_000_does_not_keep_another_from_the_same_destination():
    async def story(world: World) -> None:
        world.add(direct("a.test"), 50_000, sender="flood@x.test")
        await asyncio.sleep(10)
        (ref,) = world.add(direct("a.test"), sender="person@y.test")
        await asyncio.sleep(10)
        when = next(when for when, _, r in world.left if r == ref)
        assert when - 10 < 2 * 10 * world.send_time + 0.1  # the batch that runs, and its own

    play(story)


def test_concurrency_starts_at_5_and_grows_to_20_while_all_goes_well():
    async def story(world: World) -> None:
        world.send_time = 1.0
        world.add(direct("a.test"), 2000)
        await asyncio.sleep(0.9)
        assert world.most_per_address["a.test"] == 5
        await asyncio.sleep(200)
        assert world.most_per_address["a.test"] == 20

    play(story)


def test_a_peer_that_ends_sessions_gets_fewer_of_them():
    async def story(world: World) -> None:
        async def cut(takens: list[Taken], session: Session | None) -> bool:
            assert session is not None
            await asyncio.sleep(1)
            session.is_usable = False
            for taken in takens:
                world.backlog.defer(taken.unit, world.now() + 1000, 1, False)
            return False

        world.on_attempt = cut
        world.add(direct("a.test"), 1000)
        await asyncio.sleep(10)
        assert world.pool.status("direct:a.test").limit == 1

    play(story)


def test_a_dead_site_sends_what_is_ready_back_as_a_group_with_reason_and_reply():
    async def story(world: World) -> None:
        world.unreachable["a.test"] = refused(Reason.CONNECT_TIMEOUT)
        refs = world.add(direct("a.test"), 20)
        await asyncio.sleep(1)
        assert sorted(ref for _, ref, _ in world.setbacks) == refs
        assert {s.reason for _, _, s in world.setbacks} == {Reason.CONNECT_TIMEOUT}
        assert {s.reply for _, _, s in world.setbacks} == {"0 no"}
        assert world.backlog.counts(world.backlog.line(direct("a.test"))).deferred == 20
        assert not world.left

    play(story)


def test_of_a_long_queue_for_a_dead_site_each_probe_sends_a_part_back_in_their_order():
    async def story(world: World) -> None:
        world.unreachable["a.test"] = refused()
        world.retry_after = 1e6
        refs = world.add(direct("a.test"), 1000)
        await asyncio.sleep(20)
        first = len(world.setbacks)
        assert first in (100, 150, 200)  # a few connects until it counts as down
        assert [ref for _, ref, _ in world.setbacks] == refs[:first]
        await asyncio.sleep(40)
        assert len(world.setbacks) == first + 50
        await asyncio.sleep(10_000)
        assert [ref for _, ref, _ in world.setbacks] == refs
        assert not world.left

    play(story)


def test_a_dead_site_is_probed_by_one_session_with_growing_pauses():
    async def story(world: World) -> None:
        world.unreachable["a.test"] = refused()
        world.retry_after = 5.0
        world.add(direct("a.test"), 500)
        await asyncio.sleep(1500)
        times = [when for when, _ in world.connects if when > 1]
        pauses = [b - a for a, b in itertools.pairwise(times)]
        assert world.told == ["down a.test"]
        assert all(pause >= 29 for pause in pauses)  # never two at once
        assert pauses[-1] > 3 * pauses[0]

    play(story)


def test_what_waited_only_because_nobody_answered_leaves_when_the_site_is_back():
    async def story(world: World) -> None:
        world.unreachable["a.test"] = refused()
        world.retry_after = 100.0
        world.add(direct("a.test"), 5)
        await asyncio.sleep(30)
        world.retry_after = 10_000.0
        world.add(direct("a.test"), 5)
        await asyncio.sleep(1)
        assert world.told == ["down a.test"]
        del world.unreachable["a.test"]
        await asyncio.sleep(150)  # the first five are due, one of them is the probe
        assert len(world.left) == 10
        assert world.told == ["down a.test", "up a.test"]

    play(story)


def test_the_next_host_is_tried_and_remembered():
    async def story(world: World) -> None:
        world.sites = {"a.test": ["bad", "good"]}
        world.unreachable["bad"] = refused()
        world.add(direct("a.test", idle=0.5))
        await asyncio.sleep(5)
        world.add(direct("a.test", idle=0.5))
        await asyncio.sleep(5)
        assert [address for _, address in world.connects] == ["bad", "good", "good"]
        assert len(world.left) == 2

    play(story)


def test_a_try_ends_after_5_addresses():
    async def story(world: World) -> None:
        world.sites = {"a.test": [f"h{n}" for n in range(9)]}
        world.unreachable = {f"h{n}": refused() for n in range(9)}
        world.add(direct("a.test"))
        await asyncio.sleep(5)
        assert len(world.connects) == 5
        assert len(world.setbacks) == 1

    play(story)


def test_a_try_ends_after_2_hosts_that_answered_and_refused():
    async def story(world: World) -> None:
        world.sites = {"a.test": ["h1", "h2", "h3"]}
        world.unreachable = {h: refused(Reason.GREETING_REFUSED, 421) for h in ("h1", "h2", "h3")}
        world.add(direct("a.test"))
        await asyncio.sleep(5)
        assert [address for _, address in world.connects] == ["h1", "h2"]
        assert world.setbacks[0][2].code == 421

    play(story)


def test_a_temporary_refusal_of_one_host_outweighs_a_permanent_one_of_another():
    async def story(world: World) -> None:
        world.sites = {"a.test": ["h1", "h2"]}
        world.unreachable = {
            "h1": refused(Reason.GREETING_REFUSED, 554, is_permanent=True),
            "h2": refused(Reason.GREETING_REFUSED, 450),
        }
        world.add(direct("a.test"))
        await asyncio.sleep(5)
        assert [(s.code, s.is_permanent) for _, _, s in world.setbacks] == [(450, False)]

    play(story)


def test_a_domain_without_a_route_fails_as_a_group_and_permanently():
    async def story(world: World) -> None:
        world.unroutable["a.test"] = Permanent(Reply(556, "5.1.10", "takes no mail"), "a.test: null MX")
        world.add(direct("a.test"), 300)
        await asyncio.sleep(1)
        assert len(world.setbacks) == 300
        _, _, setback = world.setbacks[0]
        assert (setback.code, setback.enhanced, setback.is_permanent) == (556, "5.1.10", True)
        assert len(world.backlog) == 0
        assert world.resolved == ["a.test"]

    play(story)


def test_dns_that_does_not_answer_defers_with_its_own_reason():
    async def story(world: World) -> None:
        world.unroutable["a.test"] = Temporary(Reply(451, "4.4.3", "DNS"), "a.test MX: no answer")
        world.add(direct("a.test"), 3)
        await asyncio.sleep(1)
        assert {s.reason for _, _, s in world.setbacks} == {Reason.DNS_FAILED}
        del world.unroutable["a.test"]
        await asyncio.sleep(130)
        assert len(world.left) == 3

    play(story)


def test_a_failed_connect_beside_working_sessions_sends_nothing_back():
    async def story(world: World) -> None:
        world.send_time = 1.0
        world.add(direct("a.test", connections_start=2), 2)
        await asyncio.sleep(0.5)
        world.unreachable["a.test"] = refused(Reason.GREETING_REFUSED, 421)
        world.add(direct("a.test", connections_start=2), 40)
        await asyncio.sleep(60)
        assert not world.setbacks
        assert len(world.left) == 42

    play(story)


def test_1_000_destinations_share_50_places_and_every_one_is_served():
    async def story(world: World) -> None:
        for n in range(1000):
            world.add(direct(f"d{n}.test"), 30)
        await asyncio.sleep(400)
        firsts: dict[str, float] = {}
        for when, name, _ in world.left:
            firsts.setdefault(name, when)
        assert len(firsts) == 1000
        # 1,000 first turns over 50 places, a turn is at most a quantum of messages
        assert max(firsts.values()) < 1000 / 50 * (20 * world.send_time + 1)
        assert world.most_running <= 50

    play(story, capacity=50)


def test_an_idle_session_makes_room_for_a_site_that_waits():
    async def story(world: World) -> None:
        for n in range(4):
            world.add(direct(f"d{n}.test", idle=1000.0))
        await asyncio.sleep(2)
        assert world.pool.open_sessions == 4
        world.add(direct("new.test"))
        await asyncio.sleep(2)
        assert "new.test" in {name for _, name, _ in world.left}
        assert world.pool.open_sessions == 4

    play(story, capacity=4)


def test_a_flood_to_one_site_leaves_places_for_others_at_the_cap():
    async def story(world: World) -> None:
        world.add(direct("a.test"), 10_000)
        await asyncio.sleep(20)
        world.add(direct("b.test"))
        await asyncio.sleep(10)
        when = next(w for w, name, _ in world.left if name == "b.test")
        assert when - 20 < 10 * world.send_time + 1  # one batch of the flood

    play(story, capacity=5)


def test_maildirs_take_up_to_8_batches_at_once_of_up_to_100():
    async def story(world: World) -> None:
        active = most = 0

        async def store(takens: list[Taken], session: Session | None) -> bool:
            nonlocal active, most
            assert session is None
            active += 1
            most = max(most, active)
            await asyncio.sleep(0.1)
            active -= 1
            for taken in takens:
                world.backlog.done(taken.unit)
            return True

        world.on_attempt = store
        for n in range(20):
            world.add(local(f"l{n}.test"), 250)
        await asyncio.sleep(5)
        assert most == 8
        assert max(world.batches) == 100
        assert len(world.backlog) == 0
        assert not world.connects

    play(story)


def test_a_session_that_went_stale_while_idle_is_not_used():
    async def story(world: World) -> None:
        world.add(direct("a.test"))
        await asyncio.sleep(1)
        world.sessions[0].is_usable = False
        world.add(direct("a.test"))
        await asyncio.sleep(1)
        assert len(world.left) == 2
        assert len(world.sessions) == 2

    play(story)


def test_units_given_back_by_a_reused_session_leave_by_a_new_one_at_once():
    async def story(world: World) -> None:
        async def deliver(takens: list[Taken], session: Session | None) -> bool:
            assert session is not None
            if session.sent:
                session.is_usable = False
                for taken in takens:
                    world.backlog.give_back(taken.unit)
                return False
            session.sent += 1
            return await world.deliver(takens, session)

        world.on_attempt = deliver
        world.add(direct("a.test"))
        await asyncio.sleep(1)
        world.add(direct("a.test"))
        await asyncio.sleep(1)
        assert len(world.left) == 2
        assert not world.setbacks

    play(story)


def test_peers_that_break_before_the_first_message_end_the_try_after_two_sessions():
    async def story(world: World) -> None:
        async def broken(takens: list[Taken], session: Session | None) -> bool:
            assert session is not None
            session.is_usable = False
            for taken in takens:
                world.backlog.give_back(taken.unit)
            return False

        world.on_attempt = broken
        world.sites = {"a.test": ["h1", "h2", "h3"]}
        world.add(direct("a.test"))
        await asyncio.sleep(20)
        assert [address for _, address in world.connects] == ["h1", "h2"]
        assert [s.reason for _, _, s in world.setbacks] == [Reason.PEER_CLOSED]

    play(story)


def test_an_attempt_that_raises_loses_nothing():
    async def story(world: World) -> None:
        async def fault(takens: list[Taken], session: Session | None) -> bool:
            raise ZeroDivisionError

        world.on_attempt = fault
        world.add(direct("a.test"), 5)
        await asyncio.sleep(2)
        assert {s.reason for _, _, s in world.setbacks} == {Reason.INTERNAL}
        assert world.backlog.totals().deferred == 5
        assert world.errors

    play(story)


def test_drain_lets_running_messages_end_and_starts_no_new_ones():
    async def story(world: World) -> None:
        world.send_time = 2.0
        world.add(direct("a.test"), 100)
        await asyncio.sleep(1)
        await world.pool.drain(30.0)
        assert len(world.left) == world.most_running > 0
        assert world.backlog.totals().taken == 0
        assert world.backlog.totals().ready == 100 - len(world.left)

    play(story)


def test_drain_cancels_what_takes_longer_and_its_units_stay():
    async def story(world: World) -> None:
        world.send_time = 1000.0
        world.add(direct("a.test"), 5)
        await asyncio.sleep(1)
        await world.pool.drain(10.0)
        assert world.backlog.totals().ready == 5

    play(story)


def test_a_route_that_ran_out_is_looked_up_again_and_may_lead_elsewhere():
    async def story(world: World) -> None:
        world.add(direct("a.test"))
        await asyncio.sleep(1)
        world.sites["a.test"] = ["elsewhere"]
        await asyncio.sleep(4000)
        world.add(direct("a.test"))
        await asyncio.sleep(5)
        assert [address for _, address in world.connects] == ["a.test", "elsewhere"]

    play(story)


def test_a_destination_that_means_other_hosts_now_is_looked_up_again_at_once():
    async def story(world: World) -> None:
        world.add(direct("a.test"))
        await asyncio.sleep(1)
        world.sites["a.test"] = ["elsewhere"]
        world.add(direct("a.test", idle=4.0))  # a new configuration: the same key, another value
        await asyncio.sleep(1)
        assert [address for _, address in world.connects] == ["a.test", "elsewhere"]
        world.sites["a.test"] = ["third"]
        world.pool.resolver = world
        world.add(direct("a.test", idle=4.0))
        await asyncio.sleep(1)
        assert [address for _, address in world.connects][2:] == ["third"]

    play(story)


def test_a_peer_with_a_limit_of_messages_keeps_its_window_and_is_no_failure():
    async def story(world: World) -> None:
        async def two_each(takens: list[Taken], session: Session | None) -> bool:
            assert session is not None
            for taken in takens:
                if session.sent == 2:
                    session.is_usable = False
                    world.backlog.give_back(taken.unit)
                    continue
                await world.deliver([taken], session)
                session.sent += 1
            return session.is_usable

        world.send_time = 0.001
        world.on_attempt = two_each
        world.add(direct("a.test"), 400)
        await asyncio.sleep(60)
        assert len(world.left) == 400
        assert not world.setbacks
        assert world.pool.status("direct:a.test").limit >= 5

    play(story)


def test_a_fault_after_a_slot_was_used_again_touches_no_other_message():
    async def story(world: World) -> None:
        async def done_then_fault(takens: list[Taken], session: Session | None) -> bool:
            if len(world.batches) > 1:
                await asyncio.sleep(5)
                return await world.deliver(takens, session)
            world.backlog.done(takens[0].unit)
            world.add(direct("b.test"))  # takes the freed slot
            await asyncio.sleep(2)  # and is in a session of its own by now
            raise ZeroDivisionError

        world.on_attempt = done_then_fault
        world.add(direct("a.test"))
        await asyncio.sleep(20)
        assert not world.setbacks
        assert [name for _, name, _ in world.left] == ["b.test"]

    play(story)


def test_what_nothing_needs_is_forgotten():
    async def story(world: World) -> None:
        for n in range(50):
            world.add(direct(f"d{n}.test"))
        await asyncio.sleep(200)
        assert not world.pool._sites
        assert not world.backlog.lines()
        world.add(direct("d3.test"))
        await asyncio.sleep(1)
        assert len(world.left) == 51

    play(story)


def test_a_deferred_unit_leaves_when_it_is_due():
    async def story(world: World) -> None:
        world.backlog.add(1, (0,), direct("a.test"), now=world.now(), due=world.now() + 500)
        world.pool.kick()
        await asyncio.sleep(499)
        assert not world.left
        await asyncio.sleep(3)
        assert len(world.left) == 1

    play(story)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_no_unit_is_lost_or_handed_out_twice_whatever_peers_and_operators_do(seed: int):
    dice = random.Random(seed)

    async def story(world: World) -> None:
        out: set[int] = set()
        sent: list[int] = []

        async def deliver(takens: list[Taken], session: Session | None) -> bool:
            for taken in takens:
                assert taken.unit not in out
                out.add(taken.unit)
            await asyncio.sleep(dice.random())
            fate = dice.randrange(6)
            for taken in takens:
                out.discard(taken.unit)
                if fate == 0:
                    world.backlog.give_back(taken.unit)
                elif fate == 1:
                    world.backlog.defer(taken.unit, world.now() + dice.random() * 50, taken.attempts + 1, False)
                else:
                    sent.append(taken.ref)
                    world.backlog.done(taken.unit)
            if fate == 5:
                raise ValueError
            if fate in (0, 1, 2) and session is not None:
                session.is_usable = False
                return False
            return True

        world.on_attempt = deliver
        world.retry_after = 10.0
        domains = [direct(f"d{n}.test", idle=dice.choice([0.3, 5.0])) for n in range(6)]
        places = [*domains, local("l.test")]
        world.sites = {"d0.test": ["mx"], "d1.test": ["mx"], "d2.test": ["h1", "h2", "h3"]}
        refs: list[int] = []
        for _ in range(60):
            refs += world.add(dice.choice(places), dice.randrange(20), sender=f"s{dice.randrange(5)}@x.test")
            host = dice.choice(["mx", "h1", "h2", "h3", "d3.test", "d4.test"])
            if dice.random() < 0.3:
                world.unreachable[host] = refused(dice.choice([Reason.CONNECT_FAILED, Reason.GREETING_REFUSED]))
            else:
                world.unreachable.pop(host, None)
            await asyncio.sleep(dice.random() * 3)
        world.unreachable.clear()
        await asyncio.sleep(5000)
        assert sorted(sent) == refs
        assert len(world.backlog) == 0
        assert not out

    play(story, capacity=dice.choice([3, 500]))


def test_retry_intervals_set_the_pause_of_the_probe():
    async def story(world: World) -> None:
        place = Destination(
            key="s",
            kind=DestinationKind.SMARTHOST,
            name="s",
            retry=Retry(intervals=(2.0,)),
            limits=DestinationLimits(),
        )
        world.retry_after = 1.0
        world.unreachable["s"] = refused()
        world.add(place)
        await asyncio.sleep(60)
        del world.unreachable["s"]
        await asyncio.sleep(12)
        assert len(world.left) == 1

    play(story)


def test_state_is_taken_only_while_a_session_has_it():
    async def story(world: World) -> None:
        world.add(direct("a.test"))
        await asyncio.sleep(0.1)
        (unit,) = world.backlog.find(world.next_ref)
        assert world.backlog.state(unit) is State.TAKEN
        await asyncio.sleep(1)
        assert world.backlog.find(world.next_ref) == []

    play(story)
