"""A client that has logged in writes no results in our name, either."""

from __future__ import annotations

from posthof_crds.engine import ListenerRole
from posthof_pod.admit.auth import clean_submission
from posthof_pod.smtp.gate import Incoming, Session
from posthof_pod.smtp.grammar import MailParameters

REST = b"From: a@ours.test\r\n\r\nAuthentication-Results: mx.house.test; in the body it says nothing\r\n"


def cleaned(content: bytes) -> Incoming:
    session = Session("192.0.2.1", listener="submission", role=ListenerRole.SUBMISSION)
    mail = Incoming(session, "a@ours.test", MailParameters(), [], content, b"", len(content), False, "ESMTPSA")
    clean_submission(mail, "mx.house.test")
    return mail


def test_a_submitted_message_loses_results_in_our_name() -> None:
    mail = cleaned(b"Authentication-Results: mx.house.test;\r\n dmarc=pass header.from=bank.example\r\n" + REST)
    assert mail.body == REST
    assert mail.size == len(REST)


def test_what_others_wrote_stays() -> None:
    content = b"Authentication-Results: elsewhere.example; dmarc=pass\r\n" + REST
    assert cleaned(content).body is content
