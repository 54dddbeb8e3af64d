"""Stamps on shards: which of two states of an object is the newer one."""

from __future__ import annotations

from posthof_crds.shards import (
    content_of,
    key_shards,
    pods_shard,
    read_keys,
    read_pods,
    stamp_of,
    stamped,
)


def test_what_is_the_same_stays_as_it_is_to_the_byte() -> None:
    first = stamped(b"x", 1000.0)
    assert stamped(b"x", 2000.0, first) == first
    assert (stamp_of(first), content_of(first)) == (1_000_000, b"x")


def test_what_changed_is_newer_also_where_the_clock_went_back() -> None:
    first = stamped(b"x", 1000.0)
    assert stamp_of(stamped(b"y", 2000.0, first)) == 2_000_000
    assert stamp_of(stamped(b"y", 10.0, first)) == 1_000_001


def test_what_bears_no_stamp_is_read_and_older_than_anything() -> None:
    assert (stamp_of(b"x"), content_of(b"x")) == (0, b"x")
    assert stamp_of(stamped(b"y", 5.0, b"x")) == 5000


def test_shards_are_read_with_and_without_a_stamp() -> None:
    pods = {"10.0.0.1": ("a",)}
    plain = pods_shard(pods)
    assert read_pods(plain) == read_pods(stamped(plain, 1.0)) == pods
    keys = {"ns/tls/tls.crt": b"c", "ns/tls/tls.key": b"k"}
    assert read_keys(stamped(one, 1.0) for one in key_shards(keys)) == keys


def test_a_secret_lies_in_one_shard_whole() -> None:
    for name in ("a", "b", "edge-tls", "other"):
        keys = {f"ns/{name}/tls.crt": b"c", f"ns/{name}/tls.key": b"k"}
        assert sorted(len(read_keys([shard])) for shard in key_shards(keys)) == [0, 0, 0, 2]
