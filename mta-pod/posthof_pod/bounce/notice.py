"""The first part of a report: what happened, for whom, what the other side said, what to do. For people, in English.

Rules of this file
- What happened comes first, then the other side's own words, then what to do; technical fields are in part two.
- A peer's words are quoted, one line long and without control characters, never taken as ours.
- Lines are at most 76 columns, except where one word is longer.
"""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from posthof_pod import fields
from posthof_pod.bounce.who import Action, Concern, Notice
from posthof_pod.model import Envelope, Outcome, Reason, Status

WIDTH = 76
QUOTE = 1000  # characters of a peer's reply that are shown

_MEANING: dict[str, tuple[str, str]] = {
    "1.1": (
        "The address does not exist at its destination.",
        "Check the address for typing errors, or ask the recipient for the right one.",
    ),
    "1.2": (
        "The domain behind the @ does not exist or takes no mail.",
        "Check the part behind the @ for typing errors.",
    ),
    "1.3": ("The destination does not understand the address.", "Check the address for typing errors."),
    "1.6": ("The mailbox has moved, and mail is not sent after it.", "Ask the recipient for the new address."),
    "1.8": ("The destination does not accept your own address as a sender.", "Check the address you send from."),
    "1.10": (
        "The domain behind the @ says that it takes no mail at all.",
        "Check the part behind the @ for typing errors, or use another address of the recipient.",
    ),
    "2.0": ("The mailbox has a problem.", "Tell the recipient in another way."),
    "2.1": ("The mailbox is switched off.", "Tell the recipient in another way."),
    "2.2": ("The mailbox is full.", "Send it again later, or tell the recipient in another way."),
    "2.3": (
        "The message is too large for this mailbox.",
        "Send it with smaller attachments, or share them as a link.",
    ),
    "3.4": (
        "The message is too large for the destination.",
        "Send it with smaller attachments, or share them as a link.",
    ),
    "4.1": ("The destination's mail server did not answer.", "Send it again later."),
    "4.2": ("The connection to the destination broke down.", "Send it again later."),
    "4.3": (
        "The destination's mail server could not be looked up.",
        "Check the part behind the @, or send it again later.",
    ),
    "4.4": ("There is no mail server for the domain behind the @.", "Check the part behind the @ for typing errors."),
    "4.6": (
        "The message went round in a circle.",
        "Tell the people who run the recipient's mail: two systems forward to each other.",
    ),
    "4.7": (
        "The destination did not take the message in time.",
        "Send it again later, or tell the recipient in another way.",
    ),
    "5.3": ("The message has too many recipients for the destination.", "Send it to fewer recipients at a time."),
    "6.1": ("The destination does not take this kind of content.", "Send it in another form, such as plain text."),
    "6.3": ("The destination does not take this kind of content.", "Send it in another form, such as plain text."),
    "6.7": (
        "The destination's mail system cannot handle an address with letters outside ASCII.",
        "Use an address in plain letters, if the recipient has one.",
    ),
    "6.9": (
        "The destination's mail system cannot handle header fields in UTF-8.",
        "Send it with plain letters in names and addresses.",
    ),
    "7.1": (
        "The destination refuses the message by its rules.",
        "The reply above may say why. Ask the people who run the recipient's mail to let your mail in.",
    ),
    "7.8": ("The next mail server refused our login.", "Tell your postmaster: the login for it has to be renewed."),
    "7.10": ("A secure connection could not be made.", "Tell your postmaster."),
}
_BY_SUBJECT: dict[str, tuple[str, str]] = {
    "1": ("There is a problem with the address.", "Check the address for typing errors."),
    "2": ("There is a problem with the mailbox.", "Tell the recipient in another way."),
    "3": ("The destination's mail system has a problem.", "Send it again later."),
    "4": ("The destination could not be reached.", "Send it again later."),
    "5": ("The destination's mail server did not speak as it should.", "Tell your postmaster if this happens again."),
    "6": ("The destination cannot handle the content.", "Send it in another form, such as plain text."),
    "7": (
        "The destination refuses the message by its rules.",
        "Ask the people who run the recipient's mail to let it in.",
    ),
}
_UNKNOWN = ("The destination did not take the message.", "The reply above may say more.")
_BY_REASON: dict[Reason, tuple[str, str]] = {
    Reason.DNS_FAILED: _MEANING["4.3"],
    Reason.CONNECT_FAILED: _MEANING["4.1"],
    Reason.CONNECT_TIMEOUT: _MEANING["4.1"],
    Reason.SITE_DOWN: _MEANING["4.1"],
    Reason.PEER_CLOSED: _MEANING["4.2"],
    Reason.PEER_TIMEOUT: _MEANING["4.2"],
    Reason.PEER_BROKEN: _BY_SUBJECT["5"],
    Reason.TLS_FAILED: _MEANING["7.10"],
    Reason.TLS_REQUIRED: _MEANING["7.10"],
    Reason.AUTH_FAILED: _MEANING["7.8"],
}

