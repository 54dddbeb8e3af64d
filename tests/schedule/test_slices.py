"""A limit divided into slices: the parts add up, everybody has its turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from posthof_pod.schedule.slices import GUARD, NOTHING, TURN, UNIT, WHOLE, Portion, Slice, shift_of

EPOCH = 1_700_000_000.0

limits = st.integers(0, 1000)
keys = st.text(max_size=12)
times = st.floats(0, 10_000).map(lambda seconds: EPOCH + seconds)


def fleet(workers: int) -> list[Portion]:
    return [Portion(WHOLE.part(n, 1, workers)) for n in range(workers)]


def parts(portions: list[Portion], limit: int, key: str, now: float, offsets: list[float]) -> list[int]:
    for portion, offset in zip(portions, offsets, strict=True):
        portion.move(now + offset)
    return [portion.of(limit, key) for portion in portions]


def middle(now: float) -> float:
    """A time in the middle of a turn, so that no guard is in force."""
    return now // TURN * TURN + TURN / 2


def test_one_worker_alone_has_every_limit_whole():
    portion = Portion()
    assert [portion.of(limit, "mx.a.test") for limit in (1, 20, 1000)] == [1, 20, 1000]
    assert portion.width == 1.0


def test_nothing_is_a_part_of_every_limit():
    portion = Portion(NOTHING)
    assert [portion.of(limit, "mx.a.test") for limit in (1, 20, 1000)] == [0, 0, 0]
    assert portion.width == 0.0


@given(st.integers(1, 40), st.integers(0, 25), keys, times)
def test_a_multiple_of_the_workers_is_divided_evenly(workers: int, each: int, key: str, now: float):
    assert parts(fleet(workers), workers * each, key, middle(now), [0.0] * workers) == [each] * workers


@given(st.integers(1, 40), limits, keys, times)
def test_between_two_turns_the_parts_are_the_limit_and_differ_by_one_at_most(
    workers: int, limit: int, key: str, now: float
):
    found = parts(fleet(workers), limit, key, middle(now), [0.0] * workers)
    assert sum(found) == limit
    assert max(found) - min(found) <= 1


@given(st.data(), st.integers(1, 30), limits, keys, times)
def test_with_clocks_that_differ_by_the_guard_the_parts_never_exceed_the_limit(
    data: st.DataObject, workers: int, limit: int, key: str, now: float
):
    offsets = data.draw(st.lists(st.floats(-GUARD, GUARD), min_size=workers, max_size=workers))
    assert sum(parts(fleet(workers), limit, key, now, offsets)) <= limit


@given(st.integers(2, 30), st.data(), keys)
def test_a_limit_smaller_than_the_fleet_gives_everybody_its_turn(workers: int, data: st.DataObject, key: str):
    limit = data.draw(st.integers(1, workers - 1))
    portions = fleet(workers)
    had: set[int] = set()
    for turn in range(3 * -(-workers // limit)):
        now = EPOCH + (turn + 0.5) * TURN
        had.update(n for n, part in enumerate(parts(portions, limit, key, now, [0.0] * workers)) if part)
    assert had == set(range(workers))


def test_many_destinations_with_a_limit_of_one_are_many_workers_one():
    portions = fleet(4)
    found = [parts(portions, 1, f"mx.{n}.test", EPOCH + 5, [0.0] * 4) for n in range(100)]
    assert [sum(one) for one in found] == [1] * 100
    assert min(sum(column) for column in zip(*found, strict=True)) >= 10


@given(st.lists(st.integers(0, 64), min_size=2, max_size=2), st.integers(0, 1000), st.integers(0, UNIT - 1))
def test_a_slice_cut_in_two_has_as_many_points_as_before(cut: list[int], limit: int, shift: int):
    low, high = sorted(cut)
    piece = WHOLE.part(low, 64 - low, 64)
    left, right = Slice(piece.low, WHOLE.part(0, high, 64).high), Slice(WHOLE.part(0, high, 64).high, UNIT)
    assert left.points(limit, shift) + right.points(limit, shift) == piece.points(limit, shift)


def test_slices_that_only_touch_do_not_overlap():
    left, right = WHOLE.part(0, 1, 2), WHOLE.part(1, 1, 2)
    assert not left.overlaps(right)
    assert left.common(right) == NOTHING
    assert left.overlaps(WHOLE)
    assert not NOTHING.overlaps(WHOLE)


def test_an_edition_changes_with_the_slice_and_with_the_turn_and_only_then():
    portion = Portion(WHOLE.part(0, 1, 2))
    portion.move(EPOCH + 5)
    seen = portion.edition
    portion.move(EPOCH + 6)
    portion.set(portion.slice)
    assert portion.edition == seen
    portion.move(EPOCH + 9.5)
    assert portion.edition == seen + 1
    portion.set(WHOLE)
    assert portion.edition == seen + 2
    portion.move(EPOCH + 25)
    assert portion.edition == seen + 2


def test_where_points_begin_is_the_same_in_every_process():
    assert shift_of("mx.a.test", 0) == 0xEF705633 << 8
    assert shift_of("mx.a.test", 1) != shift_of("mx.b.test", 1)
