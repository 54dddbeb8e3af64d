"""Who is told what: every fate of a recipient with every NOTIFY."""

from __future__ import annotations

import pytest

from posthof_crds.engine import Domain, EngineConfig, InboundMode, SpoolSettings
from posthof_pod.bounce import who
from posthof_pod.bounce.who import Action
from posthof_pod.model import Envelope, Notify, Origin, Outcome, Reason, Recipient, Status

UNSET, NEVER, SUCCESS, FAILURE, DELAY = Notify.UNSET, Notify.NEVER, Notify.SUCCESS, Notify.FAILURE, Notify.DELAY
ALL = SUCCESS | FAILURE | DELAY


def envelope(*notify: int, sender: str = "a@a.test", **changes: object) -> Envelope:
    recipients = tuple(Recipient(f"r{n}@b.test", notify=int(flags)) for n, flags in enumerate(notify or (0,)))
    return Envelope(id="lane-1", sender=sender, recipients=recipients, arrived=0.0, size=10, **changes)  # type: ignore[arg-type]  # by name


def outcome(status: Status, recipient: int = 0, *, dsn_relayed: bool = False) -> Outcome:
    return Outcome(recipient, status, Reason.RECIPIENT_REFUSED, 550, "5.1.1", "no", "mx.b.test", dsn_relayed)


def config(*domains: Domain, double_bounce_to: str = "") -> EngineConfig:
    return EngineConfig(
        name="mta",
        hostname="mx.test",
        listeners=(),
        spool=SpoolSettings(path="/spool"),
        mail_root="/mail",
        state_dir="/state",
        domains={d.domain: d for d in domains},
        double_bounce_to=double_bounce_to,
    )


@pytest.mark.parametrize(
    ("status", "notify", "action"),
    [
        (Status.FAILED, UNSET, Action.FAILED),
        (Status.FAILED, FAILURE, Action.FAILED),
        (Status.FAILED, ALL, Action.FAILED),
        (Status.FAILED, SUCCESS, None),
        (Status.FAILED, DELAY, None),
        (Status.FAILED, NEVER, None),
        (Status.EXPIRED, UNSET, Action.FAILED),
        (Status.EXPIRED, NEVER, None),
        (Status.EXPIRED, SUCCESS | DELAY, None),
        (Status.DELIVERED, UNSET, None),
        (Status.DELIVERED, FAILURE | DELAY, None),
        (Status.DELIVERED, SUCCESS, Action.DELIVERED),
        (Status.DELIVERED, NEVER, None),
        (Status.RELAYED, UNSET, None),
        (Status.RELAYED, FAILURE, None),
        (Status.RELAYED, SUCCESS, Action.RELAYED),
        (Status.RELAYED, NEVER, None),
        (Status.DISCARDED, ALL, None),
        (Status.HELD, ALL, None),
    ],
)
def test_the_table_of_fates(status: Status, notify: int, action: Action | None):
    notice = who.told(envelope(notify), [outcome(status)])
    assert (notice.action if notice else None) is action


def test_a_hop_that_reports_itself_leaves_us_nothing_to_say():
    assert who.told(envelope(ALL), [outcome(Status.RELAYED, dsn_relayed=True)]) is None


@pytest.mark.parametrize(
    ("notify", "is_told"),
    [(UNSET, True), (DELAY, True), (ALL, True), (FAILURE, False), (SUCCESS, False), (NEVER, False)],
)
@pytest.mark.parametrize("status", [Status.DEFERRED, Status.UNCERTAIN])
def test_a_delay_is_told_when_its_time_has_come(notify: int, is_told: bool, status: Status):
    assert (who.told(envelope(notify), [outcome(status)], delayed=(0,)) is not None) is is_told
    assert who.told(envelope(notify), [outcome(status)], delayed=()) is None


def test_a_delay_nobody_asked_for_is_not_told_to_a_program_but_one_asked_for_is():
    late = [outcome(Status.DEFERRED)]
    assert who.told(envelope(UNSET), late, delayed=(0,), is_automatic=True) is None
    assert who.told(envelope(DELAY), late, delayed=(0,), is_automatic=True) is not None


