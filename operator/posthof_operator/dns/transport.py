"""The records about TLS with a domain's hosts: what announces its MTA-STS policy, where that is found, where reports
about TLS go. Pure, as rows.py is.

Rules of this file
- The id in the record is made of the policy's text (posthof_crds.policytext), and of the text as the pods serve it:
  `enforce` counts as `testing` while a host in it has not been seen with a certificate the world believes.
- `mta-sts.<domain>` is right when it leads to an address of ours, or is an alias of one of our hosts: the certificate
  it presents is the world's to judge.
- What the MailDomain does not ask for has no row.
"""

from __future__ import annotations

from typing import NamedTuple

from posthof_crds import policytext
from posthof_crds.engine import OwnPolicy
from posthof_crds.units import Unclear, duration


class Policy(NamedTuple):
    """The policy a MailDomain asks for, as it is published now."""

    record: str  # the text of the TXT record
    mode: str  # as it is served
    wanted: str  # as the MailDomain says
    waits_for: tuple[str, ...]  # hosts that keep it in testing


def policy_of(asked: object, hosts: tuple[str, ...], proven: frozenset[str]) -> Policy | None:
    """`asked`: `dns.mtaSts` of the MailDomain as it stands in the object. None: none, or one that cannot be read."""
    if not isinstance(asked, dict):
        return None
    more = tuple(str(one) for one in asked.get("mx") or ())
    seconds = _seconds(asked.get("maxAge"))
    if seconds is None:
        return None
    own = OwnPolicy(mode=str(asked.get("mode", "Testing")).lower(), max_age=seconds, mx=more)
    named = policytext.hosts(own, hosts)
    waits = tuple(host for host in named if host not in proven)
    mode = policytext.mode(own, named, waits)
    text = policytext.text(own, named, mode)
    return Policy(policytext.record(text), mode, own.mode, waits if mode != own.mode else ())


def _seconds(age: object) -> int | None:
    """A duration as objects have it; None where it is none."""
    try:
        return OwnPolicy(mode="").max_age if age is None else int(duration(age))
    except Unclear:
        return None


def record_name(domain: str) -> str:
    return f"_mta-sts.{domain}"


def host_name(domain: str) -> str:
    return f"mta-sts.{domain}"


def reports_name(domain: str) -> str:
    return f"_smtp._tls.{domain}"
