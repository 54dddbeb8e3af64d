"""Autoscaling over days of traffic: what adds pods, what never does, and how they go again."""

from __future__ import annotations

import math
from itertools import pairwise

from kit.traffic import DAY, HOUR, ROOM, Fleet, Traffic
from posthof_crds.autoscaling import Autoscaling, Targets
from posthof_crds.reasons import Reason

CALM = Traffic(free=2.0, sessions=20)


def goes_down_slowly(fleet: Fleet, period: float = 60.0) -> None:
    downs = [(at, before, after) for at, before, after in fleet.changes() if after < before]
    assert all(before - after == 1 for _, before, after in downs)
    assert all(later[0] - earlier[0] >= period for earlier, later in pairwise(downs))


def test_calm_days_change_nothing() -> None:
    fleet = Fleet(Autoscaling(min=2, max=10))
    fleet.run(2 * DAY, lambda now: CALM)
    assert list(fleet.changes()) == []
    assert fleet.moments[-1].decision.reason is Reason.WITHIN_TARGETS


def test_a_bulk_send_adds_pods_within_minutes_and_they_leave_one_by_one_when_it_is_out() -> None:
    fleet = Fleet(Autoscaling(min=1, max=8))
    fleet.run(HOUR, lambda now: CALM)
    fleet.add(1_000_000)  # 25 minutes of work for one pod
    fleet.run(DAY, lambda now: CALM)
    begun = [moment for moment in fleet.moments if moment.at > HOUR]
    grown = next(moment for moment in begun if moment.pods >= 4)
    assert grown.at - HOUR < 120
    done = next(moment for moment in begun if moment.ready < 1000)
    assert done.at - HOUR < 10 * 60
    assert max(fleet.pods_of(0, 2 * DAY)) <= 8
    assert fleet.moments[-1].pods == 1
    last = max(at for at, _, _ in fleet.changes())
    assert last - done.at < HOUR
    ups = [after - before for _, before, after in fleet.changes() if after > before]
    downs = [after for _, before, after in fleet.changes() if after < before]
    assert len(ups) <= 3
    assert len(downs) == sum(ups)
    goes_down_slowly(fleet)


def test_no_pod_leaves_before_the_stabilisation_window_is_over() -> None:
    behavior = {"scaleDown": {"stabilization": "30m", "period": "5m"}}
    fleet = Fleet(Autoscaling.model_validate({"max": 8, "behavior": behavior}))
    fleet.run(HOUR, lambda now: CALM)
    fleet.add(600_000)
    fleet.run(6 * HOUR, lambda now: CALM)
    quiet = max(moment.at for moment in fleet.moments if moment.ready > 100)
    first = next(at for at, before, after in fleet.changes() if after < before)
    assert first - quiet > 1500
    goes_down_slowly(fleet, 300.0)


def test_a_spam_wave_is_met_with_pods_for_its_sessions_and_they_go_after_it() -> None:
    def traffic(now: float) -> Traffic:
        return Traffic(free=200.0, sessions=2600) if HOUR <= now < 2 * HOUR else CALM

    fleet = Fleet(Autoscaling(min=1, max=6))
    fleet.run(DAY, traffic)
    assert min(fleet.pods_of(HOUR + 300, 2 * HOUR)) >= math.ceil(2600 / 1000 / 0.77)
    assert fleet.pods_of(2 * HOUR - 60, 2 * HOUR)[-1] <= 5  # as many as it needs, not as many as there may be
    assert fleet.moments[-1].pods == 1
    goes_down_slowly(fleet)


def test_waves_that_come_every_quarter_of_an_hour_do_not_make_pods_come_and_go_each_time() -> None:
    wish = Autoscaling.model_validate({"max": 6, "behavior": {"scaleDown": {"stabilization": "20m"}}})

    def traffic(now: float) -> Traffic:
        return Traffic(free=700.0, sessions=100) if now % 900 < 240 else CALM

    fleet = Fleet(wish)
    fleet.run(DAY, traffic)
    assert len([at for at, _, _ in fleet.changes() if at > HOUR]) == 0
    assert set(fleet.pods_of(HOUR, DAY)) <= {2, 3}


