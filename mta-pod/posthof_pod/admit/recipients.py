"""RCPT TO -> the recipients it stands for, or the reply that refuses it.

Owns: who exists (list, callout, any), aliases, sub-addresses, catch-all, postmaster, redirects, loops, duplicates.

Rules
- What the policy says comes first (policy.py); who exists is the MailDomain's to say (posthof_crds.mailboxes).
- `postmaster`, bare or at any domain of ours or at an address literal of ours, is always taken (RFC 5321 4.5.1), also
  where a Reject rule matches. It goes to the domain's alias, its catch-all, its mailbox, or to doubleBounceTo.
- `user@[address]` with an address of ours is `user@hostname` of the MTA.
- Addresses keep the spelling they came with; only the look-up folds them. What leaves for somewhere else than RCPT TO
  said carries that as `original`.
- Aliases are followed to `alias_depth`, to at most `alias_recipients` addresses; an address is taken once. An alias
  that names itself means the mailbox beside it; any other way back to an alias of the same chain is a loop. Loops and
  bounds are mistakes of ours, and 451 4.3.5 keeps the mail at its sender until they are mended.
- A target that a Reject rule refuses, or that nobody is, is left out while the alias has others.
- A Redirect answers once in a chain; its addresses then go their own way.
- Where nothing has to be asked the answer is there at once; a callout not in the cache makes it an awaitable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, Protocol

from posthof_crds import mailboxes, names
from posthof_crds.engine import Domain, EngineConfig, InboundMode, ListenerRole, RecipientCheck
from posthof_crds.mailboxes import POSTMASTER, Where
from posthof_pod.admit.policy import CompiledPolicy, Decision, Facts, Headers, Verdict
from posthof_pod.model import Recipient
from posthof_pod.replies import Reply

NO_SUCH = Reply(550, "5.1.1", "No such mailbox here")
NO_DOMAIN = Reply(553, "5.1.3", "The address needs a domain")
NO_MAIL = Reply(550, "5.7.1", "This domain takes no mail")
MISCONFIGURED = Reply(451, "4.3.5", "This address leads nowhere at the moment, try again later")

Answer = Reply | tuple[Recipient, ...]


class Asker(Protocol):
    """admit.callout.Callout."""

    def ask(self, domain: Domain, address: str) -> Reply | asyncio.Future[Reply | None] | None:
        """None: the mailbox exists. A future where the next hop has to be asked."""
        ...


class _Stop(Exception):
    """The whole expansion fails."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


class _Step(NamedTuple):
    """An address on its way through the expansion."""

    address: str
    local: str
    chain: tuple[str, ...]  # what led here: rules by name, aliases as `name@domain`, which no rule can be called
    hold: str  # the Hold rule that stands over all that comes of it
    rule: str  # the rule that decided about this address


class _Waiting(NamedTuple):
    step: _Step
    domain: Domain
    key: str
    answer: asyncio.Future[Reply | None]


class Returning(Protocol):
    """admit.returns.Returns."""

    def real(self, domain: Domain, local: str, sender: str, *, is_world: bool) -> Reply | str | None:
        """Who an address that we made up for a sender is for; a refusal; None: it is an address like any other."""
        ...


def is_never_own(_address: str) -> bool:
    return False


