"""What the admin side says about queued mail: the filter, the answer. Values only; workers and CLI share them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from typing import Any

import msgspec

LIMIT = 1000
STATES = ("ready", "deferred", "held", "sending")


class QueueRecipient(msgspec.Struct, omit_defaults=True):
    """One address that still waits."""

    address: str
    state: str  # STATES
    due: float = 0.0  # unix seconds of the next try; 0: none (held) or at once
    attempts: int = 0
    reason: str = ""  # model.Reason
    destination: str = ""  # Destination.key
    rule: str = ""


class QueueItem(msgspec.Struct, omit_defaults=True):
    """One message with what waits of it."""

    id: str
    sender: str
    arrived: float  # unix seconds
    size: int
    waiting: list[QueueRecipient]
    message_id: str = ""
    client: str = ""
    client_name: str = ""
    role: str = ""
    recipients: int = 0  # at arrival
    detail: str = ""  # the last full reply
    worker: str = ""


class QueuePage(msgspec.Struct, omit_defaults=True):
    """`items`: the oldest `limit`. `total`: how many messages the filter meets."""

    items: list[QueueItem]
    total: int = 0
    missing: list[str] = []  # workers that did not answer


class QueueFilter(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """All given parts must hold. Addresses are globs without regard to case; "<>" is the null sender; "@example.org"
    and "example.org" mean every address there. `destination` is a glob over keys and their names."""

    ids: list[str] = []
    sender: str = ""
    recipient: str = ""
    destination: str = ""
    state: str = ""
    limit: int = LIMIT
    all: bool = False  # for changing calls: an empty filter means everything only where this says so

    @property
    def is_empty(self) -> bool:
        return not (self.ids or self.sender or self.recipient or self.destination or self.state)


def address_test(pattern: str) -> Callable[[str], bool]:
    """A test for addresses, made once per request."""
    folded = pattern.casefold()
    if folded in ("<>", ""):
        return lambda address: not address
    if "@" not in folded:
        folded = f"*@{folded}"
    elif folded.startswith("@"):
        folded = f"*{folded}"
    if not is_glob(folded):
        return lambda address: address.casefold() == folded
    glob = re.compile(fnmatch.translate(folded.replace("[", "[[]")))  # a "[" is an address literal's, no class
    return lambda address: glob.match(address.casefold()) is not None


def is_glob(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


def recipient_test(wanted: QueueFilter) -> Callable[[QueueRecipient], bool]:
    """Does a waiting recipient meet the filter's recipient, destination and state?"""
    is_address = address_test(wanted.recipient) if wanted.recipient else None
    destination = wanted.destination.casefold()
    glob = re.compile(fnmatch.translate(destination.replace("[", "[[]"))) if is_glob(destination) else None

    def test(one: QueueRecipient) -> bool:
        if wanted.state and one.state != wanted.state:
            return False
        if is_address is not None and not is_address(one.address):
            return False
        if not destination:
            return True
        key = one.destination.casefold()
        if glob is not None:
            return glob.match(key) is not None
        return key == destination or destination in key.split(":")

    return test


def item_test(wanted: QueueFilter) -> Callable[[QueueItem], bool]:
    """Does a message meet the filter: its id and sender, and one waiting recipient all the rest?"""
    ids = frozenset(wanted.ids)
    is_sender = address_test(wanted.sender) if wanted.sender else None
    is_recipient = recipient_test(wanted)

    def test(item: QueueItem) -> bool:
        if ids and item.id not in ids:
            return False
        if is_sender is not None and not is_sender(item.sender):
            return False
        return any(is_recipient(one) for one in item.waiting)

    return test


def filter_of(payload: Any) -> QueueFilter:
    """The filter in a frame or a request. Raises msgspec.ValidationError."""
    return msgspec.convert(payload, QueueFilter)
