"""What holds of every decision, whatever the pods have reported; and which pods go."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from posthof_crds.autoscaling import Autoscaling, Targets
from posthof_crds.report import Load, Report
from posthof_operator.scale.cost import COST, marks
from posthof_operator.scale.decide import PACE, Past, decide, held
from posthof_operator.scale.history import History, Sample, sample
from posthof_operator.scale.needs import FULL, fits, needs, short

NOW = 100_000.0
QUIET = Load(messages_most=1000)

loads = st.builds(
    Load,
    ready=st.integers(0, 10**6),
    oldest_seconds=st.floats(0, 10**5),
    drained_per_second=st.floats(0, 5000),
    sessions=st.floats(0, 1),
    accept_seconds=st.floats(0, 60),
    cpu=st.floats(0, 1),
    messages=st.integers(0, 10**6),
    messages_most=st.integers(0, 10**6),
    unowned_lanes=st.integers(0, 5),
)
fleets = st.lists(loads, max_size=6)


def history(moments: list[list[Load]], every: float = 20.0) -> tuple[Sample, ...]:
    kept = History()
    for n, found in enumerate(moments):
        kept.add(sample(NOW - every * (len(moments) - 1 - n), found), 10_000.0)
    return kept.samples


@example([[Load(ready=2, oldest_seconds=10.0, drained_per_second=1.1e-308)]], 1, 0, 1, 0.0)
@given(st.lists(fleets, max_size=25), st.integers(1, 5), st.integers(0, 6), st.integers(1, 12), st.floats(0, 400))
def test_whatever_was_reported_a_decision_keeps_its_promises(
    moments: list[list[Load]], low: int, more: int, present: int, since: float
) -> None:
    wish = Autoscaling(min=low, max=low + more)
    past = Past(present, up_at=NOW - since, down_at=NOW - since)
    seen = history(moments)
    decision = decide(seen, wish, past, NOW)
    assert decision == decide(seen, wish, past, NOW)
    if low <= present <= low + more:
        assert low <= decision.pods <= low + more
        assert decision.pods >= present - 1
        assert decision.pods <= present + max(present, wish.behavior.scale_up.pods)
        if decision.pods > present:
            assert since >= PACE
        if decision.pods < present:
            assert since >= wish.behavior.scale_down.period
            assert len(seen[-1:]) == 1
            assert NOW - seen[0].at >= wish.behavior.scale_down.stabilization
    if decision.pods < present and seen:
        assert fits(decision.pods, seen[-1])
    assert decision.state
    assert not decision.state.endswith(".")


@given(st.integers(0, 10), st.integers(0, 10), fleets)
def test_a_scale_in_that_others_ask_for_stops_where_memory_ends(asked: int, present: int, fleet: list[Load]) -> None:
    newest = sample(NOW, fleet)
    found = held(asked, present, newest)
    assert min(asked, present) <= found <= max(asked, present)
    assert found == asked or not fits(found - 1, newest)
    assert held(asked, present, None) == asked


@given(fleets)
def test_mail_that_waits_for_its_destination_or_its_time_asks_for_nothing(fleet: list[Load]) -> None:
    idle = [Load(messages=one.messages, messages_most=one.messages_most) for one in fleet]
    assert all(need.pods == 0 for need in needs(sample(NOW, idle), Targets()))


def test_a_slow_answer_asks_for_pods_only_where_they_are_busy() -> None:
    def asked(cpu: float) -> list[str]:
        return [need.name for need in needs(sample(NOW, [Load(cpu=cpu, accept_seconds=5.0)]), Targets())]

    assert "acceptLatency" in asked(0.6)
    assert "acceptLatency" not in asked(0.1)


def test_lanes_that_nobody_has_room_for_ask_for_one_more_pod() -> None:
    found = needs(sample(NOW, [Load(unowned_lanes=3), Load(unowned_lanes=3)]), Targets())
    assert (found[0].pods, found[0].name) == (3.0, "memory")


def moments_of(*found: tuple[list[Load], int, int]) -> tuple[Sample, ...]:
    kept = History()
    for n, (fleet, missing, unready) in enumerate(found):
        kept.add(sample(NOW - 20.0 * (len(found) - 1 - n), fleet, missing, unready), 10_000.0)
    return kept.samples


def test_what_nobody_reported_was_not_seen_to_be_enough() -> None:
    calm = Load(cpu=0.05, messages_most=1000)
    wish, now = Autoscaling(max=10), ([calm] * 10, 0, 0)
    for unheard in (([calm], 9, 0), ([], 10, 0), ([calm], 0, 9)):
        assert decide(moments_of(*[unheard] * 40, now), wish, Past(10), NOW).pods == 10
        assert decide(moments_of(*[now] * 2, unheard, *[now] * 10), wish, Past(10), NOW).pods == 10
    assert decide(moments_of(*[now] * 40), wish, Past(10), NOW).pods == 9


def test_pods_that_have_more_to_do_than_they_can_are_no_reason_for_fewer() -> None:
    busy = ([Load(cpu=0.9, messages_most=1000)] * 5, 0, 5)  # half of them miss their readiness probes
    assert decide(moments_of(*[busy] * 40), Autoscaling(max=10), Past(10), NOW).pods == 10


def test_a_pod_that_never_gets_ready_keeps_itself_and_no_other() -> None:
    stuck = ([QUIET] * 9, 0, 1)
    assert decide(moments_of(*[stuck] * 40), Autoscaling(max=10), Past(10), NOW).pods == 9
    stuck = ([QUIET] * 2, 0, 1)
    assert decide(moments_of(*[stuck] * 40), Autoscaling(max=10), Past(3), NOW).pods == 2


def test_one_busy_moment_adds_nothing() -> None:
    moments = [[QUIET], [QUIET], [Load(cpu=1.0)]]
    assert decide(history(moments), Autoscaling(max=9), Past(1), NOW).pods == 1
    assert decide(history([*moments, [Load(cpu=1.0)]]), Autoscaling(max=9), Past(1), NOW).pods == 2


def test_memory_leaves_a_fifth_free() -> None:
    assert FULL == 0.8
    assert fits(1, sample(NOW, [Load(messages=800, messages_most=1000)]))
    assert not fits(1, sample(NOW, [Load(messages=801, messages_most=1000)]))


def pod(name: str, *, ready: bool = True, going: bool = False, mark: str = "") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "annotations": {COST: mark} if mark else {}}
    if going:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": metadata, "status": {"phase": "Running", "conditions": conditions}}


def report(messages: int, sessions: int = 0) -> Report:
    return Report(pod="", sessions=sessions, load=Load(messages=messages))


def test_the_emptiest_pods_go_and_old_marks_are_taken_away() -> None:
    pods = [pod("a"), pod("b"), pod("c", mark="-1"), pod("d", going=True)]
    reports = {"a": report(50, sessions=3), "b": report(50), "c": report(900), "d": report(0)}
    assert marks(pods, reports, 1) == (("b",), ("b",), ("c",))
    assert marks(pods, reports, 2) == (("b", "a"), ("b", "a"), ("c",))
    assert marks(pods, reports, 0) == ((), (), ("c",))


def test_a_pod_that_is_not_ready_goes_first_as_the_controller_has_it() -> None:
    assert marks([pod("a"), pod("b", ready=False)], {"a": report(0), "b": report(9)}, 1).go == ("b",)


def test_times_are_short() -> None:
    assert [short(seconds) for seconds in (0.25, 3.0, 45.0, 119.0, 600.0, 10_000.0, 300_000.0)] == [
        "0.2s",
        "3s",
        "45s",
        "119s",
        "10m",
        "3h",
        "3d",
    ]