class Recipients:
    """Makes recipients for one config. `is_own(ip)`: is this an address of our machine (resolve.own)?"""

    def __init__(
        self,
        policy: CompiledPolicy,
        *,
        callout: Asker | None = None,
        is_own: Callable[[str], bool] = is_never_own,
        returns: Returning | None = None,
    ) -> None:
        self.policy = policy
        self.returns = returns
        self.config: EngineConfig = policy.config
        self.callout = callout
        self.is_own = is_own
        self.double_bounce_to = self.config.double_bounce_to or _first_postmaster(self.config)
        # Domains whose usual recipients need no look at aliases, catch-alls or the next hop.
        self._listed = {
            name
            for name, domain in self.config.domains.items()
            if domain.mode is not InboundMode.REJECT
            and domain.check is RecipientCheck.LIST
            and not _is_marking(domain)
        }
        self._open = {
            name
            for name, domain in self.config.domains.items()
            if domain.mode in mailboxes.MAILBOX_MODES
            and domain.check is RecipientCheck.ANY
            and not (domain.aliases or domain.catch_all or _rewrites(domain))
        }

    def resolve(self, facts: Facts, notify: int = 0, orcpt: str = "") -> Answer | Awaitable[Answer]:
        """The recipients that `facts.recipient` stands for. Never an empty tuple."""
        usual = self._usual(facts)
        if usual is None:
            return _Expansion(self, facts, notify, orcpt).answer()
        return usual if isinstance(usual, Reply) else (Recipient(facts.recipient, usual, notify, orcpt),)

    def _usual(self, facts: Facts) -> str | Reply | None:
        """The usual cases, without an expansion: the rule ("": the MailDomain) or a refusal; None: look closer."""
        local, domain = names.split(facts.recipient)
        ours = self.config.domains.get(domain)
        if ours is None:
            if not domain or domain[0] == "[":
                return None
            decision = self.policy.decide(facts)
            if decision.verdict is Verdict.RELAY:
                return decision.rule.name if decision.rule else ""
            return decision.reply if decision.verdict is Verdict.REFUSE else None
        if self.policy.has_rules_for(domain):
            return None
        if domain in self._open:
            return ""
        key = names.fold(local) if domain in self._listed else ""
        return "" if key in ours.recipients and key not in ours.aliases else None

    def finish(self, facts: Facts, recipients: Iterable[Recipient], headers: Headers) -> Answer | Awaitable[Answer]:
        """The recipients again, now that the headers are there; call it where `policy.header_names` is not empty.

        `facts`: of the message; its recipient is not looked at. A header rule judges the message: where one of the
        recipients is refused, the reply refuses the message as a whole.
        """
        again: dict[str, Recipient] = {}
        for recipient in recipients:
            again.setdefault(recipient.original or recipient.address, recipient)
        answers = [
            self.resolve(facts._replace(recipient=address, headers=headers), first.notify, first.orcpt)
            for address, first in again.items()
        ]
        ready = [answer for answer in answers if isinstance(answer, Reply | tuple)]
        return self._joined(ready) if len(ready) == len(answers) else self._join_later(answers)

    async def _join_later(self, answers: list[Answer | Awaitable[Answer]]) -> Answer:
        ready = [answer if isinstance(answer, Reply | tuple) else await answer for answer in answers]
        return self._joined(ready)

    def _joined(self, answers: list[Answer]) -> Answer:
        found: list[Recipient] = []
        for answer in answers:
            if isinstance(answer, Reply):
                return answer
            found += answer
        return self.without_duplicates(found)

    def without_duplicates(self, recipients: Iterable[Recipient]) -> tuple[Recipient, ...]:
        """Each address once: two RCPT TO may lead to one mailbox. The first one's parameters count."""
        found: dict[str, Recipient] = {}
        for recipient in recipients:
            found.setdefault(self.key(recipient.address), recipient)
        return tuple(found.values())

    def key(self, address: str) -> str:
        """What two spellings of one address share: in our domains case does not count, elsewhere it may."""
        local, domain = names.split(address)
        return f"{names.fold(local) if domain in self.config.domains else local}@{domain}"


def _rewrites(domain: Domain) -> bool:
    """Whether there are addresses at the domain that we made up for senders."""
    outbound = domain.outbound
    return outbound is not None and (outbound.srs is not None or outbound.batv is not None)


def _is_marking(domain: Domain) -> bool:
    return domain.outbound is not None and domain.outbound.batv_enforced


def _first_postmaster(config: EngineConfig) -> str:
    """For a config that names no place: postmaster at the first domain with mailboxes, by name; "" without one."""
    having = sorted((d.name, d.domain) for d in config.domains.values() if d.mode in mailboxes.MAILBOX_MODES)
    return f"{POSTMASTER}@{having[0][1]}" if having else ""


