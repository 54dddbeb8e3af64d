"""RelayPolicy, asked: which rule decides about a recipient, and why the others did not. Pure.

Owns: CompiledPolicy (the matchers of one EngineConfig), Facts in, Decision out.

Rules
- RelayPolicies are asked in the order of EngineConfig.rules: priority, highest first, then name. A rule matches if
  every part of its `match` holds; inside a part one entry is enough. The first rule that matches decides.
- A recipient in a domain of ours: Hold, Reject, Discard and Redirect rules are asked. Rules that say where mail goes
  (Direct, Smarthost, LMTP) are asked only with those of their `recipients` patterns that name this domain literally:
  "everything from the office to the smarthost" must not carry away our own mail. Without a match the MailDomain
  decides. Who exists is always the MailDomain's to say.
- A foreign recipient: the first matching rule decides; none: Direct for a client that has logged in (SMTPCredential),
  550 5.7.1, relaying denied, for all others.
- A rule that lets mail out counts only if it is bounded (posthof_crds.bounds); `load` refuses others, and so does
  this file. An unbounded Hold holds what another rule permits, and permits nothing.
- Our own mail (reports, and what our aliases and redirects point to) comes from a place we trust: for rules that say
  where mail goes, `clients` and `listenerRoles` hold. Other rules with such a part are about clients and never match
  it: refusing a network must not refuse our report to it. Nor do rules of other namespaces (`is_foreign`), which are
  for their own pods' mail. Without a match foreign mail of ours goes Direct.
- `clients` is compared with the address the listener vouches for: the peer's, or the one a trusted balancer gave.
  "" (a balancer that named none, a listener that may see a node's address for anybody's) is in no network.
- `workloads` names selections of pods; which address is in which is told beside the configuration (`know_pods`), and
  changes without it. An address that is told nowhere is in none.
- Queued mail is asked about again when its pod may be gone and its address another's: the rule that took it keeps
  its workloads. An address that came over a role whose listeners do not vouch counts for no other rule.
  A foreign rule never takes over mail that another rule took.
- Headers are unknown at RCPT TO. A rule with `headers` is then undecided: the recipient is taken if a later rule, or
  the undecided rule itself, would take it, and `is_final` is False: ask again with the headers after DATA.

Cost: about 8 microseconds for a recipient with a handful of rules (judge.py keeps what is true for a whole domain);
rules whose patterns name other domains cost none.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from posthof_crds import bounds, names, patterns
from posthof_crds.engine import ActionKind, Credential, Domain, EngineConfig, Listener, ListenerRole, Rule
from posthof_pod.model import Origin
from posthof_pod.replies import Reply

RELAYING_DENIED = Reply(550, "5.7.1", "Relaying denied: this server takes no mail for that domain from you")
REFUSED_TEXT = "Refused by policy"

Pods = Mapping[str, tuple[str, ...]]  # IP address -> ids of the selections the pod is in
Headers = Mapping[str, Sequence[str]]  # field name in lower case -> values, unfolded and decoded
_REMEMBERED = 8192  # entries of each cache, then it begins anew


class Facts(NamedTuple):
    """What is known of one recipient of one message."""

    role: str  # the listener's, "" where there was none
    client: str  # IP address, "" = not known
    sender: str
    recipient: str
    headers: Headers | None = None  # None: not known yet
    origin: Origin = Origin.CLIENT
    is_forwarded: bool = False  # the target of an alias or a Redirect of ours
    credential: str = ""  # the SMTPCredential the client has proven to be, "" = none
    certificate: tuple[str, ...] = ()  # DNS names of the client's certificate, verified

    @property
    def is_ours(self) -> bool:
        return self.is_forwarded or self.origin is not Origin.CLIENT


class Verdict(enum.IntEnum):
    OURS = 0  # the MailDomain says who exists and where it goes
    RELAY = 1  # to where `rule` says, Direct without one; with `domain`: who exists is still the MailDomain's to say
    HOLD = 2
    DISCARD = 3
    REDIRECT = 4
    REFUSE = 5
    PENDING = 6  # `rule` would take it if its headers match: take the recipient as it is and ask again after DATA


class Decision(NamedTuple):
    verdict: Verdict
    rule: Rule | None = None  # who decided; None: the MailDomain, or a built-in rule
    domain: Domain | None = None  # of ours, where the recipient is in one
    reply: Reply | None = None  # REFUSE
    is_final: bool = True  # False: a rule with headers stood before, ask again after DATA


class Part(enum.IntEnum):
    """The part of a match that does not hold; ALL: none."""

    ALL = 0
    RECIPIENTS = 1
    LISTENER_ROLES = 2
    CLIENTS = 3
    SENDERS = 4
    HEADERS = 5
    UNKNOWN = 6  # all but the headers, which are not known yet
    DOMAIN = 7  # a rule that says where mail goes does not name our domain
    BOUNDS = 8  # a rule that lets mail out to anybody, or for anybody
    WORKLOADS = 9
    CREDENTIALS = 10
    CERTIFICATES = 11


class Asked(NamedTuple):
    """One rule, for people: what it said and why."""

    rule: Rule
    part: Part | None  # None: not asked, an earlier rule had decided
    why: str


class Explanation(NamedTuple):
    decision: Decision
    asked: tuple[Asked, ...]


class _Subject(NamedTuple):
    """Facts, taken apart once for all rules."""

    facts: Facts
    local: str
    domain: str
    is_in_ours: bool
    is_ours: bool
    sender: tuple[str, str]
    sources: int  # _CompiledRule.bit, .pods_bit: the client is in the networks, in the selections of that rule


class _CompiledRule:
    __slots__ = (
        "bit",
        "certificates",
        "credentials",
        "headers",
        "is_about_clients",
        "is_bounded",
        "is_by_domain",
        "lets_out",
        "named",
        "order",
        "pods_bit",
        "recipients",
        "roles",
        "rule",
        "senders",
        "trusts_us",
    )

    def __init__(self, rule: Rule, order: int, *, is_bounded: bool) -> None:
        match = rule.match
        self.rule, self.order, self.is_bounded = rule, order, is_bounded
        self.lets_out = rule.action.kind in bounds.LETS_OUT
        self.roles = frozenset(str(role) for role in match.listener_roles)
        self.bit = 1 << 2 * order if match.clients else 0
        self.pods_bit = 2 << 2 * order if match.workloads else 0
        self.credentials = frozenset(match.credentials)
        self.certificates = match.certificates
        self.is_about_clients = bool(self.roles or self.bit or self.pods_bit or self.credentials or self.certificates)
        self.trusts_us = self.lets_out and not rule.is_foreign  # our own mail need not come from its clients
        self.senders = patterns.AddressSet(match.senders) if match.senders else None
        self.recipients = patterns.AddressSet(match.recipients) if match.recipients else None
        self.is_by_domain = all(pattern != "<>" and patterns.parts(pattern)[0] == "*" for pattern in match.recipients)
        literal = [pattern for pattern in match.recipients if patterns.literal_domain(pattern)]
        self.named = patterns.AddressSet(literal)
        self.headers = tuple((header.name, patterns.Glob(header.pattern.casefold())) for header in match.headers)

    def fails(self, subject: _Subject) -> Part:
        """The first part that does not hold."""
        local, domain, is_ours = subject.local, subject.domain, subject.is_ours
        if self.recipients is not None and not self.recipients.matches(local, domain):
            return Part.RECIPIENTS
        if self.lets_out:
            if subject.is_in_ours:
                if not self.named.matches(local, domain):
                    return Part.DOMAIN
            elif not self.is_bounded and not is_ours:
                return Part.BOUNDS
        if self.is_about_clients and not (is_ours and self.trusts_us):
            if self.roles and (is_ours or subject.facts.role not in self.roles):
                return Part.LISTENER_ROLES
            if self.bit and (is_ours or not subject.sources & self.bit):
                return Part.CLIENTS
            if self.pods_bit and (is_ours or not subject.sources & self.pods_bit):
                return Part.WORKLOADS
            if self.credentials and (is_ours or not _is_one_of(subject.facts.credential, self.credentials)):
                return Part.CREDENTIALS
            if self.certificates and (is_ours or not _is_certified(subject.facts.certificate, self.certificates)):
                return Part.CERTIFICATES
        if self.senders is not None and not self.senders.matches(*subject.sender):
            return Part.SENDERS
        return self._headers_fail(subject.facts.headers) if self.headers else Part.ALL

    def _headers_fail(self, headers: Headers | None) -> Part:
        if headers is None:
            return Part.UNKNOWN
        for name, glob in self.headers:
            if any(glob.matches(value.casefold()) for value in headers.get(name, ())):
                return Part.ALL
        return Part.HEADERS


class CompiledPolicy:
    """The rules and domains of one EngineConfig, ready to be asked. Make one per config, not per message."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.domains = config.domains
        self.header_names = frozenset(header.name for rule in config.rules for header in rule.match.headers)
        """The header fields some rule wants to see; empty: nothing is ever asked again after DATA."""
        self._rules = tuple(
            _CompiledRule(rule, n, is_bounded=not bounds.why_unbounded(rule.match, config.listeners))
            for n, rule in enumerate(config.rules)
        )
        self._by_name = {rule.name: rule for rule in config.rules}
        self._uses_senders = any(rule.senders for rule in self._rules)
        self._networks = [
            (each.bit, [ipaddress.ip_network(text) for text in each.rule.match.clients])
            for each in self._rules
            if each.bit
        ]
        self._selections: dict[str, int] = {}  # of pods: the pods_bit of each rule that names it
        for each in self._rules:
            for selection in each.rule.match.workloads:
                self._selections[selection] = self._selections.get(selection, 0) | each.pods_bit
        self._pods: Pods = {}
        self._has_sources = bool(self._networks or self._selections)
        self._doubtful = frozenset(str(one.role) for one in config.listeners if not _vouches(one))
        self._ours = {name: Decision(Verdict.OURS, domain=domain) for name, domain in config.domains.items()}
        self._named: dict[str, list[_CompiledRule]] = {}
        self._general: list[_CompiledRule] = []
        self._index()
        self._candidates: dict[str, tuple[_CompiledRule, ...]] = {}
        self._clients: dict[str, int] = {}

    def _index(self) -> None:
        """A rule whose patterns all name one domain each is asked for these domains only."""
        for each in self._rules:
            named = [patterns.literal_domain(pattern) for pattern in each.rule.match.recipients]
            if named and None not in named:
                for domain in {domain for domain in named if domain is not None}:
                    self._named.setdefault(domain, []).append(each)
            else:
                self._general.append(each)

    def rule(self, name: str) -> Rule | None:
        """The RelayPolicy of that name in this config."""
        return self._by_name.get(name)

    def has_rules_for(self, domain: str) -> bool:
        """Would any rule be asked for a recipient there? `domain` in its one form."""
        return bool(self._rules) and bool(self._asked(domain))

    def is_by_domain(self, domain: str) -> bool:
        """Whether the local part of a recipient there makes no difference to any rule. `domain` in its one form."""
        return all(each.is_by_domain for each in self._asked(domain))

    @property
    def uses_pods(self) -> bool:
        """Whether any rule asks which pods the client is."""
        return bool(self._selections)

    def know_pods(self, pods: Pods) -> None:
        """Which address is in which selections, from now on."""
        self._pods = pods
        self._clients.clear()

    def might_be_a_pod(self, facts: Facts) -> bool:
        """Whether an address that is in no selection would be let in, if only it were in some."""
        if facts.client in self._pods:
            return False
        local, domain = names.split(facts.recipient)
        subject = self._subject(facts, local, domain)
        every = subject.sources
        for bits in self._selections.values():
            every |= bits
        decision = self._ask(self._asked(domain), subject._replace(sources=every), frozenset())
        return decision.verdict is not Verdict.REFUSE

    def is_doubtful(self, role: str) -> bool:
        """Whether a client's address on this role may be a node's, so that no rule believes it."""
        return role in self._doubtful

    @property
    def uses_senders(self) -> bool:
        """Whether any rule looks at the sender."""
        return self._uses_senders

    def _asked(self, domain: str) -> tuple[_CompiledRule, ...]:
        """The rules that can match a recipient at this domain, in order."""
        found = self._candidates.get(domain)
        if found is None:
            named = self._named.get(domain, [])
            mixed = sorted([*self._general, *named], key=lambda each: each.order)
            if domain in self.domains:
                mixed = [each for each in mixed if not each.lets_out or _names(each, domain)]
            if len(self._candidates) >= _REMEMBERED:
                self._candidates.clear()
            found = self._candidates[domain] = tuple(mixed)
        return found

    def _subject(self, facts: Facts, local: str, domain: str) -> _Subject:
        sender = ("", "")
        if self._uses_senders and facts.sender:
            sender_local, sender_domain = names.split(facts.sender)
            sender = (names.fold(sender_local), sender_domain)
        sources = self._client(facts.client) if self._has_sources else 0
        return _Subject(facts, names.fold(local), domain, domain in self.domains, facts.is_ours, sender, sources)

    def _client(self, client: str) -> int:
        """Which rules' networks and selections the client is in, two bits a rule."""
        found = self._clients.get(client)
        if found is None:
            if len(self._clients) >= _REMEMBERED:
                self._clients.clear()
            address = _address(client)
            found = 0
            for bit, networks in self._networks:
                if address is not None and any(address in network for network in networks):
                    found |= bit
            if self._selections and address is not None:
                for selection in self._pods.get(str(address), ()):
                    found |= self._selections.get(selection, 0)
            self._clients[client] = found
        return found

    def decide(self, facts: Facts, without: frozenset[str] = frozenset()) -> Decision:
        """What becomes of the recipient. `without`: names of rules not to ask (a Redirect answers once in a
        chain)."""
        if facts.credential and facts.credential not in self.config.credentials:
            facts = facts._replace(credential="")  # an account that is gone, in a session that is still open
        local, domain = names.split(facts.recipient)
        asked = self._asked(domain) if self._rules else ()
        if not asked:
            return self._ours.get(domain) or _built_in(facts, self.config.credentials)
        return self._ask(asked, self._subject(facts, local, domain), without)

    def _ask(self, asked: Iterable[_CompiledRule], subject: _Subject, without: frozenset[str]) -> Decision:
        ours = self.domains.get(subject.domain)
        pending: Rule | None = None  # the first undecided rule that would take the recipient
        hold: Rule | None = None  # the first unbounded Hold over mail that something else has to permit
        is_final = True
        decided: Rule | None = None
        for each in asked:
            if each.rule.name in without:
                continue
            part = each.fails(subject)
            kind = each.rule.action.kind
            only_holds = kind is ActionKind.HOLD and ours is None and not each.is_bounded
            if part is Part.UNKNOWN:
                is_final = False
                if kind is not ActionKind.REJECT and not only_holds:
                    pending = pending or each.rule
            elif part is Part.ALL:
                if only_holds:
                    hold = hold or each.rule
                    continue
                decided = each.rule
                break
        decision = self._conclude(decided, ours, subject.facts)
        if decision.verdict is Verdict.REFUSE:
            return Decision(Verdict.PENDING, pending, ours, is_final=False) if pending else decision
        if hold is not None and decision.verdict is Verdict.RELAY:
            decision = Decision(Verdict.HOLD, hold, ours)
        return decision if is_final else decision._replace(is_final=False)

    def _conclude(self, rule: Rule | None, ours: Domain | None, facts: Facts) -> Decision:
        """The decision of the rule that matched; without one the MailDomain's, or the built-in one."""
        if rule is None:
            return self._ours[ours.domain] if ours is not None else _built_in(facts, self.config.credentials)
        action = rule.action
        if action.kind is ActionKind.REJECT:
            return Decision(
                Verdict.REFUSE, rule, ours, Reply(action.code, action.status, action.text or REFUSED_TEXT)
            )
        return Decision(_VERDICTS[action.kind], rule, ours)

    def way_out(self, facts: Facts, decided: str) -> Rule | None:
        """The rule that says where an accepted recipient goes, None where a MailDomain or a built-in rule does.

        `decided`: the rule that took the recipient. Its headers matched then; those of other rules are not known, and
        such rules are passed over.
        """
        local, domain = names.split(facts.recipient)
        asked = self._asked(domain) if self._rules else ()
        if not asked:
            return None
        subject = self._subject(facts, local, domain)
        believed = subject if facts.role not in self._doubtful else subject._replace(sources=0)
        for each in asked:
            is_decided = each.rule.name == decided
            if each.lets_out and (is_decided or not each.rule.is_foreign):
                if is_decided and self._has_sources:
                    part = each.fails(subject._replace(sources=subject.sources | each.pods_bit))
                else:
                    part = each.fails(believed)
                if part is Part.ALL or (part is Part.UNKNOWN and is_decided):
                    return each.rule
        return None

    def explain(self, facts: Facts, without: frozenset[str] = frozenset(), *, doubted: str = "") -> Explanation:
        """The decision, and for each rule in order what it said. `doubted`: the client's address, where no rule may
        believe it; `facts.client` is "" then."""
        decision = self.decide(facts, without)
        subject = self._subject(facts, *names.split(facts.recipient))
        asked: list[Asked] = []
        for each in self._rules:
            if any(before.part is Part.ALL and before.rule is decision.rule for before in asked):
                asked.append(Asked(each.rule, None, "not asked: an earlier rule had decided"))
                continue
            part = Part.RECIPIENTS if each.rule.name in without else each.fails(subject)
            asked.append(Asked(each.rule, part, _why(each, part, subject, doubted)))
        return Explanation(decision, tuple(asked))


