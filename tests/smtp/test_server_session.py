"""What scripts cannot say of the server dialogue: writes, waiting, swaps, the end, and who is told."""

from __future__ import annotations

import pytest

from kit.dialogue import HOSTNAME, Desk, PlainGate, Setting, Sink, Talk, finish
from posthof_crds.engine import ListenerRole, TLSMode
from posthof_pod.replies import Reply
from posthof_pod.smtp.server import Dialogue, Request, Session, Terms

ENVELOPE = b"MAIL FROM:<alice@example.test>\r\nRCPT TO:<bob@example.test>\r\n"
SHUTDOWN = Reply(421, "4.3.2", "Shutting down")


def greeted(**settings: object) -> Talk:
    talk = Talk(Setting(**settings))  # type: ignore[arg-type]  # fields by name
    talk.say(b"EHLO client.test\r\n")
    talk.writes.clear()
    return talk


def test_a_pipelined_group_is_answered_in_one_write() -> None:
    talk = greeted()
    talk.say(ENVELOPE + b"RCPT TO:<nobody@example.test>\r\nDATA\r\n")
    assert [write.count(b"\r\n") for write in talk.writes] == [4]


def test_a_pipelined_group_that_waits_in_the_middle_is_answered_in_one_write() -> None:
    talk = greeted()
    talk.say(ENVELOPE + b"RCPT TO:<deferred@example.test>\r\nDATA\r\n")
    assert [write.count(b"\r\n") for write in talk.writes] == [4]


