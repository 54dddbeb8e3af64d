"""Replies of peers, as they come."""

import pytest

from posthof_pod.smtp.replyline import MAX_TEXT, Broken, PeerReply, ReplyReader, enhanced_code

STREAM = b"220 mx\r\n250-a\r\n250-b\r\n250 c\r\n250\r\n550-x\n550 y\n354 go\r\n451 4.3.0  later \r\n"
REPLIES = [
    PeerReply(220, b"mx"),
    PeerReply(250, b"a\nb\nc"),
    PeerReply(250, b""),
    PeerReply(550, b"x\ny"),
    PeerReply(354, b"go"),
    PeerReply(451, b"4.3.0  later "),
]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_replies_are_the_same_however_their_bytes_come(size):
    reader = ReplyReader()
    found = []
    for start in range(0, len(STREAM), size):
        found += reader.feed(STREAM[start : start + size])
    assert found == REPLIES
    assert not reader.is_inside


@pytest.mark.parametrize(
    "said",
    [
        b"hello\r\n",
        b"\r\n",
        b"25\r\n",
        b"2500 x\r\n",
        b"250x\r\n",
        b" 250 x\r\n",
        b"100 x\r\n",
        b"600 x\r\n",
        b"250-a\r\n550 b\r\n",
        b"\xb2\xb5\xb0 x\r\n",
        b"x" * 9000,
        b"250 " + b"x" * 9000 + b"\r\n",
        b"250-x\r\n" * 20_000,
    ],
)
def test_what_is_no_reply_or_has_no_end_is_broken(said):
    with pytest.raises(Broken):
        ReplyReader().feed(said)


def test_half_a_line_and_half_a_reply_are_known_to_be_unfinished():
    for said in (b"2", b"250 ok", b"250-a\r\n", b"250 a\r\n25"):
        reader = ReplyReader()
        reader.feed(said)
        assert reader.is_inside


@pytest.mark.parametrize(
    ("code", "text", "enhanced"),
    [
        (250, b"2.1.5 ok", "2.1.5"),
        (250, b"2.0.0 queued", "2.0.0"),
        (550, b"5.1.1", "5.1.1"),
        (550, b"5.1.1\nmore", "5.1.1"),
        (550, b"5.123.45 x", "5.123.45"),
        (550, b"4.1.1 class of another code", "5.0.0"),
        (450, b"2.0.0 class of another code", "4.0.0"),
        (550, b"5.1 x", "5.0.0"),
        (550, b"5.1.x", "5.0.0"),
        (550, b"no such user", "5.0.0"),
        (421, b"", "4.0.0"),
    ],
)
def test_the_enhanced_code_is_the_peers_or_made_up_from_the_code(code, text, enhanced):
    assert enhanced_code(code, text) == enhanced
    assert PeerReply(code, text).enhanced == enhanced


def test_a_reply_reads_as_one_bounded_line_without_control_characters():
    assert str(PeerReply(550, b"5.1.1 no\n5.1.1 such\x1b[31muser\x9b")) == "550 5.1.1 no 5.1.1 such [31muser�"
    assert len(str(PeerReply(550, b"x" * 10_000))) == 4 + MAX_TEXT + 3
