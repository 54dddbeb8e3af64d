"""Content made fit: what changes, what does not, what is refused."""

import email

import pytest

from posthof_pod.deliver.convert import Signed, Unconvertible, convert, has_utf8_header, is_fit
from posthof_pod.smtp.extensions import Need

HEAD = b"From: a@b.test\r\nMIME-Version: 1.0\r\n"
UTF8 = "Grüße und ein langer Text, damit es Text bleibt\r\n".encode()


def seven(content, *, may_break_signatures=False):
    return convert(content, Need.SEVENBIT, may_break_signatures=may_break_signatures)


def lines(content, *, may_break_signatures=False):
    return convert(content, Need.LINES, may_break_signatures=may_break_signatures)


def leaves(content):
    walk = email.message_from_bytes(content).walk()
    return [part.get_payload(decode=True) for part in walk if not part.is_multipart()]


@pytest.mark.parametrize("content", [b"", b"x", HEAD + b"\r\nplain\r\n", b"\r\n\r\n", b"no header at all"])
def test_fit_content_is_the_same_object(content):
    assert seven(content) is content
    assert lines(content) is content


def test_8bit_text_stays_8bit_where_only_lines_are_needed():
    content = HEAD + b"\r\n" + UTF8
    assert lines(content) is content


def test_text_becomes_quoted_printable_and_says_so_in_place():
    content = HEAD + b"content-transfer-encoding: 8bit\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + UTF8
    made = seven(content)
    assert made.startswith(
        HEAD
        + b"Content-Transfer-Encoding: quoted-printable\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr=C3=BC"
    )
    assert leaves(made) == [UTF8]


def test_a_second_transfer_encoding_field_does_not_survive():
    content = HEAD + b"Content-Transfer-Encoding: 8bit\r\nX: y\r\nContent-Transfer-Encoding:\r\n 7bit\r\n\r\n" + UTF8
    made = seven(content)
    assert made.count(b"Content-Transfer-Encoding") == 1
    assert b"X: y\r\n" in made


def test_a_message_without_mime_gets_the_fields_that_make_the_encoding_count():
    made = seven(b"Subject: x\r\n\r\n" + UTF8)
    header = made.partition(b"\r\n\r\n")[0]
    assert b"MIME-Version: 1.0" in header
    assert b"Content-Type: text/plain; charset=unknown-8bit" in header
    assert b"Content-Transfer-Encoding: quoted-printable" in header


@pytest.mark.parametrize("content", [UTF8, b"\xff\xfe", b"\r\n" + UTF8, b"not a field\r\n" + UTF8])
def test_a_content_without_a_header_is_one_text(content):
    made = seven(content)
    assert is_fit(made, Need.SEVENBIT)
    assert leaves(made) == leaves(content)


def test_a_text_without_a_last_crlf_decodes_without_one():
    content = HEAD + b"\r\nGr\xfc\xdfe und ein langer Text"
    made = seven(content)
    assert made.endswith(b"=\r\n")
    assert leaves(made) == [b"Gr\xfc\xdfe und ein langer Text"]


def test_long_lines_and_trailing_blanks_survive_quoted_printable():
    body = b"\xe4" + b"x" * 3000 + b" \t\r\n.\r\nFrom me \r\n"
    made = seven(HEAD + b"\r\n" + body)
    assert max(len(line) for line in made.split(b"\r\n")) <= 76
    assert leaves(made) == [body]


def test_a_long_text_of_one_line_without_an_end_has_only_crlfs():
    body = b"\xe4" + b"x" * 500
    made = seven(HEAD + b"\r\n" + body)
    assert is_fit(made, Need.SEVENBIT)
    assert leaves(made) == [body]


def test_what_is_mostly_not_ascii_or_not_text_becomes_base64():
    for kind, body in ((b"text/plain; charset=koi8-r", b"\xf0\xd2" * 50 + b"\r\n"), (b"image/png", b"\x89PNG\r\n")):
        made = seven(HEAD + b"Content-Type: " + kind + b"\r\n\r\n" + body)
        assert b"Content-Transfer-Encoding: base64" in made
        assert leaves(made) == [body]


