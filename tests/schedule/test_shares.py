"""Shares of the fleet's limits, while pods come, leave, die, and hear late or nothing.

The world keeps one history of all Leases. Each pod sees a prefix of it, as old as hypothesis likes; what it writes
lands later, or a retry of it does; its workers keep to less only when they say so.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from posthof_pod.members import Member, Members
from posthof_pod.schedule.shares import GONE, Shares, read_claim
from posthof_pod.schedule.slices import NOTHING, UNIT, WHOLE, Portion, Slice

EPOCH = 1_700_000_000.0


class Pod:
    """One pod, and what the test knows of it."""

    def __init__(self, name: str, shares: Shares) -> None:
        self.name, self.shares = name, shares
        use = shares.use
        self.seen = 0  # how much of the history it has seen
        self.is_cut_off = False
        self.in_use = use  # what its workers may use at this moment
        self.told = use  # what they were told last
        self.landed = ""  # the claim that was given to the API server last
        self.condemned: set[str] = set()  # whom it judges dead
        self.fenced_at = float("inf")


class World:
    """Leases and pods. Slices that are in use are looked at after every step."""

    kind = Shares

    def __init__(self) -> None:
        self.now = 1000.0
        self.history: list[dict[str, str]] = [{}]
        self.pods: dict[str, Pod] = {}
        self.born = 0

    def join(self, name: str, weight: int) -> None:
        self.born += 1
        self.pods[name] = Pod(name, self.kind(name, weight, f"i{self.born}"))
        self.write(name, "")

    def begin_again(self, name: str, weight: int) -> None:
        """Another process of the same pod, a moment later; its Lease still says what the one before claimed."""
        old = self.pods[name]
        self.born += 1
        self.pods[name] = new = Pod(name, self.kind(name, weight, f"i{self.born}", old.told))
        new.is_cut_off, new.fenced_at = old.is_cut_off, old.fenced_at

    def write(self, name: str, share: str | None) -> None:
        leases = dict(self.history[-1])
        if share is None:
            leases.pop(name, None)
        else:
            leases[name] = share
        self.history.append(leases)

    def land(self, pod: Pod) -> None:
        """What the pod wants to say reaches the API server."""
        if pod.shares.claim and pod.shares.claim != pod.landed and not pod.is_cut_off:
            pod.landed = pod.shares.claim
            self.write(pod.name, pod.landed)

    def hear(self, pod: Pod, to: int) -> None:
        """The pod sees the history up to there. Cut off, it decides with what it knows, which it knows to be old."""
        if not pod.is_cut_off:
            pod.seen = max(pod.seen, to)
        leases = self.history[pod.seen]
        pods = tuple(Member(name, share) for name, share in leases.items() if name not in pod.condemned)
        pod.shares.decide(Members(not pod.is_cut_off, pod.name, pods), self.now)
        use = pod.shares.use
        assert use == pod.told.common(use) or pod.told == pod.in_use, "more is used only when less was confirmed"
        if use == use.common(pod.told):
            pod.told = use  # less: they use what they used until they confirm
        else:
            pod.told = pod.in_use = use

    def confirm(self, pod: Pod) -> None:
        pod.in_use = pod.told
        pod.shares.confirmed(pod.told)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for pod in list(self.pods.values()):
            if pod.fenced_at <= self.now:
                del self.pods[pod.name]

    def settle(self) -> None:
        """Everything lands, everybody hears everything."""
        for pod in self.pods.values():
            pod.is_cut_off = False
            pod.condemned &= {name for name in pod.condemned if name not in self.pods}
        for name in list(self.history[-1]):
            if name not in self.pods:
                self.write(name, None)
        for _ in range(12):
            self.now += GONE
            for pod in self.pods.values():
                for step in (lambda pod: self.hear(pod, len(self.history) - 1), self.confirm, self.land):
                    step(pod)
                    check(self)

    def happen(self, random: Random) -> None:
        """One thing, to one pod."""
        pod = random.choice(list(self.pods.values()))
        match random.randrange(5):
            case 0:
                self.land(pod)
            case 1:
                self.confirm(pod)
            case _:
                self.hear(pod, max(0, len(self.history) - 1 - random.choice((0, 0, 0, 1, 2))))


def check(world: World) -> None:
    """Nobody uses what another does, and so no limit is exceeded."""
    used = [pod.in_use for pod in world.pods.values()]
    for n, one in enumerate(used):
        assert not any(one.overlaps(other) for other in used[n + 1 :]), used
    portions = [Portion(piece) for piece in used]
    for portion in portions:
        portion.move(EPOCH + world.now)
    for limit in (1, 3, 20):
        assert sum(portion.of(limit, "mx.a.test") for portion in portions) <= limit
    assert sum(portion.width for portion in map(Portion, used)) <= 1.0 + 1e-9


NAMES = ["edge-a", "edge-b", "edge-c", "edge-d", "edge-e"]
names = st.sampled_from(NAMES)


class Fleet(RuleBasedStateMachine):
    @initialize(weights=st.lists(st.integers(1, 4), max_size=3))
    def begin(self, weights: list[int]) -> None:
        self.start(weights, Shares)

    def start(self, weights: list[int], kind: type[Shares]) -> None:
        self.world = World()
        self.world.kind = kind
        for name, weight in zip(NAMES, weights, strict=False):
            self.world.join(name, weight)
        self.world.settle()

    def pod(self, name: str) -> Pod | None:
        return self.world.pods.get(name)

    @rule(name=names, weight=st.integers(1, 4))
    def a_pod_joins(self, name: str, weight: int) -> None:
        if name not in self.world.pods:
            self.world.join(name, weight)

    @rule(name=names, weight=st.integers(1, 4))
    def a_container_begins_again(self, name: str, weight: int) -> None:
        if name in self.world.pods:
            self.world.begin_again(name, weight)

    @rule(name=names)
    def a_pod_leaves(self, name: str) -> None:
        """Its workers have ended, and its Lease goes."""
        if self.world.pods.pop(name, None):
            self.world.write(name, None)

    @rule(name=names)
    def a_pod_dies(self, name: str) -> None:
        self.world.pods.pop(name, None)

    @rule(name=names, by=names)
    def a_pod_that_is_not_heard_is_judged_dead_and_fenced(self, name: str, by: str) -> None:
        observer, pod = self.pod(by), self.pod(name)
        if observer is None or observer.is_cut_off or name == by:
            return
        if not any(one == name for one in self.world.history[observer.seen]):
            return  # judged dead is who was seen, and then did not change for 20 s
        self.world.hear(observer, observer.seen)
        if pod is None:
            observer.condemned.add(name)
        elif pod.is_cut_off:
            observer.condemned.add(name)
            self.world.hear(observer, observer.seen)
            pod.fenced_at = min(pod.fenced_at, self.world.now + GONE - 1.0)

    @rule(name=names, is_cut_off=st.booleans())
    def the_api_server_goes_away_for_a_pod_or_comes_back(self, name: str, is_cut_off: bool) -> None:
        pod = self.pod(name)
        if pod is not None and pod.fenced_at == float("inf"):
            pod.is_cut_off = is_cut_off

    @precondition(lambda self: self.world.pods)
    @rule(count=st.integers(1, 40), random=st.randoms(use_true_random=False))
    def words_land_and_are_heard_late_and_workers_confirm(self, count: int, random: Random) -> None:
        for _ in range(count):
            self.world.happen(random)
            check(self.world)

    @rule(seconds=st.sampled_from([0.5, 3.0, 8.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @precondition(lambda self: self.world.pods)
    @rule()
    def a_quiet_while(self) -> None:
        for pod in self.world.pods.values():
            if pod.fenced_at != float("inf"):
                return
        self.world.settle()
        self.all_is_in_use()

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        if hasattr(self, "world"):
            check(self.world)

    def all_is_in_use(self) -> None:
        """Undisturbed, the fleet comes to use every limit whole, by weight."""
        pods = self.world.pods.values()
        assert all(pod.shares.is_settled for pod in pods)
        assert sum(pod.in_use.width for pod in pods) == UNIT
        total = sum(pod.shares.weight for pod in pods)
        for pod in pods:
            assert abs(pod.in_use.width - UNIT * pod.shares.weight / total) < 2


Fleet.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
test_the_sum_of_shares_never_exceeds_a_limit_whatever_happens_to_the_fleet = Fleet.TestCase


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_a_long_life_with_many_changes_exceeds_no_limit(seed: int):
    live(seed, Shares)


def live(seed: int, kind: type[Shares]) -> None:
    """Many changes, one after the other, all checked."""
    random = Random(seed)
    fleet = Fleet()
    fleet.start([1, 2], kind)
    changes = (
        lambda: fleet.a_pod_joins(random.choice(NAMES), random.randint(1, 4)),
        lambda: fleet.a_pod_joins(random.choice(NAMES), random.randint(1, 4)),
        lambda: fleet.a_container_begins_again(random.choice(NAMES), random.randint(1, 4)),
        lambda: fleet.a_pod_leaves(random.choice(NAMES)),
        lambda: fleet.a_pod_dies(random.choice(NAMES)),
        lambda: fleet.the_api_server_goes_away_for_a_pod_or_comes_back(random.choice(NAMES), random.random() < 0.3),
        lambda: fleet.a_pod_that_is_not_heard_is_judged_dead_and_fenced(*random.sample(NAMES, 2)),
        lambda: fleet.time_passes(random.choice((0.5, 3.0, 8.0, 20.0))),
    )
    for _ in range(60):
        random.choice(changes)()
        for _ in range(random.choice((1, 5, 30)) if fleet.world.pods else 0):
            fleet.world.happen(random)
            check(fleet.world)


def live_all(seeds: range, kind: type[Shares]) -> None:
    for seed in seeds:
        live(seed, kind)


class LooksAtNobody(Shares):
    def _may_use(self, piece: Slice) -> bool:
        return self.is_confirmed


class DoesNotWaitForItsClaim(Shares):
    def decide(self, members: Members, now: float) -> None:
        pods = (Member(one.pod, self.claim) if one.pod == self.own else one for one in members.pods)
        super().decide(Members(members.known, members.own, tuple(pods)), now)


class DoesNotWaitForItsWorkers(Shares):
    def _claim_target(self) -> None:
        was, self.is_confirmed = self.is_confirmed, True
        super()._claim_target()
        self.is_confirmed = was


class ForgetsWhoWent(Shares):
    def _follow(self, members: Members, now: float) -> None:
        super()._follow(members, now)
        self._gone = {}


class DoesNotLetGo(Shares):
    def _aim(self, target: Slice) -> None:
        use = self.use
        super()._aim(target)
        self.confirmed(self.use)
        self.use = use


RULES = [LooksAtNobody, DoesNotWaitForItsClaim, DoesNotWaitForItsWorkers, ForgetsWhoWent, DoesNotLetGo]


@pytest.mark.parametrize("kind", RULES)
def test_each_rule_left_out_is_found(kind: type[Shares]):
    with pytest.raises(AssertionError):
        live_all(range(300), kind)


def settled(*weights: int) -> World:
    world = World()
    for name, weight in zip(NAMES, weights, strict=False):
        world.join(name, weight)
    world.settle()
    return world


def test_one_pod_has_everything():
    assert settled(2).pods["edge-a"].in_use == WHOLE


def test_pods_have_slices_by_their_workers():
    world = settled(1, 3)
    assert [pod.in_use.width * 4 for pod in world.pods.values()] == [UNIT, 3 * UNIT]


def test_a_new_pod_uses_nothing_before_the_old_ones_have_let_go():
    world = settled(1, 1)
    world.join("edge-c", 1)
    new, old = world.pods["edge-c"], [world.pods["edge-a"], world.pods["edge-b"]]
    for _ in range(3):
        world.hear(new, len(world.history) - 1)
        world.confirm(new)
        world.land(new)
    assert new.in_use == NOTHING
    for _ in range(3):
        for pod in old:
            world.hear(pod, len(world.history) - 1)
            world.confirm(pod)
            world.land(pod)
        world.hear(new, len(world.history) - 1)
    assert new.in_use.width == UNIT - UNIT * 2 // 3


def test_with_the_fleet_unknown_the_last_share_holds():
    world = settled(1, 1)
    pod = world.pods["edge-a"]
    pod.is_cut_off = True
    world.pods.pop("edge-b")
    world.write("edge-b", None)
    world.now += 10 * GONE
    world.hear(pod, len(world.history) - 1)
    assert pod.in_use.width == UNIT // 2


def test_a_pod_that_never_heard_of_the_fleet_uses_nothing():
    shares = Shares("edge-a", 2, "i1")
    shares.decide(Members(False, "edge-a"), 1000.0)
    assert (shares.use, shares.claim) == (NOTHING, "")


def test_what_a_pod_had_that_went_is_used_when_nobody_can_use_it_any_more():
    world = settled(1, 1)
    world.pods.pop("edge-b")
    world.write("edge-b", None)
    left = world.pods["edge-a"]
    for _ in range(3):
        world.hear(left, len(world.history) - 1)
        world.confirm(left)
        world.land(left)
    assert left.in_use.width == UNIT // 2
    assert left.shares.next_look() == world.now + GONE
    world.now += GONE
    world.hear(left, len(world.history) - 1)
    assert left.in_use == WHOLE


def test_a_container_that_begins_again_goes_on_with_what_it_used_and_trusts_only_its_own_new_claim():
    world = settled(1, 1)
    world.begin_again("edge-a", 3)
    pod = world.pods["edge-a"]
    world.hear(pod, len(world.history) - 1)
    assert pod.in_use.width == UNIT // 2
    world.land(pod)
    world.hear(pod, len(world.history) - 1)
    assert pod.in_use.width == UNIT // 2  # the other still claims the rest
    world.settle()
    assert pod.in_use.width == UNIT * 3 // 4


def test_a_claim_never_says_less_than_what_an_earlier_container_left_in_use():
    shares = Shares("edge-a", 1, "i1", WHOLE)
    shares.confirmed(WHOLE)
    assert shares.claim == ""


def test_claims_are_read_as_they_are_written_and_anything_else_is_none():
    claim = settled(3).pods["edge-a"].shares.claim
    assert read_claim(claim).weight == 3
    assert read_claim(claim).slice == WHOLE
    assert str(read_claim(claim)) == claim
    for text in ("", "3", "3 0-0", "3 9-1 x.1", "3 0-fffffffffff x.1", "x 0-1 y", f"1 0-1 {'x' * 65}"):
        assert read_claim(text) is None


def test_slices_in_one_pod_divide_its_own():
    piece = Slice(UNIT // 4, UNIT // 2)
    parts = [piece.part(n, 1, 3) for n in range(3)]
    assert parts[0].low == piece.low
    assert parts[2].high == piece.high
    assert [one.high for one in parts[:2]] == [one.low for one in parts[1:]]
