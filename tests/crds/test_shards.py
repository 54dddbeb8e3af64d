"""A configuration, keys and the list of pods travel as bytes and come back the same."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthof_crds import shards
from posthof_crds.engine import Domain, EngineConfig, InboundMode, SpoolSettings, content_hash


def config(domains: int = 3, noise: int = 0, seed: int = 1) -> EngineConfig:
    """`noise`: characters of text in each domain that do not compress."""
    dice = random.Random(seed)
    return EngineConfig(
        name="edge",
        hostname="mx.example.org",
        listeners=(),
        spool=SpoolSettings(path="/spool"),
        mail_root="/mail",
        state_dir="/state",
        domains={
            f"d{n}.example": Domain(
                name=f"mail/d{n}",
                domain=f"d{n}.example",
                mode=InboundMode.REJECT,
                recipients=frozenset({"bob", "alice", "carol"}),
                reject_text=dice.randbytes(noise // 2).hex(),
            )
            for n in range(domains)
        },
    )


def test_a_config_comes_back_as_it_was() -> None:
    found = shards.config_shards(config())
    assert len(found) == 1
    assert shards.read_config(dict(enumerate(found))) == config()
    assert shards.revision_of(dict(enumerate(found))) == content_hash(config())


def test_equal_configs_give_equal_bytes() -> None:
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(config()), type=EngineConfig)
    assert shards.config_shards(again) == shards.config_shards(config())


def test_a_large_config_is_cut_and_no_shard_is_too_large() -> None:
    large = config(domains=40, noise=100_000)
    found = shards.config_shards(large)
    assert len(found) > 1
    assert max(map(len, found)) <= shards.MAX_BYTES
    assert shards.read_config(dict(enumerate(found))) == large


def test_one_that_is_too_large_says_how_large_it_is() -> None:
    with pytest.raises(shards.TooLarge, match=r"the configuration is \d{7,} bytes compressed"):
        shards.config_shards(config(domains=200, noise=100_000))


def test_shards_of_two_revisions_are_never_mixed() -> None:
    old = shards.config_shards(config(domains=40, noise=100_000, seed=1))
    new = shards.config_shards(config(domains=40, noise=100_000, seed=2))
    assert len(old) == len(new)
    mixed = dict(enumerate(old))
    mixed[0] = new[0]
    with pytest.raises(shards.Incomplete):
        shards.read_config(mixed)


def test_shards_left_over_from_a_larger_revision_do_not_matter() -> None:
    left = dict(enumerate(shards.config_shards(config(domains=40, noise=100_000))))
    left[0] = shards.config_shards(config())[0]
    assert shards.read_config(left) == config()


def test_what_is_missing_or_damaged_is_no_config() -> None:
    found = dict(enumerate(shards.config_shards(config(domains=40, noise=100_000))))
    with pytest.raises(shards.Incomplete):
        shards.read_config({})
    with pytest.raises(shards.Incomplete):
        shards.read_config({n: shard for n, shard in found.items() if n})
    with pytest.raises(shards.Unreadable):
        shards.read_config({0: b"garbage"})
    with pytest.raises(shards.Unreadable):
        shards.read_config({0: shards.config_shards(config())[0][:-9]})


@given(st.dictionaries(st.text("abc/", min_size=1, max_size=9), st.binary(max_size=50), max_size=20))
def test_keys_come_back_whatever_they_are(keys: dict[str, bytes]) -> None:
    found = shards.key_shards(keys)
    assert len(found) == shards.KEY_SHARDS
    assert shards.read_keys(found) == keys
    assert shards.key_shards(dict(reversed(keys.items()))) == found


def test_a_changed_secret_changes_one_shard() -> None:
    keys = {f"mail/s{n}-tls/{key}": b"old" for n in range(50) for key in ("tls.crt", "tls.key")}
    renewed = {**keys, "mail/s7-tls/tls.crt": b"new", "mail/s7-tls/tls.key": b"new"}
    pairs = zip(shards.key_shards(keys), shards.key_shards(renewed), strict=True)
    assert sum(before != after for before, after in pairs) == 1


def test_too_many_keys_are_told() -> None:
    with pytest.raises(shards.TooLarge, match="key material"):
        shards.key_shards({"mail/s/key": b"x" * shards.MAX_BYTES})


def test_pods_come_back() -> None:
    pods = {"10.0.0.1": ("a", "b"), "10.0.0.2": (), "2001:db8::1": ("a",)}
    assert shards.read_pods(shards.pods_shard(pods)) == pods
    with pytest.raises(shards.Unreadable):
        shards.read_pods(b"\x00")
