"""Reports, read back by an independent parser: the standard library's."""

from __future__ import annotations

import email
import email.policy
import email.utils
from email.message import EmailMessage, Message
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import samples
from posthof_crds.engine import EngineConfig, Retry, SpoolSettings
from posthof_pod import fields
from posthof_pod.bounce import report
from posthof_pod.model import Body, Envelope, Notify, Origin, Outcome, Reason, Recipient, Status

NOW = 1_790_000_000.0
ARRIVED = NOW - 3 * 86400
TRACE = b"Received: from client.example ([192.0.2.1])\r\n\tby mx.quickstart.test with ESMTP\r\n\tid lane-1\r\n"
CONTENT = (
    b"From: Alice <alice@example.org>\r\nTo: bob@example.com\r\nSubject: Lunch at noon\r\n"
    b"Date: Mon, 21 Sep 2026 10:00:00 +0200\r\nMessage-ID: <lunch@example.org>\r\n\r\nShall we?\r\n"
)
CONFIG = EngineConfig(
    name="mta",
    hostname="mx.quickstart.test",
    listeners=(),
    spool=SpoolSettings(path="/spool"),
    mail_root="/mail",
    state_dir="/state",
    double_bounce_to="postmaster@quickstart.test",
)


def mail(*recipients: Recipient, sender: str = "alice@example.org", **changes: object) -> Envelope:
    return Envelope(
        id="lane-1",
        sender=sender,
        recipients=recipients or (Recipient("bob@example.com"),),
        arrived=ARRIVED,
        **({"size": len(CONTENT), "message_id": "<lunch@example.org>"} | changes),  # type: ignore[arg-type]  # by name
    )


def outcome(
    status: Status = Status.FAILED,
    recipient: int = 0,
    *,
    reason: Reason = Reason.RECIPIENT_REFUSED,
    code: int = 550,
    enhanced: str = "5.1.1",
    reply: str = "No such user here",
    host: str = "mx.example.com[192.0.2.9]:25",
) -> Outcome:
    return Outcome(recipient, status, reason, code, enhanced, reply, host)


def make(
    envelope: Envelope | None = None,
    *outcomes: Outcome,
    content: bytes = CONTENT,
    is_whole: bool = True,
    delayed: tuple[int, ...] = (),
) -> report.Report:
    made = report.reports(
        envelope or mail(),
        outcomes or (outcome(),),
        delayed,
        trace=TRACE,
        content=content,
        is_whole=is_whole,
        config=CONFIG,
        retry=Retry(),
        now=NOW,
        new_id=lambda: "lane-2",
    )
    assert made is not None
    return made


def parsed(made: report.Report) -> EmailMessage:
    message = cast(EmailMessage, email.message_from_bytes(made.trace + made.body, policy=email.policy.SMTP))
    assert not message.defects
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert len(message.get_payload()) == 3
    return message


def part(message: EmailMessage, n: int) -> Message:
    return cast(list[Message], message.get_payload())[n]


def words(message: EmailMessage) -> str:
    return " ".join(cast(EmailMessage, part(message, 0)).get_content().split())


def status(message: EmailMessage) -> list[Message]:
    """The groups of the second part: the message's, then one for each recipient."""
    second = part(message, 1)
    if second.get_content_type() == "message/delivery-status":
        return [group for group in cast(list[Message], second.get_payload()) if group.keys()]
    text = raw_part(message.as_bytes(), 1).decode()
    return [email.message_from_string(one, policy=email.policy.SMTPUTF8) for one in text.split("\r\n\r\n")]


def raw_part(message: bytes, n: int) -> bytes:
    """A part's body, cut out of the bytes without any parser: between its empty line and the next boundary."""
    boundary = message.partition(b'boundary="')[2].partition(b'"')[0]
    assert message.count(b"\r\n--" + boundary + b"\r\n") == 3
    assert message.count(b"\r\n--" + boundary + b"--\r\n") == 1
    whole = message.split(b"\r\n--" + boundary)[n + 1]
    return whole.partition(b"\r\n\r\n")[2]


# ---------------------------------------------------------------- envelope and outer header


def test_a_report_has_the_null_sender_and_asks_for_no_report():
    made = make()
    assert made.envelope == Envelope(
        id="lane-2",
        sender="",
        recipients=(Recipient("alice@example.org", notify=int(Notify.NEVER)),),
        arrived=NOW,
        size=len(made.body),
        origin=int(Origin.REPORT),
        message_id="<lane-2@mx.quickstart.test>",
    )


