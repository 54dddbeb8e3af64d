"""From a recipient to the Destination it shares a queue and sessions with.

Owns: Routes, which keeps each Destination once per worker and config. Asked when a message is accepted and again at
each try, so that a changed manifest moves mail that is already queued.

Rules
- First the rules that say where mail goes (Direct, Smarthost, LMTP), as policy.py asks them; then the MailDomain;
  then, for our own mail, mail released from a Hold rule, and mail of accounts that no rule took, Direct.
- None of them: there is no destination any more (the rule or MailDomain that took the mail is gone). The mail waits
  with Reason.NO_ROUTE; it does not leave by a way nobody wrote down.
- Our own name or port among the hosts is not looked at here: resolve/ ends such lists.
"""

from __future__ import annotations

import msgspec

from posthof_crds import names
from posthof_crds.engine import ActionKind, Domain, Egress, EngineConfig, InboundMode, Rule, TLSLevel
from posthof_pod.admit.policy import CompiledPolicy, Facts
from posthof_pod.model import Destination, DestinationKind, Envelope, Origin, Recipient, TLSWish

_REMEMBERED = 65536  # Destinations kept; then the table begins anew (they compare by value)

_KINDS = {
    ActionKind.DIRECT: DestinationKind.DIRECT,
    ActionKind.SMARTHOST: DestinationKind.SMARTHOST,
    ActionKind.LMTP: DestinationKind.LMTP,
}


class Routes:
    """The Destinations of one config. Make one per CompiledPolicy."""

    def __init__(self, policy: CompiledPolicy) -> None:
        self._policy = policy
        self._config = policy.config
        self._ours = {name: _of_domain(domain, policy.config) for name, domain in policy.config.domains.items()}
        self._by_rule: dict[tuple[str, str], Destination] = {}
        self._by_wish: dict[tuple[str, int], Destination] = {}
        self._has_rules = bool(policy.config.rules)

    def destination(self, envelope: Envelope, recipient: Recipient) -> Destination | None:
        """Where the recipient goes now; None: nowhere, Reason.NO_ROUTE."""
        found = self._destination(envelope, recipient)
        return self._as_wished(found, envelope.tls_wish) if envelope.tls_wish and found is not None else found

    def _as_wished(self, found: Destination, wish: int) -> Destination:
        """The same way with the TLS the sender asks for (RFC 8689): a destination, and so a queue, of its own."""
        kind = TLSWish(wish)
        if found.kind in (DestinationKind.LOCAL, DestinationKind.LMTP):
            return found  # final delivery: no hop follows
        if kind is TLSWish.OPTIONAL and found.tls is not TLSLevel.BEST:
            return found  # only what destinations publish gives way, not what our own rule demands
        made = self._by_wish.get((found.key, wish))
        if made is None:
            tls = TLSLevel.MAY if kind is TLSWish.OPTIONAL else _authenticated(found)
            key = f"{found.key} {'tls-optional' if kind is TLSWish.OPTIONAL else 'requiretls'}"
            changed = {"key": key, "tls": tls, "requires_tls": kind is TLSWish.REQUIRED}
            if len(self._by_wish) >= _REMEMBERED:
                self._by_wish.clear()
            made = self._by_wish[found.key, wish] = msgspec.structs.replace(found, **changed)
        return made

    def _destination(self, envelope: Envelope, recipient: Recipient) -> Destination | None:
        domain = names.split(recipient.address)[1]
        ours = self._ours.get(domain)
        if not self._has_rules and ours is not None:
            return ours
        is_forwarded = bool(recipient.original) or envelope.origin != Origin.CLIENT
        rule = self._way_out(envelope, recipient, is_forwarded=is_forwarded) if self._has_rules else None
        if rule is not None:
            return self._of_rule(rule, domain)
        if domain in self._ours:
            return ours
        is_released = self.disposition(recipient) is ActionKind.HOLD
        is_submitted = bool(envelope.credential) and not recipient.rule
        return self._direct(domain) if is_forwarded or is_released or is_submitted else None

    def _way_out(self, envelope: Envelope, recipient: Recipient, *, is_forwarded: bool) -> Rule | None:
        facts = Facts(
            envelope.role,
            envelope.client,
            envelope.sender,
            recipient.address,
            origin=Origin(envelope.origin),
            is_forwarded=is_forwarded,
            credential=envelope.credential,
            certificate=tuple(envelope.certificate.split()) if envelope.certificate else (),
        )
        return self._policy.way_out(facts, recipient.rule)

    def disposition(self, recipient: Recipient) -> ActionKind | None:
        """HOLD or DISCARD where the rule that took the recipient says so, None: it is to be delivered."""
        rule = self._policy.rule(recipient.rule) if recipient.rule else None
        kind = rule.action.kind if rule is not None else None
        return kind if kind in (ActionKind.HOLD, ActionKind.DISCARD) else None

    def of_domain(self, domain: str) -> Destination | None:
        """Where a MailDomain's own mail goes: for callouts. `domain` in its one form."""
        return self._ours.get(domain)

    def _of_rule(self, rule: Rule, domain: str) -> Destination:
        """Direct has a Destination for each domain, the others one for the rule."""
        name = domain if rule.action.kind is ActionKind.DIRECT else ""
        found = self._by_rule.get((rule.name, name))
        if found is None:
            found = self._remember((rule.name, name), _by_rule(rule, domain, self._config))
        return found

    def _direct(self, domain: str) -> Destination:
        found = self._by_rule.get(("", domain))
        if found is None:
            config = self._config
            made = Destination(
                key=f"direct:{domain}",
                kind=DestinationKind.DIRECT,
                name=domain,
                tls=TLSLevel.BEST,
                egress=config.egress,
                limits=config.limits,
                retry=config.retry,
            )
            found = self._remember(("", domain), made)
        return found

    def _remember(self, key: tuple[str, str], made: Destination) -> Destination:
        if len(self._by_rule) >= _REMEMBERED:
            self._by_rule.clear()
        self._by_rule[key] = made
        return made


