"""A session with a peer that behaves, or says no."""

import asyncio
import contextlib
import socket

import msgspec
import pytest
import uvloop

from kit.peer import CLOSE, DEFAULT, FULL, SILENCE, Peer, Say
from kit.session import BODY, TIMES, TRACE, Reader, connect, destination, host, mail
from posthof_crds.engine import Timeouts
from posthof_pod.deliver.connection import Connection, Unreachable
from posthof_pod.model import Body, Host, Notify, Reason, Recipient, Status

CHUNKING = (*FULL, "CHUNKING")
RELAYED, DEFERRED, FAILED = Status.RELAYED, Status.DEFERRED, Status.FAILED


def send(peer, *mails, **given):
    """All these messages over one session, one after the other, then QUIT."""

    async def run():
        connection = await connect(peer, **given)
        outcomes = [await connection.send(each) for each in mails]
        await connection.quit()
        return outcomes

    with peer:
        return uvloop.run(run())


def statuses(outcomes):
    return [outcome.status for outcome in outcomes]


# --- a healthy peer


def test_a_message_arrives_byte_for_byte_with_its_trace_before_it():
    peer = Peer()
    [[outcome]] = send(peer, mail(body=b"Subject: x\r\n\r\n.one\r\n..two\r\n.\r\nend\r\n"))
    assert outcome.status is RELAYED
    assert (outcome.code, outcome.enhanced, outcome.reply) == (250, "2.0.0", "250 2.0.0 queued as 1")
    assert outcome.host == f"peer.test[127.0.0.1]:{peer.port}"
    [message] = peer.messages
    assert message.content == TRACE + b"Subject: x\r\n\r\n.one\r\n..two\r\n.\r\nend\r\n"
    assert (message.sender, message.recipients) == ("from@a.test", ["to@b.test"])
    assert not peer.faults


MANNERS = {"none": (), "full": FULL, "chunking": CHUNKING, "slow chunking": ("CHUNKING",)}
DOTS = [b"", b".", b".\r\n", b"\r\n", b"\r\n.\r\n", b"no end", b".x\r\n."]
LARGE = [b"a\r\n.b" * 40_000, b"x" * 300_000, b"..\r\n" * 60_000]


@pytest.mark.parametrize("offers", MANNERS.values(), ids=MANNERS)
@pytest.mark.parametrize("body", [*DOTS, *LARGE], ids=lambda body: f"{body[:8]!r} of {len(body)}")
def test_every_content_passes_unchanged_apart_from_a_last_crlf(offers, body):
    for trace in (TRACE, b""):
        peer = Peer(offers=offers)
        [[outcome]] = send(peer, mail(body=body, trace=trace))
        assert outcome.status is RELAYED
        [message] = peer.messages
        content = trace + body
        if message.by == "DATA" and content and not content.endswith(b"\r\n"):
            content += b"\r\n"
        assert message.content == content


def test_one_session_takes_many_messages_and_counts_them():
    async def run():
        connection = await connect(peer)
        for n in range(5):
            [outcome] = await connection.send(mail(body=b"%d\r\n" % n))
            assert outcome.status is RELAYED
            assert connection.is_usable
            assert connection.messages == n + 1
        await connection.quit()
        assert not connection.is_usable

    with Peer() as peer:
        uvloop.run(run())
        peer.wait(lambda peer: b"QUIT" in peer.transcript)
        assert len(peer.sessions) == 1


def test_mail_rcpt_and_data_go_out_in_one_write_and_a_small_bdat_message_whole():
    for offers, pieces in ((FULL, 3), (CHUNKING, 2)):
        with Peer(offers=offers) as peer:

            async def run(peer=peer):
                connection = await connect(peer)
                await connection.send(mail("a@b.test", "c@d.test"))
                connection.abort()

            uvloop.run(run())
            assert peer.sessions[0].reads <= pieces  # EHLO; envelope (and content); content


