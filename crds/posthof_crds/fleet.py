"""What the pods of one MTA shall do: the MTA, and the parts of all objects that may be for it -> EngineConfig. Pure.

Rules of this file
- Nothing is asked of anybody: namespaces' labels, proofs and ConfigMaps are passed in. Equal input, equal answer.
- An object that is wrong, or not allowed, never stands in the way of the others: it has its verdict, and where its
  last good version is known that stays in force.
- What a tenant may say is decided in tenancy.py. Of two MailDomains with one domain the proven one wins, then the
  older, then the first by namespace/name. The MTA's own namespace counts as proven.
- A rule whose Secret is missing stays in force, and a listener whose certificate is missing keeps naming it: mail
  waits in the queue rather than leave by another way, and TLS begins when the pair is there.
- An object nobody means for this MTA has no verdict here: without mtaRef that is one in a namespace that is not
  allowed, or one that the MTA's selectors do not select, or one of another namespace that needs a Secret. What is in
  a Secret goes to the MTA's namespace, and whoever makes an MTA chooses which namespaces it allows: so only the
  object itself can say, by mtaRef, that this MTA may have it.
- A last good version may come from shards, which whoever may write ConfigMaps beside the MTA can forge: it is given
  Secrets of its own namespace only, and of another namespace than the MTA's only one the object still names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from pydantic_core import PydanticCustomError

from posthof_crds import engine, fields, names, tenancy
from posthof_crds.allowed import Allowance
from posthof_crds.compile import Defaults, house_of, listed_in, listener_of
from posthof_crds.engine import ActionKind, Certificate, Domain, EngineConfig, ListenerRole, Rule, SecretRef
from posthof_crds.mailboxes import MAILBOX_MODES, POSTMASTER
from posthof_crds.mta import MTA, MTASpec
from posthof_crds.parts import (
    Flaw,
    Part,
    PartKey,
    credential_secrets,
    made_pair,
    outbound_secrets,
    part_of,
    parts_in_force,
    read,
    secrets_of,
)
from posthof_crds.ports import ADMIN, HEALTH, container_port
from posthof_crds.reasons import Reason
from posthof_crds.selectors import Selection, Selector, selector
from posthof_crds.tenancy import Refusal
from posthof_crds.verifiers import HASHED

SPOOL = "/var/lib/posthof/spool"
MAIL_ROOT = "/var/lib/posthof/mail"
STATE_DIR = "/run/posthof"
CLAIM_SIZE = 10 * 1024**3  # of a spool whose size is not said, bytes
_NAMESPACE_LABEL = "kubernetes.io/metadata.name"


class Verdict(NamedTuple):
    """What the MTA says about one MailDomain, RelayPolicy or AccessPolicy."""

    kind: str
    namespace: str
    name: str
    accepted: bool
    reason: Reason = Reason.ACCEPTED
    message: str = ""  # "" for an accepted one
    resolved: Reason = Reason.RESOLVED  # RelayPolicy: whether its Secrets are there
    resolved_message: str = ""
    shadowed_by: str = ""  # RelayPolicy: "namespace/name" of a rule before it that takes all of its mail


class PodSelection(NamedTuple):
    """Pods a rule is about: those in one of the namespaces whose labels match."""

    namespaces: tuple[str, ...]
    pods: Selector


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """`config` is None exactly when the MTA itself is wrong (`problems`): call again with its last good version."""

    config: EngineConfig | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    secrets: frozenset[SecretRef] = frozenset()  # keys the pods need; names are "namespace/name"
    selections: dict[str, PodSelection] = field(default_factory=dict)  # by id, as in engine.Match.workloads
    problems: tuple[Flaw, ...] = ()
    good: dict[PartKey, Part] = field(default_factory=dict)  # in force now: `good` of the next call
    certificates: tuple[str, ...] = ()  # TLSCerts the listeners name
    missing_certificates: tuple[str, ...] = ()  # of these, those that do not exist or are wrong
    domains: int = 0
    policies: int = 0


def assemble(
    mta: Mapping[str, Any],
    parts: Iterable[Part],
    *,
    namespaces: Mapping[str, Mapping[str, str]],
    proven: Mapping[str, Collection[str]] | None = None,
    config_maps: Mapping[str, Mapping[str, str]] | None = None,
    secrets: Mapping[str, Collection[str]] | None = None,
    good: Mapping[PartKey, Part] | None = None,
    are_translated: bool = False,
) -> Fleet:
    """The fleet of one MTA.

    `mta`: the object as the API server has it. `parts`: of all MailDomains, RelayPolicies and TLSCerts there are.
    `namespaces`: labels by name. `proven`: domain -> "namespace/name" of the MailDomains it proves. `config_maps`:
    "namespace/name" -> data. `secrets`: "namespace/name" -> keys, where known; None: not judged. `good`: the parts in
    force, from the last Fleet or `parts_in_force`. `are_translated`: clients from the world were seen to come with
    addresses that are not their own, whatever the manifest promises; no rule believes them then.
    """
    model, flaws = read("MTA", mta)
    if not isinstance(model, MTA) or flaws:
        return Fleet(problems=flaws)
    namespace = str(mta["metadata"].get("namespace") or "default")
    known = _Known(namespaces, proven or {}, config_maps or {}, secrets, good or {})
    work = _Assembly(model, namespace, known, are_translated=are_translated)
    return work.fleet(parts)


class _Known(NamedTuple):
    """What `assemble` was told, by its names there."""

    namespaces: Mapping[str, Mapping[str, str]]
    proven: Mapping[str, Collection[str]]
    config_maps: Mapping[str, Mapping[str, str]]
    secrets: Mapping[str, Collection[str]] | None
    good: Mapping[PartKey, Part]


class _Bound(NamedTuple):
    """A part that is meant for this MTA. `flaws`: of the object as it is now; `part` is then its last good
    version."""

    part: Part
    created: str
    flaws: tuple[Flaw, ...]
    allowed: Allowance | None  # None: of the MTA's own namespace


class _Assembly:
    """One call of `assemble`."""

    def __init__(self, mta: MTA, namespace: str, known: _Known, *, are_translated: bool) -> None:
        self.mta, self.namespace, self.spec = mta, namespace, mta.spec
        self.full = f"{namespace}/{mta.metadata.name}"
        self.are_translated = are_translated
        self.namespaces, self.proven, self.config_maps, self.secrets, self.last = known
        self.verdicts: list[Verdict] = []
        self.good: dict[PartKey, Part] = {}
        self.base = house_of(mta, Path("/"))
        self.defaults = Defaults(self.base.retry, self.base.limits, engine.Egress(helo=self.base.egress.helo))
        self._selectors = {
            "MailDomain": selector(mta.spec.domain_selector),
            "RelayPolicy": selector(mta.spec.policy_selector),
            "AccessPolicy": selector(mta.spec.policy_selector),
            "SMTPCredential": selector(mta.spec.policy_selector),
        }
        self._allowing = [(selector(each.selector), each) for each in mta.spec.allowed_namespaces]
        self._allowed: dict[str, Allowance | None] = {}
        self._keys: dict[str, list[Part]] = {}  # DKIMKeys that may sign, by "namespace/name" of their MailDomain
        self._keyless: set[str] = set()  # rules in force that are not given the Secret they name

    def fleet(self, parts: Iterable[Part]) -> Fleet:
        domains: list[_Bound] = []
        rules: list[_Bound] = []
        access: list[_Bound] = []
        accounts: list[_Bound] = []
        by_kind = {"MailDomain": domains, "RelayPolicy": rules, "AccessPolicy": access, "SMTPCredential": accounts}
        certificates: dict[str, Part] = {}
        for part in parts:
            if part.kind == "DKIMKey":
                if part.dkim is not None and part.dkim.signs:
                    self._keys.setdefault(f"{part.namespace}/{part.dkim.domain}", []).append(part)
                continue
            if part.kind == "TLSCert":
                if part.namespace == self.namespace:
                    certificates[part.name] = part
                continue
            bound = self._bind(part)
            if bound is not None:
                by_kind[part.kind].append(bound)
        found = self._domains(domains)
        ordered, selections = self._rules(rules)
        credentials = self._credentials(accounts, found, selections)
        named, pairs, missing = self._certificates(certificates, ordered)
        config = msgspec.structs.replace(
            self._config(found, ordered, pairs), access=self._access(access), credentials=credentials
        )
        return Fleet(
            config=config,
            verdicts=self.verdicts,
            secrets=frozenset(
                (
                    *_client_cas(self.spec, self.namespace),
                    *_refs((rule for rule in ordered if rule.name not in self._keyless), pairs, found.values()),
                    *(
                        ref
                        for one in credentials.values()
                        if one.name not in self._keyless
                        for ref in credential_secrets(one)
                    ),
                )
            ),
            selections=selections,
            good=self.good,
            certificates=named,
            missing_certificates=missing,
            domains=len(found),
            policies=len(ordered),
        )

    # -- who is meant ------------------------------------------------------------------------------------------------

    def _bind(self, part: Part) -> _Bound | None:
        """The part, if it is for this MTA and may say something; else it has its verdict, or is not ours to judge."""
        is_named = part.mta is not None
        if is_named and part.mta != (self.namespace, self.mta.metadata.name):
            return None
        is_own = part.namespace == self.namespace
        allowed = None if is_own else self._allows(part.namespace)
        if not is_own and allowed is None:
            if is_named:
                self._refuse(part, tenancy.not_allowed(part.namespace, self.full))
            return None
        if not is_named and not self._selectors[part.kind].matches(part.labels):
            return None
        usable = part if not part.flaws else self.last.get(part.key)
        if usable is None:
            self._refuse(part, Refusal(part.flaws[0].reason, " ".join(map(str, part.flaws))))
            return None
        if not is_own and usable.secrets:
            if not is_named:
                return None
            if usable is not part and any(ref.name != part.named_secret for ref in usable.secrets):
                self._keyless.add(part.full)
        return _Bound(usable, part.created, part.flaws, allowed)

    def _allows(self, namespace: str) -> Allowance | None:
        """None: nothing."""
        if namespace not in self._allowed:
            labels = {**self.namespaces.get(namespace, {}), _NAMESPACE_LABEL: namespace}
            entries = [each for chosen, each in self._allowing if chosen.matches(labels)]
            self._allowed[namespace] = Allowance(entries, namespace) if entries else None
        return self._allowed[namespace]

    def _refuse(self, part: Part, refusal: Refusal) -> None:
        self.verdicts.append(Verdict(part.kind, part.namespace, part.name, False, *refusal))

    def _accept(self, bound: _Bound, **more: Any) -> None:
        """The object is in force; in its last good version, where the newest has flaws."""
        part = bound.part
        self.good[part.key] = part
        if bound.flaws:
            told = " ".join(map(str, bound.flaws)) + " The last good version stays in force."
            self.verdicts.append(
                Verdict(part.kind, part.namespace, part.name, False, bound.flaws[0].reason, told, **more)
            )
        else:
            self.verdicts.append(Verdict(part.kind, part.namespace, part.name, True, **more))

    # -- domains -----------------------------------------------------------------------------------------------------

    def _domains(self, bounds: list[_Bound]) -> dict[str, Domain]:
        """By domain, sorted."""
        winners: dict[str, tuple[tuple[bool, str, str], _Bound]] = {}
        losers: list[_Bound] = []
        for bound in bounds:
            part, domain = bound.part, bound.part.domain
            assert domain is not None
            is_proven = part.full in self.proven.get(domain.domain, ())
            if bound.allowed is not None:
                refusal = tenancy.refuse_domain(part, domain, bound.allowed, self.spec.hostname, is_proven=is_proven)
                if refusal is not None:
                    self._refuse(part, refusal)
                    continue
            complete = self._with_list(bound)
            if complete is None:
                continue
            rank = (bound.allowed is not None and not is_proven, bound.created or "~", part.full)
            standing = winners.get(domain.domain)
            if standing is None or rank < standing[0]:
                if standing is not None:
                    losers.append(standing[1])
                winners[domain.domain] = rank, complete
            else:
                losers.append(complete)
        for loser in losers:
            self._refuse_taken(loser, *winners[_domain(loser).domain])
        for _, winner in winners.values():
            self._accept(winner)
        return {name: self._completed(winners[name][1]) for name in sorted(winners)}

    def _refuse_taken(self, loser: _Bound, rank: tuple[bool, str, str], winner: _Bound) -> None:
        domain, other = _domain(loser).domain, winner.part.full
        loser_needs_proof = loser.allowed is not None and loser.part.full not in self.proven.get(domain, ())
        if loser_needs_proof and not rank[0]:
            why, mend = "which is proven", "Publish the TXT record that status.proof tells, or remove one of the two."
        else:
            why, mend = "which is older", "Remove one of the two."
        text = f"MailDomain {other}, {why}, receives for {domain}. {mend}"
        self._refuse(loser.part, Refusal(Reason.DOMAIN_TAKEN, text))

    def _with_list(self, bound: _Bound) -> _Bound | None:
        """With the mailboxes that `listFrom` names. If these cannot be had, the last good ones stay in force."""
        part = bound.part
        if part.list_from is None or bound.flaws:
            return bound
        found = _mailboxes(self.config_maps.get(part.config_map), *part.list_from)
        if not isinstance(found, Flaw):
            domain = msgspec.structs.replace(_domain(bound), recipients=found)
            return bound._replace(part=msgspec.structs.replace(part, domain=domain))
        last = self.last.get(part.key)
        if last is None or last.domain is None or last.domain.domain != _domain(bound).domain:
            self._refuse(part, Refusal(found.reason, str(found)))
            return None
        return bound._replace(part=last, flaws=(found,))

    def _completed(self, bound: _Bound) -> Domain:
        """With the MTA's retry and limits, where the object has changes of these."""
        domain, changes = self._signing(bound), bound.part.changes
        if changes is None:
            return domain
        return msgspec.structs.replace(domain, **self.defaults.changed_by(changes.retry, changes.limits))

    def _signing(self, bound: _Bound) -> Domain:
        """With the keys that may sign for it, and without any secret where the object of another namespace does not
        name this MTA itself: what is in a Secret goes to the MTA's namespace."""
        part, domain = bound.part, _domain(bound)
        keys = () if bound.flaws else tuple(self._keys_of(part))
        if bound.flaws and domain.outbound is not None:
            keys = domain.outbound.dkim
        if domain.outbound is None and not keys:
            return domain
        if bound.allowed is not None and part.mta is None:
            return msgspec.structs.replace(domain, outbound=None)
        outbound = msgspec.structs.replace(domain.outbound or engine.Outbound(), dkim=keys)
        return msgspec.structs.replace(domain, outbound=outbound)

    def _keys_of(self, part: Part) -> Iterator[engine.SigningKey]:
        """By selector, so that equal objects make equal configurations."""
        found = [each for each in self._keys.get(part.full, ()) if each.dkim is not None]
        for each in sorted(found, key=lambda each: each.dkim.key.selector if each.dkim else ""):
            assert each.dkim is not None
            named = part.signs_with
            if each.dkim.is_auto if named is None else each.name in named:
                yield each.dkim.key

    # -- rules -------------------------------------------------------------------------------------------------------

    def _rules(self, bounds: list[_Bound]) -> tuple[tuple[Rule, ...], dict[str, PodSelection]]:
        """In the order they are asked; and the pods they are about."""
        found: list[tuple[tuple[int, int, str, str], Rule, _Bound]] = []
        selections: dict[str, PodSelection] = {}
        for bound in bounds:
            part, rule = bound.part, bound.part.rule
            assert rule is not None
            selection = part.selection
            if bound.allowed is not None:
                refusal = tenancy.refuse_rule(part, rule, bound.allowed)
                if refusal is not None:
                    self._refuse(part, refusal)
                    continue
                rule, selection = tenancy.narrowed(part, rule)
            elif f"{self.namespace}/*" in rule.match.credentials:
                everybody = msgspec.structs.replace(rule.match, credentials=("*",))
                rule = msgspec.structs.replace(rule, match=everybody)
            if selection is not None:
                selections[str(selection)] = self._pods(selection)
            rule = self._completed_rule(rule, part)
            found.append((tenancy.order(rule, bound.created), rule, bound))
        found.sort(key=lambda each: each[0])
        shadows: dict[engine.Match, str] = {}
        for _, rule, bound in found:
            resolved, message = self._resolved(bound.part)
            shadow = shadows.get(rule.match, "") or ("" if rule.is_foreign else shadows.get(_ALL_MAIL, ""))
            self._accept(bound, resolved=resolved, resolved_message=message, shadowed_by=shadow)
            if rule.match != _ALL_MAIL or rule.action.kind in _TAKES_ALL:
                shadows.setdefault(rule.match, rule.name)
        return tuple(rule for _, rule, _ in found), dict(sorted(selections.items()))

    def _completed_rule(self, rule: Rule, part: Part) -> Rule:
        changed: dict[str, Any] = {}
        if part.changes is not None:
            changed = self.defaults.changed_by(part.changes.retry, part.changes.limits)
        if not rule.egress.helo and self.defaults.egress.helo:
            changed["egress"] = self.defaults.egress
        return msgspec.structs.replace(rule, **changed) if changed else rule

    def _pods(self, selection: Selection) -> PodSelection:
        if selection.namespace:
            return PodSelection((selection.namespace,), selection.pods)
        chosen = (name for name, labels in self.namespaces.items() if selection.namespaces.matches(labels))
        return PodSelection(tuple(sorted(chosen)), selection.pods)

    def _resolved(self, part: Part) -> tuple[Reason, str]:
        if self.secrets is None:
            return Reason.RESOLVED, ""
        for ref in part.secrets:
            name = ref.name.partition("/")[2]
            if part.full in self._keyless:
                text = f'The last good version logs in with Secret "{name}", which the object does not name any more.'
                return Reason.SECRET_MISSING, f"{text} Correct the object; mail waits until then."
            if ref.name not in self.secrets:
                text = f'There is no Secret "{name}" in namespace {part.namespace}. Make it; mail waits until then.'
                return Reason.SECRET_MISSING, text
            if ref.key not in self.secrets[ref.name] and not self._is_hashable(ref):
                text = f'Secret "{name}" has no key "{ref.key}". Add it; mail waits until then.'
                return Reason.SECRET_KEY_MISSING, text
        return Reason.RESOLVED, ""

    def _is_hashable(self, ref: SecretRef) -> bool:
        """A verifier can be made of the password that stands beside it."""
        has = (self.secrets or {}).get(ref.name, ())
        return ref.key.endswith(HASHED) and ref.key.removesuffix(HASHED) in has

    # -- accounts ----------------------------------------------------------------------------------------------------

    def _credentials(
        self, bounds: list[_Bound], domains: Mapping[str, Domain], selections: dict[str, PodSelection]
    ) -> dict[str, engine.Credential]:
        """By name. Their pods join `selections`."""
        by_object = {domain.name: domain.domain for domain in domains.values()}
        found: dict[str, engine.Credential] = {}
        taken: dict[str, str] = {}  # user name -> who has it
        for bound in sorted(bounds, key=_rank_of_account):
            part, credential = bound.part, self._sending(bound.part, by_object)
            if isinstance(credential, Refusal):
                self._refuse(part, credential)
                continue
            if bound.allowed is not None:
                own = {domain for name, domain in by_object.items() if name.startswith(f"{part.namespace}/")}
                others = domains.keys() - own | {self.spec.hostname}
                refusal = tenancy.refuse_credential(credential, bound.allowed, own, others)
                if refusal is not None:
                    self._refuse(part, refusal)
                    continue
                credential = msgspec.structs.replace(credential, may_relay=bound.allowed.has_any_hop)
            if credential.username and credential.username in taken:
                text = (
                    f"{taken[credential.username]} has the user name {credential.username}. Write another username."
                )
                self._refuse(part, Refusal(Reason.USERNAME_TAKEN, f"SMTPCredential {text}"))
                continue
            taken.setdefault(credential.username, credential.name)
            if part.selection is not None:
                selections[str(part.selection)] = self._pods(part.selection)
            resolved, message = self._resolved(part)
            self._accept(bound, resolved=resolved, resolved_message=message.replace("mail waits", "nobody logs in"))
            found[credential.name] = credential
        return dict(sorted(found.items()))

    def _sending(self, part: Part, domains: Mapping[str, str]) -> engine.Credential | Refusal:
        """With the domain of the MailDomain it names among its senders."""
        credential = part.credential
        assert credential is not None
        if not part.domain_ref:
            return credential
        domain = domains.get(part.domain_ref)
        if domain is None:
            text = f"This MTA does not receive for MailDomain {part.domain_ref}. Make it, or see its status."
            return Refusal(Reason.DOMAIN_MISSING, text)
        return msgspec.structs.replace(credential, senders=(*credential.senders, domain))

    # -- access ------------------------------------------------------------------------------------------------------

    def _access(self, bounds: list[_Bound]) -> engine.Access:
        """The oldest of the MTA's own namespace; without one the built-in."""
        found = engine.Access()
        for bound in sorted(bounds, key=lambda each: (each.created or "~", each.part.full)):
            if bound.allowed is not None:
                text = "It would be about everybody's mail: only the MTA's own namespace may say it. Remove it."
                self._refuse(bound.part, Refusal(Reason.NOT_ALLOWED, text))
            elif found.name:
                text = f"AccessPolicy {found.name}, which is older, is obeyed. Remove one of the two."
                self._refuse(bound.part, Refusal(Reason.POLICY_TAKEN, text))
            else:
                assert bound.part.access is not None
                found = bound.part.access
                self._accept(bound)
        return found

    # -- the house ---------------------------------------------------------------------------------------------------

    def _certificates(
        self, parts: Mapping[str, Part], rules: Iterable[Rule]
    ) -> tuple[tuple[str, ...], dict[str, Certificate], tuple[str, ...]]:
        """Names of those that are needed, what is known of them, and names of those that are not there."""
        needed = {ref.name for each in self.spec.listeners if each.tls for ref in each.tls.cert_refs}
        needed |= {ref.name for ref in self.spec.mta_sts.cert_refs} if self.spec.mta_sts else set()
        needed |= {rule.client_certificate for rule in rules if rule.client_certificate}
        found: dict[str, Certificate] = {}
        missing: list[str] = []
        for name in sorted(needed):
            part = parts.get(name)
            if part is not None and part.flaws:
                part = self.last.get(part.key)
            if part is None or part.certificate is None:
                missing.append(name)
                found[name] = Certificate(name=name, dns_names=(), pair=made_pair(name, self.namespace))
            else:
                self.good[part.key] = part
                found[name] = part.certificate
        return tuple(sorted(needed)), found, tuple(missing)

    def _config(
        self, domains: dict[str, Domain], rules: tuple[Rule, ...], certificates: dict[str, Certificate]
    ) -> EngineConfig:
        spec = self.spec
        own = sorted(d.domain for d in domains.values() if self._has_own_mailboxes(d))
        if not own and spec.double_bounce_to is None and spec.hostname not in domains:
            domains = dict(sorted({**domains, spec.hostname: _built_in(self.namespace, spec.hostname)}.items()))
        return msgspec.structs.replace(
            self.base,
            listeners=tuple(self._listener(each) for each in spec.listeners),
            spool=msgspec.structs.replace(self.base.spool, path=SPOOL),
            mail_root=MAIL_ROOT,
            state_dir=STATE_DIR,
            domains=domains,
            rules=rules,
            certificates=certificates,
            double_bounce_to=spec.double_bounce_to or f"{POSTMASTER}@{own[0] if own else spec.hostname}",
            http=engine.HTTPSettings(host="127.0.0.1", port=ADMIN),
            public_http=engine.HTTPSettings(host="", port=HEALTH),
            policy_server=_in_pod(self.base.policy_server),
            drain_settle=spec.drain.settle,
            egress=self.defaults.egress,
            user="",
        )

    def _listener(self, listener: Any) -> engine.Listener:
        """As a pod binds it."""
        is_kept = is_client_ip_preserved(listener, self.spec)
        made = listener_of(listener)
        ca = made.client_ca
        if ca is not None:
            ca = msgspec.structs.replace(ca, name=f"{self.namespace}/{ca.name}")
        return msgspec.structs.replace(
            made,
            host="",
            port=container_port(listener.port),
            client_ca=ca,
            client_ip_preserved=is_kept and (listener.role is ListenerRole.INTERNAL or not self.are_translated),
        )

    def _has_own_mailboxes(self, domain: Domain) -> bool:
        """Reports that cannot be delivered go to no tenant, unless the owner says so."""
        return domain.mode in MAILBOX_MODES and domain.name.startswith(f"{self.namespace}/")


