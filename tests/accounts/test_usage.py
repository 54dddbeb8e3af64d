"""What accounts sent, counted together by workers that hear of each other every few seconds."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from posthof_crds.engine import Guard, Quota
from posthof_pod.accounts.shared import DEAD, SharedLedger
from posthof_pod.accounts.usage import Ledger, packed, suspicion, unpacked

NOON = 1_800_000_000.0 // 86400 * 86400 + 12 * 3600.0


def send(ledger: Ledger, quota: Quota, now: float, recipients: int = 1) -> bool:
    if ledger.exceeded("a", quota, recipients, now):
        return False
    ledger.count("a", recipients, 0, now)
    return True


def test_limits_are_of_the_minute_the_hour_and_the_day() -> None:
    ledger = Ledger()
    assert [send(ledger, Quota(messages_minute=2), NOON) for _ in range(3)] == [True, True, False]
    assert send(ledger, Quota(messages_minute=2), NOON + 60)
    assert not send(ledger, Quota(messages_hour=3), NOON + 120)
    assert send(ledger, Quota(messages_hour=3), NOON + 3600)
    assert not send(ledger, Quota(messages_day=4), NOON + 7200)
    assert send(ledger, Quota(messages_day=4), NOON + 86400)


def test_recipients_are_counted_before_they_are_taken() -> None:
    ledger = Ledger()
    assert send(ledger, Quota(recipients_day=10), NOON, 10)
    assert not send(ledger, Quota(recipients_day=10), NOON, 1)
    assert not send(Ledger(), Quota(recipients_hour=10), NOON, 11)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 5),
    st.lists(st.one_of(st.integers(0, 4), st.just("news")), max_size=120),
)
def test_a_fleet_keeps_the_limit_to_a_message_a_worker(limit: int, workers: int, steps: list[int | str]) -> None:
    """However mail comes in and news come late, no more than one message a worker above it."""
    fleet = [Ledger() for _ in range(workers)]
    for ledger in fleet:
        ledger.parts = workers
    quota, taken = Quota(messages_hour=limit), 0
    for step in steps:
        if step == "news":
            for ledger in fleet:
                ledger.hear([one.own for one in fleet if one is not ledger], [], workers)
        else:
            taken += send(fleet[int(step) % workers], quota, NOON)
    assert taken <= limit + workers - 1


def test_nothing_of_the_limit_is_lost_to_those_who_idle() -> None:
    fleet = [Ledger() for _ in range(4)]
    quota, taken = Quota(messages_day=100), 0
    for _ in range(60):
        while send(fleet[0], quota, NOON):
            taken += 1
        for ledger in fleet:
            ledger.hear([one.own for one in fleet if one is not ledger], [], 4)
    assert taken == 100


def test_an_account_that_sends_far_more_than_ever_is_suspicious() -> None:
    guard = Guard(factor=10.0, recipients=100, strangers=50)
    assert suspicion(guard, (1, 100, 50), (0, 0, 0)) == ""
    assert "101 recipients" in suspicion(guard, (1, 101, 0), (5, 5, 5))
    assert suspicion(guard, (1, 1000, 0), (100, 100, 0)) == ""
    assert "never wrote to" in suspicion(guard, (60, 60, 60), (60, 60, 5))
    assert suspicion(Guard(is_on=False), (1, 10**9, 10**9), (0, 0, 0)) == ""


def test_whom_it_wrote_to_is_no_stranger_the_second_time() -> None:
    ledger = Ledger()
    assert ledger.strangers("a", ["x@y.test", "z@y.test"]) == 2
    assert ledger.strangers("a", ["X@Y.test", "new@y.test"]) == 1
    assert ledger.strangers("b", ["x@y.test"]) == 1
    assert unpacked(packed({1, 2**32 - 1})) == {1, 2**32 - 1}


def test_a_hold_ends_with_the_password() -> None:
    ledger = Ledger()
    ledger.hold("a", "why", b"one")
    assert ledger.held("a", b"one") == "why"
    assert ledger.held("a", b"two") == ""


def test_workers_hear_of_each_other_through_files_and_the_dead_are_taken_over(tmp_path: Path) -> None:
    clock, told = [NOON], []

    def shared(name: str, ledger: Ledger) -> SharedLedger:
        return SharedLedger(tmp_path / "accounts", name, ledger, lambda: clock[0], told.append)

    async def story() -> None:
        one, two = Ledger(), Ledger()
        first, second = shared("one", one), shared("two", two)
        one.count("a", 3, 1, NOON)
        one.strangers("a", ["x@y.test"])
        one.hold("a", "why", b"print")
        await first.sync()
        await second.sync()
        assert two.hour("a", NOON) == (1, 3, 1)
        assert two.held("a", b"print") == "why"
        assert two.parts == 2
        assert two.strangers("a", ["x@y.test"]) == 0
        two.count("a", 1, 0, NOON)
        await second.sync()
        await first.sync()
        assert one.day("a", NOON) == two.day("a", NOON) == (2, 4, 1)
        clock[0] += DEAD + 60
        await second.sync()
        assert sorted(path.name for path in (tmp_path / "accounts").iterdir()) == ["two.known", "two.use"]
        assert two.day("a", clock[0]) == (2, 4, 1)
        assert two.parts == 1
        third = Ledger()
        await second.sync()
        await shared("three", third).sync()
        assert third.day("a", clock[0]) == (2, 4, 1)
        assert third.last_used("a") == NOON

    asyncio.run(story())
    assert told == []


def test_without_a_folder_each_counts_alone_and_says_so_once(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "accounts").write_text("in the way")

    async def story() -> None:
        ledger = Ledger()
        shared = SharedLedger(tmp_path / "accounts", "one", ledger, lambda: NOON, told.append)
        for _ in range(3):
            ledger.count("a", 1, 0, NOON)
            await shared.sync()
        assert ledger.hour("a", NOON) == (3, 3, 0)

    asyncio.run(story())
    assert len(told) == 1
