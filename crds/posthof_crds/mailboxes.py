"""Who a local part is in one of our domains. One look-up, for the check of manifests and for RCPT TO.

Workers import it: no pydantic, no yaml.

The first that knows the name wins:
1. an alias of exactly this name; 2. a mailbox of exactly this name; 3. without the detail (`bob+shop` -> `bob`) an
alias, then a mailbox; 4. `postmaster`: the catch-all, else a mailbox where the mode has mailboxes, else where double
bounces go (RFC 5321 section 4.5.1: it always exists); 5. `any` or `callout`; 6. the catch-all.

In mode Reject only postmaster exists.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from posthof_crds import names
from posthof_crds.engine import Domain, InboundMode, RecipientCheck

MAILBOX_MODES = frozenset({InboundMode.MAILDIR, InboundMode.LMTP, InboundMode.RELAY})
POSTMASTER = "postmaster"


class Where(enum.IntEnum):
    ALIAS = 0  # `targets`
    MAILBOX = 1
    ASK = 2  # the next hop knows
    CATCH_ALL = 3  # `targets`
    DOUBLE_BOUNCE = 4  # postmaster without a place of its own
    REFUSED = 5  # mode Reject
    NOBODY = 6


class Hit(NamedTuple):
    where: Where
    key: str = ""  # the folded name that was found: what two spellings of one entry share
    targets: tuple[str, ...] = ()
    detail: str = ""  # "shop" of bob+shop, as written, where `key` is the name without it


def look_up(domain: Domain, local: str, *, skip_aliases: bool = False) -> Hit:
    """`skip_aliases`: for an alias that names itself, meaning the mailbox beside it."""
    key = names.fold(local)
    if domain.mode is InboundMode.REJECT:
        return _in_reject_mode(domain, key)
    hit = None if skip_aliases else _alias(domain, key)
    if hit is not None:
        return hit
    if key in domain.recipients:
        return Hit(Where.MAILBOX, key)
    base, detail = _divide(domain.separator, key, local)
    if base:
        hit = None if skip_aliases else _alias(domain, base, detail)
        if hit is not None:
            return hit
        if base in domain.recipients:
            return Hit(Where.MAILBOX, base, (), detail)
    if POSTMASTER in (key, base):
        return _postmaster(domain)
    if domain.mode in MAILBOX_MODES and domain.check is not RecipientCheck.LIST:
        return Hit(Where.MAILBOX if domain.check is RecipientCheck.ANY else Where.ASK, base or key, (), detail)
    return Hit(Where.CATCH_ALL, "*", domain.catch_all) if domain.catch_all else Hit(Where.NOBODY, key)


def _alias(domain: Domain, key: str, detail: str = "") -> Hit | None:
    targets = domain.aliases.get(key)
    return Hit(Where.ALIAS, key, targets, detail) if targets else None


def _divide(separator: str, key: str, local: str) -> tuple[str, str]:
    """`(name, detail)`; the name is "" where there is no detail to cut off."""
    if not separator or separator not in key:
        return "", ""
    base, _, folded = key.partition(separator)
    as_written = local.partition(separator)[2]
    return base, as_written if names.fold(as_written) == folded else folded


def _postmaster(domain: Domain) -> Hit:
    if domain.catch_all:
        return Hit(Where.CATCH_ALL, "*", domain.catch_all)
    if domain.mode in MAILBOX_MODES:
        return Hit(Where.MAILBOX, POSTMASTER)
    return Hit(Where.DOUBLE_BOUNCE, POSTMASTER)


def _in_reject_mode(domain: Domain, key: str) -> Hit:
    if key != POSTMASTER:
        return Hit(Where.REFUSED, key)
    return _alias(domain, key) or Hit(Where.DOUBLE_BOUNCE, POSTMASTER)