def _rank_of_account(bound: _Bound) -> tuple[bool, str, str]:
    """Who has a user name first: the MTA's own namespace, then the older, then by name."""
    return bound.allowed is not None, bound.created or "~", bound.part.full


def _in_pod(server: engine.PolicyServer | None) -> engine.PolicyServer | None:
    """On the pod's own address, by a port it may bind."""
    if server is None:
        return None
    return msgspec.structs.replace(server, host="", port=container_port(server.port), service_port=server.port)


_ALL_MAIL = engine.Match()
_TAKES_ALL = (ActionKind.REJECT, ActionKind.DISCARD, ActionKind.REDIRECT)


def _domain(bound: _Bound) -> Domain:
    assert bound.part.domain is not None
    return bound.part.domain


def _mailboxes(data: Mapping[str, str] | None, name: str, key: str) -> frozenset[str] | Flaw:
    """The folded local parts in a ConfigMap's text, or what is wrong with it."""
    at, short = "spec.inbound.recipients.listFrom", name.partition("/")[2]
    if data is None:
        return Flaw(at, f'there is no ConfigMap "{short}"', "Make it.", Reason.CONFIG_MAP_MISSING)
    if key not in data:
        return Flaw(at, f'ConfigMap "{short}" has no key "{key}"', "Add it.", Reason.CONFIG_MAP_MISSING)
    found = set()
    for row, local in listed_in(data[key]):
        try:
            found.add(names.fold(fields.local_part(local)))
        except PydanticCustomError as error:
            context = error.context or {}
            what = f'line {row} of "{key}" in ConfigMap "{short}": {context.get("what")}'
            return Flaw(at, what, str(context.get("instead") or ""), Reason.CONFIG_MAP_INVALID)
    return frozenset(found)


