"""Invariant: whatever TXT and MX records a stranger publishes, each row is judged, and nothing is raised."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthof_operator.dns import dmarc, spf
from posthof_operator.dns.observe import observe
from posthof_operator.dns.rows import State, Want, rows
from posthof_operator.dns.wire import MX, Answer, Unanswered

WORDS = [
    "v=spf1",
    "a",
    "mx",
    "mx/24//64",
    "a:acme.example",
    "ip4:192.0.2.1",
    "ip4:999",
    "ip6:::1/129",
    "include:acme.example",
    "include:",
    "redirect=acme.example",
    "redirect=",
    "exists:%{i}",
    "ptr",
    "-all",
    "?all",
    "+",
    "=",
    ":",
    "//",
    "a/",
    "ip4:1/2/3",
    "v=DMARC1;",
    "p=none",
    "p=x;",
    "rua=mailto:x",
    "psd=y;",
    ";;",
    "sp=",
    "ü",
    "\\x00",
]
texts = st.lists(st.sampled_from(WORDS) | st.text(max_size=6), max_size=7).map(" ".join)
hosts = st.sampled_from(["", "acme.example", "mx.example.org", "x" * 70, "a..b"])


@pytest.mark.fuzz
@given(texts)
def test_reading_raises_broken_and_nothing_else(text: str) -> None:
    with contextlib.suppress(spf.Broken):
        spf.parse(text)
    if spf.is_spf(text):
        assert spf.is_spf(spf.proposal(["192.0.2.9"], text))
    dmarc.mistake_of(dmarc.parse("_dmarc.acme.example", text))


@pytest.mark.fuzz
@settings(max_examples=200)
@given(
    found=st.lists(texts | st.just("v=spf1 include:acme.example mx a -all"), max_size=3),
    exchangers=st.lists(st.builds(MX, st.integers(0, 9), hosts), max_size=12),
    address=st.sampled_from(["192.0.2.1", "198.51.100.1"]),
    is_away=st.sets(st.sampled_from(["MX", "TXT", "A"])),
)
def test_a_look_ends_in_a_row_for_each(
    found: list[str], exchangers: list[MX], address: str, is_away: set[str]
) -> None:
    answers: dict[str, tuple[Any, ...]] = {"TXT": tuple(found), "MX": tuple(sorted(exchangers)), "A": (address,)}

    async def ask(name: str, kind: str) -> Answer:
        if kind in is_away:
            raise Unanswered(f"{name} {kind}: away")
        return Answer(True, answers.get(kind, ()))

    want = Want("acme.example", ("mx.example.org",), egress=("192.0.2.1", "2001:db8::1"), proof="posthof-proof=x")
    judged = rows(want, asyncio.run(observe(want, ask)))
    assert [row.type for row in judged.all] == ["MX", "TXT", "TXT", "TXT"]
    for row in judged.all:
        assert row.state is State.OK or row.note