class _Expansion:
    """One RCPT TO, followed to its end."""

    def __init__(self, owner: Recipients, facts: Facts, notify: int, orcpt: str) -> None:
        self._owner, self._facts, self._notify, self._orcpt = owner, facts, notify, orcpt
        self._config = owner.config
        self._found: dict[str, Recipient] = {}
        self._waiting: list[_Waiting] = []
        self._refusal: Reply | None = None  # the first one
        self._followed: set[tuple[str, str]] = set()  # (address, what led to it): aliases can fan out and in again
        self._is_postmaster = names.fold(names.split(facts.recipient)[0]) == POSTMASTER

    def answer(self) -> Answer | Awaitable[Answer]:
        try:
            self._follow(self._facts.recipient, (), "")
        except _Stop as stop:
            return stop.reply
        return self._later() if self._waiting else self._result()

    def _result(self) -> Answer:
        return tuple(self._found.values()) or self._refusal or NO_SUCH

    async def _later(self) -> Answer:
        """The callouts' answers, in order; a catch-all may bring more of them."""
        try:
            while self._waiting:
                step, domain, key, coming = self._waiting.pop(0)
                answer = await coming
                if answer is not None:
                    self._missed(answer, domain, step, key)
        except _Stop as stop:
            return stop.reply
        return self._result()

    def _follow(self, address: str, chain: tuple[str, ...], hold: str) -> None:
        if len(chain) > self._config.alias_depth:
            raise _Stop(MISCONFIGURED)
        step = (address, chain[-1] if chain else "")
        if step in self._followed:
            return
        self._followed.add(step)
        local, domain = names.split(address)
        if not domain or (domain[0] == "[" and self._is_own_literal(domain)):
            self._at_home(local, domain, chain, hold)
            return
        is_forwarded = bool(chain) or self._facts.is_forwarded
        facts = self._facts._replace(recipient=address, is_forwarded=is_forwarded)
        decision = self._owner.policy.decide(facts, frozenset(chain))
        if decision.verdict is Verdict.REFUSE and self._is_postmaster and (decision.domain or chain):
            decision = Decision(Verdict.OURS if decision.domain else Verdict.RELAY, domain=decision.domain)
        rule = decision.rule.name if decision.rule else ""
        self._obey(decision, _Step(address, local, chain, hold, rule))

    def _is_own_literal(self, domain: str) -> bool:
        literal = names.literal(domain)
        return literal is not None and self._owner.is_own(literal)

    def _at_home(self, local: str, domain: str, chain: tuple[str, ...], hold: str) -> None:
        """An address without a domain, or at a literal of ours."""
        hostname = self._config.hostname
        if domain and hostname in self._config.domains:
            self._follow(f"{local}@{hostname}", chain, hold)
        elif names.fold(local) == POSTMASTER:
            self._expand((self._owner.double_bounce_to,), f"{POSTMASTER}@", chain, hold)
        else:
            self._refuse(NO_SUCH if domain else NO_DOMAIN)

    def _obey(self, decision: Decision, step: _Step) -> None:
        verdict = decision.verdict
        if verdict is Verdict.REFUSE:
            self._refuse(decision.reply or NO_SUCH)
        elif verdict is Verdict.REDIRECT and decision.rule is not None:
            for target in decision.rule.action.addresses:
                self._follow(target, (*step.chain, step.rule), step.hold)
        elif decision.domain is None or verdict in (Verdict.DISCARD, Verdict.PENDING):
            self._take(step)
        else:
            hold = step.rule if verdict is Verdict.HOLD else ""
            self._at_ours(decision.domain, step._replace(hold=step.hold or hold))

    def _at_ours(self, domain: Domain, step: _Step) -> None:
        if self._owner.returns is not None and not step.chain and _rewrites(domain):
            is_world = self._facts.role == ListenerRole.MX
            real = self._owner.returns.real(domain, step.local, self._facts.sender, is_world=is_world)
            if isinstance(real, Reply):
                self._refuse(real)
                return
            if real is not None:
                self._expand((real,), f"{step.local}@{domain.domain}", step.chain, step.hold)
                return
        hit = mailboxes.look_up(domain, step.local)
        node = f"{hit.key}@{domain.domain}"
        if hit.where is Where.ALIAS and step.chain and step.chain[-1] == node:
            hit = mailboxes.look_up(domain, step.local, skip_aliases=True)
            node = f"{hit.key}@{domain.domain}"
        if hit.where is Where.MAILBOX:
            self._take(step)
        elif hit.where is Where.ASK:
            self._ask(domain, step)
        elif hit.where in (Where.ALIAS, Where.CATCH_ALL):
            targets = tuple(self._with_detail(target, hit.detail) for target in hit.targets)
            self._expand(targets, node, step.chain, step.hold)
        elif hit.where is Where.DOUBLE_BOUNCE:
            self._expand((self._owner.double_bounce_to,), node, step.chain, step.hold)
        elif hit.where is Where.REFUSED:
            self._refuse(Reply(NO_MAIL.code, NO_MAIL.status, domain.reject_text or NO_MAIL.text))
        else:
            self._refuse(NO_SUCH)

    def _expand(self, targets: tuple[str, ...], node: str, chain: tuple[str, ...], hold: str) -> None:
        if node in chain or "" in targets:  # a loop, or a config without a place for double bounces
            raise _Stop(MISCONFIGURED)
        for target in targets:
            self._follow(target, (*chain, node), hold)

    def _with_detail(self, target: str, detail: str) -> str:
        """`info+x` -> `alice+x`, where alice is in a domain of ours that has sub-addresses."""
        if not detail:
            return target
        local, _, spelled = target.rpartition("@")
        ours = self._config.domains.get(names.split(target)[1])
        if ours is None or not ours.separator or ours.separator in local or local.endswith('"'):
            return target
        return f"{local}{ours.separator}{detail}@{spelled}"

    def _ask(self, domain: Domain, step: _Step) -> None:
        answer = self._owner.callout.ask(domain, step.address) if self._owner.callout else None
        key = self._take(step)
        if isinstance(answer, asyncio.Future):
            self._waiting.append(_Waiting(step, domain, key, answer))
        elif answer is not None:
            self._missed(answer, domain, step, key)

    def _missed(self, answer: Reply, domain: Domain, step: _Step, key: str) -> None:
        """The next hop does not have the mailbox, or could not be asked."""
        if answer.is_temporary:
            raise _Stop(answer)
        if step.chain and len(self._found) > 1 and not domain.catch_all:
            return  # one target of several: it is tried, and its refusal reaches the sender as a report
        self._found.pop(key, None)
        if domain.catch_all:
            self._expand(domain.catch_all, f"*@{domain.domain}", step.chain, step.hold)
        else:
            self._refuse(answer)

    def _take(self, step: _Step) -> str:
        """The address is a recipient; its key."""
        key = self._owner.key(step.address)
        if key not in self._found:
            if len(self._found) >= self._config.alias_recipients:
                raise _Stop(MISCONFIGURED)
            original = self._facts.recipient if step.address != self._facts.recipient else ""
            self._found[key] = Recipient(step.address, step.hold or step.rule, self._notify, self._orcpt, original)
        return key

    def _refuse(self, reply: Reply) -> None:
        self._refusal = self._refusal or reply