def test_a_session_greets_with_the_name_of_the_egress_and_falls_back_to_helo():
    peer = Peer({"EHLO": "502 5.5.1 what?"})
    [[outcome]] = send(peer, mail(), destination=destination(helo="out.a.test"))
    assert outcome.status is RELAYED
    assert peer.transcript[:2] == [b"EHLO out.a.test", b"HELO out.a.test"]
    assert peer.said("MAIL") == [b"MAIL FROM:<from@a.test>"]


def test_a_session_leaves_from_the_egress_address_or_the_one_that_is_given():
    peer = Peer()
    send(peer, mail(), destination=destination(ipv4="127.0.0.3"))
    assert peer.sessions[0].client[0] == "127.0.0.3"
    peer = Peer()
    send(peer, mail(), destination=destination(ipv4="127.0.0.3"), local_address="127.0.0.4")
    assert peer.sessions[0].client[0] == "127.0.0.4"


def test_the_null_sender_and_the_bare_postmaster_are_said_as_they_are():
    peer = Peer()
    send(peer, mail("postmaster", sender=""))
    assert peer.said("MAIL")[0].startswith(b"MAIL FROM:<>")
    assert peer.said("RCPT") == [b"RCPT TO:<postmaster>"]


# --- a content that is read


@pytest.mark.parametrize("offers", MANNERS.values(), ids=MANNERS)
def test_a_reader_is_streamed_with_dots_doubled_across_its_chunks(offers):
    chunks = (b"Subject: x\r\n\r\n", b".a\r\n", b".", b".b\r", b"\n", b".c\r\n", b"y" * 200_000, b"\r\n.")
    chunks += (b"z" * 300_000, b"\r\n")
    peer = Peer(offers=offers)
    [[outcome]] = send(peer, mail(body=Reader(*chunks)))
    assert outcome.status is RELAYED
    assert peer.messages[0].content == TRACE + b"".join(chunks)


@pytest.mark.parametrize("offers", [FULL, CHUNKING])
def test_a_reader_that_fails_ends_the_session_without_the_dot(offers):
    async def run():
        connection = await connect(peer)
        with pytest.raises(ValueError, match="damaged"):
            await connection.send(mail(body=Reader(b"x" * 400_000, error=ValueError("damaged"))))
        assert not connection.is_usable

    with Peer(offers=offers) as peer:
        uvloop.run(run())
    assert peer.messages == []


# --- verdicts per recipient


def test_every_recipient_has_the_reply_to_its_own_rcpt():
    peer = Peer({"RCPT": ["250 2.1.5 yes", "450 4.2.1 later", "550-5.1.1 nobody\n550 5.1.1 here", "250 2.1.5 yes"]})
    [outcomes] = send(peer, mail("a@x.test", "b@x.test", "c@x.test", "d@x.test"))
    assert [o.recipient for o in outcomes] == [0, 1, 2, 3]
    assert statuses(outcomes) == [RELAYED, DEFERRED, FAILED, RELAYED]
    assert [o.code for o in outcomes] == [250, 450, 550, 250]
    assert outcomes[2].reply == "550 5.1.1 nobody 5.1.1 here"
    assert outcomes[2].reason is Reason.RECIPIENT_REFUSED
    assert peer.messages[0].recipients == ["a@x.test", "d@x.test"]


def test_only_some_recipients_of_the_envelope_may_be_on_this_session():
    peer = Peer()
    outgoing = mail("a@x.test", "b@x.test", "c@x.test")._replace(recipients=(2, 0))
    [outcomes] = send(peer, outgoing)
    assert [o.recipient for o in outcomes] == [2, 0]
    assert peer.messages[0].recipients == ["c@x.test", "a@x.test"]


def test_a_552_to_rcpt_is_a_452():
    peer = Peer({"RCPT": "552 5.2.2 full"})
    [[outcome]] = send(peer, mail())
    assert (outcome.status, outcome.code, outcome.enhanced) == (DEFERRED, 552, "4.2.2")


