"""Events: one method for each thing that can happen to a message or to the house.

It is the only place that formats a line about a message. Each call writes one JSON line (`line.py`), counts it in
plain integers, and keeps it for `posthof trace` (`ring.py`). Lines are gathered for GATHER and written in one piece.

Rules of this file
- A method never raises because of what it is told, never waits, and costs at most 2 microseconds for the events a
  message meets on its usual way (tests/observe/test_events_cost.py prints it).
- Callers pass nouns (Envelope, Outcome, Reply), never formatted text.
- Connections that leave without a command are probes: counted, not told. Of those that a limit turns away the first
  of a network is told at once, the others are one line a minute (`crowds.py`); the counters know each at once.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from posthof_crds.report import TakeOver
from posthof_pod.model import Envelope, Outcome, Reason, Recipient, Status
from posthof_pod.observe.crowds import PERIOD, Crowd, Crowds
from posthof_pod.observe.line import (
    ERROR,
    INFO,
    WARNING,
    Accepted,
    Line,
    Passed,
    decode,
    encode_onto,
    readable,
    wants_colour,
)
from posthof_pod.observe.log import Log
from posthof_pod.observe.metrics import Histogram, Stats, labelled
from posthof_pod.observe.ring import Ring
from posthof_pod.replies import Reply
from posthof_pod.smtp.gate import Session

ACCEPTS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
DELAYS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 14400.0, 86400.0)
LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3}
DETAIL = 8192  # characters of a traceback that are kept
RETRY = 0.05  # seconds until a log that is behind is tried again
GATHER = 0.01  # seconds a line waits for others: a write costs more than all else about it


class Loop(Protocol):
    """What of an event loop is used here."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> object: ...


