"""Durations and sizes, written and read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthof_crds.units import Unclear, duration, duration_text, size, size_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("1h30m", 5400), ("5d", 432000), ("250ms", 0.25), ("0s", 0), ("1d2h3m4s", 93784)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds
    assert duration(duration_text(seconds)) == seconds


@pytest.mark.parametrize("value", ["", "5", "5 m", "m", "-5m", "1.5h", "5min", "٣m", 300, True, None, [], "5m\n"])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(Unclear):
        duration(value)


@pytest.mark.parametrize(
    ("value", "count"),
    [("35Mi", 36700160), ("2G", 2 * 10**9), ("64Ki", 65536), ("1000", 1000), (4096, 4096), ("0", 0)],
)
def test_sizes(value: object, count: int) -> None:
    assert size(value) == count


@pytest.mark.parametrize("value", ["", "35MB", "35 Mi", "-1", -1, 1.5, True, None, "1Mi\n"])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(Unclear):
        size(value)


@given(st.integers(0, 2**50))
def test_sizes_are_written_exactly(count: int) -> None:
    assert size(size_text(count)) == count


@given(st.integers(0, 10**9))
def test_durations_are_written_exactly(milliseconds: int) -> None:
    assert duration(duration_text(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, abs=1e-6)