@pytest.mark.parametrize("offers", [(), FULL, CHUNKING])
def test_recipients_beyond_what_the_peer_takes_at_once_go_in_the_next_transaction(offers):
    replies = ["250 ok", "250 ok", "452 4.5.3 too many recipients", "552 too many", "250 ok"]
    peer = Peer({"RCPT": replies}, offers=offers)
    [outcomes] = send(peer, mail("a@x.test", "b@x.test", "c@x.test", "d@x.test"))
    assert statuses(outcomes) == [RELAYED] * 4
    assert [m.recipients for m in peer.messages] == [["a@x.test", "b@x.test"], ["c@x.test", "d@x.test"]]
    assert len(peer.sessions) == 1


def test_a_peer_that_always_says_too_many_is_not_asked_for_ever():
    peer = Peer({"RCPT": "452 4.5.3 too many recipients"})
    [outcomes] = send(peer, mail("a@x.test", "b@x.test"))
    assert statuses(outcomes) == [DEFERRED, DEFERRED]
    assert len(peer.said("MAIL")) == 1


@pytest.mark.parametrize("offers", [(), FULL, CHUNKING])
def test_after_a_refused_envelope_the_session_is_reset_and_goes_on(offers):
    peer = Peer({"RCPT": ["550 5.1.1 nobody", "250 ok"]}, offers=offers)
    first, second = send(peer, mail(), mail("other@b.test"))
    assert statuses(first) == [FAILED]
    assert statuses(second) == [RELAYED]
    assert peer.said("RSET") == [b"RSET"]
    assert len(peer.sessions) == 1
    assert not peer.faults


def test_a_large_content_whose_recipients_are_refused_is_not_sent_and_the_session_is_reset():
    for offers in (FULL, CHUNKING):
        peer = Peer({"RCPT": ["550 5.1.1 nobody", "250 ok"]}, offers=offers)
        first, second = send(peer, mail(body=b"x" * 300_000), mail())
        assert (statuses(first), statuses(second)) == ([FAILED], [RELAYED])
        assert not peer.faults
        assert sum(len(message.content) for message in peer.messages) < 1000


def test_a_refused_sender_is_the_verdict_of_all_and_needs_no_reset():
    peer = Peer({"MAIL": ["550 5.7.1 not you", DEFAULT]})
    first, second = send(peer, mail("a@x.test", "b@x.test"), mail())
    assert statuses(first) == [FAILED, FAILED]
    assert {o.reason for o in first} == {Reason.SENDER_REFUSED}
    assert statuses(second) == [RELAYED]
    assert not peer.said("RSET")


def test_a_peer_that_wants_a_content_for_nobody_gets_a_dot():
    peer = Peer({"RCPT": ["550 5.1.1 no", "250 ok"], "NODATA": b"354 go\r\n"})
    with peer:

        async def run():
            connection = await connect(peer)
            first = await connection.send(mail())
            connection.abort()
            return first

        outcomes = uvloop.run(in_time(run()))
    assert statuses(outcomes) == [FAILED]
    assert b"." in peer.transcript
    assert peer.messages == []


async def in_time(coroutine):
    return await asyncio.wait_for(coroutine, 20)


def test_a_refused_data_is_the_verdict_of_the_accepted_recipients():
    peer = Peer({"RCPT": ["550 5.1.1 no", "250 ok"], "DATA": ["451 4.3.0 later", DEFAULT]})
    first, second = send(peer, mail("a@x.test", "b@x.test"), mail())
    assert statuses(first) == [FAILED, DEFERRED]
    assert first[1].reason is Reason.DATA_REFUSED
    assert statuses(second) == [RELAYED]


@pytest.mark.parametrize("offers", [FULL, CHUNKING])
def test_a_refused_content_leaves_the_session_in_step(offers):
    peer = Peer({"DOT": ["554 5.7.1 spam", DEFAULT], "LAST": ["554 5.7.1 spam", DEFAULT]}, offers=offers)
    first, second = send(peer, mail(), mail())
    assert statuses(first) == [FAILED]
    assert first[0].reason is Reason.MESSAGE_REFUSED
    assert statuses(second) == [RELAYED]