class Events:
    """The voice of one process.

    `log`: None = nothing is written (the trace and the counts still work). `loop`: None = each line is written at
    once (the supervisor before its loop runs, tests). `level`: debug tells probes too; warning and error leave lines
    out of the log, never out of the trace.
    """

    def __init__(
        self,
        log: Log | None = None,
        *,
        loop: Loop | None = None,
        worker: str = "",
        level: str = "info",
        clock: Callable[[], float] = time.time,
        ring: Ring | None = None,
        for_people: bool | None = None,
    ) -> None:
        self.log = log
        self.loop = loop
        self.worker = worker
        self.clock = clock
        self.ring = Ring() if ring is None else ring
        self.delays = Histogram("posthof_delivery_delay_seconds", DELAYS)
        self.accepts = Histogram("posthof_accept_seconds", ACCEPTS)
        self.total = self.accepted_messages = self.accepted_recipients = self.accepted_bytes = 0
        self.sessions = self.probes = self.duplicates = 0
        self._counts: dict[str, int] = {}  # sample name with labels -> count, for what is not on the hot path
        self._finished = [0] * len(FINISHED)
        self._deferred: dict[str, int] = {}
        self._failed: dict[str, int] = {}
        self._refused: dict[tuple[str, int], int] = {}
        self._crowds = Crowds()
        self._turn = bytearray()  # lines not yet written
        self._turn_lines = 0
        self._loud = bytearray()  # those of them the log wants, where it does not want all
        self._is_due = False
        self._second, self._second_text = -1, ""
        self._wall = self._stale = 0.0
        self._text = ""
        self._told_lost = 0
        self.set_level(level)
        self._colour = log is not None and wants_colour(log.fd)
        self._for_people = _is_terminal(log) if for_people is None else for_people

    # ------------------------------------------------------------------ a message arrives

    def accepted(self, envelope: Envelope, *, tls: str = "", listener: str = "", auth: str = "") -> None:
        """It is durable and was answered 250."""
        recipients = envelope.recipients
        self.accepted_messages += 1
        self.accepted_recipients += len(recipients)
        self.accepted_bytes += envelope.size
        first = recipients[0]
        is_one = len(recipients) == 1
        line = Accepted(
            self._now(),
            "accepted",
            self.worker,
            envelope.id,
            envelope.message_id,
            envelope.sender,
            (first.address,) if is_one else tuple([r.address for r in recipients]),
            envelope.client,
            envelope.client_name,
            listener,
            envelope.role,
            tls,
            envelope.size,
            first.rule if is_one else rules_of(recipients),
        )
        if auth:
            line.auth = auth
        if not is_one or first.original:
            line.original = tuple(dict.fromkeys([r.original for r in recipients if r.original]))
        self._usual(line)

    def refused(
        self,
        stage: str,
        reply: Reply,
        *,
        client: str = "",
        client_name: str = "",
        listener: str = "",
        role: str = "",
        sender: str | None = None,
        recipient: str = "",
        size: int = -1,
        rule: str = "",
        reason: str = "",
        tls: str = "",
    ) -> None:
        """We said no at `stage`: connect, helo, mail, rcpt or data. `reason` is exact and ours; `reply` was said."""
        self._count_refusal(stage, reply)
        line = Line(self._now(), "refused", self.worker, "", "", sender, (recipient,) if recipient else ())
        line.client, line.client_name, line.listener, line.role = client, client_name, listener, role
        line.stage, line.reply, line.dsn = stage, str(reply), reply.status
        line.size, line.rule, line.reason, line.tls = size, rule, reason, tls
        self._line(line)

    def turned_away(self, reply: Reply, *, client: str, network: str, listener: str = "", role: str = "") -> None:
        """A limit closed a connection before it was a session. `network`: whose limit it is; "": all clients'."""
        loop = self.loop
        if loop is not None:
            is_quiet = not self._crowds
            is_first = self._crowds.comes(Crowd(network, listener, role, reply), client)
            if is_quiet:
                loop.call_later(PERIOD, self._next_crowds)
            if not is_first:
                self._count_refusal("connect", reply)
                return
        self.refused("connect", reply, client=client, listener=listener, role=role)

    def _next_crowds(self) -> None:
        """Once a PERIOD while somebody is turned away."""
        self._tell_crowds()
        if self._crowds and self.loop is not None:
            self.loop.call_later(PERIOD, self._next_crowds)

    def _tell_crowds(self) -> None:
        for crowd, count, client in self._crowds.take():
            line = Line(self._now(), "refused", self.worker, client=client, listener=crowd.listener, role=crowd.role)
            line.stage, line.reply, line.dsn, line.count = "connect", str(crowd.reply), crowd.reply.status, count
            line.detail = f"{count} more from {crowd.network or 'many networks'} within a minute"
            self._line(line)

    def _count_refusal(self, stage: str, reply: Reply) -> None:
        key = (stage, reply.code)
        self._refused[key] = self._refused.get(key, 0) + 1

    def authenticated(self, session: Session, mechanism: str, username: str) -> None:
        """A client has proven who it is."""
        self._login("authenticated", session, mechanism, username)

    def not_authenticated(self, session: Session, mechanism: str, username: str, why: str) -> None:
        """It has not. `why` is exact; the client hears the same words each time."""
        self._login("not_authenticated", session, mechanism, username, why)

    def _login(self, event: str, session: Session, mechanism: str, username: str, why: str = "") -> None:
        self._count(f'posthof_{event}_total{{mechanism="{mechanism}"}}')
        line = Line(self._now(), event, self.worker)
        line.client, line.client_name, line.listener = session.client, session.helo, session.listener
        line.role, line.tls, line.reason, line.detail = session.role, session.tls, why, f"{mechanism} {username}"
        line.name = session.credential
        self._line(line)

    def account_held(self, credential: str, user: str, why: str) -> None:
        """An account sends unlike itself: what it sends is held until a person looks."""
        about = f"{credential} ({user})" if user else credential
        self._house("account_held", "posthof_accounts_held_total", name=about, reason=why, level=WARNING)

    def submission_refused(self, session: Session, sender: str, reply: Reply) -> None:
        """After the dot: the account may not send this."""
        self.refused(
            "data",
            reply,
            client=session.client,
            client_name=session.helo,
            listener=session.listener,
            role=session.role,
            sender=sender,
            reason=f"SMTPCredential {session.credential}",
            tls=session.tls,
        )

    def sender_checked(self, spf: str, dkim: str, arc: str, dmarc: str) -> None:
        """SPF, DKIM, ARC and DMARC of a message from the world were judged; the words are those of RFC 8601."""
        counts = self._counts
        for method, result in (("spf", spf), ("dkim", dkim), ("arc", arc), ("dmarc", dmarc)):
            name = _CHECKED[method, result]
            counts[name] = counts.get(name, 0) + 1

    def session_ended(
        self,
        *,
        client: str,
        client_name: str = "",
        listener: str = "",
        commands: int,
        messages: int = 0,
        seconds: float = 0.0,
        tls: str = "",
        reason: str = "",
    ) -> None:
        """A client went away, or was sent away for `reason`. Without a command it was a probe: only counted."""
        if not commands:
            self.probes += 1
            if self._rank > 0:
                return
        else:
            self.sessions += 1
        line = Line(self._now(), "session_ended" if commands else "probe", self.worker)
        line.client, line.client_name, line.listener = client, client_name, listener
        line.count, line.seconds, line.tls, line.reason = messages, round(seconds, 3), tls, reason
        self._line(line)

    # ------------------------------------------------------------------ a try ends

    def outcomes(
        self,
        envelope: Envelope,
        outcomes: Sequence[Outcome],
        *,
        due: float = 0.0,
        attempts: int = 0,
        tls: str = "",
    ) -> None:
        """All a try made of its recipients: one line for each run of recipients with the same result.

        Tells `delivered`, `relayed`, `deferred` (with `due`), `bounced`, `expired`, `discarded`, `held`, `uncertain`.
        `attempts`: tries that have ended, with this one.
        """
        if len(outcomes) == 1:
            self._tried(envelope, outcomes, due, attempts, tls)
            return
        start, count = 0, len(outcomes)
        while start < count:
            end = start + 1
            while end < count and outcomes[end][1:] == outcomes[start][1:]:
                end += 1
            self._tried(envelope, outcomes[start:end], due, attempts, tls)
            start = end

    def _tried(self, envelope: Envelope, same: Sequence[Outcome], due: float, attempts: int, tls: str) -> None:
        """One line for recipients with the same result."""
        index, status, reason, code, enhanced, reply, host, _ = same[0]
        recipients = envelope.recipients
        count = len(same)
        to = recipients[index]
        now = self._now()
        delay = int((self._wall - envelope.arrived) * 1000 + 0.5) / 1000
        passed = Passed(
            now,
            FINISHED[status],
            self.worker,
            envelope.id,
            envelope.message_id,
            envelope.sender,
            (to.address,) if count == 1 else tuple([recipients[one.recipient].address for one in same]),
            host,
            tls,
            enhanced,
            reply if reply.startswith(CODES[code]) else CODES[code] + reply,
            delay,
            envelope.size,
            to.rule,
            attempts if attempts > 1 else 0,
        )
        self._finished[status] += count
        if status <= RELAYED:
            self.delays.observe(delay, count)
            self._usual(passed)
        else:
            line = Line(now, passed.event)
            for name in PASSED:
                setattr(line, name, getattr(passed, name))
            self._unfinished(line, status, reason, count, due)

    def _unfinished(self, line: Line, status: int, reason: str, count: int, due: float) -> None:
        """What is told and counted of results other than delivered and relayed."""
        line.reason = reason
        if status == Status.DEFERRED:
            self._deferred[reason] = self._deferred.get(reason, 0) + count
        elif status in (Status.FAILED, Status.EXPIRED):
            self._failed[reason] = self._failed.get(reason, 0) + count
        elif status == Status.UNCERTAIN:
            self.duplicates += count
            line.level = WARNING
        if due and status in (Status.DEFERRED, Status.UNCERTAIN):
            line.due = stamp(due)
        self._line(line, loud=bool(line.level))

    def uncertain(self, envelope: Envelope, recipients: Iterable[int], reason: Reason, detail: str = "") -> None:
        """These were tried and a replay found no outcome: they may get it twice. The spool has metered them."""
        line = self._about(envelope, "uncertain", addresses(envelope, recipients))
        line.reason, line.detail, line.level = reason, detail, WARNING
        self._finished[Status.UNCERTAIN] += len(line.to)
        self._line(line, loud=True)

    def held(self, envelope: Envelope, recipients: Iterable[int], reason: Reason, rule: str = "") -> None:
        """They wait until a person releases them."""
        line = self._about(envelope, "held", addresses(envelope, recipients))
        line.reason, line.rule = reason, rule
        self._finished[Status.HELD] += len(line.to)
        self._line(line)

    def discarded(self, envelope: Envelope, recipients: Iterable[int], rule: str) -> None:
        """A rule said: accept and forget."""
        line = self._about(envelope, "discarded", addresses(envelope, recipients))
        line.rule = rule
        self._finished[Status.DISCARDED] += len(line.to)
        self._line(line)

    def report_made(self, report: Envelope, kind: str, about: str) -> None:
        """A delivery status notification about the message with id `about`: failure, delay or success."""
        line = self._about(report, "report_made", addresses(report, range(len(report.recipients))))
        line.about, line.reason, line.size = about, kind, report.size
        self._count(f'posthof_reports_total{{kind="{kind}"}}')
        self._line(line)

    def report_dropped(self, envelope: Envelope, recipients: Iterable[int], why: str) -> None:
        """Nobody can be told that these failed."""
        line = self._about(envelope, "report_dropped", addresses(envelope, recipients))
        line.reason, line.level = why, WARNING
        self._count("posthof_reports_dropped_total")
        self._line(line, loud=True)

    # ------------------------------------------------------------------ a person changes the queue

    def released(self, envelope: Envelope, recipients: Iterable[int]) -> None:
        self._operator("released", envelope, recipients)

    def deleted(self, envelope: Envelope, recipients: Iterable[int]) -> None:
        self._operator("deleted", envelope, recipients)

    def flushed(self, envelope: Envelope, recipients: Iterable[int]) -> None:
        self._operator("flushed", envelope, recipients)

    def stopped_by_hand(self, envelope: Envelope, recipients: Iterable[int]) -> None:
        """Held because a person asked for it."""
        self._operator("held", envelope, recipients)

    def _operator(self, action: str, envelope: Envelope, recipients: Iterable[int]) -> None:
        line = self._about(envelope, action, addresses(envelope, recipients))
        line.reason = f"Operator{ACTIONS[action]}"
        self._count(f'posthof_operator_actions_total{{action="{action}"}}')
        self._line(line)

    # ------------------------------------------------------------------ the world outside

    def tls_fallback(self, relay: str, why: str) -> None:
        """TLS to this host failed and plain text was allowed."""
        self._house("tls_fallback", "posthof_tls_fallbacks_total", relay=relay, reason=why)

    def tls_failed(self, kind: str) -> None:
        """TLS did not come about, or proved nothing; whoever needed it says so with the mail."""
        self._count(f'posthof_tls_failures_total{{result="{kind}"}}')

    def dnssec(self, holds: bool, why: str) -> None:
        """Whether the resolver validates, so that DANE is possible: known at the start, and told when it changes."""
        if holds:
            self._house("dnssec_validates", "")
        else:
            self._house("dnssec_missing", "posthof_dnssec_missing_total", reason=f"DANE is off: {why}", level=WARNING)

    def sts_failed(self, domain: str, kind: str, why: str) -> None:
        """An MTA-STS policy that is announced could not be had, or an MX host is not in it."""
        self._house("sts_failed", f'posthof_sts_failures_total{{result="{kind}"}}', name=domain, reason=why)

    def site_down(self, site: str, reason: Reason, reply: str) -> None:
        """No host of a destination answers: its mail waits for a probe."""
        self._house("site_down", "posthof_sites_down_total", name=site, reason=reason, reply=reply, level=WARNING)

    def site_up(self, site: str) -> None:
        self._house("site_up", "posthof_sites_up_total", name=site)

    # ------------------------------------------------------------------ the spool

    def lane_adopted(self, lane: str, owner: str, messages: int, seconds: float, duplicates: int = 0) -> None:
        """`duplicates`: recipients that were tried and have no outcome; each is told of as `uncertain`."""
        twice = f"; {duplicates} recipients may get theirs twice" if duplicates else ""
        self._house(
            "lane_adopted",
            "posthof_spool_adoptions_total",
            name=lane,
            count=messages,
            seconds=seconds,
            detail=f"was held by {owner}{twice}",
        )

    def taken_over(self, told: TakeOver) -> None:
        """All lanes of one worker that this house took: once, when it is over."""
        what = "gave its lanes free" if told.freed else "ended without freeing its lanes"
        detail = (
            f"{told.count} lanes of worker {told.worker}{f' of pod {told.pod}' if told.pod else ''}, which {what}"
        )
        if not told.freed:
            detail += (
                f"; {told.possible_duplicates} recipients were tried and have no outcome: they may get theirs twice "
                f"(if this volume is a restored snapshot, all {told.messages} messages may be sent again)"
            )
        self._house(
            "taken_over",
            "posthof_spool_take_overs_total",
            name=told.pod or told.worker,
            count=told.messages,
            seconds=told.seconds,
            detail=detail,
            level=INFO if told.freed else WARNING,
        )

    def possible_duplicates(self, count: int, reason: str, lane: str) -> None:
        """So many recipients (dots, 451s) may lead to a second copy; the spool has counted them already. Those that a
        replay finds are told of one by one: `uncertain`."""
        self._house("possible_duplicates", "", name=lane, count=count, reason=reason, level=WARNING)

    def lane_freed(self, lane: str, messages: int) -> None:
        """Offered to the peers: a stop, or the sharing of a backlog."""
        self._house("lane_freed", "posthof_spool_lanes_freed_total", name=lane, count=messages)

    def spool_damaged(self, where: str, what: str, queue_id: str = "") -> None:
        """A record or a segment that cannot be read was set aside."""
        self._house(
            "spool_damaged", "posthof_spool_damaged_total", name=where, detail=what, queue_id=queue_id, level=ERROR
        )

    def spool_fenced(self, by: str) -> None:
        """Another worker took over what was ours: nothing may be promised, this worker ends."""
        self._house("spool_fenced", "posthof_spool_fenced_total", detail=by, level=ERROR)

    def spool_full(self, free: int, why: str = "") -> None:
        """Over a limit: new mail is answered 452 4.3.1."""
        self._house("spool_full", "posthof_spool_full_total", size=free, detail=why, level=ERROR)

    def spool_has_room(self, free: int) -> None:
        self._house("spool_has_room", "", size=free)

    def segment_given_up(self, segment: str, why: str) -> None:
        """The volume failed: what was not synced is refused, the lane goes on in a new segment."""
        self._house(
            "segment_given_up", "posthof_spool_segments_given_up_total", name=segment, detail=why, level=ERROR
        )

    # ------------------------------------------------------------------ the house

    def listener_bound(self, name: str, address: str, role: str) -> None:
        self._house("listener_bound", "", name=name, detail=address, role=role)

    def listener_closed(self, name: str, address: str) -> None:
        self._house("listener_closed", "", name=name, detail=address)

    def worker_started(self, name: str, pid: int) -> None:
        self._house("worker_started", "posthof_worker_starts_total", name=name, pid=pid)

    def worker_ready(self, name: str, seconds: float) -> None:
        self._house("worker_ready", "", name=name, seconds=seconds)

    def worker_died(self, name: str, pid: int, how: str, restart_in: float) -> None:
        self._house(
            "worker_died",
            "posthof_worker_deaths_total",
            name=name,
            pid=pid,
            detail=f"{how}; starts again in {restart_in:.1f} s",
            level=ERROR,
        )

    def worker_stuck(self, name: str, pid: int, seconds: float) -> None:
        """It did not answer for so long that it is killed."""
        self._house("worker_stuck", "posthof_workers_stuck_total", name=name, count=pid, seconds=seconds, level=ERROR)

    def config_swapped(self, revision: str, changed: Sequence[str] = ()) -> None:
        """A new configuration is in use. `revision`: its content hash."""
        self._house("config_swapped", "posthof_config_swaps_total", name=revision, detail=", ".join(changed))

    def config_unchanged(self, revision: str) -> None:
        """The manifests were read again and say the same."""
        self._house("config_unchanged", "", name=revision)

    def config_refused(self, errors: Sequence[str]) -> None:
        """The old configuration stays."""
        self._house("config_refused", "posthof_config_refused_total", detail="\n".join(errors), level=ERROR)

    def restart_needed(self, fields: Sequence[str]) -> None:
        """These changes were read, and take effect at the next start only."""
        self._house("restart_needed", "", detail=", ".join(fields), level=WARNING)

    def waiting(self, what: str) -> None:
        """The house cannot begin yet; it goes on trying."""
        self._house("waiting", "", detail=what, level=WARNING)

    def cluster_away(self, why: str) -> None:
        """The API server does not answer; what is known stays in force."""
        self._house("cluster_away", "posthof_cluster_away_total", reason=why, level=WARNING)

    def cluster_back(self, seconds: float) -> None:
        """It answers again. `seconds`: how long it was away."""
        self._house("cluster_back", "", seconds=seconds)

    def lease_lost(self, why: str) -> None:
        """This pod's Lease is not renewed, or the others' are not seen: nobody is judged dead meanwhile."""
        self._house("lease_lost", "posthof_lease_lost_total", detail=why, level=WARNING)

    def lease_back(self, seconds: float) -> None:
        """It is renewed again. `seconds`: how long it was not."""
        self._house("lease_back", "", seconds=seconds)

    def volume_blind(self, why: str) -> None:
        """What another pod wrote and synced is not seen here: no take-over is safe on such a volume."""
        self._house("volume_blind", "posthof_volume_blind_total", detail=why, level=ERROR)

    def volume_tried(self, what: str, seconds: float, warnings: Iterable[str]) -> None:
        """What the volume does, as tried out at the start. `seconds`: 99% of the syncs took less."""
        self._house("volume_tried", "", seconds=seconds, detail=what)
        for one in warnings:
            self.warned(f"the spool's volume: {one}")

    def member_joined(self, pod: str) -> None:
        """A pod that shares the spool and the limits is there."""
        self._house("member_joined", "", name=pod)

    def member_left(self, pod: str) -> None:
        """Its Lease is gone, or did not change for so long that it counts as dead."""
        self._house("member_left", "", name=pod)

    def share_changed(self, before: float, now: float) -> None:
        """What of the fleet's limits this pod's workers use: parts of the whole."""
        self._house("share_changed", "", detail=f"{before:.3f} -> {now:.3f} of the limits")

    def slept(self, seconds: float) -> None:
        """This process was stopped, or its machine: others may have taken its lanes."""
        self._house("slept", "posthof_slept_total", seconds=seconds, level=WARNING)

    def warned(self, what: str) -> None:
        """Something a person should know about their set-up."""
        self._house("warning", "", detail=what, level=WARNING)

    def started(self, what: str) -> None:
        self._house("started", "", detail=what)

    def stopping(self, why: str) -> None:
        self._house("stopping", "", reason=why)

    def stopped(self, seconds: float) -> None:
        self._house("stopped", "", seconds=seconds)

    def internal_error(self, where: str, error: BaseException, queue_id: str = "") -> None:
        """Our own fault, with its trace."""
        text = "".join(traceback.format_exception(error))
        self._house(
            "internal_error",
            "posthof_internal_errors_total",
            name=where,
            reason=type(error).__name__,
            detail=text if len(text) <= DETAIL else text[: DETAIL // 4] + "\n...\n" + text[-DETAIL * 3 // 4 :],
            queue_id=queue_id,
            level=ERROR,
        )

    # ------------------------------------------------------------------ for the exporter and the trace

    def stats(self) -> Stats:
        """Every count as `name{label="value"} -> number` (metrics.py)."""
        found: Stats = {
            "posthof_messages_accepted_total": self.accepted_messages,
            "posthof_recipients_accepted_total": self.accepted_recipients,
            "posthof_bytes_accepted_total": self.accepted_bytes,
            "posthof_sessions_total": self.sessions,
            "posthof_probes_total": self.probes,
            "posthof_possible_duplicates_total": self.duplicates,
            "posthof_log_lines_total": self.total,
            "posthof_log_lines_lost_total": self.log.lost if self.log else 0,
        }
        for name, count in zip(FINISHED, self._finished, strict=True):
            if name != "deferred":
                found[f'posthof_recipients_total{{result="{name}"}}'] = count
        found |= labelled("posthof_deferred_total", "reason", self._deferred)
        found |= labelled("posthof_failed_total", "reason", self._failed)
        for (stage, code), count in self._refused.items():
            found[f'posthof_refused_total{{stage="{stage}",code="{code}"}}'] = count
        return found | self._counts | self.delays.stats() | self.accepts.stats()

    def trace(self, wanted: str, limit: int = 1000) -> list[bytes]:
        """JSON lines of the messages that `wanted` (queue id, address, @domain, Message-ID) names, oldest first."""
        self.flush()
        return self.ring.search(wanted, limit)

    # ------------------------------------------------------------------ how a line is written

    def set_level(self, level: str) -> None:
        """debug, info, warning or error; takes effect at once."""
        self._rank = LEVELS.get(level, 1)

    def attach(self, loop: Loop) -> None:
        """From now on lines are gathered, and written by a timer of `loop`."""
        self.loop = loop

    def reopen(self) -> None:
        """Follow a log file that was rotated."""
        self.flush()
        if self.log and (wrong := self.log.reopen()):
            self.warned(wrong)

    def flush(self) -> None:
        """Write what was gathered. Called by the loop; by hand before the end."""
        self._is_due = False
        if not self._turn:
            return
        block = bytes(self._turn)
        self.ring.add(block, self._turn_lines)
        wanted = block if self._rank <= 1 else bytes(self._loud)
        self._turn.clear()
        self._loud.clear()
        self._turn_lines = 0
        if self.log is not None and wanted:
            self.log.write(self._rendered(wanted) if self._for_people else wanted)
            self._watch()

    def close(self) -> None:
        self._tell_crowds()
        self.flush()
        if self.log is not None:
            self.log.close()

    def _rendered(self, block: bytes) -> bytes:
        lines = [readable(decode(raw), colour=self._colour) for raw in block.splitlines()]
        return ("\n".join(lines) + "\n").encode("utf-8", "replace")

    def _watch(self) -> None:
        """Come back to a log that is behind; tell of lines it lost."""
        log = self.log
        if log is None:
            return
        if log.is_behind:
            if self.loop is not None:
                self.loop.call_later(RETRY, self._catch_up)
        elif log.lost != self._told_lost:
            lost, self._told_lost = log.lost - self._told_lost, log.lost
            self._house("log_lines_lost", "", count=lost, level=WARNING)

    def _catch_up(self) -> None:
        if self.log is not None and self.log.is_behind:
            self.log.retry()
            self._watch()

    def _now(self) -> str:
        """The line's time, made once a millisecond. `_wall` keeps the number for delays."""
        self._wall = now = self.clock()
        if self._stale - 0.001 <= now < self._stale:
            return self._text
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        millisecond = int((now - second) * 1000)
        self._stale = second + (millisecond + 1) / 1000
        self._text = text = f"{self._second_text}{millisecond:03d}Z"
        return text

    def _usual(self, line: Accepted | Passed) -> None:
        """One of the two lines of a message that meets nothing unusual: never loud."""
        self.total += 1
        encode_onto(line, self._turn)
        self._turn_lines += 1
        if not self._is_due:
            self._write_soon()

    def _line(self, line: Line, *, loud: bool = False) -> None:
        self.total += 1
        encode_onto(line, self._turn)
        self._turn_lines += 1
        if self._rank > 1 and loud and (self._rank == 2 or line.level == ERROR):
            encode_onto(line, self._loud)
        if not self._is_due:
            self._write_soon()

    def _write_soon(self) -> None:
        if self.loop is None:
            self.flush()
        else:
            self._is_due = True
            self.loop.call_later(GATHER, self.flush)

    def _about(self, envelope: Envelope, event: str, to: tuple[str, ...]) -> Line:
        line = Line(self._now(), event, self.worker, envelope.id, envelope.message_id, envelope.sender, to)
        line.delay = round(self._wall - envelope.arrived, 3)
        return line

    def _house(
        self,
        event: str,
        counter: str,
        *,
        name: str = "",
        queue_id: str = "",
        role: str = "",
        relay: str = "",
        reply: str = "",
        reason: str = "",
        size: int = -1,
        count: int = -1,
        pid: int = -1,
        seconds: float = -1.0,
        detail: str = "",
        level: str = INFO,
    ) -> None:
        if counter:
            self._count(counter)
        line = Line(self._now(), event, self.worker, queue_id, name=name, role=role, relay=relay, reply=reply)
        line.reason, line.size, line.count, line.detail, line.level = reason, size, count, detail, level
        line.pid = pid
        if seconds >= 0:
            line.seconds = round(seconds, 3)
        self._line(line, loud=bool(level))

    def _count(self, counter: str) -> None:
        self._counts[counter] = self._counts.get(counter, 0) + 1


# By Status. Plain tuples and integers: hashing and comparing enum members costs more than the rest of an event.
PASSED = Passed.__struct_fields__
FINISHED = ("delivered", "relayed", "deferred", "bounced", "expired", "discarded", "held", "uncertain")
RELAYED = int(Status.RELAYED)
CODES = ("", *(f"{code} " for code in range(1, 1000)))
ACTIONS = {"released": "Release", "deleted": "Delete", "flushed": "Flush", "held": "Hold"}


def addresses(envelope: Envelope, recipients: Iterable[int]) -> tuple[str, ...]:
    return tuple([envelope.recipients[n].address for n in recipients])


def rules_of(recipients: Sequence[Recipient]) -> str:
    """The policies that decided, each once, in order."""
    return ",".join(dict.fromkeys(r.rule for r in recipients if r.rule))


def stamp(when: float) -> str:
    """Unix seconds as a line's time; "held" for one that never comes."""
    if when == float("inf"):
        return "held"
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def _is_terminal(log: Log | None) -> bool:
    return log is not None and os.isatty(log.fd)


class RecordedEvents(Events):
    """For tests: nothing is written, everything is kept as values."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock=clock)
        self.lines: list[Line] = []

    def _line(self, line: Line, *, loud: bool = False) -> None:
        self.lines.append(line)
        super()._line(line, loud=loud)

    def _usual(self, line: Accepted | Passed) -> None:
        as_written = bytearray()
        encode_onto(line, as_written)
        self.lines.append(decode(bytes(as_written)))
        super()._usual(line)

    def named(self, event: str) -> list[Line]:
        """The lines of one event, in order."""
        return [line for line in self.lines if line.event == event]


class _Checked(dict[tuple[str, str], str]):
    """Sample names, made once each."""

    def __missing__(self, key: tuple[str, str]) -> str:
        name = self[key] = f'posthof_sender_auth_total{{method="{key[0]}",result="{key[1]}"}}'
        return name


_CHECKED = _Checked()
