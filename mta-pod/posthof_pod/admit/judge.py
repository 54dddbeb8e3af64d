"""What one configuration thinks of mail: of a recipient, of a whole message, and where each recipient goes.

Owns: Admission, made once per EngineConfig and swapped whole. Asks policy.py, recipients.py, route.py and headers.py;
decides nothing they do not.

Rules
- Pure but for callouts, whose answers may have to be awaited.
- The header block is read once for each message.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from posthof_crds import names
from posthof_crds.engine import SUBMISSION, ActionKind, EngineConfig, ListenerRole
from posthof_pod.admit import headers
from posthof_pod.admit.auth import SenderCheck, clean_submission, is_this_machine
from posthof_pod.admit.newcomers import Newcomers
from posthof_pod.admit.policy import CompiledPolicy, Facts, Pods, headers_of
from posthof_pod.admit.recipients import Answer, Asker, Recipients, Returning, is_never_own
from posthof_pod.admit.route import Routes
from posthof_pod.model import Destination, DestinationKind, Envelope, Origin, Recipient, TLSWish
from posthof_pod.replies import Reply
from posthof_pod.smtp.gate import Incoming, Session
from posthof_pod.smtp.grammar import NO_RECIPIENT_PARAMETERS, RecipientParameters

K = TypeVar("K")
V = TypeVar("V")

_ASIDE = (ActionKind.HOLD, ActionKind.DISCARD)  # what a rule may do with mail it takes, other than send it on
REMEMBERED = 16384  # opinions of each sort that are kept; then they are formed anew

_SUBMITTING = frozenset({ListenerRole.INTERNAL, *SUBMISSION})  # roles whose mail may lack Date and Message-ID
NOBODY: frozenset[int] = frozenset()

NOWHERE = Destination(key="no-route", kind=DestinationKind.LOCAL, name="")
"""Where mail waits whose rule or MailDomain is gone: each try asks for its way again."""


_REQUIRED, _OPTIONAL = int(TLSWish.REQUIRED), int(TLSWish.OPTIONAL)


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What becomes of a message whose content has come."""

    refusal: Reply | None
    recipients: tuple[Recipient, ...]  # those that go on
    held: frozenset[int]  # indices in `recipients`: kept back by a Hold rule
    discarded: tuple[Recipient, ...]
    scan: headers.Scan
    added: bytes = b""  # what sender authentication wrote, for the top of the message
    auth: str = ""  # the same in short, for the log


class Share(msgspec.Struct, frozen=True, gc=False):
    """Recipients of one message that go to one destination."""

    destination: Destination
    recipients: tuple[int, ...]  # indices in envelope.recipients
    is_held: bool