def test_the_outer_header_says_what_it_is_and_what_it_answers():
    message = parsed(make())
    assert message["From"] == "Mail Delivery System <mailer-daemon@mx.quickstart.test>"
    assert message["To"].addresses[0].addr_spec == "alice@example.org"
    assert message["Subject"] == "Not delivered: Lunch at noon"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Message-ID"] == "<lane-2@mx.quickstart.test>"
    assert message["In-Reply-To"] == "<lunch@example.org>"
    assert message["References"] == "<lunch@example.org>"
    assert email.utils.parsedate_to_datetime(str(message["Date"])).timestamp() == NOW
    assert len(message.get_all("Received", [])) == 1
    assert message["MIME-Version"] == "1.0"


def test_references_keep_the_thread_and_do_not_grow_without_end():
    chain = " ".join(f"<{n}@x.test>" for n in range(300))
    content = f"References: {chain}\r\nMessage-ID: <me@x.test>\r\n\r\n".encode()
    ids = str(parsed(make(content=content))["References"]).split()
    assert ids[0] == "<0@x.test>"
    assert ids[-2:] == ["<299@x.test>", "<me@x.test>"]
    assert len(ids) == 11


def test_a_message_without_an_id_is_answered_without_one():
    message = parsed(make(content=b"Subject: x\r\n\r\n"))
    assert message["In-Reply-To"] is None
    assert message["References"] is None


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        (b"=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "Not delivered: Grüße"),
        (("Grüße, " * 20 + "Ende").encode(), None),
        (b"=?no-such-charset?B?!!!?=", None),
        (b"", "Not delivered"),
        (b"x" * 600, None),
    ],
)
def test_any_subject_can_be_answered(subject: bytes, shown: str | None):
    message = parsed(make(content=b"Subject: " + subject + b"\r\n\r\nx\r\n"))
    assert str(message["Subject"]).startswith("Not delivered")
    if shown is not None:
        assert message["Subject"] == shown


# ---------------------------------------------------------------- what a person reads


def test_the_words_say_what_for_whom_who_said_so_and_what_to_do():
    text = words(parsed(make()))
    for piece in (
        "Your message could not be delivered to this address: bob@example.com",
        "The address does not exist at its destination.",
        "mx.example.com (192.0.2.9) said: 550 5.1.1 No such user here",
        "What you can do: Check the address for typing errors",
        "Subject: Lunch at noon",
        "Queue id: lane-1",
    ):
        assert piece in text
    assert text.index("could not be delivered") < text.index("said:") < text.index("What you can do")


def test_a_message_given_up_says_for_how_long_it_was_tried():
    made = make(
        mail(),
        outcome(
            Status.EXPIRED,
            reason=Reason.CONNECT_TIMEOUT,
            code=0,
            enhanced="4.4.1",
            reply="no answer within 30 s",
        ),
    )
    text = words(parsed(made))
    assert "It was tried for 3 days and then given up." in text
    assert "The destination's mail server did not answer." in text
    assert "Details: no answer within 30 s" in text
    (_, group) = status(parsed(made))
    assert (group["Action"], group["Status"]) == ("failed", "4.4.7")


def test_a_delay_says_that_nothing_need_be_done_and_until_when():
    made = make(mail(), outcome(Status.DEFERRED, code=451, enhanced="4.2.2", reply="full"), delayed=(0,))
    message = parsed(made)
    assert message["Subject"] == "Not delivered yet: Lunch at noon"
    assert "You need do nothing" in words(message)
    assert "What you can do" not in words(message)
    (_, group) = status(message)
    assert (group["Action"], group["Status"]) == ("delayed", "4.2.2")
    until = email.utils.parsedate_to_datetime(group["Will-Retry-Until"]).timestamp()
    assert until == ARRIVED + Retry().lifetime


def test_an_alias_is_named_by_the_address_the_sender_knows():
    text = words(parsed(make(mail(Recipient("m@x.test", original="team@quickstart.test")))))
    assert "team@quickstart.test (which goes to m@x.test)" in text


@pytest.mark.parametrize(
    ("enhanced", "piece"),
    [
        ("5.1.10", "takes no mail at all"),
        ("5.2.2", "mailbox is full"),
        ("5.3.4", "too large"),
        ("5.4.6", "round in a circle"),
        ("5.6.7", "outside ASCII"),
        ("5.7.1", "refuses the message by its rules"),
        ("5.7.999", "refuses the message by its rules"),
        ("", "did not take the message"),
    ],
)
def test_codes_become_words(enhanced: str, piece: str):
    assert piece in words(parsed(make(mail(), outcome(enhanced=enhanced))))


