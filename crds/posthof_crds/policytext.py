"""The MTA-STS policy we publish for a domain, and the record that announces it (RFC 8461 section 3).

Both sides write it: the pod serves the text, the operator compares the record; so its id is made of the text. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from posthof_crds.engine import EngineConfig, OwnPolicy

ENFORCE, TESTING = "enforce", "testing"


def hosts(policy: OwnPolicy, hostnames: Iterable[str]) -> tuple[str, ...]:
    """The MX hosts in the policy: those of the MTAs that receive, and what the MailDomain adds."""
    return tuple(sorted({*hostnames, *policy.mx}))


def mode(policy: OwnPolicy, named: Iterable[str], unproven: Collection[str]) -> str:
    """What is published. `unproven`: hosts that are not known to present a valid certificate: with one of them in an
    enforced policy, senders that obey it could deliver nothing."""
    if policy.mode == ENFORCE and any(host in unproven for host in named):
        return TESTING
    return policy.mode


def text(policy: OwnPolicy, named: Iterable[str], published: str) -> str:
    """The policy. `published`: its mode."""
    lines = ["version: STSv1", f"mode: {published}", *(f"mx: {host}" for host in named), f"max_age: {policy.max_age}"]
    return "".join(f"{line}\r\n" for line in lines)


def policy_id(policy_text: str) -> str:
    """Another text has another id; the same text has the same, on every pod."""
    return hashlib.sha256(policy_text.encode()).hexdigest()[:20]


def record(policy_text: str) -> str:
    """The TXT record at `_mta-sts.<domain>`."""
    return f"v=STSv1; id={policy_id(policy_text)};"


def mx_hosts(config: EngineConfig) -> tuple[str, ...]:
    """Every host that stands in a policy of this MTA's domains."""
    found = [hosts(one.mta_sts, (config.hostname,)) for one in config.domains.values() if one.mta_sts]
    return tuple(sorted({host for each in found for host in each}))
