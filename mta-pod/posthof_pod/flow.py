"""THE STORY: what happens to a message, in order. `accept` is the way in, `attempt` the way out.

Rules of this file
- What is called here is one verb a line; how it is done stands in the rooms (docs/flow.md names them).
- Nothing is promised before `commit` returns. Nothing leaves without its permit. Every recipient of a try leaves with
  an Outcome, and every Outcome is given to the spool before the schedule forgets it.
- No task, timer or log call per message: these functions run inside a session that exists already.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import monotonic

import msgspec

from posthof_crds.engine import ActionKind, EngineConfig
from posthof_pod import fields, plan
from posthof_pod.accounts.accounts import Accounts
from posthof_pod.admit.judge import NOWHERE, Admission, Share, Verdict
from posthof_pod.bounce.report import reports
from posthof_pod.deliver.connection import Connection, Outgoing
from posthof_pod.deliver.maildir import MaildirDelivery
from posthof_pod.deliver.pool import Pool
from posthof_pod.deliver.site import Setback
from posthof_pod.model import (
    Destination,
    Envelope,
    Held,
    Origin,
    Outcome,
    Reason,
    Recipient,
    Settlement,
    Status,
    Taken,
    TLSWish,
)
from posthof_pod.observe.events import Events
from posthof_pod.replies import Failure, Reply
from posthof_pod.schedule.backlog import Backlog, State
from posthof_pod.schedule.line import Line
from posthof_pod.sign.signer import Dressed, Signer
from posthof_pod.smtp.gate import Incoming
from posthof_pod.spool.blob import Blob
from posthof_pod.spool.cache import Live, Stored
from posthof_pod.spool.lane import Gone
from posthof_pod.spool.record import Damaged
from posthof_pod.spool.store import Spool

FOREVER = float("inf")
UNREADABLE = 60.0  # seconds until a message that the volume did not give is asked for again
EAGER = 500  # a destination with more ready than this: what comes gets its `try` record when its turn comes


class Mta:
    """The parts of one worker, as the story needs them. app.py builds it; config and admission are swapped whole."""

    __slots__ = (
        "accounts",
        "admission",
        "backlog",
        "clock",
        "config",
        "events",
        "generation",
        "maildirs",
        "pool",
        "random",
        "signer",
        "spool",
    )

    def __init__(
        self,
        config: EngineConfig,
        *,
        admission: Admission,
        backlog: Backlog,
        events: Events,
        maildirs: MaildirDelivery,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.admission = admission
        self.backlog = backlog
        self.events = events
        self.maildirs = maildirs
        self.clock = clock
        self.random = random.random
        self.signer: Signer | None = None  # app.py sets it with each configuration; None: nobody signs
        self.generation = 0  # configurations swapped in since the start: queued mail may have another way now
        self.accounts: Accounts  # app.py sets it
        self.pool: Pool  # app.py sets it: it calls `attempt` and `failed`
        self.spool: Spool  # app.py sets it: it calls `replayed`


# ---- the way in ---------------------------------------------------------------------------------------------------


async def accept(mail: Incoming, mta: Mta) -> Reply:
    """From the last dot to 250. Nothing is promised before `commit` returns."""
    begun = monotonic()
    admission = mta.admission
    opinion = admission.judge(mail)
    verdict = opinion if isinstance(opinion, Verdict) else await opinion
    if verdict.refusal is not None:
        return _let_go(mail, verdict.refusal)
    if mail.session.credential:
        refusal = mta.accounts.submits(mail)
        if refusal is not None:
            mta.events.submission_refused(mail.session, mail.sender, refusal)
            return _let_go(mail, refusal)
        if mta.accounts.why_held(mail.session.credential, mail.session.user):
            verdict = msgspec.structs.replace(verdict, held=frozenset(range(len(verdict.recipients))))
    body = mail.body
    if isinstance(body, bytes):
        queue_id = mta.spool.next_id()
    else:
        assert isinstance(body, Blob), "the gate gives out the spool's blobs"
        queue_id = body.id
    envelope, trace = admission.stamp(mail, verdict, queue_id, mta.clock())
    if verdict.discarded:
        gone = msgspec.structs.replace(envelope, recipients=verdict.discarded)
        mta.events.discarded(gone, range(len(verdict.discarded)), verdict.discarded[0].rule)
        if not envelope.recipients:
            return _let_go(mail, Reply(250, "2.0.0", f"queued as {queue_id}"))
    shares = admission.shares(envelope, verdict.held)
    at_once = _are_eager(shares, mta.backlog)
    waiting = _held_from_the_start(envelope, verdict.held) if verdict.held else ()
    stored = await mta.spool.commit(envelope, trace, body, at_once=at_once, waiting=waiting)
    mta.events.accepted(envelope, tls=mail.session.tls, listener=mail.session.listener, auth=verdict.auth)
    enqueue(stored.ref, envelope, shares, mta, is_tried=at_once)
    mta.events.accepts.observe(monotonic() - begun)
    return Reply(250, "2.0.0", f"queued as {queue_id}")


async def originate(
    sender: str, recipients: Sequence[str], content: bytes, mta: Mta, *, wish: TLSWish = TLSWish.NONE
) -> bool:
    """A message of our own that nothing caused: a daily report. Durable when this returns. False: nobody takes it."""
    now = mta.clock()
    found = tuple(Recipient(address) for address in recipients)
    message_id = fields.value(fields.block(content), b"message-id").decode("ascii", "replace")
    made = Envelope("", sender, found, now, len(content), origin=int(Origin.REPORT), message_id=message_id)
    made = msgspec.structs.replace(made, tls_wish=int(wish)) if wish else made
    own = mta.admission.own(made)
    if own is None:
        mta.events.report_dropped(made, range(len(found)), "nobody takes this address")
        return False
    envelope = msgspec.structs.replace(own, id=mta.spool.next_id())
    stored = await mta.spool.commit(envelope, b"", content, at_once=False)
    mta.events.report_made(envelope, "daily", "")
    enqueue(stored.ref, envelope, mta.admission.shares(envelope), mta, is_tried=False)
    return True


def enqueue(ref: int, envelope: Envelope, shares: Sequence[Share], mta: Mta, *, is_tried: bool) -> None:
    """A message that is on stable storage joins the schedule."""
    now = mta.clock()
    for share in shares:
        recipients, is_held = share.recipients, share.is_held
        mta.backlog.add(
            ref,
            recipients,
            share.destination,
            now=now,
            due=FOREVER if is_held else 0.0,
            arrived=envelope.arrived,
            sender=envelope.sender,
            is_tried=is_tried,
            reason=_why_held(envelope, recipients, mta) if is_held else Reason.RECEIVED,
        )
        if is_held:
            rule = envelope.recipients[recipients[0]].rule
            mta.events.held(envelope, recipients, _why_held(envelope, recipients, mta), rule)
    mta.pool.kick()


def _why_held(envelope: Envelope, recipients: Sequence[int], mta: Mta) -> Reason:
    """A rule's word comes before the guard's: who releases mail of an account looks for the latter."""
    first = envelope.recipients[recipients[0]]
    if not envelope.credential or mta.admission.routes.disposition(first) is ActionKind.HOLD:
        return Reason.POLICY_HOLD
    return Reason.ACCOUNT_HOLD


def replayed(lives: Sequence[Live], mta: Mta) -> None:
    """Messages read back at start or taken over: they go on where their last settlement left them."""
    now = mta.clock()
    destination_of, add = mta.admission.destination, mta.backlog.add
    for ref, envelope, waiting, is_tried in lives:
        if is_tried:
            mta.events.uncertain(envelope, [held.recipient for held in waiting], Reason.REPLAYED)
        groups: list[tuple[Destination, Held, tuple[int, ...]]]
        if len(waiting) == 1:
            (held,) = waiting
            groups = [(destination_of(envelope, envelope.recipients[held[0]]), held, (held[0],))]
        else:
            groups = _groups(envelope, waiting, mta.admission)
        for destination, (_, due, attempts, notified), recipients in groups:
            add(
                ref,
                recipients,
                destination,
                now=now,
                due=due,
                attempts=attempts,
                arrived=envelope.arrived,
                sender=envelope.sender,
                notified=notified,
                reason=_REPLAYED,
            )
    mta.pool.kick()


def _groups(
    envelope: Envelope, waiting: Sequence[Held], admission: Admission
) -> list[tuple[Destination, Held, tuple[int, ...]]]:
    """Who goes to the same destination and stands at the same point: with the first of them."""
    groups: dict[tuple[str, float, int, bool], tuple[Destination, Held, list[int]]] = {}
    for held in waiting:
        destination = admission.destination(envelope, envelope.recipients[held.recipient])
        place = (destination.key, held.due, held.attempts, held.notified)
        groups.setdefault(place, (destination, held, []))[2].append(held.recipient)
    return [(destination, held, tuple(recipients)) for destination, held, recipients in groups.values()]


def _are_eager(shares: Sequence[Share], backlog: Backlog) -> bool:
    """Whether all first attempts will follow the commit directly: the accept then stands for the `try` as well."""
    for share in shares:
        if share.is_held:
            return False
        line = backlog.find_line(share.destination.key)
        if line is not None and (line.ready >= EAGER or line.deferred):
            return False
    return True


def _held_from_the_start(envelope: Envelope, held: frozenset[int]) -> tuple[Held, ...]:
    """What the accept record says where a policy holds some recipients back: a restart holds them too."""
    return tuple(Held(n, FOREVER if n in held else envelope.arrived, 0) for n in range(len(envelope.recipients)))


def _let_go(mail: Incoming, reply: Reply) -> Reply:
    """The content is not kept."""
    if not isinstance(mail.body, bytes):
        mail.body.abort()
    return reply


# ---- the way out --------------------------------------------------------------------------------------------------

Load = tuple[Taken, Stored, Outgoing]  # a unit with what it takes to try it


async def attempt(due: list[Taken], connection: Connection | None, mta: Mta) -> bool:
    """Try some messages at one destination, in order. True: the session may go on.

    Every unit ends here: done, put off with a reason, or given back untried.
    """
    loads = await _load(due, mta, mta.signer if connection is not None else None)
    if connection is None:
        await asyncio.gather(*(_drop(load, mta) for load in loads))
        return True
    last = len(loads) - 1
    for n, (taken, stored, outgoing) in enumerate(loads):
        if not connection.is_usable:
            _give_back(loads[n:], mta)
            return False
        outcomes = await connection.send(outgoing, loads[n + 1][2] if n < last else None)
        if outcomes[0].status in _TAKEN and _is_silent_end(stored.envelope, outcomes):
            _done(taken, stored.envelope, outcomes, mta, connection.tls)
            continue
        if _was_false_start(connection, outcomes):  # the pool tries the next host, within the bounds of one try
            _give_back(loads[n:], mta)
            return False
        await conclude(taken, stored.envelope, outcomes, mta, tls=connection.tls)
    return connection.is_usable


def _give_back(loads: list[Load], mta: Mta) -> None:
    for taken, _, _ in loads:
        mta.backlog.give_back(taken.unit)


def _is_silent_end(envelope: Envelope, outcomes: list[Outcome]) -> bool:
    """The message has one recipient, and nobody asked to be told of a success."""
    recipients = envelope.recipients
    return len(outcomes) == len(recipients) == 1 and not recipients[0].notify


def _done(taken: Taken, envelope: Envelope, outcomes: list[Outcome], mta: Mta, tls: str) -> None:
    """The usual end, as `conclude` makes it: the only recipient has the message, nobody is told."""
    mta.spool.settle(taken.ref, plan.DONE_FIRST)
    mta.backlog.done(taken.unit)
    mta.events.outcomes(envelope, outcomes, attempts=taken.attempts + 1, tls=tls)


async def failed(due: list[Taken], setback: Setback, mta: Mta) -> None:
    """No session came about: the try ends for all of them with the same words."""
    status = Status.FAILED if setback.is_permanent else Status.DEFERRED
    envelopes = await mta.spool.envelopes([taken.ref for taken in due])
    for taken, envelope in zip(due, envelopes, strict=True):
        if isinstance(envelope, Damaged | Gone | Failure):
            _set_aside(taken, envelope, mta)
            continue
        if isinstance(envelope, Exception):
            raise envelope
        if _has_moved(taken, envelope, mta):
            continue
        outcomes = [
            Outcome(n, status, setback.reason, setback.code, setback.enhanced, setback.reply, setback.host)
            for n in taken.recipients
        ]
        await conclude(taken, envelope, outcomes, mta)


async def conclude(taken: Taken, envelope: Envelope, outcomes: list[Outcome], mta: Mta, *, tls: str = "") -> None:
    """A try has ended: settle it in the spool, with the report it causes, then in the schedule."""
    now = mta.clock()
    result = plan.settle(taken, envelope, outcomes, now=now, retry=taken.destination.retry, jitter=mta.random())
    settlement = result.settlement
    await _settle_with_report(taken, envelope, result, now, mta)
    due = settlement.waiting[0].due if settlement.waiting else 0.0
    mta.events.outcomes(envelope, result.outcomes, due=due, attempts=taken.attempts + 1, tls=tls)


async def reroute(mta: Mta) -> None:
    """A configuration was swapped in: what waits on another way than before goes there. In slices."""
    moved = {line.destination.key for line in mta.backlog.lines() if await _is_stale(line, mta)}
    for n, row in enumerate(mta.backlog.rows() if moved else ()):
        if n % 200 == 199:
            await asyncio.sleep(0)
        if row.destination.key not in moved or row.state is State.TAKEN:
            continue
        try:
            envelope = await mta.spool.envelope(row.ref)
        except (Damaged, Gone, Failure):
            continue  # found out, and told, at its next try
        destination = mta.admission.destination(envelope, envelope.recipients[row.recipients[0]])
        if destination.key != row.destination.key:
            mta.backlog.move(row.unit, destination, mta.clock())
    mta.pool.kick()


async def _is_stale(line: Line, mta: Mta) -> bool:
    """Whether mail that waits in this line would go another way now: its first unit is asked."""
    row = next(mta.backlog.rows(line=line), None)
    if row is None:
        return False
    try:
        envelope = await mta.spool.envelope(row.ref)
    except (Damaged, Gone, Failure):
        return True
    destination = mta.admission.destination(envelope, envelope.recipients[row.recipients[0]])
    mta.backlog.line(destination)  # the same key with new hosts: the newest value counts
    return destination.key != row.destination.key


def _was_false_start(connection: Connection, outcomes: list[Outcome]) -> bool:
    """Whether a fresh session broke in its first transaction, before the dot: another host may do better."""
    return (
        connection.messages <= 1
        and not connection.is_usable
        and all(o.status is Status.DEFERRED and o.reason in _BROKEN for o in outcomes)
    )


# ---- parts of the way out -----------------------------------------------------------------------------------------


async def _load(due: list[Taken], mta: Mta, signer: Signer | None) -> list[Load]:
    """Contents, signed, and permits. What cannot be tried (damaged, rerouted, gone) is dealt with and left out."""
    loads: list[Load] = []
    untried = [taken.ref for taken in due if not taken.is_tried]
    mark = mta.spool.tried(untried) if untried else None
    read = mta.spool.read
    may_have_moved = mta.generation or due[0].destination is NOWHERE  # all of them share it
    for taken in due:
        try:
            found = read(taken.ref)
            stored = found if isinstance(found, Stored) else await found
        except (Damaged, Gone, Failure) as error:
            _set_aside(taken, error, mta)
            continue
        envelope = stored.envelope
        if may_have_moved and _has_moved(taken, envelope, mta):
            continue
        permit = partial(_permit, taken, mta, None if taken.is_tried else mark)
        outgoing = Outgoing(envelope, taken.recipients, stored.trace, stored.body, permit)
        if signer is not None:
            try:
                outgoing = await _dress(outgoing, signer, mta)
            except (Damaged, Failure) as error:
                _set_aside(taken, error, mta)
                continue
        loads.append((taken, stored, outgoing))
    return loads


async def _dress(mail: Outgoing, signer: Signer, mta: Mta) -> Outgoing:
    """Signed, and with the envelope sender its recipients shall see; the spool keeps the one it came with."""
    dressed = signer.dress(mail.envelope, mail.recipients, mail.trace, mail.body, mta.clock())
    sender, trace, resign = dressed if isinstance(dressed, Dressed) else await dressed
    envelope = mail.envelope
    if sender != envelope.sender:
        envelope = msgspec.structs.replace(envelope, sender=sender)
    return mail._replace(envelope=envelope, trace=trace, resign=resign)


def _set_aside(taken: Taken, error: Damaged | Gone | Failure, mta: Mta) -> None:
    """Damaged mail is held for a person to look at; what went to another worker is that worker's; what the volume
    does not give at the moment is asked for again."""
    if isinstance(error, Gone):
        mta.backlog.done(taken.unit)
        return
    if isinstance(error, Failure):
        due = mta.clock() + UNREADABLE
        mta.backlog.defer(taken.unit, due, taken.attempts, taken.notified, reason=Reason.LOCAL_FAILED)
        return
    mta.events.spool_damaged(error.where, error.what)
    mta.backlog.defer(taken.unit, FOREVER, taken.attempts, taken.notified, reason=Reason.SPOOL_DAMAGED)


def _has_moved(taken: Taken, envelope: Envelope, mta: Mta) -> bool:
    """A configuration swapped in meanwhile may send this mail another way: then it queues there."""
    if not mta.generation and taken.destination is not NOWHERE:
        return False
    destination = mta.admission.destination(envelope, envelope.recipients[taken.recipients[0]])
    if destination.key == taken.destination.key:
        return False
    mta.backlog.move(taken.unit, destination, mta.clock())
    mta.pool.kick()
    return True


def _permit(taken: Taken, mta: Mta, mark: Awaitable[None] | None) -> bool | Awaitable[bool]:
    """Asked just before the dot (spool.md): the id is marked as tried, the last look is young, the unit ours."""
    if not mta.backlog.is_wanted(taken.unit):
        return False
    if mark is None and mta.spool.may_dot(taken.ref, taken.recipients):
        return True
    return _permit_later(taken, mta, mark)


async def _permit_later(taken: Taken, mta: Mta, mark: Awaitable[None] | None) -> bool:
    spool, backlog, ref, recipients = mta.spool, mta.backlog, taken.ref, taken.recipients
    if mark is not None:
        try:
            await mark
        except Failure:
            return False
    if spool.may_dot(ref, recipients):
        return backlog.is_wanted(taken.unit)
    await spool.look()
    return spool.may_dot(ref, recipients) and backlog.is_wanted(taken.unit)


async def _drop(load: Load, mta: Mta) -> None:
    """Into a Maildir of ours."""
    taken, stored, outgoing = load
    envelope = stored.envelope
    domain = mta.config.domains.get(taken.destination.name)
    if domain is None:
        text = "no RelayPolicy and no MailDomain says where this recipient goes"
        outcomes = [Outcome(n, Status.DEFERRED, Reason.NO_ROUTE, 0, "4.4.0", text) for n in taken.recipients]
    elif not await _ask(outgoing.permit):
        mta.backlog.give_back(taken.unit)
        return
    else:
        try:
            outcomes = await mta.maildirs.deliver(
                envelope, taken.recipients, stored.trace, stored.body, domain, is_repeat=not taken.is_tried
            )
        except (Damaged, Failure) as error:
            _set_aside(taken, error, mta)
            return
    if outcomes[0].status is Status.DELIVERED and _is_silent_end(envelope, outcomes):
        _done(taken, envelope, outcomes, mta, "")
    else:
        await conclude(taken, envelope, outcomes, mta)


async def _ask(permit: Callable[[], bool | Awaitable[bool]]) -> bool:
    answer = permit()
    return answer if isinstance(answer, bool) else await answer


async def _settle_with_report(taken: Taken, envelope: Envelope, result: plan.Plan, now: float, mta: Mta) -> None:
    """Anything but the usual end: some wait, some failed, somebody is told."""
    settlement = result.settlement
    report = await _report(taken, envelope, result, now, mta)
    committed = mta.spool.settle(taken.ref, settlement, report)
    if committed is not None and report is not None:
        made = report[0]
        mta.events.report_made(made, _kind(result), envelope.id)
        committed.add_done_callback(lambda done: _follow_report(done, mta))
    _requeue(taken, envelope, settlement, mta)


def _kind(result: plan.Plan) -> str:
    """What a report is about, where it is about several things the worst of them."""
    if any(outcome.status in (Status.FAILED, Status.EXPIRED) for outcome in result.outcomes):
        return "failure"
    return "delay" if result.delayed else "success"


def _requeue(taken: Taken, envelope: Envelope, settlement: Settlement, mta: Mta) -> None:
    """What waits goes back into the schedule: usually one group, with one time."""
    groups: dict[tuple[float, int, bool], list[int]] = {}
    for held in settlement.waiting:
        groups.setdefault((held.due, held.attempts, held.notified), []).append(held.recipient)
    if not groups:
        mta.backlog.done(taken.unit)
        return
    reason = Reason(settlement.reason)
    (due, attempts, notified), recipients = next(iter(groups.items()))
    mta.backlog.defer(taken.unit, due, attempts, notified, recipients=tuple(recipients), reason=reason)
    for (due, attempts, notified), recipients in list(groups.items())[1:]:
        mta.backlog.add(
            taken.ref,
            tuple(recipients),
            taken.destination,
            now=mta.clock(),
            due=due,
            attempts=attempts,
            arrived=envelope.arrived,
            sender=envelope.sender,
            notified=notified,
            reason=reason,
        )


async def _report(
    taken: Taken, envelope: Envelope, result: plan.Plan, now: float, mta: Mta
) -> tuple[Envelope, bytes, bytes] | None:
    """The report this try causes. Reads the message again only where somebody may be told."""
    is_silent = all(o.status in _SILENT and not envelope.recipients[o.recipient].notify for o in result.outcomes)
    if is_silent and not result.delayed:
        return None
    trace, content, is_whole = b"", b"", False
    try:
        stored = mta.spool.read(taken.ref)
        stored = stored if isinstance(stored, Stored) else await stored
        trace, body = stored.trace, stored.body
        if isinstance(body, bytes):
            content, is_whole = body, True
        else:
            content = await body.head(fields.LIMIT)
    except Damaged as error:  # the sender is told all the same, without the message
        mta.events.spool_damaged(error.where, error.what, envelope.id)
    except Failure:  # the volume does not answer: as above
        content = b""
    made = reports(
        envelope,
        result.outcomes,
        result.delayed,
        trace=trace,
        content=content,
        is_whole=is_whole,
        config=mta.config,
        retry=taken.destination.retry,
        now=now,
        new_id=lambda: mta.spool.next_id(taken.ref),
    )
    if made is None:
        return None
    own = mta.admission.own(made.envelope)
    if own is None:
        mta.events.report_dropped(made.envelope, range(len(made.envelope.recipients)), "nobody takes this address")
        return None
    return own, made.trace, made.body


def _follow_report(done: asyncio.Future[Stored], mta: Mta) -> None:
    """A report is on stable storage, inside the settle that caused it: it goes its own way."""
    if done.cancelled() or done.exception() is not None:
        return  # the settle is written again in a new segment, and the spool tells of the report then
    stored = done.result()
    enqueue(stored.ref, stored.envelope, mta.admission.shares(stored.envelope), mta, is_tried=True)


_TAKEN = (Status.RELAYED, Status.DELIVERED)  # an enum's member costs a look-up in its class
_REPLAYED = Reason.REPLAYED
_BROKEN = frozenset({Reason.PEER_CLOSED, Reason.PEER_TIMEOUT, Reason.PEER_BROKEN})
_SILENT = frozenset({Status.DELIVERED, Status.RELAYED, Status.DEFERRED, Status.UNCERTAIN, Status.HELD})