@pytest.mark.parametrize("body", [b"a\nb\r\n", b"a\rb\r\n", b"a\0b\r\n", b"\r", b"\n", b"\r\n.\n"])
@pytest.mark.parametrize("need", [Need.LINES, Need.SEVENBIT])
def test_bare_cr_lf_and_nul_become_base64(body, need):
    content = HEAD + b"Content-Type: text/plain\r\nContent-Transfer-Encoding: binary\r\n\r\n" + body
    made = convert(content, need, may_break_signatures=False)
    assert b"Content-Transfer-Encoding: base64" in made
    assert is_fit(made, need)
    assert leaves(made) == [body]


MULTIPART = (
    HEAD
    + b'Content-Type: multipart/mixed; boundary="=_b(1)"\r\nContent-Transfer-Encoding: 8bit\r\n\r\npreamble\r\n'
    + b"--=_b(1)\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%b"
    + b"--=_b(1)\t\r\nContent-Type: text/plain\r\nX-Same: yes  \r\n\r\nascii \r\n\r\n"
    + b"--=_b(1)\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    + b"Subject: inner\r\nMIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n"
    + b"--in\r\n\r\n%b\r\n--in\r\nContent-Type: text/html\r\n\r\n<p>\r\n--in--\r\n\r\n"
    + b"--=_b(1)--\r\nepilogue\r\n"
) % (UTF8, UTF8)


def test_multiparts_and_messages_are_converted_inside_and_fit_parts_stay():
    made = seven(MULTIPART)
    assert is_fit(made, Need.SEVENBIT)
    assert leaves(made) == leaves(MULTIPART)
    assert b"--=_b(1)\r\nContent-Type: text/plain\r\nX-Same: yes  \r\n\r\nascii \r\n\r\n--=_b(1)" in made
    assert b"preamble\r\n--=_b(1)\r\n" in made
    assert made.endswith(b"--in--\r\n\r\n--=_b(1)--\r\nepilogue\r\n")
    assert made.count(b"quoted-printable") == 2
    assert made.count(b"Content-Transfer-Encoding: 7bit") == 2  # the multipart and the message/rfc822


@pytest.mark.parametrize("ending", [b"", b"--x", b"--x--", b"--x--\r\n"])
def test_a_missing_or_torn_last_boundary_keeps_the_last_part(ending):
    content = (
        HEAD + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\na\xe4\r\n--x\r\n\r\nb\xf6\r\n" + ending
    )
    made = seven(content)
    assert is_fit(made, Need.SEVENBIT)
    assert leaves(made) == leaves(content)


def test_a_preamble_may_lose_its_8bit_bytes():
    content = HEAD + b"Content-Type: multipart/mixed; boundary=x\r\n\r\npr\xe4\r\n--x\r\n\r\na\r\n--x--\r\n\xe4"
    made = seven(content)
    assert b"pr?\r\n--x" in made
    assert leaves(made) == [b"a"]


@pytest.mark.parametrize(
    "kind", [b"multipart/mixed", b"multipart/mixed; boundary=never", b"multipart/mixed; boundary="]
)
def test_a_multipart_without_its_boundary_is_one_text(kind):
    made = seven(HEAD + b"Content-Type: " + kind + b"\r\n\r\n" + UTF8)
    assert is_fit(made, Need.SEVENBIT)


def test_digests_hold_messages():
    content = (
        HEAD
        + b"Content-Type: multipart/digest; boundary=x\r\n\r\n--x\r\n\r\nSubject: inner\r\n\r\n%b\r\n--x--\r\n" % UTF8
    )
    made = seven(content)
    assert is_fit(made, Need.SEVENBIT)
    assert made.count(b"MIME-Version: 1.0") == 2
    assert leaves(made) == [UTF8]


def test_fields_of_a_delivery_status_are_not_hidden_in_base64():
    content = HEAD + b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\n\nAction: failed\n"
    assert lines(content).endswith(b"\r\n\r\nReporting-MTA: dns; x\r\n\r\nAction: failed\r\n")


