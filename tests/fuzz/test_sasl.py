"""Any octets in any mechanism: a challenge or a reply, nothing raised, and nobody is let in who knew no password."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import logins
from posthof_crds.engine import ListenerRole
from posthof_pod.replies import Reply
from posthof_pod.smtp.gate import Session
from posthof_pod.smtp.sasl import MECHANISMS

pytestmark = pytest.mark.fuzz

PIECES = st.sampled_from(
    [
        b"\0",
        b"alice",
        b"n,,",
        b"n=alice,r=abcdefghij",
        b"c=biws,r=",
        b",p=AAAA",
        b"\x01auth=Bearer x\x01\x01",
        b"user=",
        b"=2C",
    ]
)
OCTETS = st.one_of(st.binary(max_size=64), st.lists(PIECES, max_size=6).map(b"".join))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MECHANISMS), st.one_of(st.none(), OCTETS), st.lists(OCTETS, max_size=4))
def test_no_octets_but_the_right_ones_let_anybody_in(
    mechanism: str, initial: bytes | None, responses: list[bytes]
) -> None:
    async def story() -> None:
        who = Session("192.0.2.1", listener="in", role=ListenerRole.SUBMISSION)
        exchange = logins.accounts().authenticate(who, mechanism)
        assert not isinstance(exchange, Reply)
        answer = await exchange.respond(initial)
        for response in responses:
            if isinstance(answer, Reply):
                break
            answer = await exchange.respond(response)
        assert isinstance(answer, bytes) or answer.code in (501, 535)
        assert who.credential == ""

    asyncio.run(story())