def test_a_refused_chunk_stops_the_content_and_keeps_the_session():
    peer = Peer({"BDAT": ["452 4.3.1 disk full", DEFAULT]}, offers=CHUNKING)
    first, second = send(peer, mail(body=b"x" * 900_000), mail())
    assert statuses(first) == [DEFERRED]
    assert (first[0].code, first[0].reason) == (452, Reason.DATA_REFUSED)
    assert statuses(second) == [RELAYED]
    assert len(peer.messages) == 1


def test_a_refusal_in_the_middle_of_data_is_the_verdict_and_no_dot_follows():
    peer = Peer({"BODY": Say("552 5.3.4 too big", CLOSE)})
    [[outcome]] = send(peer, mail(body=Reader(*[b"x" * 65536] * 400)))
    assert peer.messages == []
    assert (outcome.status, outcome.code) in {(FAILED, 552), (DEFERRED, 0)}  # the reply may die with the connection


# --- extensions


def test_limits_split_the_recipients_and_end_the_session_in_time():
    async def run():
        connection = await connect(peer)
        outcomes = await connection.send(mail("a@x.test", "b@x.test", "c@x.test", "d@x.test", "e@x.test"))
        assert not connection.is_usable
        await connection.quit()
        return outcomes

    with Peer(offers=(*FULL, "LIMITS RCPTMAX=2 MAILMAX=2")) as peer:
        outcomes = uvloop.run(run())
    assert [m.recipients for m in peer.messages] == [["a@x.test", "b@x.test"], ["c@x.test", "d@x.test"]]
    assert statuses(outcomes) == [RELAYED] * 4 + [DEFERRED]
    assert outcomes[4].reason is Reason.SITE_LIMIT


def test_the_size_is_announced_and_a_message_too_large_never_leaves():
    peer = Peer(offers=("SIZE 1000",))
    small, large = send(peer, mail(), mail(body=b"x" * 1000))
    assert statuses(small) == [RELAYED]
    assert peer.said("MAIL") == [b"MAIL FROM:<from@a.test> SIZE=%d" % len(TRACE + BODY)]
    assert (large[0].status, large[0].enhanced, large[0].code) == (FAILED, "5.3.4", 0)


def test_dsn_parameters_are_passed_on_where_dsn_is_offered():
    to = (
        Recipient("a@x.test", notify=Notify.SUCCESS | Notify.FAILURE, orcpt="rfc822;a+b=c@x.test"),
        Recipient("b@x.test", notify=Notify.NEVER),
        Recipient("c@x.test"),
        Recipient("d@x.test", orcpt="utf-8;dä@x.test"),
    )
    peer = Peer()
    [outcomes] = send(peer, mail(*to, ret="HDRS", envid="id+1 x"))
    assert peer.said("MAIL")[0].endswith(b" RET=HDRS ENVID=id+2B1+20x")
    assert peer.said("RCPT") == [
        b"RCPT TO:<a@x.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2Bb+3Dc@x.test",
        b"RCPT TO:<b@x.test> NOTIFY=NEVER",
        b"RCPT TO:<c@x.test>",
        b"RCPT TO:<d@x.test> ORCPT=utf-8;d\\x{E4}@x.test",
    ]
    assert all(o.dsn_relayed for o in outcomes)
    peer = Peer(offers=("PIPELINING",))
    [outcomes] = send(peer, mail(*to, ret="HDRS", envid="id"))
    assert peer.said("MAIL") == [b"MAIL FROM:<from@a.test>"]
    assert peer.said("RCPT")[0] == b"RCPT TO:<a@x.test>"
    assert not any(o.dsn_relayed for o in outcomes)


def test_a_peer_with_smtputf8_gets_utf8_addresses_and_headers():
    peer = Peer()
    [[outcome]] = send(peer, mail("dä@x.test", sender="ä@a.test", smtputf8=True, body="Subject: ä\r\n\r\n".encode()))
    assert outcome.status is RELAYED
    assert b"SMTPUTF8" in peer.said("MAIL")[0]
    assert peer.messages[0].recipients == ["dä@x.test"]


