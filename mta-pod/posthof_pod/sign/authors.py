"""Whose name a message may carry: which of our domains signs it, if any.

Rules of this file
- Only mail that came from us is signed: of roles that our own hosts and accounts use, taken by a rule that knows its
  clients, or made here. What the world sent is never signed as its author's, whatever From says and wherever an alias
  leads it: that would give a forger our name.
- A tenant's mail is signed by the domains of its own namespace alone.
- The domain is that of From, exactly: one address, one domain. What has no such From is not signed. A report, whose
  From is at the MTA's hostname, may be signed by the next domain of ours above that.
"""

from __future__ import annotations

import ipaddress
import re

from posthof_crds import names
from posthof_crds.engine import EngineConfig, ListenerRole, Rule
from posthof_pod import fields
from posthof_pod.model import Envelope, Origin, Recipient

_ADDRESS = re.compile(rb'(?:[^<>@"]|"(?:[^"\\]|\\.)*")*<(?:[^<>@"\s]|"(?:[^"\\<>]|\\.)*")+@([^<>@\s"]+)>\s*')
_BARE = re.compile(rb"[^<>@\"\s,;:()]+@([^<>@\s\",;:()]+)\s*")
_OWN_ROLES = frozenset({str(ListenerRole.INTERNAL), str(ListenerRole.SUBMISSION), str(ListenerRole.SUBMISSIONS)})


def author_domain(head: bytes) -> str:
    """The domain of the one address in From, in its one form; "" where there is not exactly one."""
    found = fields.values(head, b"from")
    if len(found) != 1:
        return ""
    match = _ADDRESS.fullmatch(found[0]) or _BARE.fullmatch(found[0])
    if match is None:
        return ""
    try:
        return names.split("a@" + match[1].decode("utf-8"))[1]
    except UnicodeDecodeError:
        return ""


class Authors:
    """The judgement of one configuration."""

    __slots__ = ("_knowing", "_tenants")

    def __init__(self, config: EngineConfig) -> None:
        self._knowing = {rule.name for rule in config.rules if _knows_clients(rule)}
        self._tenants = {rule.name: rule.name.partition("/")[0] for rule in config.rules if rule.is_foreign}

    def may_sign(self, envelope: Envelope, recipient: Recipient, owner: str) -> bool:
        """`owner`: the MailDomain's name, in a cluster "namespace/name"."""
        if envelope.origin == Origin.REPORT:
            return True
        rule = recipient.rule
        if not (envelope.role in _OWN_ROLES or envelope.credential or rule in self._knowing):
            return False
        tenant = self._tenants.get(rule)
        return tenant is None or owner.startswith(tenant + "/")


def _knows_clients(rule: Rule) -> bool:
    """Networks as wide as the world know nobody."""
    match = rule.match
    is_narrow = bool(match.clients) and all(map(_is_narrow, match.clients))
    return is_narrow or bool(match.workloads or match.credentials)


def _is_narrow(network: str) -> bool:
    found = ipaddress.ip_network(network, strict=False)
    return found.prefixlen >= (8 if found.version == 4 else 16)