def _authenticated(found: Destination) -> TLSLevel:
    """The level under which a host proves who it is: as published for MX hosts, Verify for hosts we name."""
    if found.tls in (TLSLevel.VERIFY, TLSLevel.DANE, TLSLevel.MTASTS):
        return found.tls
    return TLSLevel.BEST if found.kind is DestinationKind.DIRECT else TLSLevel.VERIFY


def _by_rule(rule: Rule, domain: str, config: EngineConfig) -> Destination:
    action = rule.action
    is_direct = action.kind is ActionKind.DIRECT
    target = domain if is_direct else _hop_text(action.hops[0].name, action.hops[0].port)
    return Destination(
        key=f"{rule.name}:{target}",
        kind=_KINDS[action.kind],
        name=target,
        hops=action.hops,
        tls=rule.tls,
        egress=_egress(rule.egress, config.egress),
        client_certificate=rule.client_certificate,
        username=action.username,
        password=action.password,
        limits=rule.limits or config.limits,
        retry=rule.retry or config.retry,
        rule=rule.name,
    )


def _egress(egress: Egress, default: Egress) -> Egress:
    """compile() has completed it already; a config made by hand may not have."""
    return egress if egress != Egress() else default


def _hop_text(name: str, port: int) -> str:
    return f"{name}:{port}" if port else name


def _of_domain(domain: Domain, config: EngineConfig) -> Destination | None:
    """None: modes Alias and Reject have no mailboxes."""
    if domain.mode is InboundMode.MAILDIR:
        return Destination(
            key=f"local:{domain.domain}",
            kind=DestinationKind.LOCAL,
            name=domain.domain,
            limits=domain.limits or config.limits,
            retry=domain.retry or config.retry,
        )
    if domain.mode not in (InboundMode.LMTP, InboundMode.RELAY):
        return None
    is_lmtp = domain.mode is InboundMode.LMTP
    hop = domain.next_hops[0]
    return Destination(
        key=f"{'lmtp' if is_lmtp else 'relay'}:{domain.domain}:{_hop_text(hop.name, hop.port)}",
        kind=DestinationKind.LMTP if is_lmtp else DestinationKind.SMARTHOST,
        name=domain.domain,
        hops=domain.next_hops,
        tls=domain.tls,
        egress=config.egress,
        limits=domain.limits or config.limits,
        retry=domain.retry or config.retry,
    )