def test_a_peer_without_smtputf8_refuses_utf8_before_mail_and_takes_the_rest():
    without = ("PIPELINING", "8BITMIME")
    utf8_header = "Subject: ä\r\n\r\n".encode()
    peer = Peer(offers=without)
    addresses, sender, header, plain, nested = send(
        peer,
        mail("dä@x.test", "b@x.test", smtputf8=True),
        mail("a@x.test", sender="ä@a.test", smtputf8=True),
        mail("a@x.test", smtputf8=True, body=utf8_header),
        mail("a@x.test", smtputf8=True, body="Subject: a\r\n\r\nä\r\n".encode()),
        mail("a@x.test", smtputf8=True, body=b"Content-Type: message/rfc822\r\n\r\n" + utf8_header),
    )
    assert [(o.status, o.enhanced) for o in addresses] == [(FAILED, "5.6.7"), (RELAYED, "2.0.0")]
    assert [(o.status, o.enhanced) for o in sender] == [(FAILED, "5.6.7")]
    assert [(o.status, o.enhanced) for o in header] == [(FAILED, "5.6.9")]
    assert [(o.status, o.enhanced) for o in plain] == [(RELAYED, "2.0.0")]
    assert [(o.status, o.enhanced) for o in nested] == [(FAILED, "5.6.9")]
    assert not any(b"SMTPUTF8" in line for line in peer.said("MAIL"))


def test_an_address_with_a_control_character_never_reaches_the_wire():
    peer = Peer()
    rcpt, sender = send(peer, mail("a@x.test", "b>\r\nRCPT TO:<c@x.test"), mail(sender="x\r\nQUIT"))
    assert [(o.status, o.enhanced) for o in rcpt] == [(RELAYED, "2.0.0"), (FAILED, "5.1.3")]
    assert [(o.status, o.enhanced) for o in sender] == [(FAILED, "5.1.7")]
    assert len(peer.said("RCPT")) == 1


MIME = b"Subject: x\r\nMIME-Version: 1.0\r\n"
EIGHTBIT = MIME + "Content-Type: text/plain; charset=utf-8\r\n\r\nGrüße an alle hier\r\n".encode()


def test_8bit_content_passes_to_8bitmime_and_is_converted_otherwise():
    peer = Peer()
    send(peer, mail(body=EIGHTBIT))
    assert b"BODY=8BITMIME" in peer.said("MAIL")[0]
    assert peer.messages[0].content == TRACE + EIGHTBIT
    peer = Peer(offers=("PIPELINING",))
    send(peer, mail(body=EIGHTBIT), mail(body=Reader(EIGHTBIT[:90], EIGHTBIT[90:])))
    assert peer.said("MAIL")[0] == b"MAIL FROM:<from@a.test>"
    for message in peer.messages:
        assert message.content.isascii()
        assert (
            b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe an alle hier\r\n" in message.content
        )


BINARY = MIME + b"Content-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\na\nb\rc\0\r\n.\n"


def test_binary_content_leaves_by_bdat_and_is_reencoded_for_others():
    for offers, declared, by, is_same in (
        ((*CHUNKING, "BINARYMIME"), Body.BINARY, "BDAT", True),
        ((*CHUNKING, "BINARYMIME"), Body.EIGHTBIT, "BDAT", True),
        (CHUNKING, Body.EIGHTBIT, "BDAT", True),
        (CHUNKING, Body.BINARY, "BDAT", False),
        (FULL, Body.EIGHTBIT, "DATA", False),
        ((), Body.BINARY, "DATA", False),
    ):
        peer = Peer(offers=offers)
        outgoing = mail(body=BINARY, has_binary=True)
        outgoing = outgoing._replace(envelope=with_body(outgoing.envelope, declared))
        [[outcome]] = send(peer, outgoing)
        assert outcome.status is RELAYED, outcome
        [message] = peer.messages
        assert message.by == by
        assert (message.content == TRACE + BINARY) is is_same
        assert (b"BODY=BINARYMIME" in message.mail_line) is ("BINARYMIME" in offers)
        if not is_same:
            assert b"Content-Transfer-Encoding: base64" in message.content
            assert b"\0" not in message.content