class Admission:
    """One configuration's opinion."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        callout: Asker | None = None,
        is_own: Callable[[str], bool] = is_never_own,
        newcomers: Newcomers | None = None,
        returns: Returning | None = None,
        senders: SenderCheck | None = None,
    ) -> None:
        """`newcomers`: who waits because a rule asks for pods; asked only where one does. `returns`: knows the
        addresses that were made up for senders. `senders`: SPF, DKIM and DMARC of what the world brings."""
        self._senders = senders
        self._judges_own = bool(config.access.name)
        self.config = config
        self.policy = CompiledPolicy(config)
        self.routes = Routes(self.policy)
        self.recipients = Recipients(self.policy, callout=callout, is_own=is_own, returns=returns)
        self._unasked = Recipients(self.policy, is_own=is_own)  # for our own mail: the next hop itself will say no
        self._by_domain: dict[tuple[str, str, str, str, str, tuple[str, ...]], str] = {}
        """Role, client, sender, domain, credential -> the rule."""
        self._ways: dict[tuple[str, str, str, str, str, bool, str, str, int], Destination] = {}
        self._hops = {listener.name: listener.limits.hops for listener in config.listeners}
        self._uses_senders = self.policy.uses_senders
        self._newcomers = newcomers if self.policy.uses_pods else None
        self._sets_aside = any(rule.action.kind in _ASIDE for rule in config.rules)

    def know_pods(self, pods: Pods) -> None:
        """Which address is in which selection of pods, from now on: what was remembered of clients is forgotten."""
        if self.policy.uses_pods:
            self.policy.know_pods(pods)
            self._by_domain.clear()
            self._ways.clear()
        if self._newcomers is not None:
            self._newcomers.tell()

    def recipient(
        self, session: Session, sender: str, address: str, parameters: RecipientParameters
    ) -> Answer | Awaitable[Answer]:
        """RCPT TO: who it stands for, or the reply that refuses it."""
        role, client = session.role, session.vouched
        domain = address[address.rfind("@") + 1 :]
        credential = session.credential
        key = (role, client, sender if self._uses_senders else "", domain, credential, session.proven)
        rule = self._by_domain.get(key)
        if rule is not None:
            if parameters is NO_RECIPIENT_PARAMETERS:
                return (Recipient(address, rule),)
            return (Recipient(address, rule, int(parameters.notify), parameters.orcpt),)
        facts = Facts(role, client, sender, address, credential=credential, certificate=session.proven)
        answer = self.recipients.resolve(facts, int(parameters.notify), parameters.orcpt)
        if (
            isinstance(answer, tuple)
            and not isinstance(answer, Reply)
            and self._is_by_domain(address, domain, answer)
        ):
            _remember(self._by_domain, key, answer[0].rule)
        elif self._newcomers is not None and isinstance(answer, Reply) and client:
            return self._unless_a_pod(facts, parameters, answer)
        return answer

    def _unless_a_pod(
        self, facts: Facts, parameters: RecipientParameters, refusal: Reply
    ) -> Answer | Awaitable[Answer]:
        """A refusal, unless the client may be a pod that is not known yet: then it waits a little."""
        newcomers = self._newcomers
        if newcomers is None or not self.policy.might_be_a_pod(facts):
            return refusal
        if not newcomers.may_wait(facts.client, facts.role):
            return refusal
        return self._after_news(newcomers, facts, parameters, refusal)

    async def _after_news(
        self, newcomers: Newcomers, facts: Facts, parameters: RecipientParameters, refusal: Reply
    ) -> Answer:
        while await newcomers.news(facts.client):
            answer = self.recipients.resolve(facts, int(parameters.notify), parameters.orcpt)
            found = answer if isinstance(answer, Reply | tuple) else await answer
            if not isinstance(found, Reply):
                return found
        return refusal

    def _is_by_domain(self, address: str, domain: str, answer: tuple[Recipient, ...]) -> bool:
        """Whether any other address at this foreign domain would be answered in the same way."""
        only = answer[0]
        if len(answer) != 1 or only.address != address or only.original or not only.rule or self.policy.header_names:
            return False
        name = names.split(address)[1]
        return name == domain and name not in self.config.domains and self.policy.is_by_domain(name)

    def judge(self, mail: Incoming) -> Verdict | Awaitable[Verdict]:
        """The content is there: hops, rules that look at headers, duplicates, what is held and what is dropped; and
        of mail from the world, who has sent it."""
        if self._senders is not None and self.checks_senders(mail.session):
            return self._judge_sender(mail, self._senders)
        if mail.session.credential:
            clean_submission(mail, self.config.hostname)
        return self._judge(mail)

    def checks_senders(self, session: Session) -> bool:
        """Whether what this client brings is mail from the world. What comes from this machine itself is judged only
        where an AccessPolicy says how."""
        if session.role is not ListenerRole.MX or session.credential:
            return False
        return self._judges_own or not is_this_machine(session.vouched)

    async def _judge_sender(self, mail: Incoming, senders: SenderCheck) -> Verdict:
        opinion = self._judge(mail)
        verdict = opinion if isinstance(opinion, Verdict) else await opinion
        if verdict.refusal is not None:
            return verdict
        checked = await senders.check(mail, mail.header_block())
        if checked.reply is not None:
            return Verdict(checked.reply, (), NOBODY, (), verdict.scan)
        held = frozenset(range(len(verdict.recipients))) if checked.is_held else verdict.held
        return msgspec.structs.replace(verdict, held=held, added=checked.added, auth=checked.summary)

    def _judge(self, mail: Incoming) -> Verdict | Awaitable[Verdict]:
        head = mail.header_block()
        scan = headers.scan(head)
        if scan.hops > self._hops.get(mail.session.listener, 100):
            return Verdict(headers.TOO_MANY_HOPS, (), NOBODY, (), scan)
        recipients = tuple(mail.recipients)
        if self.policy.header_names:
            return self._judge_headers(mail, head, recipients, scan)
        if len(recipients) > 1:
            recipients = self.recipients.without_duplicates(recipients)
        return self._sorted_out(recipients, scan)

    async def _judge_headers(
        self, mail: Incoming, head: bytes, recipients: tuple[Recipient, ...], scan: headers.Scan
    ) -> Verdict:
        answer = await self._finish(mail, head, recipients)
        if isinstance(answer, Reply):
            return Verdict(answer, (), NOBODY, (), scan)
        return self._sorted_out(answer, scan)

    async def _finish(self, mail: Incoming, head: bytes, recipients: tuple[Recipient, ...]) -> Answer:
        session = mail.session
        facts = Facts(
            session.role,
            session.vouched,
            mail.sender,
            "",
            credential=session.credential,
            certificate=session.proven,
        )
        answer = self.recipients.finish(facts, recipients, headers_of(head, self.policy.header_names))
        return answer if isinstance(answer, Reply | tuple) else await answer

    def _sorted_out(self, recipients: tuple[Recipient, ...], scan: headers.Scan) -> Verdict:
        if not self._sets_aside:
            return Verdict(None, recipients, NOBODY, (), scan)
        dispositions = [self.routes.disposition(recipient) for recipient in recipients]
        if not any(dispositions):
            return Verdict(None, recipients, NOBODY, (), scan)
        pairs = list(zip(recipients, dispositions, strict=True))
        kept = [pair for pair in pairs if pair[1] is not ActionKind.DISCARD]
        return Verdict(
            None,
            tuple(recipient for recipient, _ in kept),
            frozenset(n for n, (_, what) in enumerate(kept) if what is ActionKind.HOLD),
            tuple(recipient for recipient, what in pairs if what is ActionKind.DISCARD),
            scan,
        )

    def stamp(self, mail: Incoming, verdict: Verdict, queue_id: str, now: float) -> tuple[Envelope, bytes]:
        """The envelope for the spool, and the trace fields to stand on top of the content (RFC 5321 4.4)."""
        session, parameters, scan = mail.session, mail.parameters, verdict.scan
        hostname = self.config.hostname
        only = mail.recipients[0] if len(mail.recipients) == 1 else None
        trace = headers.received(
            helo=session.helo,
            client=session.client,
            protocol=mail.protocol,
            hostname=hostname,
            queue_id=queue_id,
            now=now,
            tls=session.tls,
            client_name=session.client_name,
            recipient=(only.original or only.address) if only is not None else "",
        )
        if verdict.added:
            trace += verdict.added
        message_id = scan.message_id
        if session.role in _SUBMITTING and not (scan.has_date and scan.has_message_id):
            added, message_id = headers.missing(scan, queue_id=queue_id, hostname=hostname, now=now)
            trace += added
        envelope = Envelope(
            queue_id,
            mail.sender,
            verdict.recipients,
            now,
            mail.size,
            session.client,
            session.client_name or session.helo,
            session.role,
            int(parameters.body),
            parameters.smtputf8,
            parameters.ret,
            parameters.envid,
            0,
            message_id,
            mail.has_binary,
            session.credential,
            _REQUIRED if parameters.requiretls else (_OPTIONAL if scan.has_tls_optional else 0),
            " ".join(session.proven) if session.proven else "",
        )
        return envelope, trace

    def own(self, envelope: Envelope) -> Envelope | None:
        """A message made here, with its recipients as RCPT TO would have them: aliases of ours are followed. None:
        nobody is left who could take it."""
        found: list[Recipient] = []
        for recipient in envelope.recipients:
            facts = Facts("", "", envelope.sender, recipient.address, origin=Origin.REPORT)
            answer = self._unasked.resolve(facts, recipient.notify, recipient.orcpt)
            if isinstance(answer, tuple) and not isinstance(answer, Reply):
                found += answer
        return msgspec.structs.replace(envelope, recipients=tuple(found)) if found else None

    def shares(self, envelope: Envelope, held: frozenset[int] = NOBODY) -> list[Share]:
        """The message's recipients by destination."""
        recipients = envelope.recipients
        if len(recipients) == 1:
            return [Share(self.destination(envelope, recipients[0]), (0,), 0 in held)]
        found: dict[tuple[Destination, bool], list[int]] = {}
        for n, recipient in enumerate(recipients):
            found.setdefault((self.destination(envelope, recipient), n in held), []).append(n)
        return [Share(destination, tuple(ns), is_held) for (destination, is_held), ns in found.items()]

    def destination(self, envelope: Envelope, recipient: Recipient) -> Destination:
        """Where a recipient goes now."""
        address = recipient.address
        domain = address[address.rfind("@") + 1 :]
        sender = envelope.sender if self._uses_senders else ""
        is_forwarded = bool(recipient.original or envelope.origin)
        proof = (envelope.credential, envelope.certificate, envelope.tls_wish)
        key = (envelope.role, envelope.client, sender, domain, recipient.rule, is_forwarded, *proof)
        known = self._ways.get(key)
        if known is None:
            known = self.routes.destination(envelope, recipient) or NOWHERE
            if self.policy.is_by_domain(names.split(address)[1]):
                _remember(self._ways, key, known)
        return known


def _remember(table: dict[K, V], key: K, value: V) -> None:
    if len(table) >= REMEMBERED:
        table.clear()
    table[key] = value