def test_a_dead_destination_with_a_queue_that_grows_for_days_adds_no_pod() -> None:
    fleet = Fleet(Autoscaling(min=2, max=10))
    fleet.run(3 * DAY, lambda now: CALM._replace(dead=5.0))
    assert fleet.moments[-1].deferred > 1_000_000
    assert set(fleet.pods_of(0, 3 * DAY)) == {2}


def test_a_throttled_provider_with_a_million_waiting_adds_no_pod() -> None:
    fleet = Fleet(Autoscaling(min=1, max=10))
    fleet.run(2 * DAY, lambda now: CALM._replace(throttled=12.0, takes=6.0))
    assert fleet.moments[-1].throttled > 1_000_000
    assert set(fleet.pods_of(0, 2 * DAY)) == {1}


def test_a_scale_in_never_leaves_more_than_memory_holds() -> None:
    fleet = Fleet(Autoscaling(min=1, max=8), pods=5)
    fleet.deferred = 3_000_000
    fleet.run(DAY, lambda now: CALM)
    assert fleet.moments[-1].pods == 4  # 3 would have to hold 2.4 millions at most
    assert fleet.moments[-1].decision.reason is Reason.HELD_BY_MEMORY
    assert "3000" in fleet.moments[-1].decision.message
    fleet.deferred = 0.5 * ROOM  # its senders gave up
    fleet.run(HOUR, lambda now: CALM)
    assert fleet.moments[-1].pods == 1
    goes_down_slowly(fleet)


def test_at_the_maximum_it_says_what_would_need_more() -> None:
    fleet = Fleet(Autoscaling(min=1, max=3, targets=Targets(backlog="1m")))
    fleet.run(600, lambda now: CALM)
    fleet.add(5_000_000)
    fleet.run(1800, lambda now: CALM)
    assert max(fleet.pods_of(0, DAY)) == 3
    assert fleet.moments[-1].decision.reason is Reason.AT_MAXIMUM
    assert "autoscaling.max is 3" in fleet.moments[-1].decision.message


def test_pods_that_find_no_room_in_the_cluster_are_not_waited_for_when_work_is_done() -> None:
    fleet = Fleet(Autoscaling(min=1, max=8), places=2)
    fleet.run(600, lambda now: CALM)
    fleet.add(1_000_000)
    fleet.run(6 * HOUR, lambda now: CALM)
    assert max(fleet.pods_of(0, DAY)) == 8
    assert fleet.moments[-1].pods == 1
    goes_down_slowly(fleet)


def test_while_nobody_reports_nothing_changes() -> None:
    fleet = Fleet(Autoscaling(min=1, max=8), pods=4, silent=lambda now: now > 60)
    fleet.add(900_000)
    fleet.run(DAY, lambda now: CALM)
    later = fleet.pods_of(HOUR, DAY)
    assert len(set(later)) == 1
    assert later[0] >= 4
    assert fleet.moments[-1].decision.reason is Reason.NO_REPORTS


def test_the_work_of_a_day_is_followed_up_and_down_without_swinging() -> None:
    def traffic(now: float) -> Traffic:
        swell = 0.5 - 0.5 * math.cos(2 * math.pi * now / DAY)
        return Traffic(free=20 + 1400 * swell, sessions=50 + 500 * swell)

    fleet = Fleet(Autoscaling(min=1, max=8))
    fleet.run(2 * DAY, traffic)
    assert max(fleet.pods_of(DAY, 2 * DAY)) in (4, 5)
    assert min(fleet.pods_of(DAY, 2 * DAY)) == 1
    assert len([at for at, _, _ in fleet.changes() if DAY <= at < 2 * DAY]) <= 10
    assert max(moment.oldest for moment in fleet.moments) < 300
    goes_down_slowly(fleet)