def with_body(envelope, body):
    return msgspec.structs.replace(envelope, body=int(body))


def test_what_cannot_be_converted_is_returned_with_5_6_3():
    peer = Peer(offers=())
    [[outcome]] = send(peer, mail(body=b"Content-Type: message/partial\r\n\r\n\xe4\r\n"))
    assert (outcome.status, outcome.enhanced, outcome.reason) == (FAILED, "5.6.3", Reason.CONVERSION_FAILED)
    assert not peer.said("MAIL")


# --- LMTP


def test_lmtp_gives_each_recipient_its_own_reply_after_the_dot(tmp_path):
    for path in (None, tmp_path / "lmtp"):
        peer = Peer({"DOT": (DEFAULT, "452 4.2.2 full", "550 5.2.1 closed")}, lmtp=True, path=path)
        [outcomes] = send(peer, mail("a@x.test", "b@x.test", "c@x.test"))
        assert statuses(outcomes) == [Status.DELIVERED, DEFERRED, FAILED]
        assert outcomes[0].reply == "250 2.1.5 <a@x.test> stored"
        assert peer.transcript[0] == b"LHLO me.test"
    assert outcomes[0].host == f"peer.test[{path}]"


def test_lmtp_recipients_whose_reply_is_missing_are_uncertain_the_others_are_not():
    peer = Peer({"DOT": (DEFAULT, Say("550 5.2.1 closed", CLOSE), DEFAULT)}, lmtp=True)
    [outcomes] = send(peer, mail("a@x.test", "b@x.test", "c@x.test"))
    assert statuses(outcomes) == [Status.DELIVERED, FAILED, Status.UNCERTAIN]


def test_lmtp_has_no_helo():
    with pytest.raises(Unreachable) as caught:
        send(Peer({"LHLO": "500 5.5.1 what"}, lmtp=True), mail())
    assert caught.value.reason is Reason.EHLO_REFUSED


# --- permit


@pytest.mark.parametrize("offers", [(), FULL, CHUNKING, ("CHUNKING",)])
@pytest.mark.parametrize("size", [10, 500_000])
@pytest.mark.parametrize("is_async", [False, True])
def test_without_a_permit_no_dot_is_sent_and_the_session_is_dropped(offers, size, is_async):
    async def later():
        await asyncio.sleep(0.01)
        return False

    peer = Peer(offers=offers)
    [[outcome]] = send(peer, mail(body=b"x" * size, permit=later if is_async else lambda: False))
    assert (outcome.status, outcome.reason) == (DEFERRED, Reason.NOT_PERMITTED)
    assert peer.messages == []


def test_the_permit_is_asked_when_only_the_dot_is_missing():
    asked = []

    def permit():
        asked.append((len(peer.said("RCPT")), len(peer.messages)))
        return True

    peer = Peer()
    [[outcome]] = send(peer, mail(permit=permit))
    assert outcome.status is RELAYED
    assert asked == [(1, 0)]


def test_a_peer_lost_while_the_permit_was_awaited_gets_no_dot():
    async def run():
        connection = await connect(peer)
        closed = asyncio.Event()
        connection.on_close(closed.set)

        async def permit():
            peer.sessions[0].kill()
            return await closed.wait()

        return await connection.send(mail(permit=permit))

    with Peer() as peer:
        [outcome] = uvloop.run(run())
    assert (outcome.status, outcome.reason) == (DEFERRED, Reason.PEER_CLOSED)


# --- the message behind


def run_behind(peer, mails):
    async def run():
        connection = await connect(peer)
        outcomes = []
        for n, each in enumerate(mails):
            if not connection.is_usable:
                break
            outcomes.append(await connection.send(each, mails[n + 1] if n + 1 < len(mails) else None))
        await connection.quit()
        return outcomes

    with peer:
        return uvloop.run(in_time(run()))


