"""Invariant: whatever octets come and however they are cut, the server dialogue answers with whole SMTP replies or
closes; it never raises, and the same octets give the same replies and the same mails.

The octets are commands, mangled commands, content, newlines of all kinds, and noise. Bounded by hypothesis' profile.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.dialogue import Setting, Talk
from posthof_crds.engine import TLSMode

pytestmark = pytest.mark.fuzz

bounded = settings(
    max_examples=300,
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)

REPLIES = re.compile(rb"(?:[2-5]\d\d-[^\r\n]*\r\n|[2-5]\d\d [^\r\n]*\r\n)*")

COMMANDS = st.sampled_from(
    [
        b"EHLO client.test\r\n",
        b"HELO client.test\r\n",
        b"MAIL FROM:<alice@example.test>\r\n",
        b"MAIL FROM:<> SIZE=10 BODY=8BITMIME\r\n",
        b"MAIL FROM:<a@b.test> BODY=BINARYMIME\r\n",
        b"MAIL FROM:<\xc3\xa4@b.test> SMTPUTF8\r\n",
        b"RCPT TO:<bob@example.test>\r\n",
        b"RCPT TO:<nobody@example.test>\r\n",
        b"RCPT TO:<deferred@example.test> NOTIFY=NEVER\r\n",
        b"RCPT TO:<broken@example.test>\r\n",
        b"RCPT TO:<later@example.test>\r\n",
        b"DATA\r\n",
        b"BDAT 4\r\n",
        b"BDAT 4 LAST\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 999\r\n",
        b"BDAT x\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"VRFY x\r\n",
        b"EXPN x\r\n",
        b"HELP\r\n",
        b"XCLIENT ADDR=192.0.2.9\r\n",
        b"XCLIENT NAME=\r\n",
        b"QUIT\r\n",
    ]
)
CONTENT = st.sampled_from(
    [
        b".\r\n",
        b"\r\n.\r\n",
        b"..\r\n",
        b"\n.\n",
        b"\r.\r",
        b"\r\n",
        b"\n",
        b"\r",
        b".",
        b"text\r\n",
        b"x" * 300,
        b"\0",
    ]
)
PIECE = st.one_of(
    COMMANDS,
    CONTENT,
    st.binary(max_size=12),
    st.tuples(COMMANDS, st.integers(0, 30), st.binary(max_size=3)).map(lambda t: t[0][: t[1]] + t[2] + t[0][t[1] :]),
)
STREAM = st.lists(PIECE, max_size=25).map(b"".join)
OPENED = b"EHLO client.test\r\nMAIL FROM:<alice@example.test>\r\nRCPT TO:<bob@example.test>\r\n"

SETTINGS = [
    Setting(),
    Setting(normalise=True, xclient=("0.0.0.0/0",), blob_threshold=40),
    Setting(limits={"message_size": 50, "errors": 3, "recipients": 2, "command_line": 60, "commands": 40}),
]


def converse(setting: Setting, packets: list[bytes]) -> tuple[bytes, list[object], bool]:
    """All replies, all mails, and whether the session was ended."""
    talk = Talk(setting)
    said = b"".join(talk.say(packet) for packet in packets)
    assert REPLIES.fullmatch(said), said
    assert all(isinstance(fault, LookupError) for _, fault in talk.desk.faults)
    return said, list(talk.gate.mails), talk.is_closed


def cut_at(stream: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted({place % (len(stream) + 1) for place in places}), len(stream)]
    return [stream[a:b] for a, b in pairwise(bounds) if a < b]


@pytest.mark.parametrize("setting", SETTINGS)
@bounded
@given(stream=STREAM, places=st.lists(st.integers(0, 5000), max_size=12))
def test_the_same_octets_give_the_same_replies_and_mails(setting: Setting, stream: bytes, places: list[int]) -> None:
    stream = OPENED + stream
    whole = converse(setting, [stream])
    assert converse(setting, cut_at(stream, places)) == whole
    assert converse(setting, [bytes([octet]) for octet in stream]) == whole


@bounded
@given(packets=st.lists(st.one_of(STREAM, st.just(b"STARTTLS\r\n")), max_size=8), tell_of_tls=st.booleans())
def test_starttls_anywhere_never_raises(packets: list[bytes], tell_of_tls: bool) -> None:
    talk = Talk(Setting(tls=TLSMode.STARTTLS))
    for packet in packets:
        assert REPLIES.fullmatch(talk.say(packet))
        if talk.dialogue.request.name == "START_TLS" and tell_of_tls:
            talk.dialogue.tls_started("TLSv1.3 TLS_TEST")


@bounded
@given(stream=STREAM)
def test_only_the_exact_end_separates_messages(stream: bytes) -> None:
    """Between DATA and its reply no command is obeyed: at most one mail per exact CRLF . CRLF."""
    text = b"\r\n" + stream
    talk = Talk()
    talk.say(OPENED + b"DATA\r\n")
    talk.say(stream)
    if b"\r\n.\r\n" not in text:
        assert not talk.gate.mails
        assert talk.dialogue.is_reading_content or talk.is_closed