_SAYS: dict[Action, tuple[str, str]] = {
    Action.FAILED: (
        "Your message could not be delivered to this address:",
        "Your message could not be delivered to these addresses:",
    ),
    Action.DELAYED: (
        "Your message has not reached this address yet. You need do nothing: it is tried again until {until}.",
        "Your message has not reached these addresses yet. You need do nothing: it is tried again until {until}.",
    ),
    Action.RELAYED: (
        "Your message was handed on for this address, to a mail system that confirms no deliveries; you will"
        " hear of it again only if something goes wrong:",
        "Your message was handed on for these addresses, to mail systems that confirm no deliveries. You will"
        " hear of it again only if something goes wrong:",
    ),
    Action.DELIVERED: (
        "Your message was delivered to this address:",
        "Your message was delivered to these addresses:",
    ),
}
_DOUBLE = (
    "To the postmaster. A bounce, or other mail with the null sender, could not be delivered. Nobody else is told"
    " of it: a bounce is never answered by a bounce."
)


class Facts(NamedTuple):
    """What the words are about, beside the notice."""

    hostname: str
    subject: str  # of the message, decoded; "" where it has none
    date: str  # its Date field as it stands, "" where it has none
    until: float  # unix seconds: the end of the tries
    now: float
    returned: str  # what the third part is: "the message itself", "its header"


def write(notice: Notice, envelope: Envelope, facts: Facts) -> str:
    """The text, lines ended by "\\n"."""
    paragraphs = [f"This is the mail system at {facts.hostname}."]
    if notice.is_double:
        paragraphs.append(_wrapped(_DOUBLE))
    for action in Action:
        concerned = [c for c in notice.concerns if c.action is action]
        if concerned:
            says = _SAYS[action][len(concerned) > 1].replace("{until}", _when(facts.until))
            paragraphs.append(_wrapped(says.replace("Your message", "It") if notice.is_double else says))
            paragraphs += [_recipient(one, envelope, facts) for one in concerned]
    paragraphs.append(_message(envelope, facts))
    paragraphs.append(
        _wrapped(
            f"The next part of this report is for mail programs, the last one is {facts.returned}. If you ask for"
            " help, send this report whole. Nobody reads replies to it."
        )
    )
    return "\n\n".join(paragraphs) + "\n"


def _recipient(concern: Concern, envelope: Envelope, facts: Facts) -> str:
    outcome = concern.outcome
    recipient = envelope.recipients[outcome.recipient]
    name = fields.one_line(recipient.address)
    if recipient.original and recipient.original != recipient.address:
        name = f"{fields.one_line(recipient.original)} (which goes to {name})"
    lines = ["  " + name]
    if concern.action in (Action.FAILED, Action.DELAYED):
        meaning, advice = explain(outcome)
        if outcome.status is Status.EXPIRED:
            lines.append(
                _wrapped(f"It was tried for {_duration(facts.now - envelope.arrived)} and then given up.", 4)
            )
        lines.append(_wrapped(meaning, 4))
        lines += _quoted(outcome)
        if concern.action is Action.FAILED:
            lines.append(_wrapped("What you can do: " + advice, 4))
    elif outcome.host:
        lines.append(_wrapped(f"It was taken by {host(outcome)}.", 4))
    return "\n".join(lines)


def _quoted(outcome: Outcome) -> list[str]:
    words = reply(outcome)
    if not words:
        return []
    lead = f"{host(outcome)} said:" if outcome.host and outcome.code else "Details:"
    return [_wrapped(lead, 4), _wrapped(words, 6)]


def _message(envelope: Envelope, facts: Facts) -> str:
    lines = ["The message:"]
    if facts.subject:
        lines.append(_wrapped(f"Subject:   {facts.subject}", 2))
    if facts.date:
        lines.append(f"  Written:   {facts.date}")
    lines.append(f"  Came here: {_when(envelope.arrived)}")
    if envelope.message_id:
        lines.append(f"  Id:        {fields.one_line(envelope.message_id, 250)}")
    lines.append(f"  Queue id:  {envelope.id}")
    return "\n".join(lines)


def explain(outcome: Outcome) -> tuple[str, str]:
    """(what it means, what to do) in a person's words, from the enhanced code (RFC 3463) and the reason."""
    detail = outcome.enhanced.partition(".")[2]
    if detail in _MEANING:
        return _MEANING[detail]
    if not outcome.code and outcome.reason in _BY_REASON:
        return _BY_REASON[outcome.reason]
    return _BY_SUBJECT.get(detail.partition(".")[0], _UNKNOWN)


def host(outcome: Outcome) -> str:
    """ "mx.example.org (192.0.2.1)" from an outcome's "mx.example.org[192.0.2.1]:25"."""
    name, bracket, rest = fields.one_line(outcome.host, 300).partition("[")
    address = rest.rpartition("]")[0]
    return f"{name} ({address})" if bracket and name and address else fields.one_line(outcome.host, 300)


def reply(outcome: Outcome) -> str:
    """The other side's words on one line, with the reply code and the enhanced code in front, each once."""
    words = fields.one_line(outcome.reply, QUOTE)
    if outcome.code and not words.startswith(str(outcome.code)):
        if outcome.enhanced and not words.startswith(outcome.enhanced):
            words = f"{outcome.enhanced} {words}"
        words = f"{outcome.code} {words}"
    return words.strip()


def _wrapped(text: str, indent: int = 0) -> str:
    blank = " " * indent
    return textwrap.fill(
        text, WIDTH, initial_indent=blank, subsequent_indent=blank, break_long_words=True, break_on_hyphens=False
    )


def _when(at: float) -> str:
    return fields.date(at).decode().replace(" +0000", " UTC") if at < 1e11 else "it is delivered"


def _duration(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"