def _refs(
    rules: Iterable[Rule], certificates: Mapping[str, Certificate], domains: Iterable[Domain]
) -> Iterator[SecretRef]:
    for domain in domains:
        yield from outbound_secrets(domain)
    for rule in rules:
        yield from (ref for ref in (rule.action.username, rule.action.password) if ref is not None)
    for certificate in certificates.values():
        yield from secrets_of(certificate)


def _client_cas(spec: MTASpec, namespace: str) -> Iterator[SecretRef]:
    """The CAs that clients' certificates are of: Secrets of the MTA's own namespace."""
    for one in spec.listeners:
        ca = one.tls.client_ca if one.tls else None
        if ca is not None:
            yield SecretRef(name=f"{namespace}/{ca.name}", key=ca.key)


def is_client_ip_preserved(listener: Any, spec: MTASpec) -> bool:
    """Whether a listener sees its clients' own addresses (crds.md rule 6), as far as the manifest can say.

    Role Internal has a ClusterIP of its own, which pods alone reach. A Service of type ClusterIP for the world is
    behind something that takes connections for others: only PROXY tells whose. NodePort and LoadBalancer keep
    addresses with externalTrafficPolicy Local; with Cluster a node may stand in the client's place, also before PROXY
    is spoken, for anybody may connect to a node's port."""
    if listener.role is ListenerRole.INTERNAL:
        return True
    if spec.service.type == "ClusterIP":
        return listener.proxy_protocol is not None
    return bool(spec.service.external_traffic_policy == "Local")


def _built_in(namespace: str, hostname: str) -> Domain:
    return Domain(
        name=f"{namespace}/built-in",
        domain=hostname,
        mode=engine.InboundMode.MAILDIR,
        recipients=frozenset({POSTMASTER}),
    )


__all__ = [
    "CLAIM_SIZE",
    "MAIL_ROOT",
    "SPOOL",
    "STATE_DIR",
    "Flaw",
    "Fleet",
    "Part",
    "PartKey",
    "PodSelection",
    "Verdict",
    "assemble",
    "is_client_ip_preserved",
    "part_of",
    "parts_in_force",
]