@pytest.mark.parametrize("offers", [(), FULL, CHUNKING])
def test_messages_known_ahead_arrive_one_by_one_in_order(offers):
    peer = Peer(offers=offers)
    bodies = [b"%d\r\n" % n for n in range(6)] + [b"x" * 400_000 + b"\r\n", b"last\r\n"]
    outcomes = run_behind(peer, [mail(body=body) for body in bodies])
    assert [o.status for [o] in outcomes] == [RELAYED] * 8
    assert [m.content for m in peer.messages] == [TRACE + body for body in bodies]
    assert not peer.faults


def test_a_message_known_ahead_saves_a_round_trip():
    """The peer answers what it reads at once: DATA of the next message came with the dot of the one before."""
    peer = Peer()
    run_behind(peer, [mail() for _ in range(10)])
    assert peer.sessions[0].reads <= 13  # EHLO, first envelope, ten contents with an envelope behind, QUIT


def test_a_refused_message_does_not_touch_the_one_behind():
    peer = Peer({"DOT": ["554 5.7.1 spam", DEFAULT], "RCPT": ["250 ok", "250 ok", "550 5.1.1 nobody", "250 ok"]})
    outcomes = run_behind(peer, [mail() for _ in range(4)])
    assert [o.status for [o] in outcomes] == [FAILED, RELAYED, FAILED, RELAYED]
    assert len(peer.sessions) == 1


def test_behind_a_bdat_that_may_fail_stands_a_reset():
    """After a failed BDAT only RSET brings a strict peer back into step (RFC 3030 section 2)."""
    peer = Peer({"LAST": ["554 5.7.1 spam", DEFAULT]}, offers=CHUNKING)
    first, second = run_behind(peer, [mail(body=b"x" * 300_000), mail()])
    assert (first[0].status, second[0].status) == (FAILED, RELAYED)
    words = [line.split(b" ")[0] for line in peer.transcript if line[:4] in {b"MAIL", b"RSET"}]
    assert words == [b"MAIL", b"RSET", b"MAIL"]


def test_of_a_message_behind_a_421_nothing_is_promised():
    peer = Peer({"DOT": Say("421 4.3.2 closing", CLOSE)})
    outcomes = run_behind(peer, [mail(), mail()])
    assert [o.status for [o] in outcomes] == [DEFERRED]

    async def run():
        connection = await connect(peer)
        mails = [mail(), mail()]
        return [await connection.send(mails[0], mails[1]), await connection.send(mails[1])]

    with Peer({"DOT": Say("421 4.3.2 closing", CLOSE)}) as peer:
        first, second = uvloop.run(run())
    assert (first[0].status, first[0].code) == (DEFERRED, 421)
    assert second[0].status is DEFERRED
    assert len(peer.messages) == 1


def test_a_503_behind_a_refused_message_is_a_peer_out_of_step_and_no_verdict():
    peer = Peer({"DOT": "554 5.7.1 spam", "MAIL": [DEFAULT, "503 5.5.1 bad sequence"]})
    first, second = run_behind(peer, [mail(), mail()])
    assert first[0].status is FAILED
    assert (second[0].status, second[0].reason) == (DEFERRED, Reason.PEER_BROKEN)


def test_another_message_than_the_one_announced_ends_the_session():
    async def run():
        connection = await connect(peer)
        await connection.send(mail(), mail("announced@x.test"))
        outcomes = await connection.send(mail("other@x.test"))
        assert not connection.is_usable
        return outcomes

    with Peer() as peer:
        [outcome] = uvloop.run(run())
    assert (outcome.status, outcome.reason) == (DEFERRED, Reason.INTERNAL)
    assert len(peer.messages) == 1


def test_a_session_with_a_message_begun_is_aborted_and_not_quit():
    async def run():
        connection = await connect(peer)
        await connection.send(mail(), mail())
        await connection.quit()

    with Peer() as peer:
        uvloop.run(run())
    assert len(peer.messages) == 1
    assert not peer.said("QUIT")