def test_lines_of_the_words_are_short():
    text = raw_part(make(mail(), outcome(reply="word " * 300)).body, 0)
    assert max(len(line) for line in text.split(b"\r\n")) <= 78


# ---------------------------------------------------------------- the fields for programs


def test_the_fields_of_the_message_and_of_each_recipient():
    made = make(
        mail(
            Recipient("bob@example.com", orcpt="rfc822;robert@example.com"),
            Recipient("carl@example.net", notify=int(Notify.SUCCESS)),
            envid="ENV id 1",
            client="192.0.2.1",
            client_name="client.example",
        ),
        outcome(),
        outcome(Status.RELAYED, 1, code=250, enhanced="2.0.0", reply="ok", host="mx.example.net[192.0.2.3]:25"),
    )
    head, bob, carl = status(parsed(made))
    assert head["Reporting-MTA"] == "dns; mx.quickstart.test"
    assert head["Original-Envelope-Id"] == "ENV id 1"
    assert head["Received-From-MTA"] == "dns; client.example"
    assert email.utils.parsedate_to_datetime(head["Arrival-Date"]).timestamp() == ARRIVED
    assert dict(bob.items()) == {
        "Original-Recipient": "rfc822; robert@example.com",
        "Final-Recipient": "rfc822; bob@example.com",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.example.com",
        "Diagnostic-Code": "smtp; 550 5.1.1 No such user here",
        "Last-Attempt-Date": fields.date(NOW).decode(),
        "Final-Log-ID": "lane-1",
    }
    assert (carl["Action"], carl["Status"], carl["Original-Recipient"]) == ("relayed", "2.0.0", None)


def test_success_in_our_own_mailbox_is_delivered_without_a_remote_mta():
    made = make(
        mail(Recipient("bob@quickstart.test", notify=int(Notify.SUCCESS))),
        outcome(Status.DELIVERED, code=250, enhanced="2.0.0", reply="delivered", host=""),
    )
    message = parsed(made)
    (_, group) = status(message)
    assert (group["Action"], group["Status"], group["Remote-MTA"]) == ("delivered", "2.0.0", None)
    assert group["Diagnostic-Code"].startswith("x-posthof; ")
    assert message["Subject"] == "Delivered: Lunch at noon"
    assert part(message, 2).get_content_type() == "text/rfc822-headers"


@pytest.mark.parametrize(
    ("given", "action", "code"),
    [
        ("5.7.26", Status.FAILED, "5.7.26"),
        ("4.2.2", Status.FAILED, "5.2.2"),
        ("", Status.FAILED, "5.0.0"),
        ("5.1.1 x\r\n", Status.FAILED, "5.0.0"),
        ("9.1.1", Status.FAILED, "5.0.0"),
    ],
)
def test_the_status_fits_the_action(given: str, action: Status, code: str):
    (_, group) = status(parsed(make(mail(), outcome(action, enhanced=given))))
    assert group["Status"] == code


def test_a_socket_is_no_dns_name():
    (_, group) = status(parsed(make(mail(), outcome(host="/run/lmtp.sock"))))
    assert group["Remote-MTA"] == "x-unix; /run/lmtp.sock"


# ---------------------------------------------------------------- what is sent back


def test_a_failure_sends_a_small_message_back_byte_for_byte():
    message = make().body
    assert raw_part(message, 2) == TRACE + CONTENT


def test_ret_hdrs_sends_the_header_back():
    made = make(mail(ret="HDRS"))
    assert part(parsed(made), 2).get_content_type() == "text/rfc822-headers"
    assert raw_part(made.body, 2) == TRACE + fields.block(CONTENT)
    assert "is its header" in words(parsed(made))