def test_encoded_parts_with_bytes_that_encoding_does_not_have_are_mended():
    for encoding, body in ((b"base64", b"YW\xe4Jj\nZGVm\r\n"), (b"quoted-printable", b"a=E4b\xf6=\r\n c=\n d\r\n")):
        content = HEAD + b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n" + body
        made = seven(content)
        assert is_fit(made, Need.SEVENBIT)
        assert leaves(made) == leaves(content)


# --- what is left alone


SIGNED = [
    b"DKIM-Signature: v=1; d=else.test\r\n" + HEAD + b"\r\n" + UTF8,
    HEAD + b"Content-Type: multipart/signed; boundary=x\r\n\r\n--x\r\n\r\n" + UTF8 + b"--x\r\n\r\nsig\r\n--x--\r\n",
    HEAD + b"Content-Type: message/rfc822\r\n\r\nDKIM-Signature: v=1\r\n\r\n" + UTF8,
]


@pytest.mark.parametrize("content", SIGNED, ids=["DKIM", "multipart/signed", "a signed message inside"])
def test_a_signed_content_is_changed_only_where_signatures_may_break(content):
    with pytest.raises(Signed):
        seven(content)
    assert leaves(seven(content, may_break_signatures=True)) == leaves(content)


def test_a_signed_part_that_is_fit_holds_up_nothing():
    part = b"--y\r\n\r\nplain\r\n--y\r\n\r\nsig\r\n--y--\r\n"
    content = (
        HEAD
        + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n%b\r\n--x\r\n" % UTF8
        + b"Content-Type: multipart/signed; boundary=y\r\n\r\n%b\r\n--x--\r\n" % part
    )
    assert part in seven(content)


def test_raw_8bit_bytes_in_a_header_stay():
    content = b"Subject: \xe4\r\n\r\nplain\r\n"
    assert seven(content) is content
    assert seven(b"Subject: \xe4\r\n\r\n" + UTF8).startswith(b"Subject: \xe4\r\n")


def test_bare_lfs_in_a_header_become_crlf():
    made = lines(b"Subject: x\nTo: a\r\n\r\nplain\r\n")
    assert made == b"Subject: x\r\nTo: a\r\n\r\nplain\r\n"


# --- what is refused


@pytest.mark.parametrize(
    "content",
    [
        b"Content-Type: message/partial\r\n\r\n\xe4\r\n",
        b"Content-Transfer-Encoding: x-uuencode\r\n\r\n\xe4\r\n",
        b"Subject: a\rb\r\n\r\nplain\r\n",
        b"Subject: a\0b\r\n\r\nplain\r\n",
        b"Content-Type: multipart/mixed; boundary=\xe4\r\n\r\n--\xe4\r\n\r\nx\r\n--\xe4--\r\n",
    ],
)
def test_what_cannot_be_made_fit_is_refused(content):
    with pytest.raises(Unconvertible):
        seven(content, may_break_signatures=True)


def test_parts_inside_parts_are_followed_only_so_deep():
    content = UTF8
    for n in range(200):
        content = b"Content-Type: multipart/mixed; boundary=b%d.\r\n\r\n--b%d.\r\n%b\r\n--b%d.--\r\n" % (
            n,
            n,
            content,
            n,
        )
    with pytest.raises(Unconvertible):
        seven(content)
    assert not has_utf8_header(content)


# --- UTF-8 headers


def test_utf8_is_found_in_every_header_and_not_in_bodies():
    assert has_utf8_header("Subject: ä\r\n\r\nx\r\n".encode())
    assert has_utf8_header(b"Content-Type: message/rfc822\r\n\r\n" + "Subject: ä\r\n\r\nx\r\n".encode())
    assert has_utf8_header(MULTIPART.replace(b"X-Same: yes", "X-Same: ä".encode()))
    assert not has_utf8_header(MULTIPART)
    assert not has_utf8_header(b"Subject: x\r\n\r\n" + UTF8)
