"""Sender authentication of one message, asked by the Admission: trust.py with the world around it.

Owns: what is taken from the session and the content, and what is done to the content: foreign results with our name
leave it. Decides nothing itself.

Rules
- One object per configuration. A listener that does not judge senders never comes here.
- Our own fault is a temporary error of the sender's DNS to nobody: it is told, and the mail goes on unjudged.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from posthof_crds.engine import Access, EngineConfig
from posthof_pod import fields
from posthof_pod.admit import trust
from posthof_pod.mailauth import results
from posthof_pod.mailauth.canon import Body, Field
from posthof_pod.mailauth.canon import fields as parts
from posthof_pod.mailauth.dmarc.row import Failure, Row
from posthof_pod.mailauth.dns import Lookup
from posthof_pod.replies import Reply
from posthof_pod.smtp.gate import Incoming
from posthof_pod.spool.blob import Blob


class Watch(Protocol):
    """The part of observe.events.Events that is called here."""

    def sender_checked(self, spf: str, dkim: str, arc: str, dmarc: str) -> None: ...
    def internal_error(self, where: str, error: BaseException) -> None: ...


class Means(NamedTuple):
    """What a check needs from outside. `lookups` makes the Lookup of one message; `report` takes its row, where
    reports are made; `fail` a message that failed, where its domain owner may hear of each."""

    lookups: Callable[[], Lookup]
    clock: Callable[[], float]
    watch: Watch
    report: Callable[[Row], object] | None = None
    fail: Callable[[Failure], object] | None = None


class Checked(NamedTuple):
    """`reply`: refused. `added`: our fields. `summary`: for the log."""

    reply: Reply | None
    is_held: bool
    added: bytes
    summary: str


def is_this_machine(client: str) -> bool:
    """Whether it is a loopback address, which SPF can say nothing about. `client` as Session.vouched has it."""
    return client.startswith("127.") or client == "::1"


class SenderCheck:
    """For one configuration."""

    def __init__(self, config: EngineConfig, means: Means) -> None:
        self.access: Access = config.access
        self.hostname = config.hostname
        self._means = means
        self._trusted = [ipaddress.ip_network(text) for text in config.access.spf.trusted_clients]
        self._fail = means.fail if config.access.dmarc.failure_reports else None
        self._report = means.report if config.access.dmarc.aggregate_reports else None

    async def check(self, mail: Incoming, head: bytes) -> Checked:
        """Judge the message, and take foreign results with our name out of its content."""
        question = self._question(mail, head)
        access, means = self.access, self._means
        try:
            found = await trust.examine(question, access, means.lookups(), means.clock(), self.hostname)
        except Exception as error:  # ours: a message is not lost for it
            means.watch.internal_error("sender authentication", error)
            self._clean(mail, question)
            return Checked(None, False, results.field(self.hostname, []), "")
        decision = trust.decide(access, found, question)
        dkim = [one.result for one in found.signatures]
        best = "pass" if "pass" in dkim else dkim[0] if dkim else "none"
        means.watch.sender_checked(found.spf.result, best, found.arc.cv, found.dmarc.result)
        if self._report is not None:
            row = trust.row(found, decision, question)
            if row is not None:
                self._report(row)
        if self._fail is not None:
            failure = trust.failure(self.hostname, access, found, decision, question)
            if failure is not None:
                self._fail(failure)
        if decision.reply is not None:
            return Checked(decision.reply, False, b"", "")
        self._clean(mail, question)
        added = trust.written(self.hostname, access, found, question, decision.mark)
        return Checked(None, decision.is_held, added, trust.summary(found))

    def _question(self, mail: Incoming, head: bytes) -> trust.Question:
        session, content = mail.session, mail.body
        client = session.vouched
        if is_this_machine(client) or self._is_trusted(client):
            client = ""
        body: Body | None
        is_whole = True
        if isinstance(content, bytes):
            body = content[len(head) + 2 :]
        else:
            strainer = content.strainer if isinstance(content, Blob) else None
            body = getattr(strainer, "hashes", None)
            is_whole = len(head) < fields.LIMIT
        return trust.Question(client, session.helo, mail.sender, head, parts(head), body, is_whole)

    def _is_trusted(self, client: str) -> bool:
        if not client or not self._trusted:
            return False
        address = ipaddress.ip_address(client)
        return any(address in network for network in self._trusted)

    def _clean(self, mail: Incoming, question: trust.Question) -> None:
        clean(mail, question.head, question.fields, self.hostname)


def clean_submission(mail: Incoming, hostname: str) -> None:
    """A client that has logged in may write anything but our results."""
    head = mail.header_block()
    if results.NAME in head.lower():
        clean(mail, head, parts(head), hostname)


def clean(mail: Incoming, head: bytes, fields_: Sequence[Field], hostname: str) -> None:
    """Foreign results with our name leave the content. What is on the disk went through a Strainer, which did it."""
    content = mail.body
    if not isinstance(content, bytes):
        return
    kept = results.without_ours(head, fields_, hostname)
    if kept is not head:
        mail.body = kept + content[len(head) :]
        mail.size = len(mail.body)
