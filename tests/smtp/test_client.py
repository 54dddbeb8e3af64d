"""The client's dialogue as values: no socket."""

import pytest

from posthof_crds.engine import TLSLevel
from posthof_pod.model import Body, Envelope, Notify, Reason, Recipient, Status
from posthof_pod.smtp.client import (
    Hello,
    Refused,
    Stuffer,
    Transaction,
    content_pieces,
    envelope_commands,
    introduce,
    is_sendable,
    notify_words,
    rounds,
    xtext,
)
from posthof_pod.smtp.data import dot_line
from posthof_pod.smtp.extensions import Carriage, Extensions, Need, carriage, parse_extensions
from posthof_pod.smtp.replyline import Broken, PeerReply

OK = PeerReply(250, b"2.0.0 ok")


def reply(code, text=b"2.0.0 words"):
    return PeerReply(code, text)


def play(hello, *replies):
    """The commands said, and what the dialogue returned."""
    dialogue = introduce(hello)
    said = [next(dialogue)]
    for each in replies:
        try:
            said.append(dialogue.send(each))
        except StopIteration as end:
            return [ask.command or ask.step for ask in said], end.value
    raise AssertionError(f"the dialogue wants more after {said}")


# --- greeting


def test_a_session_says_ehlo_and_knows_what_is_offered():
    said, offer = play(Hello("me.test"), reply(220), PeerReply(250, b"mx.test hello\nPIPELINING\nSIZE 1000"))
    assert said == ["banner", b"EHLO me.test\r\n"]
    assert (offer.name, offer.pipelining, offer.size) == ("mx.test", True, 1000)


def test_a_peer_that_does_not_know_ehlo_is_asked_by_helo():
    said, offer = play(Hello("me.test"), reply(220), reply(502), reply(250))
    assert said[-1] == b"HELO me.test\r\n"
    assert offer == Extensions()


@pytest.mark.parametrize(
    ("replies", "reason", "code"),
    [
        ([421], Reason.GREETING_REFUSED, 421),
        ([450], Reason.GREETING_REFUSED, 450),
        ([521], Reason.GREETING_REFUSED, 521),
        ([554], Reason.GREETING_REFUSED, 554),
        ([220, 421], Reason.EHLO_REFUSED, 421),
        ([220, 450], Reason.EHLO_REFUSED, 450),
        ([220, 550, 550], Reason.EHLO_REFUSED, 550),
        ([220, 550, 421], Reason.EHLO_REFUSED, 421),
    ],
)
def test_a_refusal_names_its_step_and_the_reply(replies, reason, code):
    with pytest.raises(Refused) as caught:
        play(Hello("me.test"), *map(reply, replies))
    assert (caught.value.reason, caught.value.code, caught.value.text) == (reason, code, f"{code} 2.0.0 words")


@pytest.mark.parametrize("replies", [[354], [220, 354], [220, 334], [220, 550, 354]])
def test_a_reply_of_the_wrong_kind_is_a_broken_peer(replies):
    with pytest.raises(Broken):
        play(Hello("me.test"), *map(reply, replies))


def test_starttls_is_followed_by_a_second_ehlo_whose_offer_counts():
    plain = PeerReply(250, b"mx\nSTARTTLS\nCHUNKING")
    said, offer = play(
        Hello("me.test", TLSLevel.MAY), reply(220), plain, reply(220), reply(220), PeerReply(250, b"mx\n8BITMIME")
    )
    assert said == ["banner", b"EHLO me.test\r\n", b"STARTTLS\r\n", "TLS handshake", b"EHLO me.test\r\n"]
    assert offer == Extensions(name="mx", eightbit=True)


def test_lmtp_says_lhlo_and_has_no_fall_back():
    said, _ = play(Hello("me.test", is_lmtp=True), reply(220), OK)
    assert said == ["banner", b"LHLO me.test\r\n"]
    with pytest.raises(Refused):
        play(Hello("me.test", is_lmtp=True), reply(220), reply(500))


# --- what is offered


def test_every_extension_is_understood_in_any_case():
    offer = parse_extensions(
        PeerReply(
            250,
            b"mx.test at your service\nPipelining\nsize 36700160\n8bitmime\nSMTPUTF8\nDSN\nCHUNKING\nBINARYMIME\n"
            b"ENHANCEDSTATUSCODES\nSTARTTLS\nAUTH PLAIN login\nAUTH=CRAM-MD5\n"
            b"LIMITS RCPTMAX=100 MAILMAX=5 RCPTDOMAINMAX=2 X=1\nX-MORE",
        )
    )
    assert offer == Extensions(
        name="mx.test",
        pipelining=True,
        eightbit=True,
        smtputf8=True,
        dsn=True,
        chunking=True,
        binary=True,
        enhanced=True,
        starttls=True,
        has_size=True,
        size=36700160,
        mechanisms=frozenset({"PLAIN", "LOGIN", "CRAM-MD5"}),
        rcpt_max=100,
        mail_max=5,
        rcpt_domain_max=2,
    )


