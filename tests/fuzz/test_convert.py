"""Invariant: after a conversion every leaf part decodes to the bytes it decoded to before, and the result is fit.

The reader is the standard library's email package, which shares no code with the converter.
"""

import email
import email.message
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthof_pod.deliver.convert import Unconvertible, convert, has_utf8_header, is_fit
from posthof_pod.smtp.extensions import Need

pytestmark = pytest.mark.fuzz

NEEDS = st.sampled_from([Need.LINES, Need.SEVENBIT])

LINE = st.binary(max_size=120).map(lambda raw: raw.translate(None, b"\r\n\0"))
TEXT = st.lists(LINE, max_size=6).map(b"\r\n".join)
ANY = st.one_of(TEXT, st.binary(max_size=300))
TYPES = st.sampled_from(
    [
        b"",
        b"Content-Type: text/plain; charset=utf-8\r\n",
        b"Content-Type: text/html;\r\n\tcharset=latin1\r\n",
        b"content-type: image/png\r\nContent-Disposition: attachment; filename=x.png\r\n",
        b"Content-Type: application/octet-stream\r\n",
        b"Content-Type: nonsense\r\n",
    ]
)
IDENTITIES = st.sampled_from([b"", b"7bit", b"8bit", b"BINARY", b" 8bit "])


def field(encoding: bytes) -> bytes:
    return b"Content-Transfer-Encoding: %b\r\n" % encoding if encoding else b""


@st.composite
def leaf(draw, body=ANY):
    return draw(TYPES) + field(draw(IDENTITIES)) + b"\r\n" + draw(body)


@st.composite
def entity(draw, depth=3):
    """A part: a leaf, a multipart of parts, or a message with a part inside."""
    choice = draw(st.sampled_from(["leaf", "leaf", "multipart", "message"])) if depth else "leaf"
    if choice == "leaf":
        return draw(leaf())
    label = field(draw(st.sampled_from([b"", b"8bit", b"binary"])))
    if choice == "message":
        inner = draw(entity(depth - 1))
        return b"Content-Type: message/rfc822\r\n" + label + b"\r\nSubject: inner\r\nMIME-Version: 1.0\r\n" + inner
    boundary = b"b%d-%d" % (depth, draw(st.integers(0, 99)))
    parts = draw(st.lists(entity(depth - 1), min_size=1, max_size=3))
    # What a reader would take for a delimiter must not stand in a part.
    parts = [part.replace(b"--" + boundary, b"") for part in parts]
    preamble = draw(st.sampled_from([b"", b"This is MIME.\r\n", b"pre\xe4mble\r\n"]))
    lines = b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts)
    kind = draw(st.sampled_from([b"mixed", b"alternative", b"related"]))
    close = b"--%b--" % boundary
    end = draw(st.sampled_from([close + b"\r\n", close, close + b"\r\nepilogue\r\n"]))
    head = b'Content-Type: multipart/%b; boundary="%b"\r\n%b\r\n' % (kind, boundary, label)
    return head + preamble + lines + end


def leaves(content: bytes) -> list[tuple[str, bytes]]:
    walk = email.message_from_bytes(content).walk()
    return [(part.get_content_type(), part.get_payload(decode=True)) for part in walk if not part.is_multipart()]


def as_whole_lines(content: bytes) -> bytes:
    """What DATA makes of a content that does not end with CRLF."""
    return content if content.endswith(b"\r\n") or not content else content + b"\r\n"


@settings(max_examples=300, deadline=None)
@given(entity(), NEEDS)
def test_every_leaf_decodes_to_the_same_bytes(part, need):
    content = b"From: a@b.test\r\nMIME-Version: 1.0\r\n" + part
    converted = convert(content, need, may_break_signatures=True)
    assert is_fit(converted, need)
    assert leaves(converted) == leaves(content)
    if is_fit(content, need):
        assert converted is content


@settings(max_examples=200, deadline=None)
@given(leaf(), NEEDS)
def test_a_single_part_survives_the_crlf_that_data_adds(part, need):
    content = b"From: a@b.test\r\nMIME-Version: 1.0\r\n" + part
    converted = convert(content, need, may_break_signatures=True)
    if converted is not content:
        assert leaves(as_whole_lines(converted)) == leaves(content)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), NEEDS)
def test_garbage_is_converted_or_refused_and_never_breaks_the_converter(content, need):
    try:
        converted = convert(content, need, may_break_signatures=True)
    except Unconvertible:
        return
    head, _, body = converted.partition(b"\r\n\r\n")
    assert is_fit(converted, Need.LINES)
    assert need is Need.LINES or (not has_utf8_header(b"") and (body.isascii() or not head.isascii()))


STRUCTURE = st.lists(
    st.sampled_from(
        [
            b"Content-Type: multipart/mixed; boundary=x\r\n",
            b"Content-Type: message/rfc822\r\n",
            b"Content-Transfer-Encoding: 8bit\r\n",
            b"Content-Transfer-Encoding: base64\r\n",
            b"Content-Transfer-Encoding: quoted-printable\r\n",
            b"Content-Transfer-Encoding: x-uuencode\r\n",
            b"--x\r\n",
            b"--x--\r\n",
            b"--x\n",
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b"\xe4\xf6\r\n",
            b"=\xe4=\r\n",
            b"abcd\r\n",
            b" folded\r\n",
            b": no name\r\n",
        ]
    ),
    max_size=25,
).map(b"".join)


@settings(max_examples=500, deadline=None)
@given(STRUCTURE, NEEDS)
def test_broken_mime_is_converted_or_refused(content, need):
    try:
        converted = convert(content, need, may_break_signatures=True)
    except Unconvertible:
        return
    assert is_fit(converted, need)
    assert convert(converted, need, may_break_signatures=True) is converted


BOUNCES = Path(__file__).parents[1] / "vectors" / "bounces"


def test_real_bounces_keep_every_leaf():
    files = sorted(BOUNCES.glob("*.eml"))
    for file in files:
        raw = file.read_bytes()
        if raw.startswith(b"From "):
            raw = raw.partition(b"\n")[2]
        content = raw.replace(b"\r\n", b"\n").replace(b"\r", b"").replace(b"\n", b"\r\n")
        try:
            converted = convert(content, Need.SEVENBIT, may_break_signatures=True)
        except Unconvertible as error:
            pytest.fail(f"{file.name}: {error}")
        assert leaves(converted) == leaves(content), file.name
