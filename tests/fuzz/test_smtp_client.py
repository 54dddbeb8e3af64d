"""Invariant: whatever a peer says, in whatever pieces, every recipient has one outcome, and none is RELAYED without a
2xx that stands where the reply to the whole message is owed; no dot follows a permit that was refused.

The wire is driven without a socket: a transport that answers with drawn bytes.
"""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.session import TIMES, mail
from posthof_pod.deliver.connection import Connection
from posthof_pod.deliver.wire import FOREVER, Wire
from posthof_pod.model import Host, Status
from posthof_pod.smtp.extensions import Extensions
from posthof_pod.smtp.replyline import Broken, ReplyReader

pytestmark = pytest.mark.fuzz


class Answering(asyncio.Transport):
    """Answers each write with the next drawn bytes; closes when they are used up."""

    def __init__(self, wire, answers):
        super().__init__()
        self.wire = wire
        self.answers = list(answers)
        self.written = []
        self.is_gone = False

    def write(self, data):
        self.written.append(bytes(data))
        asyncio.get_running_loop().call_soon(self.answer)

    def writelines(self, pieces):
        self.write(b"".join(pieces))

    def answer(self):
        if self.is_gone:
            return
        if not self.answers:
            self.abort()
            return
        for piece in self.answers.pop(0):
            if self.is_gone:
                return
            self.wire.data_received(piece)
        self.go_on(len(self.written), 10)

    def go_on(self, written, turns):
        """If the client waits for more than this answer had, say the next one, or hang up."""
        if self.is_gone or len(self.written) > written:
            return
        if self.wire.deadline < FOREVER:
            self.answer()
        elif turns:
            asyncio.get_running_loop().call_soon(self.go_on, written, turns - 1)

    def abort(self):
        if not self.is_gone:
            self.is_gone = True
            asyncio.get_running_loop().call_soon(self.wire.connection_lost, None)

    close = abort

    def is_closing(self):
        return self.is_gone


LINES = st.sampled_from(
    [
        b"250 2.1.0 ok\r\n",
        b"250 2.1.5 ok\r\n",
        b"354 go ahead\r\n",
        b"250 2.0.0 queued\r\n",
        b"250-multi\r\n250 line\r\n",
        b"450 4.2.1 later\r\n",
        b"452 4.5.3 too many\r\n",
        b"550 5.1.1 no\r\n",
        b"503 5.5.1 sequence\r\n",
        b"421 4.3.2 bye\r\n",
        b"250 ",
        b"25",
        b"\r\n",
        b"garbage\r\n",
        b"250-open\r\n",
    ]
)
SAID = st.one_of(
    st.lists(LINES, max_size=6).map(b"".join),
    st.sampled_from(
        [b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n", b"250 ok\r\n" * 4, b"354 go\r\n", b"250 ok\r\n"],
    ),
    st.binary(max_size=40),
)


@st.composite
def answers(draw):
    """What is said after each write, cut into pieces."""
    said = draw(st.lists(SAID, min_size=1, max_size=8))
    cut = []
    for each in said:
        at = draw(st.integers(0, len(each)))
        cut.append([piece for piece in (each[:at], each[at:]) if piece])
    return cut


OFFERS = st.builds(
    Extensions,
    pipelining=st.booleans(),
    chunking=st.booleans(),
    eightbit=st.booleans(),
    rcpt_max=st.sampled_from([0, 1]),
)


async def converse(offer, drawn, permitted, is_lmtp, large):
    loop = asyncio.get_running_loop()
    wire = Wire(loop, 1.0)
    transport = Answering(wire, drawn)
    wire.connection_made(transport)
    wire.owed = 0
    connection = Connection(wire, Host("peer", "127.0.0.1", 25), offer, TIMES, is_lmtp=is_lmtp)
    body = b"x\r\n" * (90_000 if large else 3)
    mails = [mail("a@b.test", "c@d.test", body=body, permit=lambda: permitted) for _ in range(3)]
    results = []
    for n, each in enumerate(mails):
        following = mails[n + 1] if n < 2 else None
        results.append(await asyncio.wait_for(connection.send(each, following), 20))
    connection.abort()
    await asyncio.sleep(0)
    return results, transport


@settings(max_examples=600, deadline=None)
@given(OFFERS, answers(), st.booleans(), st.booleans(), st.booleans())
def test_no_peer_gets_a_false_verdict_or_an_exception_out_of_a_session(offer, drawn, permitted, is_lmtp, large):
    results, transport = asyncio.run(converse(offer, drawn, permitted, is_lmtp, large))
    said = b"".join(piece for each in drawn for piece in each)
    for outcomes in results:
        assert [outcome.recipient for outcome in outcomes] == [0, 1]
        for outcome in outcomes:
            assert outcome.reply
            if outcome.status is Status.RELAYED:
                assert permitted
                assert 200 <= outcome.code < 300
            if outcome.status is Status.FAILED:
                assert b"5" in said
                assert outcome.code >= 500
            if outcome.status is Status.UNCERTAIN:
                assert permitted
    if not permitted:
        written = b"".join(transport.written)
        assert b"LAST\r\n" not in written
        assert b"x\r\n.\r\n" not in written  # a dot for nobody (RFC 2920 3.1) may follow DATA itself


@settings(max_examples=300, deadline=None)
@given(st.lists(LINES, max_size=10).map(b"".join), st.data())
def test_replies_do_not_depend_on_how_the_bytes_come(stream, data):
    whole, pieces = [], []
    try:
        whole = ReplyReader().feed(stream)
    except Broken:
        whole = None
    reader = ReplyReader()
    rest = stream
    try:
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            pieces += reader.feed(rest[:size])
            rest = rest[size:]
    except Broken:
        pieces = None
    assert pieces == whole
