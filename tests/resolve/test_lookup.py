"""The Lookup of sender authentication, over the cache: what it finds, what it calls none, and how it fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from kit.dns import DNSServer
from posthof_pod.mailauth.dns import LookupFailed
from posthof_pod.resolve.cache import Cache
from posthof_pod.resolve.lookup import CachedLookup, Failures
from posthof_pod.resolve.wire import Wire

ZONE = {
    "a.example": {
        "TXT": ['"v=spf1 " "-all"', '"other"'],
        "A": "192.0.2.1",
        "AAAA": "2001:db8::1",
        "MX": "5 mx.a.example",
    },
    "alias.example": {"CNAME": "a.example"},
    "round.example": {"CNAME": "round.example"},
    "1.2.0.192.in-addr.arpa": {"PTR": "mx.a.example"},
}


def ask(server: DNSServer, act: Callable[[Callable[..., CachedLookup]], Awaitable[None]]) -> None:
    async def run() -> None:
        cache = Cache(Wire([server.address], timeout=0.2).query)
        failures = Failures()
        await act(lambda **more: CachedLookup(cache, time.time, failures, **more))

    asyncio.run(run())


def test_each_kind_is_found_and_aliases_are_followed() -> None:
    async def act(make: Callable[..., CachedLookup]) -> None:
        for name in ("a.example", "A.Example.", "alias.example"):
            lookup = make()
            assert sorted(await lookup.txt(name)) == [b"other", b"v=spf1 -all"]
            assert await lookup.a(name) == ("192.0.2.1",)
            assert await lookup.aaaa(name) == ("2001:db8::1",)
            assert await lookup.mx(name) == ((5, "mx.a.example"),)
        assert await make().ptr("192.0.2.1") == ("mx.a.example",)

    with DNSServer(ZONE) as server:
        ask(server, act)
        assert server.asked("a.example", "TXT") == 1  # the other answers came from memory, or with the alias


def test_what_is_not_there_and_what_cannot_be_asked_is_none() -> None:
    async def act(make: Callable[..., CachedLookup]) -> None:
        lookup = make()
        for name in ("nowhere.example", "a" * 64 + ".example", "a..example", ".".join(["abcdefgh"] * 40)):
            assert await lookup.txt(name) == ()
        assert await lookup.mx("1.2.0.192.in-addr.arpa") == ()

    with DNSServer(ZONE) as server:
        ask(server, act)


def test_a_failure_is_told_and_the_name_left_alone() -> None:
    async def act(make: Callable[..., CachedLookup]) -> None:
        with pytest.raises(LookupFailed):
            await make().txt("a.example")
        server.failing.clear()
        with pytest.raises(LookupFailed, match="a moment ago"):
            await make().txt("a.example")
        assert await make().a("a.example") == ("192.0.2.1",)  # another question about it
        with pytest.raises(LookupFailed):
            await make().a("round.example")

    with DNSServer(ZONE) as server:
        server.failing.add("a.example")
        ask(server, act)


def test_the_questions_of_one_message_end_together() -> None:
    async def act(make: Callable[..., CachedLookup]) -> None:
        lookup = make(patience=0.05)
        with pytest.raises(LookupFailed, match="in time"):
            await lookup.txt("a.example")
        await asyncio.sleep(0.01)
        with pytest.raises(LookupFailed, match="no time is left"):
            await lookup.txt("b.example")

    with DNSServer(ZONE) as server:
        server.delay = 0.5
        ask(server, act)
