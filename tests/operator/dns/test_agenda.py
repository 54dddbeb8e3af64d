"""When DNS is looked at again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from posthof_operator.dns.agenda import SETTLED, SLOWEST, Entry, first, following

NOW = 1_800_000_000.0
chances = st.floats(0, 1)


def test_a_new_domain_is_looked_at_now_and_a_known_one_in_its_turn() -> None:
    assert first(NOW, 0.5, is_known=False).due == NOW
    assert first(NOW, 0.5, is_known=True).due == NOW + SETTLED / 2


@given(chances)
def test_what_is_right_is_left_alone_for_half_an_hour_or_so(chance: float) -> None:
    found = following(Entry(NOW, 7), NOW, chance, is_right=True, is_answered=True)
    assert SETTLED * 0.8 <= found.due - NOW <= SETTLED * 1.2
    assert found.tries == 0


@given(chances, st.booleans())
def test_what_is_wrong_is_looked_at_soon_then_ever_later(chance: float, is_answered: bool) -> None:
    entry, pauses = Entry(NOW), []
    for _ in range(30):
        entry = following(entry, NOW, chance, is_right=False, is_answered=is_answered)
        pauses.append(entry.due - NOW)
    assert pauses[0] <= 12
    assert pauses == sorted(pauses)
    assert SLOWEST * 0.8 <= pauses[-1] <= SLOWEST * 1.2