# --- a callout


def test_a_session_can_ask_for_a_recipient_and_send_nothing():
    async def run():
        connection = await connect(peer)
        assert (await connection.command(b"MAIL FROM:<>")).code == 250
        reply = await connection.command(b"RCPT TO:<x@b.test>")
        assert (reply.code, reply.enhanced) == (550, "5.1.1")
        with pytest.raises(ValueError, match="one line"):
            await connection.command(b"RCPT TO:<x@b.test>\r\nDATA")
        await connection.quit()

    with Peer({"RCPT": "550 5.1.1 nobody"}) as peer:
        uvloop.run(run())
    assert peer.messages == []


def test_a_callout_whose_peer_goes_away_says_so():
    async def run():
        connection = await connect(peer)
        for _ in range(2):
            with pytest.raises(Unreachable) as caught:
                await connection.command(b"MAIL FROM:<>")
            assert caught.value.reason is Reason.PEER_CLOSED

    with Peer({"MAIL": CLOSE}) as peer:
        uvloop.run(run())


# --- an idle session


@pytest.mark.parametrize("words", [CLOSE, Say("421 4.4.2 idle too long", CLOSE), Say("250 what", CLOSE)])
def test_an_idle_peer_that_closes_is_noticed(words):
    async def run():
        connection = await connect(peer)
        closed = asyncio.Event()
        connection.on_close(closed.set)
        assert (await connection.send(mail()))[0].status is RELAYED
        await asyncio.wait_for(closed.wait(), 20)
        assert not connection.is_usable
        [outcome] = await connection.send(mail())
        assert outcome.status is DEFERRED

    with Peer({"DOT": Say("250 2.0.0 ok", words)}) as peer:
        uvloop.run(run())


def test_a_cancelled_send_drops_the_connection():
    async def run():
        connection = await connect(peer)
        task = asyncio.create_task(connection.send(mail()))
        await asyncio.to_thread(peer.wait, lambda peer: peer.said("DATA"))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert not connection.is_usable

    with Peer({"DATA": SILENCE}) as peer:
        uvloop.run(run())
    assert peer.messages == []


# --- no session


def test_a_closed_port_is_connect_failed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unreachable) as caught:
        uvloop.run(Connection.open(Host("x", "127.0.0.1", port), destination(), hostname="me.test", timeouts=TIMES))
    failure = caught.value
    assert (failure.reason, failure.code, failure.enhanced) == (Reason.CONNECT_FAILED, 0, "4.4.1")
    assert "refused" in failure.reply
    assert not failure.is_permanent


def test_a_host_that_does_not_answer_is_connect_timeout():
    with socket.socket() as server, contextlib.ExitStack() as stack:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):  # a full queue of connections nobody accepts: SYNs are dropped
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        times = Timeouts(connect=0.3)
        where = Host("x", "127.0.0.1", server.getsockname()[1])
        with pytest.raises(Unreachable) as caught:
            uvloop.run(Connection.open(where, destination(), hostname="me.test", timeouts=times))
    assert caught.value.reason is Reason.CONNECT_TIMEOUT


def test_a_source_address_this_machine_lacks_is_connect_failed_and_named():
    with Peer() as peer, pytest.raises(Unreachable) as caught:
        uvloop.run(
            Connection.open(host(peer), destination(), hostname="me.test", timeouts=TIMES, local_address="192.0.2.77")
        )
    assert caught.value.reason is Reason.CONNECT_FAILED
    assert "192.0.2.77" in caught.value.reply


def test_a_missing_unix_socket_is_connect_failed(tmp_path):
    where = Host("lmtp", str(tmp_path / "none"), 0)
    with pytest.raises(Unreachable) as caught:
        uvloop.run(Connection.open(where, destination(lmtp=True), hostname="me.test", timeouts=TIMES))
    assert caught.value.reason is Reason.CONNECT_FAILED