@pytest.mark.parametrize(
    ("head", "is_automatic"),
    [
        (b"Auto-Submitted: auto-generated\r\n", True),
        (b"Auto-Submitted: Auto-Replied; owner-email=x@y.test\r\n", True),
        (b"Auto-Submitted: no\r\n", False),
        (b"Precedence: Bulk\r\n", True),
        (b"List-Id: <x.y.test>\r\n", True),
        (b"Subject: Auto-Submitted: yes\r\n", False),
        (b"", False),
    ],
)
def test_mail_of_programs_and_lists_is_known_by_its_header(head: bytes, is_automatic: bool):
    assert who.is_automatic(head) is is_automatic


def test_one_notice_covers_all_recipients_the_worst_first():
    notice = who.told(
        envelope(SUCCESS, UNSET, NEVER, UNSET, SUCCESS),
        [
            outcome(Status.DELIVERED, 0),
            outcome(Status.FAILED, 1),
            outcome(Status.FAILED, 2),
            outcome(Status.DEFERRED, 3),
            outcome(Status.RELAYED, 4),
        ],
        delayed=(3,),
    )
    assert notice is not None
    assert [(c.action, c.outcome.recipient) for c in notice.concerns] == [
        (Action.FAILED, 1),
        (Action.DELAYED, 3),
        (Action.RELAYED, 4),
        (Action.DELIVERED, 0),
    ]
    assert (notice.to, notice.is_double) == ("a@a.test", False)


# ---------------------------------------------------------------- the null sender


@pytest.mark.parametrize("status", list(Status))
def test_the_null_sender_is_never_told_anything(status: Status):
    assert who.told(envelope(ALL, sender=""), [outcome(status)], delayed=(0,)) is None


def test_a_lost_bounce_goes_to_the_house_whatever_notify_says():
    notice = who.told(envelope(NEVER, sender=""), [outcome(Status.EXPIRED)], double_bounce_to="pm@b.example")
    assert notice is not None
    assert (notice.to, notice.is_double, notice.action) == ("pm@b.example", True, Action.FAILED)


@pytest.mark.parametrize("status", [Status.DELIVERED, Status.RELAYED, Status.DEFERRED, Status.HELD])
def test_only_a_lost_bounce_goes_to_the_house(status: Status):
    assert who.told(envelope(ALL, sender=""), [outcome(status)], (0,), double_bounce_to="pm@b.example") is None


def test_a_lost_double_bounce_ends_there():
    lost = envelope(sender="", origin=Origin.REPORT, message_id="<double-bounce.lane-1@mx.test>")
    assert who.told(lost, [outcome(Status.FAILED)], double_bounce_to="pm@b.example") is None


def test_a_message_id_from_outside_does_not_pass_for_a_double_bounce():
    lost = envelope(sender="", message_id="<double-bounce.lane-1@mx.test>")
    assert who.told(lost, [outcome(Status.FAILED)], double_bounce_to="pm@b.example") is not None


@pytest.mark.parametrize("recipient", [Recipient("PM@b.example"), Recipient("x@y.test", original="pm@B.example")])
def test_a_lost_bounce_to_the_very_address_for_them_ends_there(recipient: Recipient):
    lost = Envelope(id="lane-1", sender="", recipients=(recipient,), arrived=0.0, size=1)
    assert who.told(lost, [outcome(Status.FAILED)], double_bounce_to="pm@b.example") is None


def test_double_bounces_go_where_the_configuration_says_else_to_the_first_domain_with_mailboxes():
    alias = Domain(name="a", domain="a.test", mode=InboundMode.ALIAS)
    maildir = Domain(name="b", domain="b.test", mode=InboundMode.MAILDIR)
    lmtp = Domain(name="c", domain="c.test", mode=InboundMode.LMTP)
    assert who.double_bounce_address(config(lmtp, maildir, alias)) == "postmaster@b.test"
    assert who.double_bounce_address(config(alias, double_bounce_to="ops@x.test")) == "ops@x.test"
    assert who.double_bounce_address(config(alias)) == ""
