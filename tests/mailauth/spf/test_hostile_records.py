"""SPF records made to cost us much: anybody may publish one, and send one message."""

from __future__ import annotations

import asyncio
import time

import pytest

from posthof_pod.mailauth import spf
from posthof_pod.mailauth.spf import macro, record


class Zone:
    """One TXT record, and nothing else."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    async def txt(self, name: str) -> tuple[bytes, ...]:
        return (self._text,) if name == "evil.test" else ()

    async def a(self, name: str) -> tuple[str, ...]:
        return ()

    async def aaaa(self, name: str) -> tuple[str, ...]:
        return ()

    async def mx(self, name: str) -> tuple[tuple[int, str], ...]:
        return ()

    async def ptr(self, address: str) -> tuple[str, ...]:
        return ()


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (b"v=spf1 a:x." + b"a" * 16_000 + b"_ -all", "permerror"),
        (b"v=spf1 a:x." + b"a-" * 8_000 + b"_ -all", "permerror"),
        (b"v=spf1 exists:" + b"%{l}." * 3_000 + b"evil.test -all", "permerror"),
        (b"v=spf1 exists:" + b"%{S}" * 200 + b".evil.test -all", "fail"),
        (b"v=spf1 " + b"ip4:192.0.2.2 " * 1_100 + b"-all", "fail"),
        (b"v=spf1 " + b"ip4:192.0.2.2 " * 4_000 + b"-all", "permerror"),
    ],
)
def test_a_record_costs_no_more_than_its_length(text: bytes, result: str) -> None:
    begun = time.process_time()
    sender = ".".join("a" * 32) + "@evil.test"
    found = asyncio.run(spf.check(spf.Identity("192.0.2.1", "h.test", sender), Zone(text)))
    assert found.result == result
    assert (
        time.process_time() - begun < 1.0
    )  # the first of them took seconds, and four times that at twice its length


def test_large_records_are_not_kept() -> None:
    before = record._kept.cache_info().currsize
    record.parse(b"v=spf1 " + b"ip4:192.0.2.3 " * 200 + b"-all")
    assert record._kept.cache_info().currsize == before


@pytest.mark.parametrize(
    ("length", "left"), [(253, "a" * 253), (254, ""), (300, "")], ids=["just_fits", "too_long", "far_too_long"]
)
def test_a_name_that_is_too_long_loses_labels_on_its_left(length: int, left: str) -> None:
    async def name(text: str) -> str:
        return await macro.name(macro.macro_string("%{l}"), lambda _: text)

    assert asyncio.run(name("a" * length)) == left
    assert asyncio.run(name("b." * 500 + "c" * 250)) == "b." + "c" * 250
    assert asyncio.run(name("bb." + "c" * 253)) == "c" * 253
    assert asyncio.run(name("bb.b." + "c" * 251)) == "b." + "c" * 251
