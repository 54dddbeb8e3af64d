"""Command lines: the usual ones by one expression, all others by the whole grammar, and both agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthof_pod.model import Body, Notify
from posthof_pod.smtp import grammar
from posthof_pod.smtp.grammar import MailParameters, Malformed

ATOM = st.text(alphabet="abcXYZ019!#$%&'*+-/=?^_`{|}~", min_size=1, max_size=12)
LABEL = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?", fullmatch=True)
ADDRESS = st.builds(
    lambda atoms, labels: ".".join(atoms) + "@" + ".".join(labels),
    st.lists(ATOM, min_size=1, max_size=3),
    st.lists(LABEL, min_size=1, max_size=3),
)


def read(line: bytes) -> tuple[str, object]:
    return grammar.parse_mail(line) if line[:4] == b"MAIL" else grammar.parse_rcpt(line)


def refusal(line: bytes) -> tuple[int, str]:
    with pytest.raises(Malformed) as caught:
        read(line)
    return caught.value.reply[:2]


@given(ADDRESS, st.sampled_from(["", " SIZE=1024", " BODY=8BITMIME", " SIZE=7 BODY=7BIT"]))
def test_the_fast_way_and_the_whole_grammar_read_mail_alike(address: str, tail: str) -> None:
    line = f"MAIL FROM:<{address}>{tail}".encode()
    assert grammar.parse_mail(line) == grammar._parse_mail_whole(line)


@given(ADDRESS)
def test_the_fast_way_and_the_whole_grammar_read_rcpt_alike(address: str) -> None:
    line = f"RCPT TO:<{address}>".encode()
    assert grammar.parse_rcpt(line) == grammar._parse_rcpt_whole(line, smtputf8=False)
    assert grammar.parse_rcpt(line)[0] == address


@given(st.binary(max_size=60))
def test_any_octets_are_read_or_refused(tail: bytes) -> None:
    for line in (b"MAIL FROM:<" + tail, b"RCPT TO:<" + tail, b"MAIL FROM:<a@b.test> " + tail):
        try:
            address = read(line)[0]
        except Malformed:
            continue
        assert not any(letter < " " or "\x7f" <= letter < "\xa0" for letter in address)


@given(st.binary(max_size=60))
def test_what_the_fast_way_takes_the_whole_grammar_takes(tail: bytes) -> None:
    line = b"MAIL FROM:<a@b" + tail
    try:
        fast = grammar.parse_mail(line)
    except Malformed:
        return
    assert fast == grammar._parse_mail_whole(line)


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("<>", ""),
        ("<a@b.test>", "a@b.test"),
        ("<@r.test:a@b.test>", "a@b.test"),
        ("<@r.test,@[192.0.2.1]:a@b.test>", "a@b.test"),
        ('<"a"@b.test>', "a@b.test"),
        ('<"a.b"@b.test>', "a.b@b.test"),
        ('<"a..b"@b.test>', '"a..b"@b.test'),
        ('<"a b"@b.test>', '"a b"@b.test'),
        ('<"a\\"b"@b.test>', '"a\\"b"@b.test'),
        ('<"a\\b"@b.test>', "ab@b.test"),
        ('<""@b.test>', '""@b.test'),
        ("<a@[192.0.2.1]>", "a@[192.0.2.1]"),
        ("<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"),
        ("<a@[tag:content]>", "a@[tag:content]"),
        ("<a@mail_server.test>", "a@mail_server.test"),
        ("<bounce+token=user=example.org@lists.example.test>", "bounce+token=user=example.org@lists.example.test"),
    ],
)
def test_paths_become_addresses(path: str, address: str) -> None:
    assert grammar.parse_mail(f"MAIL FROM:{path}".encode())[0] == address


@pytest.mark.parametrize(
    "path",
    [
        "a@b.test",
        "<a@b.test",
        "<a@b.test>>",
        "<a@b.test>x",
        "<a@@b.test>",
        "<a@b..test>",
        "<a@.test>",
        "<a@b.test.>",
        "<a@b-.test>",
        "<a.@b.test>",
        "<a..b@b.test>",
        '<"a@b.test>',
        '<a"b"@b.test>',
        "<a b@b.test>",
        "<a@[1.2.3]>",
        "<a@[IPv6:1.2.3.4]>",
        "<a@[]>",
        "<a@b(c).test>",
        "<" + "a" * 256 + "@b.test>",
        "<a@" + "b" * 64 + ".test>",
        "<a@" + "b." * 128 + "test>",
    ],
)
def test_other_paths_are_refused(path: str) -> None:
    assert refusal(f"MAIL FROM:{path}".encode())[0] == 501
    assert refusal(f"RCPT TO:{path}".encode())[0] == 501


def test_long_local_parts_of_real_senders_pass() -> None:
    address = "b" * 100 + "@example.test"
    assert grammar.parse_mail(f"MAIL FROM:<{address}>".encode())[0] == address


def test_only_postmaster_stands_without_a_domain() -> None:
    assert grammar.parse_rcpt(b"RCPT TO:<postMASTER>")[0] == "postMASTER"
    assert refusal(b"RCPT TO:<root>") == (501, "5.1.3")
    assert refusal(b"MAIL FROM:<postmaster>") == (501, "5.1.7")


def test_mail_parameters_are_read_in_any_order_and_case() -> None:
    line = b"MAIL FROM:<a@b.test> ret=full BODY=BinaryMIME SIZE=12 envid=x+2By SMTPUTF8"
    assert grammar.parse_mail(line)[1] == MailParameters(12, Body.BINARY, True, "FULL", "x+y")


@pytest.mark.parametrize(
    ("tail", "reply"),
    [
        (" SIZE=1 SIZE=1", (501, "5.5.4")),
        (" SIZE=", (501, "5.5.4")),
        (" SIZE=-1", (501, "5.5.4")),
        (" SIZE=" + "9" * 21, (501, "5.5.4")),
        (" SIZE=\u00b2 SMTPUTF8", (501, "5.5.4")),
        (" SMTPUTF8=yes", (501, "5.5.4")),
        (" =x", (501, "5.5.4")),
        (" ENVID=" + "x" * 101, (501, "5.5.4")),
        (" ENVID=a+E4", (501, "5.5.4")),
        (" AUTH=", (501, "5.5.4")),
        (" AUTH=a+zz", (501, "5.5.4")),
        (" NOTIFY=NEVER", (555, "5.5.4")),
    ],
)
def test_bad_mail_parameters_are_refused(tail: str, reply: tuple[int, str]) -> None:
    assert refusal(f"MAIL FROM:<a@b.test>{tail}".encode()) == reply


def test_dsn_parameters_of_recipients() -> None:
    _, parameters = grammar.parse_rcpt(b"RCPT TO:<a@b.test> NOTIFY=failure,delay ORCPT=RFC822;a+2Bb@c.test")
    assert parameters == (Notify.FAILURE | Notify.DELAY, "RFC822;a+b@c.test")


@pytest.mark.parametrize(
    "tail",
    [
        "NOTIFY=",
        "NOTIFY=SUCCESS,",
        "NOTIFY=SUCCESS,SUCCESS",
        "NOTIFY=NEVER,DELAY",
        "ORCPT=x",
        "ORCPT=;x",
        "ORCPT=rfc822;",
        "ORCPT=rfc822;" + "x" * 500,
        "ORCPT=rfc822;a+0a",
        "ORCPT=utf-8;\\x{D800}",
        "ORCPT=utf-8;\\x{FFFFFF}",
        "ORCPT=utf-8;\\x{0A}",
    ],
)
def test_bad_dsn_parameters_of_recipients_are_refused(tail: str) -> None:
    assert refusal(f"RCPT TO:<a@b.test> {tail}".encode()) == (501, "5.5.4")


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_xtext_decodes_what_encodes(text: str) -> None:
    encoded = "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)
    assert grammar.decode_xtext(encoded) == text


def test_non_ascii_addresses_need_smtputf8() -> None:
    line = "MAIL FROM:<älice@exämple.test>".encode()
    assert refusal(line) == (553, "5.6.7")
    assert grammar.parse_mail(line + b" SMTPUTF8")[0] == "älice@exämple.test"
    recipient = "RCPT TO:<bøb@b.test>".encode()
    assert refusal(recipient) == (553, "5.6.7")
    assert grammar.parse_rcpt(recipient, smtputf8=True)[0] == "bøb@b.test"


@pytest.mark.parametrize(
    "octets", [b"\x00", b"\x07", b"\r", b"\n", b"\x1b", b"\x7f", b"\xc2\x80", b"\xe2\x80\xa8", b"\xff"]
)
def test_control_characters_never_pass(octets: bytes) -> None:
    assert refusal(b"MAIL FROM:<a" + octets + b"@b.test> SMTPUTF8") == (500, "5.5.2")


def test_an_endless_line_of_labels_is_read_in_no_time() -> None:
    assert refusal(b"MAIL FROM:<" + b"a." * 2000)[0] == 501
    assert refusal(b"MAIL FROM:<a@" + b"b-" * 2000)[0] == 501
    assert refusal(b'MAIL FROM:<"' + b"\\a" * 2000)[0] == 501


def test_bdat_names_octets_and_whether_it_is_the_last() -> None:
    assert grammar.parse_bdat(b"BDAT 0") == (0, False)
    assert grammar.parse_bdat(b"bdat 12345  last") == (12345, True)
    for line in (b"BDAT", b"BDAT -1", b"BDAT 1 FIRST", b"BDAT 1x", b"BDAT 1\t", b"BDAT " + b"1" * 21):
        with pytest.raises(Malformed):
            grammar.parse_bdat(line)


def test_an_orcpt_of_type_rfc822_with_utf8_octets_is_taken_as_postfix_sends_it() -> None:
    _, parameters = grammar.parse_rcpt(
        "RCPT TO:<j\u00fcrgen@b.test> ORCPT=rfc822;j+C3+BCrgen@b.test".encode(), smtputf8=True
    )
    assert parameters.orcpt == "utf-8;j\u00fcrgen@b.test"