def test_while_it_waits_nothing_is_parsed() -> None:
    talk = greeted()
    dialogue = talk.dialogue
    assert dialogue.feed(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<deferred@example.test>\r\n") == b""
    assert dialogue.request is Request.WAIT
    assert dialogue.feed(b"DATA\r\nx\r\n") == b""
    assert dialogue.feed(b".\r\n") == b""
    assert dialogue.waiting == 12
    dialogue.resume(finish(dialogue.awaited))
    assert dialogue.request is Request.WAIT
    replies = dialogue.resume(finish(dialogue.awaited))
    assert [line[:3] for line in replies.splitlines()] == [b"250", b"250", b"354", b"250"]


def test_every_cut_of_a_session_gives_the_same_replies_and_the_same_mail() -> None:
    stream = ENVELOPE + b"DATA\r\n..x\r\n.\r\n" + ENVELOPE + b"BDAT 3\r\nabcBDAT 2 LAST\r\n\r\nDATA\r\nQUIT\r\n"
    whole = greeted()
    replies = whole.say(stream)
    for place in range(1, len(stream)):
        talk = greeted()
        assert talk.say(stream[:place]) + talk.say(stream[place:]) == replies
        assert talk.gate.mails == whole.gate.mails
        assert talk.is_closed


@pytest.mark.parametrize("newline", [b"\n", b"\r", b"\r\n", b"\n\r", b"\r\r\n", b"\n\n"])
@pytest.mark.parametrize("other", [b"\n", b"\r", b"\r\n", b"\n\r", b"\r\r\n"])
def test_only_the_exact_end_ends_data_at_every_cut(newline: bytes, other: bytes) -> None:
    stream = b"x" + newline + b"." + other + b"MAIL FROM:<evil@example.test>\r\n.\r\n"
    is_exact = (newline[-2:], other[:2]) == (b"\r\n", b"\r\n")
    for place in range(1, len(stream)):
        talk = greeted()
        talk.say(ENVELOPE + b"DATA\r\n")
        said = talk.say(stream[:place]) + talk.say(stream[place:])
        if is_exact:
            assert said.startswith((b"250 2.0.0 Queued\r\n250 2.1.0", b"550 5.5.2"))
        else:
            assert said.startswith(b"550 5.5.2")
            assert said.count(b"\r\n") == 1
            assert not talk.gate.mails


def test_a_large_message_waits_for_its_sink() -> None:
    talk = greeted(limits={"message_size": 50 << 20})
    talk.say(ENVELOPE + b"DATA\r\n")
    dialogue, drains = talk.dialogue, 0
    for _ in range(400):
        dialogue.feed(b"0123456789abcde\r\n" * 8192)
        while dialogue.request is Request.WAIT:
            assert dialogue.is_reading_content
            drains += 1
            dialogue.resume(finish(dialogue.awaited))
    assert dialogue.feed(b".\r\n").startswith(b"552")
    assert drains > 20
    assert talk.gate.sinks[0].is_aborted


def test_a_streamed_message_is_taken_with_its_sink() -> None:
    talk = greeted(blob_threshold=1000)
    talk.say(ENVELOPE + b"DATA\r\nA: b\r\n\r\n" + b"x" * 2000 + b"\r\n.\r\n")
    (mail,) = talk.gate.mails
    assert mail.is_streamed
    assert mail.head == b"A: b\r\n"
    assert mail.body == b"A: b\r\n\r\n" + b"x" * 2000 + b"\r\n"


def test_a_drain_that_fails_refuses_the_message() -> None:
    talk = greeted()
    talk.say(ENVELOPE + b"DATA\r\n")
    for _ in range(20):
        talk.dialogue.feed(b"0123456789abcde\r\n" * 8192)
        if talk.dialogue.request is Request.WAIT:
            break
    finish(talk.dialogue.awaited)
    talk.dialogue.resume(Reply(452, "4.3.1", "Full"))
    assert talk.say(b".\r\n").startswith(b"452 4.3.1")
    assert talk.gate.sinks[0].is_aborted


def test_a_message_far_beyond_the_limit_ends_the_session() -> None:
    talk = greeted(limits={"message_size": 1000})
    talk.desk.terms.drop_limit = 100_000
    talk.say(ENVELOPE + b"DATA\r\n")
    assert talk.say(b"x" * 99_000) == b""
    assert talk.say(b"x" * 2_000).startswith(b"421 4.3.4")
    assert talk.is_closed


def test_a_chunk_far_beyond_the_limit_is_not_read() -> None:
    talk = greeted(limits={"message_size": 1000})
    talk.say(ENVELOPE)
    assert talk.say(b"BDAT 99999999999\r\n").startswith(b"421 4.3.4")


def test_what_follows_starttls_is_dropped_and_the_session_ends() -> None:
    talk = greeted(tls=TLSMode.STARTTLS)
    assert talk.say(b"NOOP\r\nSTARTTLS\r\nMAIL FROM:<evil@example.test>\r\n").split(b"\r\n")[1][:9] == b"421 4.7.0"
    assert talk.is_closed


def test_plain_text_between_starttls_and_the_handshake_ends_the_session() -> None:
    talk = greeted(tls=TLSMode.STARTTLS)
    assert talk.say(b"STARTTLS\r\n").startswith(b"220")
    assert talk.say(b"E").startswith(b"421 4.7.0")
    assert talk.is_closed


def test_parting_ends_an_idle_session_at_once() -> None:
    talk = greeted()
    talk.say(ENVELOPE)
    assert talk.dialogue.part(SHUTDOWN) == b"421 4.3.2 Shutting down\r\n"
    assert talk.is_closed


def test_a_stop_and_a_time_out_are_no_refusals() -> None:
    idle, silent = greeted(), greeted()
    idle.dialogue.part(SHUTDOWN)
    silent.dialogue.expire(Reply(421, "4.4.2", "Nothing came for too long"))
    assert idle.desk.refusals == silent.desk.refusals == []


def test_parting_lets_a_message_end_first() -> None:
    talk = greeted()
    talk.say(ENVELOPE + b"DATA\r\nhalf")
    assert talk.dialogue.part(SHUTDOWN) == b""
    assert (
        talk.say(b"\r\n.\r\nMAIL FROM:<next@example.test>\r\n") == b"250 2.0.0 Queued\r\n421 4.3.2 Shutting down\r\n"
    )
    assert talk.is_closed
    assert len(talk.gate.mails) == 1


def test_parting_lets_a_chunk_end_first() -> None:
    talk = greeted()
    talk.say(ENVELOPE + b"BDAT 4 LAST\r\nab")
    assert talk.dialogue.part(SHUTDOWN) == b""
    assert talk.say(b"cd").splitlines()[-1] == b"421 4.3.2 Shutting down"
    assert [mail.body for mail in talk.gate.mails] == [b"abcd"]


def test_a_refused_message_is_followed_by_the_parting_too() -> None:
    talk = greeted()
    talk.say(ENVELOPE + b"DATA\r\nhalf")
    talk.dialogue.part(SHUTDOWN)
    assert talk.say(b"\n\r\n.\r\n").splitlines()[-1] == b"421 4.3.2 Shutting down"
    assert talk.is_closed


def test_a_lost_connection_lets_its_sink_go() -> None:
    talk = greeted(blob_threshold=10)
    talk.say(ENVELOPE + b"DATA\r\n0123456789abcdef")
    talk.dialogue.lost()
    assert talk.gate.sinks[0].is_aborted


def test_a_configuration_is_taken_up_between_two_messages() -> None:
    talk = greeted()
    talk.say(ENVELOPE)
    listener = Setting(limits={"message_size": 10}, normalise=True).listener()
    talk.desk.terms = Terms(listener, "new.posthof.test")
    talk.desk.gate = other = PlainGate()
    assert talk.say(b"DATA\r\nlonger than ten octets\r\n.\r\n").splitlines()[-1].startswith(b"250")
    talk.say(ENVELOPE)
    assert talk.say(b"DATA\r\nlonger than ten octets\r\n.\r\n").splitlines()[-1].startswith(b"552")
    assert talk.say(b"EHLO client.test\r\n").startswith(b"250-new.posthof.test")
    assert other.mails or len(talk.gate.mails) <= 1


def test_the_rate_of_messages_is_asked_at_mail() -> None:
    talk = greeted(limits={"client_message_rate": 1})
    talk.desk.message_reply = Reply(450, "4.7.1", "Slow down")
    assert talk.say(b"MAIL FROM:<alice@example.test>\r\n") == b"450 4.7.1 Slow down\r\n"


def test_xclient_makes_another_client_who_has_proven_nothing() -> None:
    talk = greeted(xclient=("0.0.0.0/0",))
    talk.session.certificate, talk.session.proven = {"subject": ()}, ("front.test",)
    talk.session.credential, talk.session.user = "many", "alice"
    assert talk.say(b"XCLIENT LOGIN=ceo\r\n").startswith(b"501 ")
    assert talk.say(b"XCLIENT ADDR=198.51.100.1\r\n").startswith(b"220 ")
    assert (talk.session.credential, talk.session.user) == ("", "")
    assert (talk.session.certificate, talk.session.proven) == ({}, ())


def test_a_client_that_may_not_move_is_sent_away() -> None:
    talk = greeted(xclient=("0.0.0.0/0",))
    talk.desk.move_reply = Reply(421, "4.7.0", "Too many")
    assert talk.say(b"XCLIENT ADDR=198.51.100.1\r\n") == b"421 4.7.0 Too many\r\n"
    assert talk.is_closed
    assert talk.session.client == "192.0.2.1"


def test_a_421_of_the_gate_ends_the_session() -> None:
    talk = greeted()
    talk.gate.answer = Reply(421, "4.3.2", "Not now")
    assert talk.say(ENVELOPE + b"DATA\r\nx\r\n.\r\n").splitlines()[-1] == b"421 4.3.2 Not now"
    assert talk.is_closed


def test_refusals_are_told_with_sender_and_recipient() -> None:
    talk = greeted()
    talk.say(b"MAIL FROM:<alice@example.test>\r\nRCPT TO:<nobody@example.test>\r\nFOO\r\n")
    told = [(verb, sender, recipient, reply.code) for verb, sender, recipient, reply in talk.desk.refusals]
    assert told == [
        ("RCPT", "alice@example.test", "nobody@example.test", 550),
        ("FOO", "alice@example.test", None, 500),
    ]


def test_a_refused_sender_is_told() -> None:
    talk = greeted()
    talk.say(b"MAIL FROM:<banned@example.test>\r\n")
    assert talk.desk.refusals[0][:3] == ("MAIL", "banned@example.test", None)


def test_faults_are_told_and_become_451() -> None:
    class Faulty(PlainGate):
        def accept(self, mail: object) -> object:  # type: ignore[override]
            raise RuntimeError("no coroutine at all")

    talk = Talk(gate=Faulty())
    talk.say(b"EHLO client.test\r\n")
    assert talk.say(ENVELOPE + b"DATA\r\nx\r\n.\r\n").splitlines()[-1].startswith(b"451 4.3.0")
    assert isinstance(talk.desk.faults[0][1], RuntimeError)


def test_a_reply_with_a_carriage_return_stays_one_reply() -> None:
    talk = greeted()
    talk.gate.answer = Reply(250, "2.0.0", "one\r221 two\nthree")
    assert talk.say(ENVELOPE + b"DATA\r\nx\r\n.\r\n").endswith(b"\r\n250-2.0.0 one 221 two\r\n250 2.0.0 three\r\n")


def test_the_header_block_of_a_mail() -> None:
    desk = Desk(PlainGate(), Terms(Setting().listener(), HOSTNAME))
    blocks: list[bytes] = []

    class Heads(PlainGate):
        async def accept(self, mail: object) -> Reply:
            blocks.append(mail.header_block())  # type: ignore[attr-defined]
            return self.answer

    desk.gate = Heads()
    for content in (b"A: b\r\n\r\nx\r\n", b"\r\nx\r\n", b"A: b\r\n", b"A: b\r\nC: d\r\n\r\n"):
        dialogue = Dialogue(Session("192.0.2.1", listener="in", role=ListenerRole.MX), desk)
        dialogue.feed(b"EHLO a.test\r\n" + ENVELOPE + b"DATA\r\n" + content + b".\r\n")
        dialogue.resume(finish(dialogue.awaited))
    assert blocks == [b"A: b\r\n", b"", b"A: b\r\n", b"A: b\r\nC: d\r\n"]


def test_a_session_costs_little_memory_before_its_first_message() -> None:
    talk = greeted()
    assert not hasattr(talk.dialogue, "__dict__")
    assert not hasattr(talk.session, "__dict__")
    assert isinstance(Sink().content, bytearray)


def test_messages_on_their_way_in_are_counted_from_mail_to_their_last_octet() -> None:
    ends = {
        b"DATA\r\nx\r\n.\r\n": "taken",
        b"BDAT 3 LAST\r\nx\r\n": "taken",
        b"RSET\r\n": "reset",
        b"EHLO again.test\r\n": "begun anew",
        b"QUIT\r\n": "gone",
        b"DATA\r\nx\n\r\n.\r\n": "refused",
    }
    for end, how in ends.items():
        talk = greeted()
        assert talk.desk.coming == 0
        talk.say(ENVELOPE)
        assert talk.desk.coming == 1, how
        talk.say(end)
        assert talk.desk.coming == 0, how
        talk.dialogue.lost()
        assert talk.desk.coming == 0, how
    talk = greeted()
    talk.say(ENVELOPE + b"DATA\r\nhalf")
    assert talk.desk.coming == 1
    talk.dialogue.lost()
    assert talk.desk.coming == 0


@pytest.mark.parametrize(
    "line", [b"X: a\nFrom: ceo@example.test\r\n", b"X: a\rAuthentication-Results: mx; dmarc=pass\r\n"]
)
@pytest.mark.parametrize("threshold", [100, 1 << 20])
@pytest.mark.parametrize("end", [b"\r\n" + b"x" * 300 + b"\r\n", b""])
def test_a_header_has_no_line_end_that_only_some_see(line: bytes, threshold: int, end: bytes) -> None:
    """BDAT carries any octets; who takes LF for a line end would find fields that nobody has judged."""
    content = b"From: alice@example.test\r\n" + line + end
    talk = Talk(Setting(blob_threshold=threshold))
    talk.say(b"EHLO client.test\r\n")
    said = talk.say(ENVELOPE + b"BDAT %d LAST\r\n" % len(content) + content)
    assert said.splitlines()[-1].startswith(b"550 5.5.2")
    assert not talk.gate.mails
    kept = b"From: alice@example.test\r\n\r\n" + b"a\nb" * 100
    assert b"\r\n250 " in b"\r\n" + talk.say(ENVELOPE + b"BDAT %d LAST\r\n" % len(kept) + kept)
    assert talk.gate.mails[-1].body == kept