_VERDICTS = {
    ActionKind.DIRECT: Verdict.RELAY,
    ActionKind.SMARTHOST: Verdict.RELAY,
    ActionKind.LMTP: Verdict.RELAY,
    ActionKind.HOLD: Verdict.HOLD,
    ActionKind.DISCARD: Verdict.DISCARD,
    ActionKind.REDIRECT: Verdict.REDIRECT,
    ActionKind.REJECT: Verdict.REFUSE,
}

_DIRECT = Decision(Verdict.RELAY)
_DENIED = Decision(Verdict.REFUSE, reply=RELAYING_DENIED)


def _refusal(rule: Rule) -> Reply:
    return Reply(rule.action.code, rule.action.status, rule.action.text or REFUSED_TEXT)


def _built_in(facts: Facts, credentials: Mapping[str, Credential]) -> Decision:
    """What holds where no rule says anything: who has logged in may write to everybody."""
    if facts.is_ours:
        return _DIRECT
    known = credentials.get(facts.credential) if facts.credential else None
    return _DIRECT if known is not None and known.may_relay else _DENIED


def _is_one_of(credential: str, wanted: frozenset[str]) -> bool:
    """`*` is any, `namespace/*` any of that namespace."""
    if not credential:
        return False
    return credential in wanted or "*" in wanted or credential.rpartition("/")[0] + "/*" in wanted