@pytest.mark.parametrize(
    ("size", "ret", "is_returned"),
    [
        (report.FULL_DEFAULT - 1000, "", True),
        (report.FULL_DEFAULT + 1000, "", False),
        (report.FULL_DEFAULT + 1000, "FULL", True),
        (report.FULL_MAX + 1000, "FULL", False),
    ],
)
def test_how_much_is_sent_back(size: int, ret: str, is_returned: bool):
    content = CONTENT + b"line\r\n" * ((size - len(CONTENT)) // 6)
    made = make(mail(ret=ret, size=size), content=content)
    assert part(parsed(made), 2).get_content_type() == ("message/rfc822" if is_returned else "text/rfc822-headers")


def test_ret_full_counts_for_failures_only():
    made = make(mail(ret="FULL"), outcome(Status.DEFERRED, code=451, enhanced="4.3.0"), delayed=(0,))
    assert part(parsed(made), 2).get_content_type() == "text/rfc822-headers"


@pytest.mark.parametrize("odd", [b"a\rb\r\n", b"a\nb\r\n", b"a\0b\r\n"])
def test_what_leaves_by_bdat_alone_is_sent_back_as_header(odd: bytes):
    for envelope in (mail(ret="FULL"), mail(ret="FULL", has_binary=True)):
        made = make(envelope, content=CONTENT + odd)
        assert part(parsed(made), 2).get_content_type() == "text/rfc822-headers"
        assert not made.envelope.has_binary


def test_of_a_blob_the_header_is_enough():
    made = make(mail(size=10**7), content=CONTENT, is_whole=False)
    assert raw_part(made.body, 2) == TRACE + fields.block(CONTENT)


def test_an_8_bit_message_makes_an_8_bit_report():
    made = make(content=CONTENT + "ä\r\n".encode())
    assert made.envelope.body == Body.EIGHTBIT
    assert not made.envelope.smtputf8
    assert parsed(made)["Content-Transfer-Encoding"] == "8bit"
    assert make().envelope.body == Body.SEVENBIT


@pytest.mark.parametrize("name", sorted(samples.everything()))
def test_every_sample_comes_back_byte_for_byte(name: str):
    content = samples.everything()[name]
    made = make(mail(ret="FULL", size=len(content)), content=content)
    message = cast(EmailMessage, email.message_from_bytes(made.body, policy=email.policy.compat32))
    assert len(cast(list[Message], message.get_payload())) == 3
    assert raw_part(made.body, 2) == TRACE + content
    headers_only = make(mail(ret="HDRS", size=len(content)), content=content)
    returned = cast(list[Message], email.message_from_bytes(headers_only.body).get_payload())[2]
    is_text = returned.get_content_type() == "text/rfc822-headers"
    head = returned.get_payload(decode=True) if is_text else raw_part(headers_only.body, 2)
    assert cast(bytes, head).rstrip() == (TRACE + fields.block(content)).rstrip()


def test_the_boundary_is_in_no_part_even_if_the_message_knows_it():
    first = make()
    boundary = parsed(first).get_boundary()
    assert boundary is not None
    content = CONTENT
    for _ in range(3):  # what is put in changes the sum it is made from; a prefix of any is what could clash
        content += f"--{boundary}\r\n--{boundary}--\r\n--=_report_\r\n".encode()
        made = make(mail(size=len(content)), content=content)
        boundary = parsed(made).get_boundary()
        assert boundary is not None
        assert raw_part(made.body, 2) == TRACE + content


# ---------------------------------------------------------------- UTF-8 (RFC 6533)


def test_a_utf_8_recipient_makes_a_global_status():
    made = make(mail(Recipient("jürgen@example.com", orcpt="utf-8;jürgen@example.com"), smtputf8=True))
    message = parsed(made)
    assert part(message, 1).get_content_type() == "message/global-delivery-status"
    text = raw_part(made.body, 1).decode()
    assert "\r\nFinal-Recipient: utf-8; jürgen@example.com\r\n" in text
    assert "\r\nOriginal-Recipient: utf-8; jürgen@example.com\r\n" in text
    assert "jürgen@example.com" in words(message)
    assert made.envelope.body == Body.EIGHTBIT
    assert not made.envelope.smtputf8, "the sender's address and the outer header are ASCII"


def test_a_utf_8_sender_needs_smtputf8():
    made = make(mail(sender="älice@example.org", smtputf8=True))
    assert made.envelope.smtputf8
    assert made.envelope.recipients[0].address == "älice@example.org"
    assert "To: <älice@example.org>\r\n".encode() in made.body


def test_a_utf_8_header_is_sent_back_as_global():
    content = "Subject: Grüße\r\n\r\nx\r\n".encode()
    assert part(parsed(make(content=content)), 2).get_content_type() == "message/global"
    made = make(mail(ret="HDRS"), content=content)
    assert part(parsed(made), 2).get_content_type() == "message/global-headers"
    assert raw_part(made.body, 2) == TRACE + "Subject: Grüße\r\n".encode()


def test_a_header_in_latin_1_is_sent_back_encoded():
    made = make(mail(ret="HDRS"), content="Subject: Grüße\r\n\r\nx\r\n".encode("latin-1"))
    returned = part(parsed(made), 2)
    assert returned.get_content_type() == "text/rfc822-headers"
    assert cast(bytes, returned.get_payload(decode=True)) == TRACE + "Subject: Grüße\r\n".encode("latin-1")


def test_a_peers_utf_8_words_stay_ascii_in_an_ascii_status():
    made = make(mail(), outcome(reply="Empfänger unbekannt"))
    assert part(parsed(made), 1).get_content_type() == "message/delivery-status"
    assert raw_part(made.body, 1).isascii()
    assert "Empfänger unbekannt" in words(parsed(made))


# ---------------------------------------------------------------- double bounces


def test_a_double_bounce_tells_the_house():
    made = make(mail(sender="", origin=int(Origin.REPORT)))
    assert made.envelope.sender == ""
    assert made.envelope.recipients[0].address == "postmaster@quickstart.test"
    assert made.envelope.message_id == "<double-bounce.lane-2@mx.quickstart.test>"
    message = parsed(made)
    assert str(message["Subject"]).startswith("Double bounce: ")
    assert "To the postmaster" in words(message)


def test_a_double_bounce_that_fails_ends_there():
    first = make(mail(sender="", origin=int(Origin.REPORT)))
    second = report.reports(
        first.envelope,
        (outcome(),),
        trace=first.trace,
        content=first.body,
        is_whole=True,
        config=CONFIG,
        retry=Retry(),
        now=NOW,
        new_id=lambda: "lane-3",
    )
    assert second is None


def test_no_id_is_used_up_where_nobody_is_told():
    ids: list[str] = []

    def new_id() -> str:
        ids.append("x")
        return "x"

    nothing = report.reports(
        mail(),
        (outcome(Status.RELAYED),),
        trace=TRACE,
        content=CONTENT,
        is_whole=True,
        config=CONFIG,
        retry=Retry(),
        now=NOW,
        new_id=new_id,
    )
    assert nothing is None
    assert not ids


# ---------------------------------------------------------------- whatever others say


ANY = st.text(max_size=400)
EVIL = st.sampled_from(
    [
        "\r\n\r\n--=_report_00000000\r\nContent-Type: text/html\r\n\r\n<b>",
        "550 no\r\nAction: delivered\r\n\r\nFinal-Recipient: rfc822; x@y",
        "\x00\x1b[2J\u2028\u2029\x85\ud800",
        "x" * 5000,
        " ",
    ]
)


@settings(max_examples=60)
@given(
    reply=ANY | EVIL,
    enhanced=ANY | st.just("5.1.1"),
    host=ANY | EVIL,
    subject=st.binary(max_size=200),
    name=ANY | EVIL,
)
def test_nothing_a_peer_says_breaks_a_reports_structure(
    reply: str, enhanced: str, host: str, subject: bytes, name: str
):
    subject = subject.replace(b"\r", b"").replace(b"\n", b"")
    content = (
        b"Subject: " + subject + b"\r\nMessage-ID: " + subject + b"\r\nReferences: " + subject + b"\r\n\r\nx\r\n"
    )
    made = make(
        mail(Recipient("bob@example.com", orcpt="rfc822;" + name), envid=name, client_name=name),
        outcome(reply=reply, enhanced=enhanced, host=host),
        content=content,
    )
    body = made.body
    assert body.count(b"\r\n") == body.count(b"\n") == body.count(b"\r")
    assert max(len(line) for line in body.partition(b"message/delivery-status")[0].split(b"\r\n")) <= 998
    message = email.message_from_bytes(made.trace + body)
    parts = cast(list[Message], message.get_payload())
    assert parts[0].get_content_type() == "text/plain"
    assert len(parts) == 3
    assert len(message.get_all("Subject", [])) == 1
    raw = raw_part(body, 1)
    groups = raw.strip(b"\r\n").split(b"\r\n\r\n")
    assert len(groups) == 2
    assert groups[1].count(b"\r\nAction: ") == 1
    assert b"\r\nAction: failed\r\n" in groups[1]
    for line in raw.split(b"\r\n"):
        assert len(line) <= 998
        assert not line or line[:1] == b" " or b": " in line
