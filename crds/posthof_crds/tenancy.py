"""What a tenant may say: objects of another namespace than the MTA's, judged by the MTA's `allowedNamespaces`. Pure.

The rules, and why:

1. A namespace that no entry of allowedNamespaces selects says nothing at all.
2. A MailDomain is received for only where an entry's `domains` covers it, or the TXT record of its status proves it.
   The MTA's own hostname is never a tenant's: reports that cannot be delivered may go there.
3. Mail goes only to next hops that an entry's `nextHops` covers, as they are written; Direct goes anywhere and needs
   `*`. Sockets are nobody's. Aliases and redirects name addresses, not hosts: where mail for those goes is said by
   the MTA's own rules.
4. A Maildir lies in the folder of its own domain: its path begins with `{domain}/`.
5. A RelayPolicy of a tenant is about mail that the tenant's own pods bring, and about no other: its match is narrowed
   to the pods of its namespace (all of them, or those of its podSelector). So it can neither let strangers relay, nor
   redirect, hold, refuse or drop what others send or receive, whatever its senders, recipients or headers say;
   senders and headers can be written by anybody, a pod's address cannot. It is never asked about reports and about
   what aliases and redirects lead to, which is everybody's mail.
6. A tenant's rules are asked after the MTA's own rules of priority 0 and above, and before those below 0: the owner
   writes what nobody may change with 0 and above, and what everybody may change below 0.
7. Source addresses and EHLO names are the MTA's.
8. A RelayPolicy or SMTPCredential with a Secret is obeyed only by the MTA it names by mtaRef: what is in the Secret,
   or checks what is in it, goes to that MTA's namespace, and who may read Secrets there reads it.
9. A SMTPCredential of a tenant sends as domains of MailDomains of its own namespace that this MTA accepts, and as
   domains an entry's `domains` covers and nobody else receives for; never by a wildcard in the domain, never as the
   MTA's hostname. Where no rule says otherwise its mail goes Direct only with the entry `*` in `nextHops`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from posthof_crds import patterns
from posthof_crds.allowed import Allowance
from posthof_crds.engine import ActionKind, Credential, Domain, InboundMode, NextHop, Rule
from posthof_crds.parts import Part
from posthof_crds.reasons import Reason
from posthof_crds.selectors import Selection, Selector

PROOF_LABEL = "_posthof-challenge"  # the name of the TXT record, below the domain


class Refusal(NamedTuple):
    reason: Reason
    message: str  # names the mend


def not_allowed(namespace: str, mta: str) -> Refusal:
    """`mta`: "namespace/name"."""
    return Refusal(
        Reason.NOT_ALLOWED,
        f"MTA {mta} takes nothing from namespace {namespace}. Its owner can add an entry to spec.allowedNamespaces.",
    )


def refuse_domain(
    part: Part, domain: Domain, allowed: Allowance, hostname: str, *, is_proven: bool
) -> Refusal | None:
    """Why a tenant's MailDomain is not received for; None: it may be."""
    if domain.domain == hostname:
        return Refusal(Reason.NOT_ALLOWED, f"{hostname} is the MTA's own name. Choose another domain.")
    if not is_proven and not allowed.covers_domain(domain.domain):
        return Refusal(
            Reason.PROOF_MISSING,
            f"{domain.domain} is not proven to be this namespace's. Publish the TXT record "
            f"{PROOF_LABEL}.{domain.domain} that status.proof tells, or ask the MTA's owner for an entry in "
            "spec.allowedNamespaces[].domains.",
        )
    if domain.mode is InboundMode.MAILDIR and not domain.maildir.startswith("{domain}/"):
        return Refusal(
            Reason.NOT_ALLOWED,
            'A Maildir lies in the folder of its own domain. Begin spec.inbound.maildir with "{domain}/".',
        )
    return _refuse_hops(domain.next_hops, allowed)


def _refuse_hops(hops: tuple[NextHop, ...], allowed: Allowance) -> Refusal | None:
    for hop in hops:
        if not allowed.covers_hop(hop):
            return Refusal(
                Reason.NEXT_HOP_NOT_ALLOWED,
                f"Mail may not be sent to {hop.name}. Use a next hop that the MTA allows, or ask its owner for an "
                "entry in spec.allowedNamespaces[].nextHops.",
            )
    return None


def refuse_rule(part: Part, rule: Rule, allowed: Allowance) -> Refusal | None:
    """Why a tenant's RelayPolicy is not obeyed; None: it is, once `narrowed`."""
    if part.selection is not None and not part.selection.namespace:
        return Refusal(
            Reason.NOT_ALLOWED, "A rule is about the pods of its own namespace. Remove spec.match.namespaces."
        )
    if rule.egress.helo:
        return Refusal(Reason.NOT_ALLOWED, "The name at EHLO is the MTA's to say. Remove spec.egress.")
    if rule.client_certificate:
        return Refusal(Reason.NOT_ALLOWED, "The MTA's certificates are not yours to show. Remove spec.clientCertRef.")
    if rule.action.kind is ActionKind.DIRECT and not allowed.has_any_hop:
        return Refusal(
            Reason.NEXT_HOP_NOT_ALLOWED,
            "Direct sends mail to any host. Use a Smarthost that the MTA allows, or ask its owner for the entry * in "
            "spec.allowedNamespaces[].nextHops.",
        )
    return _refuse_hops(rule.action.hops, allowed)


def refuse_credential(
    credential: Credential, allowed: Allowance, own: Collection[str], others: Collection[str]
) -> Refusal | None:
    """Why a tenant's SMTPCredential is not taken. `own`, `others`: domains this MTA receives for on the word of its
    namespace, and of others."""
    if credential.oauth is not None or credential.ldap is not None or credential.certificate:
        return Refusal(
            Reason.NOT_ALLOWED,
            "Whose tokens, directories and certificates hold is the MTA's to say. Write secretRef or generate.",
        )
    for pattern in credential.senders:
        _, domain = patterns.parts(pattern) if pattern != "<>" else ("", "")
        is_free = "*" not in domain and domain not in others and allowed.covers_domain(domain)
        if domain and domain not in own and not is_free:
            return Refusal(
                Reason.SENDER_NOT_ALLOWED,
                f"It may not send as {pattern}. Name domains of MailDomains of this namespace that the MTA accepts, "
                "or ask the MTA's owner for an entry in spec.allowedNamespaces[].domains.",
            )
    return None


def narrowed(part: Part, rule: Rule) -> tuple[Rule, Selection | None]:
    """A tenant's rule, about its own namespace's pods alone, or about its accounts where it names some."""
    if rule.match.credentials and part.selection is None:
        return msgspec.structs.replace(rule, is_foreign=True), None
    pods = part.selection.pods if part.selection is not None else Selector()
    selection = Selection(part.namespace, Selector(), pods)
    match = msgspec.structs.replace(rule.match, workloads=(str(selection),))
    return msgspec.structs.replace(rule, match=match, is_foreign=True), selection


def order(rule: Rule, created: str) -> tuple[int, int, str, str]:
    """When a rule is asked: the owner's of 0 and above, the tenants', the owner's below 0; in each by priority, then
    the older, then by name."""
    band = 1 if rule.is_foreign else 0 if rule.priority >= 0 else 2
    return band, -rule.priority, created or "~", rule.name
