"""The collection of messages itself: what tests that send it may rely on."""

from __future__ import annotations

import pytest

from kit import samples


def test_there_are_the_bounce_samples_and_a_collection_of_our_own():
    assert len(samples.bounces()) == 48
    assert len(samples.mime()) >= 25
    assert (samples.VECTORS / "bounces" / "LICENSE").is_file()


def test_every_file_of_our_own_is_described():
    described = (samples.VECTORS / "mime" / "README.md").read_text()
    assert [name for name in samples.mime() if f"`{name}`" not in described] == []


@pytest.mark.parametrize("name", sorted(samples.everything()))
def test_each_can_be_sent_by_data(name: str):
    content = samples.everything()[name]
    ends = content.count(b"\r\n")
    assert content.count(b"\n") == ends
    assert content.count(b"\r") == ends
    assert b"\0" not in content


def test_the_shapes_that_matter_are_there():
    everything = samples.mime().values()
    assert any(not one.endswith(b"\r\n") for one in everything)
    assert any(b"\r\n.\r\n" in one for one in everything)
    assert any(one.startswith(b"\r\n") for one in everything)
    assert any(not one.isascii() for one in everything)
    assert any(max(map(len, one.split(b"\r\n"))) > 998 for one in everything)
    assert any(not one.partition(b"\r\n\r\n")[0].isascii() for one in everything)