def test_an_offer_that_makes_no_sense_offers_nothing():
    offer = parse_extensions(PeerReply(250, b"\n\nSIZE x\nLIMITS RCPTMAX=-1 MAILMAX\n \nSIZE\nAUTH\n\xff"))
    assert (offer.size, offer.rcpt_max, offer.mail_max, offer.mechanisms) == (0, 0, 0, frozenset())


NO, YES = False, True


@pytest.mark.parametrize(
    ("eightbit", "chunking", "binary", "body", "has_binary", "is_ascii", "expected"),
    [
        (NO, NO, NO, Body.SEVENBIT, NO, YES, Carriage(NO, b"", Need.NOTHING)),
        (NO, NO, NO, Body.EIGHTBIT, NO, YES, Carriage(NO, b"", Need.NOTHING)),
        (NO, NO, NO, Body.SEVENBIT, NO, NO, Carriage(NO, b"", Need.SEVENBIT)),
        (YES, NO, NO, Body.SEVENBIT, NO, NO, Carriage(NO, b" BODY=8BITMIME", Need.NOTHING)),
        (YES, NO, NO, Body.EIGHTBIT, NO, YES, Carriage(NO, b" BODY=8BITMIME", Need.NOTHING)),
        (YES, YES, NO, Body.SEVENBIT, NO, YES, Carriage(YES, b"", Need.NOTHING)),
        (YES, YES, YES, Body.BINARY, NO, YES, Carriage(YES, b" BODY=BINARYMIME", Need.NOTHING)),
        (YES, YES, YES, Body.SEVENBIT, YES, YES, Carriage(YES, b" BODY=BINARYMIME", Need.NOTHING)),
        (YES, YES, NO, Body.BINARY, NO, YES, Carriage(YES, b"", Need.LINES)),
        (YES, YES, NO, Body.SEVENBIT, YES, YES, Carriage(YES, b"", Need.NOTHING)),
        (YES, YES, NO, Body.SEVENBIT, YES, NO, Carriage(YES, b" BODY=8BITMIME", Need.NOTHING)),
        (NO, YES, NO, Body.SEVENBIT, YES, NO, Carriage(YES, b"", Need.SEVENBIT)),
        (YES, NO, NO, Body.SEVENBIT, YES, YES, Carriage(NO, b"", Need.LINES)),
        (NO, NO, YES, Body.BINARY, YES, NO, Carriage(NO, b"", Need.SEVENBIT)),
    ],
)
def test_how_a_content_travels(eightbit, chunking, binary, body, has_binary, is_ascii, expected):
    offer = Extensions(eightbit=eightbit, chunking=chunking, binary=binary)
    assert carriage(offer, body, has_binary=has_binary, is_ascii=is_ascii) == expected


# --- commands


def envelope(*addresses, **given):
    return Envelope("l-1", given.pop("sender", "a@b.test"), tuple(map(Recipient, addresses)), 0.0, 10, **given)


def test_commands_carry_what_the_peer_offers_and_nothing_else():
    mail = envelope("x@y.test", "ü@y.test", ret="FULL", envid="e")
    bare = envelope_commands(mail, (0, 1), Extensions(), size=5, parameter=b"", smtputf8=False)
    assert bare == [b"MAIL FROM:<a@b.test>\r\n", b"RCPT TO:<x@y.test>\r\n", "RCPT TO:<ü@y.test>\r\n".encode()]
    offer = Extensions(has_size=True, dsn=True)
    [full, _] = envelope_commands(mail, (0,), offer, size=5, parameter=b" BODY=8BITMIME", smtputf8=True)
    assert full == b"MAIL FROM:<a@b.test> SIZE=5 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=e\r\n"


def test_xtext_and_notify_are_as_rfc_3461_wants_them():
    assert xtext("a+b=c d") == "a+2Bb+3Dc+20d"
    assert xtext("\r\n") == "+0D+0A"
    assert notify_words(Notify.NEVER) == "NEVER"
    assert notify_words(Notify.SUCCESS | Notify.FAILURE | Notify.DELAY) == "SUCCESS,FAILURE,DELAY"


@pytest.mark.parametrize("address", ["a\r\nb", "a\nb", "a\0b", "\x7f", "a\tb"])
def test_no_control_character_is_sendable(address):
    assert not is_sendable(address)


@pytest.mark.parametrize("address", ["", "a@b.test", '"a b"@c.test', "ü@ö.test", "a\u200bb@c.test"])
def test_what_cannot_end_a_line_is_sendable(address):
    assert is_sendable(address)


