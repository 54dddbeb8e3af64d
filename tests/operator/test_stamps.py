"""Stamps on what pods read: only where something changed, and never earlier than before."""

from __future__ import annotations

import base64

from posthof_crds.shards import content_of, stamp_of
from posthof_operator import stamps
from posthof_operator.desired import CONFIG_KEY, KEYS_KEY


def config_map(content: bytes) -> dict[str, object]:
    return {"kind": "ConfigMap", "binaryData": {CONFIG_KEY: base64.b64encode(content).decode()}, "data": {"x": "y"}}


def written(child: dict[str, object]) -> bytes:
    return base64.b64decode(child["binaryData"][CONFIG_KEY])  # type: ignore[index]


def test_what_is_unchanged_is_written_as_it_stands() -> None:
    first = stamps.fresh(config_map(b"a"), None, 100.0)
    assert (stamp_of(written(first)), content_of(written(first))) == (100_000, b"a")
    assert stamps.fresh(config_map(b"a"), first, 200.0) == first


def test_a_new_content_is_newer_also_where_another_leaders_clock_was_ahead() -> None:
    first = stamps.fresh(config_map(b"a"), None, 5000.0)
    second = stamps.fresh(config_map(b"b"), first, 100.0)
    assert stamp_of(written(second)) == 5_000_001


def test_a_stamp_is_put_in_front_of_what_had_none() -> None:
    assert stamp_of(written(stamps.fresh(config_map(b"a"), config_map(b"a"), 3.0))) == 0
    assert stamp_of(written(stamps.fresh(config_map(b"b"), config_map(b"a"), 3.0))) == 3000


def test_only_shards_bear_stamps() -> None:
    token = {"kind": "Secret", "data": {"token": "eA=="}}
    assert not stamps.has_shards(token)
    assert stamps.fresh(token, None, 1.0) == token
    assert stamps.has_shards({"kind": "Secret", "data": {KEYS_KEY: "eA=="}})
    assert stamps.has_shards(config_map(b"a"))
    assert not stamps.has_shards({"kind": "Deployment"})
