"""Leases: who is judged dead, when, and by whose clock; what nobody may be judged by. On a clock of our own."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from pathlib import Path

import pytest

from kit.leases import Fleet, Pod
from posthof_pod.cluster.leases import REMEMBERED
from posthof_pod.members import ENDED, WORD, WORKERS
from posthof_pod.spool import FlockLiveness, Verdict, layout, liveness, new_worker

ALIVE, DEAD, PROVEN = Verdict.ALIVE, Verdict.DEAD, Verdict.PROVEN


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def two(fleet: Fleet) -> tuple[Pod, Pod]:
    a, b = fleet.pod("a"), fleet.pod("b")
    a.worker()
    b.worker()
    fleet.advance(4)
    return a, b


def test_a_pod_that_died_is_dead_after_20_seconds_and_not_proven(fleet: Fleet) -> None:
    a, b = two(fleet)
    b.kill()
    took = fleet.seconds_until(lambda: a.workers[0].judge(b.workers[0]) is not ALIVE)
    assert a.workers[0].judge(b.workers[0]) is DEAD
    assert 15.0 <= took <= 22.0  # counted from its last renewal, which is up to 5 s old; 2 s for its dots follow


def test_a_renewal_resets_the_count(fleet: Fleet) -> None:
    a, b = two(fleet)
    for _ in range(5):
        b.is_running = False
        fleet.advance(14)
        assert a.workers[0].judge(b.workers[0]) is ALIVE
        b.is_running = True
        fleet.advance(2)


def test_with_the_api_server_away_nobody_dies_and_when_it_returns_nobody_is_condemned_by_what_stood_still(
    fleet: Fleet,
) -> None:
    a, b = two(fleet)
    fleet.server.is_away = True
    fleet.advance(3600)
    assert a.workers[0].judge(b.workers[0]) is ALIVE
    assert not a.members.known
    assert [one.pod for one in a.members.pods] == ["a", "b"]  # the last ones: shares hold
    assert "not seen" in a.leases.trouble
    fleet.server.is_away = False
    for _ in range(40):
        fleet.advance(1)
        assert a.workers[0].judge(b.workers[0]) is ALIVE
        assert b.workers[0].judge(a.workers[0]) is ALIVE
    assert a.members.known
    assert not a.leases.trouble


def test_who_died_while_the_api_server_was_away_is_dead_20_seconds_after_it_returned(fleet: Fleet) -> None:
    a, b = two(fleet)
    fleet.server.is_away = True
    fleet.advance(60)
    b.kill()
    fleet.advance(600)
    assert a.workers[0].judge(b.workers[0]) is ALIVE
    fleet.server.is_away = False
    assert 10.0 < fleet.seconds_until(lambda: a.workers[0].judge(b.workers[0]) is DEAD) <= 22.0


def test_an_observer_that_slept_condemns_nobody(fleet: Fleet) -> None:
    a, b = two(fleet)
    a.is_running = False
    fleet.advance(300)
    a.is_running = True
    for _ in range(100):
        fleet.advance(0.25)
        assert a.workers[0].judge(b.workers[0]) is ALIVE


def test_all_frozen_together_and_back_nobody_is_condemned(fleet: Fleet) -> None:
    a, b = two(fleet)
    fleet.now += 600
    for _ in range(100):
        fleet.advance(0.25)
        assert a.workers[0].judge(b.workers[0]) is ALIVE
        assert b.workers[0].judge(a.workers[0]) is ALIVE


def test_a_pod_that_cannot_renew_counts_nothing_and_is_judged_by_those_who_can(fleet: Fleet) -> None:
    a, b = two(fleet)
    fleet.server.cut_off = {"b"}
    fleet.seconds_until(lambda: a.workers[0].judge(b.workers[0]) is DEAD)
    fleet.advance(60)
    assert b.workers[0].judge(a.workers[0]) is ALIVE


def test_a_pod_whose_volume_hangs_falls_silent_and_judges_nobody(fleet: Fleet) -> None:
    a, b = two(fleet)
    b.sees_volume = False
    assert fleet.seconds_until(lambda: a.workers[0].judge(b.workers[0]) is DEAD) <= 22.0
    assert "volume" in b.leases.trouble
    a.kill()
    fleet.advance(120)
    assert b.workers[0].judge(a.workers[0]) is ALIVE  # b does not renew, so its clock stands still
    b.sees_volume = True
    fleet.seconds_until(lambda: b.workers[0].judge(a.workers[0]) is DEAD)


def test_a_slow_api_server_delays_a_verdict_and_makes_none(fleet: Fleet) -> None:
    a, b = two(fleet)
    fleet.server.delay = 0.4
    for _ in range(60):
        fleet.advance(1)
        assert a.workers[0].judge(b.workers[0]) is ALIVE
    b.kill()
    assert fleet.seconds_until(lambda: a.workers[0].judge(b.workers[0]) is DEAD) <= 30.0


def test_renew_times_are_never_compared_with_a_clock(fleet: Fleet) -> None:
    a, b = two(fleet)
    fleet.server.objects["b"]["spec"]["renewTime"] = "1970-01-01T00:00:00.000000Z"
    fleet.advance(4)
    assert a.workers[0].judge(b.workers[0]) is ALIVE
    b.kill()
    fleet.server.objects["b"]["spec"]["renewTime"] = "2199-01-01T00:00:00.000000Z"
    fleet.seconds_until(lambda: a.workers[0].judge(b.workers[0]) is DEAD)


def test_a_lease_somebody_removed_is_made_again_and_costs_nobody_anything(fleet: Fleet) -> None:
    a, b = two(fleet)
    for _ in range(10):
        del fleet.server.objects["b"]
        fleet.advance(4)
        assert a.workers[0].judge(b.workers[0]) is ALIVE
    assert json.loads(fleet.server.objects["b"]["metadata"]["annotations"][WORKERS]) == [b.workers[0].name]


def test_a_missing_lease_counts_like_one_that_stands_still(fleet: Fleet) -> None:
    a, b = two(fleet)
    b.kill()
    del fleet.server.objects["b"]
    fleet.advance(2)
    assert a.workers[0].judge(b.workers[0]) is ALIVE
    assert 17.0 <= fleet.seconds_until(lambda: a.workers[0].judge(b.workers[0]) is DEAD) <= 22.0


def test_a_worker_its_supervisor_reaped_is_proven_for_every_pod_within_two_seconds(fleet: Fleet) -> None:
    a, b = two(fleet)
    second = b.worker()
    fleet.advance(2)
    second.die()
    b.leases.prove_ended([second.name])
    b.leases.name_workers([b.workers[0].name])
    b.due = fleet.now
    assert fleet.seconds_until(lambda: a.workers[0].judge(second) is PROVEN) <= 2.0
    assert a.workers[0].judge(b.workers[0]) is ALIVE


def test_what_an_earlier_container_of_the_pod_ran_is_proven_at_once_in_it_and_soon_elsewhere(fleet: Fleet) -> None:
    a, b = two(fleet)
    old = b.workers[0]
    b.restart()
    fresh = b.worker()
    assert fresh.judge(old) is PROVEN
    b.leases.prove_ended([old.name])
    assert fleet.seconds_until(lambda: a.workers[0].judge(old) is PROVEN) <= 2.0
    fleet.advance(30)
    assert fleet.server.objects["b"]["spec"]["leaseTransitions"] == 1
    assert a.workers[0].judge(fresh) is ALIVE


def test_another_pod_of_the_same_name_proves_nothing_about_the_first(fleet: Fleet) -> None:
    a, b = two(fleet)
    b.is_running = False  # its node is cut off; it may still be alive there
    again = fleet.pod("b", uid="another")
    again.worker()
    fleet.advance(4)
    assert a.workers[0].judge(b.workers[0]) is ALIVE
    assert again.workers[0].judge(b.workers[0]) is ALIVE
    fleet.seconds_until(lambda: again.workers[0].judge(b.workers[0]) is DEAD)
    assert a.workers[0].judge(again.workers[0]) is ALIVE


def test_a_pod_that_leaves_takes_its_lease_with_it(fleet: Fleet) -> None:
    a, b = two(fleet)
    b.is_running = False
    asyncio.run(b.leases.leave())
    assert set(fleet.server.objects) == {"a"}
    fleet.advance(2)
    assert [one.pod for one in a.members.pods] == ["a"]


def test_members_follow_the_leases_and_carry_what_they_say(fleet: Fleet) -> None:
    a, b = two(fleet)
    b.leases.annotate({"posthof.dev/share": "{}"})
    b.due = fleet.now
    fleet.advance(2)
    assert [(one.pod, one.share) for one in a.members.pods] == [("a", ""), ("b", "{}")]
    assert (a.members.known, a.members.own) == (True, "a")
    assert a.leases.names(b.workers[0].name)
    b.kill()
    fleet.seconds_until(lambda: [one.pod for one in a.members.pods] == ["a"])


def test_pods_of_another_mta_are_none_of_ours(fleet: Fleet) -> None:
    a, _ = two(fleet)
    fleet.server.objects["b"]["metadata"]["labels"]["posthof.dev/mta"] = "other"
    fleet.advance(3)
    assert [one.pod for one in a.members.pods] == ["a"]


def test_a_worker_of_an_older_release_is_judged_by_its_flock(fleet: Fleet) -> None:
    a = fleet.pod("a")
    mine = a.worker()
    fleet.advance(4)
    older, name = FlockLiveness(), new_worker()
    fleet.disk.mkdir(layout.worker(name))
    older.begin(fleet.disk, name)
    fleet.advance(60)
    assert mine.judge(name) is ALIVE
    assert older.judge(mine.name) is ALIVE
    older.end()
    assert mine.judge(name) is PROVEN


def test_what_is_renewed_and_listed_costs_the_api_server_little(fleet: Fleet) -> None:
    two(fleet)
    fleet.server.writes = 0
    fleet.advance(60)
    assert fleet.server.writes <= 2 * 60 / 5 + 2


def test_words_for_the_lease_arrive_at_once_and_never_hurry_an_api_server_that_is_away(fleet: Fleet) -> None:
    a, b = two(fleet)
    for n in range(5):
        b.leases.annotate({"posthof.dev/share": str(n)})
        b.due = fleet.now
        assert fleet.seconds_until(lambda n=n: a.members.pods[1].share == str(n)) <= 1.5  # type: ignore[misc]  # a default keeps the value of this turn
    fleet.server.is_away = True
    fleet.server.asked = 0
    for n in range(20):
        b.leases.annotate({"posthof.dev/share": f"away {n}"})
        b.due = fleet.now
        fleet.advance(0.5)
    assert fleet.server.asked <= 2 * 2 * 12  # two pods, a renewal and a list a second
    fleet.server.is_away = False
    fleet.seconds_until(lambda: a.members.pods[1].share == "away 19", 3.0)


def test_a_refused_lease_is_told_of(fleet: Fleet) -> None:
    a = fleet.pod("a")
    fleet.server.is_denied = True
    fleet.advance(5)
    assert "403" in a.leases.trouble
    assert not a.members.known


def test_nonsense_in_a_lease_is_nothing(fleet: Fleet) -> None:
    a, b = two(fleet)
    fleet.server.objects["b"]["metadata"]["annotations"] |= {WORKERS: "{", ENDED: '{"x": 1}'}
    fleet.advance(2)
    assert [one.pod for one in a.members.pods] == ["a", "b"]
    assert not a.leases.names(b.workers[0].name)
    fleet.advance(6)  # b writes its own words again
    assert a.workers[0].judge(b.workers[0]) is ALIVE


def test_in_a_large_fleet_lists_are_fewer_and_the_dead_are_still_found(fleet: Fleet) -> None:
    a, b = two(fleet)
    for n in range(110):
        other = json.loads(json.dumps(fleet.server.objects["b"]))
        other["metadata"] |= {"name": f"c{n}", "uid": f"c{n}"}
        other["metadata"]["annotations"][WORKERS] = "[]"
        fleet.server.objects[f"c{n}"] = other
    b.kill()
    assert fleet.seconds_until(lambda: a.workers[0].judge(b.workers[0]) is DEAD) <= 30.0


def test_what_a_dead_pod_said_it_wrote_is_told_to_nobody(fleet: Fleet) -> None:
    a, b = two(fleet)
    b.leases.annotate({WORD: "1 word"})
    b.due = fleet.now
    fleet.advance(7)
    assert a.words == {"b": "1 word", "a": ""}
    b.kill()
    newcomer = fleet.pod("c")
    for _ in range(120):  # from before b is judged dead until long after
        fleet.advance(1)
        assert not newcomer.words.get("b")
    assert "b" in fleet.server.objects
    assert "b" not in a.words


def test_what_is_known_of_workers_that_came_and_went_is_bounded_and_what_leases_name_is_kept(fleet: Fleet) -> None:
    a, b = two(fleet)
    for n in range(60):
        b.leases.prove_ended(f"w{n}-{k}" for k in range(64))
        b.due = fleet.now
        fleet.advance(1.5)
    assert 64 <= len(a.heard.ended) <= REMEMBERED + 64
    assert {f"w59-{k}" for k in range(64)} <= a.heard.ended
    assert a.leases.pod_of(b.workers[0].name) == "b"


def test_a_worker_that_a_sibling_judges_while_it_begins_is_not_remembered_as_ended(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = fleet.pod("a")
    sibling = pod.worker()
    judged: list[Verdict] = []
    real = fcntl.flock

    def flock(fd: int, how: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if path.parent == pod.own and not judged:
            judged.append(ALIVE)
            judged[:] = [sibling.judge(path.name.lstrip("."))]
        real(fd, how)

    monkeypatch.setattr("fcntl.flock", flock)
    begun = pod.worker()
    assert judged
    fleet.advance(2)
    assert sibling.judge(begun) is ALIVE


def test_a_judge_forgets_and_finds_out_again(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "REMEMBERED", 8)
    a, b = two(fleet)
    b.kill()
    for n in range(100):
        assert a.workers[0].judge(f"w{n}") is ALIVE  # it never had a folder; whether it ended nobody can say yet
        assert len(a.workers[0].liveness._missing) <= 8
    fleet.seconds_until(lambda: a.workers[0].judge(b.workers[0]) is DEAD)
    b.leases.prove_ended([b.workers[0].name])
    for n in range(20):
        a.workers[0].judge(f"w{n}")
        assert a.workers[0].judge(b.workers[0]) is DEAD
