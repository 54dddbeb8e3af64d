"""What one message leaves for the report of its author's domain (RFC 9990 section 3): no address, no content.

Rules
- Two messages with equal rows are one row of the report with a count of two: what differs for each message has no
  place here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

from posthof_pod.mailauth.dmarc.evaluate import Policy, Verdict
from posthof_pod.mailauth.dmarc.record import Record

Disposition = Literal["none", "pass", "quarantine", "reject"]


class Published(msgspec.Struct, frozen=True, array_like=True):
    """The policy that was found, and where reports about it go."""

    domain: str  # where the record stands
    organisation: str
    p: str
    sp: str
    np: str
    adkim: str
    aspf: str
    is_testing: bool
    fo: str
    rua: tuple[str, ...]
    ruf: tuple[str, ...] = ()


class Row(msgspec.Struct, frozen=True, array_like=True):
    """One message, judged."""

    published: Published
    source: str  # the client's address
    disposition: Disposition
    dkim: bool  # aligned and passed
    spf: bool
    author: str  # the domain in From
    sender: str  # the envelope sender's domain, HELO's for the null sender
    signatures: tuple[tuple[str, str, str], ...]  # domain, selector, result
    spf_domain: str
    spf_scope: Literal["mfrom", "helo"]
    spf_result: str
    overrides: tuple[tuple[str, str], ...] = ()  # type, comment


class Failure(NamedTuple):
    """One message that failed, for a report about it alone (RFC 9991)."""

    published: Published
    author: str
    source: str
    sender: str
    results: bytes  # our Authentication-Results field
    delivery: str  # "delivered", "policy", "reject"
    aligned: tuple[str, ...]  # "dkim", "spf"
    head: bytes


def wants_failure(verdict: Verdict, spf: str, signatures: Iterable[str]) -> bool:
    """Whether the owner asks for a report about this one (RFC 9989 4.7, fo). `spf`: its result; `signatures`:
    theirs."""
    if verdict.policy is None or not verdict.policy.record.ruf or verdict.result not in ("pass", "fail"):
        return False
    options = verdict.policy.record.fo
    return (
        ("0" in options and verdict.result == "fail")
        or ("1" in options and not (verdict.aligned.spf and verdict.aligned.dkim))
        or ("d" in options and any(one in ("fail", "permerror", "policy") for one in signatures))
        or ("s" in options and spf in ("fail", "softfail"))
    )


def published(policy: Policy) -> Published:
    record: Record = policy.record
    return Published(
        policy.domain,
        policy.organisation,
        record.p,
        record.sp or "",
        record.np or "",
        "s" if record.is_strict_dkim else "r",
        "s" if record.is_strict_spf else "r",
        record.is_testing,
        ":".join(sorted(record.fo)),
        record.rua,
        record.ruf,
    )


def is_wanted(verdict: Verdict) -> bool:
    """Whether the owner asks for reports, and the message counts (RFC 9990 3: not after a temporary error)."""
    policy = verdict.policy
    return policy is not None and bool(policy.record.rua) and verdict.result in ("pass", "fail")
