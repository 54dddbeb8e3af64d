"""Which of two states of an object is used."""

from __future__ import annotations

import itertools

import pytest

from posthof_crds.shards import stamped
from posthof_pod.cluster.editions import Edition, is_older, newest


def edition(stamp: float, *, live: bool = True, content: bytes = b"x") -> Edition:
    return Edition({0: stamped(content, stamp) if stamp else content}, live)


def test_the_newest_stamp_wins_wherever_it_was_seen() -> None:
    old, new = edition(1.0), edition(2.0, live=False)
    assert newest(None, old, new) is new
    assert newest(old, None, new) is new
    assert newest(new, old, None) is new
    assert newest(None, None, None) is None


def test_what_is_in_force_never_gives_way_to_something_older() -> None:
    for live, mounted in itertools.product((True, False), repeat=2):
        present = edition(5.0, live=live)
        assert newest(present, edition(4.0), edition(3.0, live=mounted)) is present


@pytest.mark.parametrize("stamp", [0.0, 7.0])
def test_of_equals_the_api_server_is_believed_and_the_later_look(stamp: float) -> None:
    live, mounted = edition(stamp), edition(stamp, live=False)
    assert newest(mounted, live, None) is live
    assert newest(live, None, mounted) is live
    again = edition(stamp, live=False)
    assert newest(mounted, None, again) is again
    fresh = edition(stamp)
    assert newest(live, fresh, mounted) is fresh


def test_a_restored_api_server_is_noticed() -> None:
    assert is_older(edition(1.0), edition(2.0))
    assert not is_older(edition(2.0), edition(2.0))
    assert not is_older(None, edition(2.0))
