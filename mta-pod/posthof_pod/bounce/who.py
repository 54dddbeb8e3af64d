"""Who is told what after a try: outcomes, NOTIFY flags and the sender in, at most one notice out. Pure.

| fate of the recipient                   | NOTIFY not given | FAILURE | DELAY | SUCCESS   | NEVER |
|-----------------------------------------|------------------|---------|-------|-----------|-------|
| failed, expired                         | failed           | failed  | -     | -         | -     |
| waiting, and its delay notice is due    | delayed (1)      | -       | delayed | -       | -     |
| delivered into a mailbox of ours        | -                | -       | -     | delivered | -     |
| relayed to a hop that reports itself    | -                | -       | -     | -         | -     |
| relayed to a hop without DSN            | -                | -       | -     | relayed   | -     |
| discarded or held by a policy           | -                | -       | -     | -         | -     |

(1) after the longer default time, and not for mail that a program or a list sent: nobody reads it there.

Rules
- One notice for one message and one try, whatever happened to how many recipients.
- The null sender is never told anything: no bounce answers a bounce. What could not be returned (a double bounce)
  goes to the house's own address for it, whatever NOTIFY said; if even that fails it is only logged.
Sources: RFC 3461 4.1, 5.2.1-5.2.7 and 6.2, RFC 5321 6.1, RFC 3834 section 2.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from typing import NamedTuple

from posthof_crds.engine import EngineConfig
from posthof_crds.mailboxes import MAILBOX_MODES
from posthof_pod import fields
from posthof_pod.model import Envelope, Notify, Origin, Outcome, Status

DOUBLE = "double-bounce."
"""How the left side of the Message-ID of a double bounce begins. Only reports made here have Origin.REPORT too."""


class Action(enum.StrEnum):
    """The Action field (RFC 3464 2.3.3), in the order in which a report speaks of them."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"
    DELIVERED = "delivered"


class Concern(NamedTuple):
    """One recipient the sender hears of."""

    action: Action
    outcome: Outcome


class Notice(NamedTuple):
    """What is to be reported, and to whom."""

    to: str
    concerns: tuple[Concern, ...]  # at least one, by action and then by recipient
    is_double: bool = False  # the message was a bounce itself: `to` is the house, not the sender

    @property
    def action(self) -> Action:
        """The worst of it: what the subject says."""
        return self.concerns[0].action


def told(
    envelope: Envelope,
    outcomes: Sequence[Outcome],
    delayed: Collection[int] = (),
    *,
    double_bounce_to: str = "",
    is_automatic: bool = False,
) -> Notice | None:
    """The notice this try causes; None for nearly every try.

    `outcomes` and `delayed` are a plan's (plan.py): what was tried too long stands as EXPIRED, `delayed` names the
    recipients whose delay notice is due. `is_automatic`: see below; it only matters where `delayed` is not empty.
    `double_bounce_to`: see `double_bounce_address`; "" = nobody.
    """
    if not envelope.sender:
        return _double_bounce(envelope, outcomes, double_bounce_to)
    concerns: list[Concern] = []
    for outcome in outcomes:
        action = _action(envelope.recipients[outcome.recipient].notify, outcome, delayed, is_automatic)
        if action is not None:
            concerns.append(Concern(action, outcome))
    if not concerns:
        return None
    concerns.sort(key=_order)
    return Notice(envelope.sender, tuple(concerns))


def _action(notify: int, outcome: Outcome, delayed: Collection[int], is_automatic: bool) -> Action | None:
    if notify & Notify.NEVER:
        return None
    status = outcome.status
    if status in (Status.DELIVERED, Status.RELAYED):
        is_asked = notify & Notify.SUCCESS and not outcome.dsn_relayed  # else the peer tells
        return (Action.DELIVERED if status is Status.DELIVERED else Action.RELAYED) if is_asked else None
    if status in (Status.FAILED, Status.EXPIRED):
        return Action.FAILED if notify == Notify.UNSET or notify & Notify.FAILURE else None
    is_due = outcome.recipient in delayed and status in (Status.DEFERRED, Status.UNCERTAIN)
    is_wanted = notify & Notify.DELAY or (notify == Notify.UNSET and not is_automatic)
    return Action.DELAYED if is_due and is_wanted else None


def _double_bounce(envelope: Envelope, outcomes: Sequence[Outcome], to: str) -> Notice | None:
    lost = [o for o in outcomes if o.status in (Status.FAILED, Status.EXPIRED)]
    if not lost or not to or _is_double(envelope, to):
        return None
    return Notice(to, tuple(Concern(Action.FAILED, o) for o in sorted(lost)), is_double=True)


def _is_double(envelope: Envelope, to: str) -> bool:
    """Whether the message is a report about a lost report, or was for the very address such reports go to."""
    if envelope.origin == Origin.REPORT and envelope.message_id.startswith("<" + DOUBLE):
        return True
    return any(to.casefold() in (r.address.casefold(), r.original.casefold()) for r in envelope.recipients)


def _order(concern: Concern) -> tuple[int, int]:
    return _ACTIONS.index(concern.action), concern.outcome.recipient


_ACTIONS = tuple(Action)


def is_automatic(head: bytes) -> bool:
    """Whether a program or a list sent it: a delay notice nobody asked for would be read by nobody (RFC 3834 2)."""
    submitted = fields.value(head, b"auto-submitted").partition(b";")[0].strip().lower()
    if submitted and submitted != b"no":
        return True
    if fields.value(head, b"precedence").lower() in (b"bulk", b"list", b"junk"):
        return True
    return bool(fields.value(head, b"list-id"))


def double_bounce_address(config: EngineConfig) -> str:
    """As configured, else postmaster at the first domain (by name) that has mailboxes, else nowhere: ""."""
    if config.double_bounce_to:
        return config.double_bounce_to
    having = sorted((d.name, d.domain) for d in config.domains.values() if d.mode in MAILBOX_MODES)
    return f"postmaster@{having[0][1]}" if having else ""