def test_rounds_keep_to_the_limits_and_the_order():
    mail = envelope("a@x.test", "b@x.test", "c@y.test", "d@x.test", "e@z.test")
    everyone = (0, 1, 2, 3, 4)
    assert rounds(mail, everyone, Extensions()) == [everyone]
    assert rounds(mail, everyone, Extensions(rcpt_max=2)) == [(0, 1), (2, 3), (4,)]
    assert rounds(mail, everyone, Extensions(rcpt_domain_max=1)) == [(0, 1), (2,), (3,), (4,)]
    assert rounds(mail, everyone, Extensions(rcpt_max=3, rcpt_domain_max=2)) == [(0, 1, 2), (3, 4)]


# --- verdicts


def transaction(count=2, **given):
    return Transaction(tuple(range(count)), "mx", dsn=given.pop("dsn", False), **given)


def statuses(made):
    return [outcome and outcome.status for outcome in made.outcomes]


def test_a_final_yes_is_the_verdict_of_those_whose_rcpt_was_accepted():
    made = transaction(3, dsn=True)
    made.read_envelope([OK, OK, reply(550), OK])
    made.read_final([PeerReply(250, b"2.0.0 queued")], is_lmtp=False)
    assert statuses(made) == [Status.RELAYED, Status.FAILED, Status.RELAYED]
    assert [o.dsn_relayed for o in made.outcomes] == [True, False, True]
    assert made.is_taken


def test_replies_that_came_before_the_end_count():
    made = transaction(3)
    made.read_envelope([OK, reply(550), OK])
    made.fail(Status.DEFERRED, Reason.PEER_CLOSED, "4.4.2", "gone")
    assert statuses(made) == [Status.FAILED, Status.DEFERRED, Status.DEFERRED]


@pytest.mark.parametrize("codes", [[354], [250, 354], [250, 250, 354]])
def test_a_3xx_to_mail_or_rcpt_is_a_broken_peer(codes):
    with pytest.raises(Broken):
        transaction().read_envelope([reply(code) for code in codes])


def test_a_421_is_the_verdict_of_everyone_without_one():
    made = transaction(3)
    made.read_envelope([OK, reply(550), OK, reply(421)])
    assert statuses(made) == [Status.FAILED, Status.DEFERRED, Status.DEFERRED]
    assert [o.code for o in made.outcomes] == [550, 421, 421]
    assert made.goodbye is not None


def test_a_second_content_reply_or_a_250_to_data_is_no_yes():
    made = transaction(1)
    made.read_envelope([OK, OK])
    with pytest.raises(Broken):
        made.read_data(OK)
    with pytest.raises(Broken):
        made.read_final([reply(354)], is_lmtp=False)
    assert not made.is_taken


def test_too_many_recipients_is_told_from_a_full_mailbox():
    made = transaction(5)
    made.read_envelope(
        [OK, reply(452, b"4.5.3 first"), OK, reply(452, b"4.2.2 mailbox full"), reply(452, b"Too many"), OK]
    )
    assert made.later == [3]
    assert statuses(made)[0] is Status.DEFERRED


def test_lmtp_verdicts_go_to_the_accepted_recipients_in_order():
    made = transaction(4)
    made.read_envelope([OK, OK, reply(550), OK, OK])
    made.read_final([OK, reply(452)], is_lmtp=True)
    assert statuses(made) == [Status.DELIVERED, Status.FAILED, Status.DEFERRED, None]


# --- content


@pytest.mark.parametrize(
    ("trace", "body", "wire"),
    [
        (b"", b"", b".\r\n"),
        (b"T: x\r\n", b"", b"T: x\r\n.\r\n"),
        (b"T: x\r\n", b".", b"T: x\r\n..\r\n.\r\n"),
        (b"", b".\r\n", b"..\r\n.\r\n"),
        (b"", b"a\r\n.\r\n..b", b"a\r\n..\r\n...b\r\n.\r\n"),
        (b"", b"\r\n", b"\r\n.\r\n"),
        (b"x", b".y\r\n", b"x.y\r\n.\r\n"),
        (b".x\r\n", b"\n", b"..x\r\n\n\r\n.\r\n"),
        (b"x\r", b"\n", b"x\r\n.\r\n"),
    ],
)
def test_dots_are_doubled_and_the_end_stands_on_its_own_line(trace, body, wire):
    assert b"".join(content_pieces(trace, body)) == wire
    stuffer = Stuffer()
    assert b"".join([stuffer.stuff(trace), stuffer.stuff(body), stuffer.end]) == wire


@pytest.mark.parametrize("body", [b"", b".", b"a.b\r\n", b"\n.", b"a\r\n.b\r\n", b"a\r\nb.\r\n", b".\r\n.\r\n"])
@pytest.mark.parametrize("before", [b"", b"x." * 50, b"x" * 5000, b"1.2.3.\r\n" * 2000])
def test_a_line_that_begins_with_a_dot_is_found_among_few_and_many_dots(before: bytes, body: bytes):
    content = before + body
    found = content.find(b"\n.")
    assert dot_line(content, 0, len(content)) == (found + 1 if found >= 0 else -1)
    assert dot_line(b"\n." + content + b"\n.", 2, 2 + len(content)) == (found + 3 if found >= 0 else -1)