def _names(each: _CompiledRule, domain: str) -> bool:
    return any(patterns.literal_domain(pattern) == domain for pattern in each.rule.match.recipients)


def _address(client: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The client's address, an IPv4-mapped one as IPv4; None where it is not known."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_certified(names_: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether one of a certificate's names is wanted; `*.` stands for exactly one label (RFC 9525 6.3)."""
    return any(
        name == one or (one.startswith("*.") and name.partition(".")[2] == one[2:])
        for name in names_
        for one in wanted
    )


def _vouches(listener: Listener) -> bool:
    """Whether the addresses that a listener sees are its clients' own (crds.md rule 6)."""
    return listener.client_ip_preserved or listener.role is ListenerRole.INTERNAL


def _why(each: _CompiledRule, part: Part, subject: _Subject, doubted: str) -> str:
    """One sentence for a person."""
    facts, match = subject.facts, each.rule.match
    mine = "this is mail of our own, and the rule is about clients"
    if part is Part.RECIPIENTS:
        return f"the recipient is none of {_some(match.recipients)}"
    if part is Part.LISTENER_ROLES:
        came = f"the listener's role is {facts.role}" if facts.role else "no listener's role is given"
        return mine if subject.is_ours else f"{came}, not {_some(match.listener_roles)}"
    if part is Part.CLIENTS:
        came = f"the client {facts.client} is not in" if facts.client else "no client is given, wanted is one in"
        came = f"the client's address {doubted} is not believed, wanted is one in" if doubted else came
        return mine if subject.is_ours else f"{came} {_some(match.clients)}"
    if part is Part.WORKLOADS:
        came = f"the client {facts.client} is none of" if facts.client else "no client is given, wanted is one of"
        came = f"the client's address {doubted} is not believed, wanted is one of" if doubted else came
        return mine if subject.is_ours else f"{came} the pods that its namespaces and podSelector choose"
    if part is Part.CREDENTIALS:
        came = (
            f"the client logged in as {facts.credential}, not" if facts.credential else "nobody logged in, wanted is"
        )
        return mine if subject.is_ours else f"{came} {_some(match.credentials)}"
    if part is Part.CERTIFICATES:
        came = f"the client's certificate is for {_some(facts.certificate)}, not" if facts.certificate else ""
        came = came or "the client showed no certificate, wanted is"
        return mine if subject.is_ours else f"{came} {_some(match.certificates)}"
    if part is Part.SENDERS:
        return f"the sender {facts.sender or '<>'} is none of {_some(match.senders)}"
    if part is Part.HEADERS:
        return f"no field is like {_some([f'{h.name}: {h.pattern}' for h in match.headers])}"
    if part is Part.UNKNOWN:
        wanted = _some([f"{h.name}: {h.pattern}" for h in match.headers])
        return f"undecided until the headers are there: it wants {wanted}"
    if part is Part.DOMAIN:
        return f"{subject.domain} is ours: only a rule whose recipients name it says where its mail goes"
    if part is Part.BOUNDS:
        return "it would let anybody relay, so it is not obeyed"
    return "it matches" if match != type(match)() else "it matches all mail"


def _some(entries: Sequence[object], limit: int = 4) -> str:
    shown = ", ".join(str(entry) for entry in entries[:limit])
    return shown if len(entries) <= limit else f"{shown} and {len(entries) - limit} more"


def headers_of(block: bytes, wanted: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The values of the wanted fields (names in lower case), unfolded, RFC 2047 words decoded, for Facts.headers.

    `block`: the header fields with their CRLF. Not on the hot path: asked only where a rule matches headers.
    """
    from posthof_pod import fields

    return {name: tuple(map(_decoded, fields.values(block, name.encode()))) for name in wanted}


def _decoded(value: bytes) -> str:
    text = value.decode("utf-8", "replace")
    if "=?" not in text:
        return text
    from email.errors import HeaderParseError
    from email.header import decode_header, make_header

    try:
        return str(make_header(decode_header(text)))
    except (HeaderParseError, LookupError, ValueError):
        return text
