"""The composition root of a worker: the one file that names concrete classes and puts them together.

Rules
- Nothing is decided here. What a message meets stands in flow.py, what a person asks in admin/desk.py.
- A new configuration is built whole beside the old one (contexts, policy, routes), then everything is swapped in one
  turn of the loop. What fails before that leaves the old one in force.
- A worker that is fenced says so and ends without touching the spool again: its lanes are another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import signal
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

import msgspec

from posthof_crds.engine import EngineConfig, Listener, ListenerRole
from posthof_crds.shards import ACCOUNTS_KEY
from posthof_pod import flow
from posthof_pod.accounts.accounts import Accounts
from posthof_pod.accounts.backends import backends_of
from posthof_pod.accounts.directory import Directory
from posthof_pod.accounts.issuer import Unanswered, parts_of
from posthof_pod.accounts.shared import SYNC, SharedLedger
from posthof_pod.admin.channel import Channel, Refused, SocketInfo, Swap, WorkerStart, worker_channel
from posthof_pod.admin.desk import Desk
from posthof_pod.admit.auth import Means, SenderCheck
from posthof_pod.admit.callout import Callout
from posthof_pod.admit.gate import HouseGate
from posthof_pod.admit.judge import Admission
from posthof_pod.admit.newcomers import Newcomers
from posthof_pod.admit.returns import Returns
from posthof_pod.config.secrets import Secrets
from posthof_pod.config.secrets import key as key_of
from posthof_pod.deliver.auth import Credentials
from posthof_pod.deliver.connection import Connection, Unreachable
from posthof_pod.deliver.maildir import MaildirDelivery
from posthof_pod.deliver.outbound import OutboundTLS
from posthof_pod.deliver.pool import Pool
from posthof_pod.deliver.tls import ClientPair, ClientTLS
from posthof_pod.listen.native import NativeListener
from posthof_pod.listen.networks import client_key
from posthof_pod.listen.reception import Listening
from posthof_pod.listen.tls import BadPair, Pair, end_point, server_context
from posthof_pod.listen.tls import Certificate as ServedCertificate
from posthof_pod.mailauth.dmarc.row import Failure
from posthof_pod.members import Heard
from posthof_pod.model import Destination, Host, TLSWish
from posthof_pod.observe.events import Events
from posthof_pod.observe.log import Log
from posthof_pod.outbox import outbox_of
from posthof_pod.replies import Permanent, Reply, Temporary
from posthof_pod.reports import dmarc, failure, tlsrpt
from posthof_pod.reports.dmarc import Reporter
from posthof_pod.reports.room import Reports
from posthof_pod.resolve import https
from posthof_pod.resolve.assembly import Resolution, assemble
from posthof_pod.resolve.lookup import CachedLookup, Failures
from posthof_pod.resolve.own import is_local_address
from posthof_pod.schedule.backlog import Backlog
from posthof_pod.schedule.line import Line
from posthof_pod.schedule.slices import Portion, Slice
from posthof_pod.sign.signer import signer_of
from posthof_pod.smtp.sasl import SCRAM_PLUS
from posthof_pod.spool.layout import new_worker
from posthof_pod.spool.liveness import FlockLiveness, LeaseLiveness
from posthof_pod.spool.store import Spool

STDOUT = 1
LATE_EVERY = 1.0  # seconds between two words to the spool of how late the oldest ready mail is
POLICIES_EVERY = 900.0  # seconds between looks at the age of MTA-STS policies
SHRINKS = 30.0  # seconds sessions have to end that are not ours any more
FENCED = 1  # exit status
DMARC = "dmarc"  # of what kind reports are
TLS = "tls"
TLS_EVERY = 5.0  # seconds between two looks at how TLS went
NO_LOGIN = Reply(451, "4.7.8", "The login of the next hop is not known")
_SPOOL = {  # what of Spool.stats is shown, and how it is called
    "live": "posthof_spool_messages",
    "bytes": "posthof_spool_bytes",
    "lanes": "posthof_spool_lanes",
    "cached_bytes": "posthof_spool_cached_bytes",
    "volume_free_bytes": "posthof_spool_free_bytes",
    "turns": "posthof_spool_turns_total",
    "turn_seconds": "posthof_spool_turn_seconds",
    "look_age": "posthof_spool_look_age_seconds",
    "unowned_lanes": "posthof_spool_unowned_lanes",
    "poisoned_lanes": "posthof_spool_poisoned_lanes",
    "is_full": "posthof_spool_is_full",
    "torn": "posthof_spool_torn_total",
    "compacted": "posthof_spool_compacted_total",
    "removed_segments": "posthof_spool_removed_segments_total",
}
_RESOLVES = ("resolver", "hostname", "direct_port", "https_port", "listeners")  # what a resolver is made of


class Worker:
    """All of one worker process."""

    def __init__(self, start: WorkerStart) -> None:
        self.start = start
        self.loop = asyncio.get_running_loop()
        self.spool_id = new_worker()
        self.events = Events(Log(STDOUT, start.log), loop=self.loop, worker=start.name, level=start.level)
        self.ended: asyncio.Future[int] = self.loop.create_future()
        self.listeners: dict[SocketInfo, Listening] = {}
        self.contexts: dict[str, ssl.SSLContext] = {}
        self.pairs: dict[str, tuple[bytes, bytes]] = {}  # chain and key, by TLSCert
        self.secrets = Secrets()
        self.pods: dict[str, tuple[str, ...]] = {}
        self.portion = Portion(Slice(*start.share))
        self.portion.move(time.time())
        self.liveness = LeaseLiveness(start.pod, Path(start.proofs)) if start.pod else FlockLiveness()
        self.failures: Failures = {}
        self.failures_told = failure.Pace()
        self.newcomers = Newcomers(time.monotonic)
        self.returns = Returns(time.time)
        self.accounts = Accounts(self.events, wall=time.time, clock=time.monotonic, client_key=client_key)
        self.shared: SharedLedger
        self.mta: flow.Mta
        self.gate: HouseGate
        self.callout: Callout
        self.reports: Reports
        self.resolution: Resolution
        self._is_begun = False
        self._is_stopping = False
        self._client_tls = ClientTLS()
        self.outbound = OutboundTLS(self.events)
        self._tasks: set[asyncio.Task[object]] = set()
        self.channel: Channel = worker_channel(
            start,
            {
                "config": self.swap,
                "stats": self.stats,
                "stop": self.stop,
                "adopt": self.adopt,
                "reopen": self.reopen,
                "pods": self.know_pods,
                "leases": self.know_leases,
                "share": self.share,
                "look": self.look,
                "clients": self.clients,
                "accounts": self.account_uses,
            },
            on_close=self._orphaned,
            on_error=self.events.internal_error,
        )
        self.channel.tell("hello", {"spool": self.spool_id})

    # ---- configurations

    async def swap(self, payload: Any) -> dict[str, str]:
        """A configuration, the first or another. Refused: it cannot be used, and the old one stays."""
        swap = msgspec.convert(payload, Swap)
        is_new = bool(swap.config)
        config = msgspec.msgpack.decode(swap.config, type=EngineConfig) if is_new else self.mta.config
        self.pods = swap.pods
        sockets = {info: socket.socket(fileno=fd) for info, fd in zip(swap.added, swap.fds, strict=True)}
        try:
            contexts = _contexts(config, swap.certificates, swap.secrets)
            if not self._is_begun:
                await self._begin(config, contexts, swap)
            elif is_new:
                await self._change(config, contexts, swap)
            else:
                self._take_keys(config, contexts, swap)
        except (BadPair, OSError) as error:
            for bound in sockets.values():
                bound.close()
            raise Refused(str(error)) from error
        for info, bound in sockets.items():
            await self._listen(info, bound, config)
        for info in swap.removed:
            listening = self.listeners.pop(info, None)
            if listening is not None:
                self._spawn(listening.drain(30.0))
                self.events.listener_closed(info.listener, f"{info.host}:{info.port}")
        if not self._is_begun:
            self._is_begun = True
            gc.collect()
            gc.freeze()  # what is made at the start stays: no collection looks at it again
            self.channel.tell("ready", {})
        return {"revision": swap.revision}

    async def _begin(self, config: EngineConfig, contexts: dict[str, ssl.SSLContext], swap: Swap) -> None:
        """The parts, in the order of a message's trip."""
        self.contexts, self.secrets, self.pairs = contexts, Secrets(swap.secrets), swap.certificates
        events = self.events
        self.resolution = self._resolution(config)
        maildirs = MaildirDelivery(config.mail_root, config.hostname)
        self.callout = Callout(self._ask_line, self._route_of_domain, monotonic=time.monotonic)
        spread = crc32(config.hostname.encode()) / 2**32
        self.reports = Reports(
            Path(config.spool.path), self.spool_id, clock=time.time, watch=self.events, spread=spread
        )
        self.reports.register(DMARC, self._report_dmarc)
        self.reports.register(TLS, self._report_tls)
        admission = self._admission(config)
        mta = self.mta = flow.Mta(config, admission=admission, backlog=Backlog(), events=events, maildirs=maildirs)
        mta.spool = Spool(
            config.spool,
            worker_id=self.spool_id,
            loop=self.loop,
            liveness=self.liveness,
            on_live=lambda lives: flow.replayed(lives, mta),
            on_event=self._spool_event,
            on_gone=self._lane_gone,
            has_mate=True,
            max_live=self.start.most,
        )
        mta.pool = Pool(
            mta.backlog,
            self.resolution.resolver,
            connect=self._connect,
            attempt=lambda takens, connection: flow.attempt(takens, connection, mta),  # type: ignore[arg-type]
            failed=lambda takens, setback: flow.failed(takens, setback, mta),
            watcher=events,
            capacity=config.outbound_sessions,
            clock=mta.clock,
            portion=self.portion,
        )
        mta.spool.expect(lambda: sum(listening.coming for listening in self.listeners.values()))
        self._know_accounts(config, swap)
        self._sign_with(config)
        mta.accounts = self.accounts
        self.gate = HouseGate(admission, mta.spool, partial(flow.accept, mta=mta), self.accounts)
        self.shared = SharedLedger(
            Path(config.spool.path) / "accounts", self.spool_id, self.accounts.ledger, time.time, self.events.warned
        )
        desk = Desk(mta, self.start.name)
        self.channel.serve(desk.handlers())
        await mta.spool.start()
        mta.pool.start()
        self._spawn(self._watch())
        self._spawn(self._share_accounts())
        self._spawn(self.reports.run())
        self._spawn(self._refresh_policies())
        self._spawn(self._note_tls())

    async def _share_accounts(self) -> None:
        """As long as there are accounts, their counts are the fleet's."""
        while not self._is_stopping:
            if self.accounts.directory.accounts:
                await self.shared.sync()
                self.accounts.guesses.share = self.accounts.ledger.parts
            await asyncio.sleep(SYNC)

    async def _change(self, config: EngineConfig, contexts: dict[str, ssl.SSLContext], swap: Swap) -> None:
        """Another configuration, in one turn of the loop. Queued mail finds its new way at its next try."""
        mta = self.mta
        admission = self._admission(config)
        if any(getattr(config, name) != getattr(mta.config, name) for name in _RESOLVES):
            self.resolution = self._resolution(config)
            mta.pool.resolver = self.resolution.resolver
        self.contexts, self.secrets, self.pairs = contexts, Secrets(swap.secrets), swap.certificates
        self._know_accounts(config, swap)
        self._sign_with(config)
        mta.config, mta.admission, self.gate.admission = config, admission, admission
        mta.generation += 1
        mta.maildirs.root, mta.maildirs.hostname = config.mail_root, config.hostname
        mta.pool.capacity = config.outbound_sessions
        self.callout.forget()
        self.events.set_level(config.log_level)
        self._swap_listeners(config)
        await flow.reroute(mta)

    def _take_keys(self, config: EngineConfig, contexts: dict[str, ssl.SSLContext], swap: Swap) -> None:
        """Other keys for the same configuration: new sessions get the new certificates, open ones notice nothing."""
        self.contexts, self.secrets, self.pairs = contexts, Secrets(swap.secrets), swap.certificates
        self._know_accounts(config, swap)
        self._sign_with(config)
        self._swap_listeners(config)

    def _sign_with(self, config: EngineConfig) -> None:
        """The keys of our domains, and the secrets of the senders we rewrote."""
        self.mta.signer = signer_of(config, self.secrets, self.events.warned)
        self.returns.take(config, self.secrets)

    def _know_accounts(self, config: EngineConfig, swap: Swap) -> None:
        """Who may log in, and what a client's proof may be bound to."""
        key = swap.secrets.get(ACCOUNTS_KEY, b"")
        directory = Directory(config.credentials, Secrets(swap.secrets).bytes, key)
        backends, complaints = backends_of(directory, Secrets(swap.secrets).bytes, self._ask_issuer)
        for complaint in (*directory.complaints, *complaints):
            self.events.warned(complaint)
        bindings = {
            listener.name: tuple(
                end_point(swap.certificates[n][0]) for n in listener.certificates if n in swap.certificates
            )
            for listener in config.listeners
            if SCRAM_PLUS in listener.mechanisms
        }
        self.accounts.take(directory, bindings, backends)
        self.accounts.know_pods(self.pods)

    def _swap_listeners(self, config: EngineConfig) -> None:
        for info, listening in self.listeners.items():
            listener = _listener(config, info)
            if listener is not None:
                listening.swap(listener, config.hostname, self.gate)

    def _admission(self, config: EngineConfig) -> Admission:
        admission = Admission(
            config,
            callout=self.callout,
            is_own=is_local_address,
            newcomers=self.newcomers,
            returns=self.returns,
            senders=self._sender_check(config),
        )
        admission.know_pods(self.pods)
        return admission

    def _sender_check(self, config: EngineConfig) -> SenderCheck | None:
        """Who judges mail from the world; nobody in a house that takes none."""
        if not any(listener.role is ListenerRole.MX for listener in config.listeners):
            return None
        note = partial(self.reports.note, DMARC)
        means = Means(self._lookup, time.time, self.events, note, self._report_failure)
        return SenderCheck(config, means)

    def _report_failure(self, failed: Failure) -> None:
        """A message failed DMARC and its domain's owner wants to hear of it: in a task of its own, if at all."""
        reporter = self._reporter_of(self.mta.config)
        if self.failures_told.may_tell(failed.published.domain, time.time()):
            send = partial(flow.originate, mta=self.mta)
            self._spawn(failure.compose(failed, reporter, self._lookup(), send))

    def _lookup(self) -> CachedLookup:
        return CachedLookup(self.resolution.cache, time.time, self.failures)

    def _reporter(self) -> Reporter | None:
        """Who signs the DMARC reports; nobody while the AccessPolicy wants none."""
        config = self.mta.config
        return self._reporter_of(config) if config.access.dmarc.aggregate_reports else None

    @staticmethod
    def _reporter_of(config: EngineConfig) -> Reporter:
        policy = config.access.dmarc
        contact = policy.contact or f"postmaster@{config.hostname}"
        return Reporter(config.hostname, policy.organisation or config.hostname, contact)

    async def _report_dmarc(self, day: str, rows: Counter[bytes]) -> None:
        send = partial(flow.originate, mta=self.mta)
        await dmarc.compose(day, rows, dmarc.Means(self._reporter, self._lookup, send))

    async def _report_tls(self, day: str, rows: Counter[bytes]) -> None:
        def reporter() -> Reporter | None:
            policy, config = self.mta.config.access.dmarc, self.mta.config
            contact = policy.contact or f"postmaster@{config.hostname}"
            wanted = Reporter(config.hostname, policy.organisation or config.hostname, contact)
            return wanted if config.tls_reports else None

        send = partial(flow.originate, mta=self.mta, wish=TLSWish.OPTIONAL)
        means = tlsrpt.Means(reporter, self._lookup, send, self._post_report, self.events.warned)
        await tlsrpt.compose(day, rows, means)

    async def _post_report(self, uri: str, packed: bytes) -> None:
        """A TLS report to where its domain wants it. Raises Failure, https.Failed."""
        target = urlsplit(uri)
        host = target.hostname or ""
        await https.post(
            host,
            f"{target.path or '/'}{'?' + target.query if target.query else ''}",
            await self.resolution.resolver.addresses(host, time.time()),
            port=target.port or self.mta.config.https_port,
            context=self._client_tls.policies(),
            kind=tlsrpt.MEDIA,
            content=packed,
        )

    async def _ask_issuer(self, url: str, *, form: bytes | None = None, authorization: str = "") -> bytes:
        """JSON of a token's issuer. Raises Unanswered."""
        host, port, path = parts_of(url)
        try:
            return await https.ask(
                host,
                path,
                await self.resolution.resolver.addresses(host, time.time()),
                port=port,
                context=self._client_tls.policies(),
                most=1024 * 1024,
                form=form,
                authorization=authorization,
            )
        except (https.Failed, Temporary, Permanent) as error:
            raise Unanswered(str(error)) from None

    async def _note_tls(self) -> None:
        """How TLS went, for the reports; the journal is synced a second later."""
        while not self._is_stopping:
            await asyncio.sleep(TLS_EVERY)
            self._take_tls()

    def _take_tls(self) -> None:
        for row, count in self.outbound.ledger.take().items():
            self.reports.note(TLS, row, count)

    async def know_pods(self, payload: Any) -> None:
        """Which address is in which selections of pods, from now on. No configuration changes for it."""
        self.pods = msgspec.convert(payload, dict[str, tuple[str, ...]])
        self.accounts.know_pods(self.pods)
        mta: flow.Mta | None = getattr(self, "mta", None)  # the first configuration may still be on its way
        if mta is not None:
            mta.admission.know_pods(self.pods)

    async def share(self, payload: Any) -> None:
        """What of the limits is ours, from now on. Answered when sessions beyond it have ended, or had their time."""
        self.portion.set(Slice(*payload))
        mta: flow.Mta | None = getattr(self, "mta", None)
        pool: Pool | None = getattr(mta, "pool", None)
        if pool is None:
            return
        pool.share()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(pool.within(), SHRINKS)

    async def know_leases(self, payload: Any) -> None:
        """Who may be judged dead, from now on."""
        if isinstance(self.liveness, LeaseLiveness) and self.liveness.hear(msgspec.convert(payload, Heard)):
            await self.adopt(None)

    async def look(self, payload: Any) -> float | None:
        """Seconds since the last good look; None before the first."""
        mta: flow.Mta | None = getattr(self, "mta", None)
        return mta.spool.look_age if mta is not None and mta.spool.has_looked else None

    async def _listen(self, info: SocketInfo, bound: socket.socket, config: EngineConfig) -> None:
        listener = _listener(config, info)
        if listener is None:
            bound.close()
            return
        kind: type[Any] = NativeListener
        if listener.implementation == "aiosmtpd":
            from posthof_pod.listen.aiosmtpd import AiosmtpdListener

            kind = AiosmtpdListener
        listening = kind(
            listener,
            config.hostname,
            self.gate,
            contexts=lambda: self.contexts.get(info.listener),
            watch=self.events,
            blob_threshold=config.spool.blob_threshold,
        )
        listening.desk.clients.portion = self.portion
        self.listeners[info] = listening
        await listening.start(bound)

    # ---- what the parts ask of the outside

    async def _connect(self, host: Host, destination: Destination) -> Connection:
        config = self.mta.config
        try:
            connection = await Connection.open(
                host,
                destination,
                hostname=config.hostname,
                timeouts=config.timeouts,
                tls=self._client_tls,
                auth=self._credentials(destination),
                pair=self._client_pair(destination),
            )
        except Unreachable as error:
            self.outbound.refused(host, destination, error)
            raise
        self.outbound.opened(host, destination, connection)
        return connection

    def _resolution(self, config: EngineConfig) -> Resolution:
        return assemble(
            config,
            rng=random.random,
            policy_context=self._client_tls.policies,
            is_keeping=True,
            watch=self.outbound,
        )

    def _client_pair(self, destination: Destination) -> ClientPair | None:
        """What the sessions of a rule show where the host asks for a certificate."""
        name = destination.client_certificate
        if not name:
            return None
        found = self.pairs.get(name)
        if found is None:  # in a cluster it may come later than the rule that names it
            raise Temporary(NO_LOGIN, f"TLSCert {name} has no certificate yet")
        return ClientPair(*found)

    def _credentials(self, destination: Destination) -> Credentials | None:
        username, password = destination.username, destination.password
        if username is None or password is None:
            return None
        try:
            return Credentials(self.secrets.text(username), self.secrets.text(password))
        except LookupError as error:  # in a cluster a Secret may come later than the rule that names it
            raise Temporary(NO_LOGIN, str(error.args[0])) from None

    async def _ask_line(self, destination: Destination) -> Connection:
        """A session for a callout: the first host that answers."""
        route = await self.resolution.resolver.route(destination, self.mta.clock())
        error: Exception = OSError("no host")
        for host in route.hosts:
            try:
                return await self._connect(host, destination)
            except Exception as failed:  # the next host may answer; the last one's words are told
                error = failed
        raise error

    def _route_of_domain(self, domain: str) -> Destination | None:
        return self.mta.admission.routes.of_domain(domain)

    # ---- what the spool tells

    def _lane_gone(self, refs: list[int]) -> set[int]:
        """A lane goes to a peer: forget its messages. Returns those that are in a session right now."""
        backlog = self.mta.backlog
        busy = set()
        for ref in refs:
            if backlog.forget((ref,)):
                busy.add(ref)
        if refs and not busy:
            backlog.close_lane(refs[0] >> 32)
        return busy

    def _spool_event(self, name: str, /, **fields: object) -> None:
        events = self.events
        if name == "fenced":
            events.spool_fenced(f"fenced: {_words(fields)}")
            if dots := int(str(fields.get("dots", 0))):
                events.possible_duplicates(dots, "DotsOfFenced", "")
            self._end(FENCED)
        elif name == "adopted":
            events.lane_adopted(
                str(fields.get("lane")),
                str(fields.get("old", "")),
                int(str(fields.get("messages", 0))),
                float(str(fields.get("seconds", 0.0))),
                int(str(fields.get("possible_duplicates", 0))),
            )
            self.channel.tell("adopted", fields)
        elif name == "possible_duplicates":
            count, reason, lane = (str(fields.get(one, "")) for one in ("count", "reason", "lane"))
            events.possible_duplicates(int(count), reason, lane)
        elif name == "offered":
            events.lane_freed(str(fields.get("lane")), int(str(fields.get("messages", 0))))
        elif name in ("damaged", "unreadable", "set_aside", "torn"):
            events.spool_damaged(f"{fields.get('lane', '')}/{fields.get('segment', '')}", f"{name}: {_words(fields)}")
        elif name == "segment_given_up":
            events.segment_given_up(f"{fields.get('lane')}/{fields.get('segment')}", str(fields.get("error")))
        elif name == "full":
            events.spool_full(int(str(fields.get("free", 0))), _words(fields))
        elif name == "room_again":
            events.spool_has_room(int(str(fields.get("free", 0))))
        else:
            events.warned(f"spool: {name} {_words(fields)}")

    # ---- what the supervisor asks

    async def stats(self, payload: Any) -> dict[str, int | float]:
        """One flat dict for the exporter (observe/metrics.py)."""
        stats = dict(self.events.stats())
        if not self._is_begun:
            return stats
        counts = self.mta.backlog.totals()
        now = self.mta.clock()
        oldest = now - counts.oldest_ready if counts.oldest_ready != flow.FOREVER else 0.0
        pool = self.mta.pool
        free, since = pool.free()
        taken = [one.sessions / max(1, one.desk.clients.limits.sessions) for one in self.listeners.values()]
        stats.update(
            {
                'posthof_queue_messages{state="ready"}': counts.ready,
                'posthof_queue_messages{state="deferred"}': counts.deferred,
                'posthof_queue_messages{state="held"}': counts.held,
                'posthof_queue_messages{state="sending"}': counts.taken,
                "posthof_queue_oldest_ready_seconds": max(0.0, oldest),
                "posthof_queue_free_messages": free,
                "posthof_queue_oldest_free_seconds": max(0.0, now - since) if free else 0.0,
                "posthof_queue_begun_total": pool.begun,
                "posthof_accounts_held": sum(bool(held) for _, _, held in self.accounts.uses().values()),
                "posthof_sessions_share": round(max([pool.busy_share, *taken]), 4),
                "posthof_spool_messages_most": self.start.most,
                "posthof_limits_share": self.portion.width,
                'posthof_sessions_open{direction="out"}': pool.open_sessions,
                'posthof_sessions_open{direction="in"}': sum(one.sessions for one in self.listeners.values()),
            }
        )
        spool = self.mta.spool.stats()
        duplicates = "posthof_possible_duplicates_total"
        stats[duplicates] = stats.get(duplicates, 0) + spool.pop("possible_duplicates", 0)
        stats.update({metric: spool[name] for name, metric in _SPOOL.items() if name in spool})
        return stats

    async def clients(self, payload: Any) -> dict[str, int]:
        """Sessions of public listeners by the address they came with, lately."""
        now = self.loop.time()
        found: Counter[str] = Counter()
        for listening in self.listeners.values():
            found.update(listening.desk.seen.counts(now))
        return dict(found)

    async def account_uses(self, payload: Any) -> dict[str, tuple[float, int, str]]:
        """Of each account: last used, messages today, why its mail is held; of the fleet, as far as is known."""
        return self.accounts.uses()

    async def adopt(self, payload: Any) -> None:
        """A worker was reaped: take over its lanes at once."""
        if self._is_begun and not self._is_stopping:
            await self.mta.spool.adopt_now()

    async def reopen(self, payload: Any) -> None:
        self.events.reopen()

    async def stop(self, payload: Any) -> None:
        """Listen no more; then drain and end. Answered once nothing listens."""
        seconds = float(payload["seconds"])
        if not self._is_stopping:
            self._is_stopping = True
            self._spawn(self._drain(seconds))
        await asyncio.sleep(0)

    def _orphaned(self) -> None:
        """The supervisor is gone."""
        if not self._is_stopping:
            self._is_stopping = True
            self.events.stopping("the supervisor is gone")
            self._spawn(self._drain(10.0))

    async def _drain(self, seconds: float) -> None:
        """421 to new sessions, end what runs, sync, free the lanes, leave."""
        begun = time.monotonic()
        if self._is_begun:
            grace = max(seconds * 0.4, 0.2)
            await asyncio.gather(*(one.drain(grace) for one in self.listeners.values()))
            await self.callout.stop()
            is_quiet = await self.mta.pool.drain(max(seconds - (time.monotonic() - begun) - 1.0, 0.5))
            self._take_tls()
            await self.reports.flush()
            await self.mta.spool.stop(is_quiet=is_quiet)
            await self.mta.maildirs.close()
            if self.accounts.directory.accounts:
                await self.shared.close()
        self.accounts.close()
        self.events.stopped(time.monotonic() - begun)
        self._end(0)

    # ---- the process

    def _end(self, status: int) -> None:
        if not self.ended.done():
            self.ended.set_result(status)

    async def _watch(self) -> None:
        """Once a second: how late is the oldest ready mail? The spool shares its backlog by that."""
        while not self._is_stopping:
            oldest = min(map(self._oldest, self.mta.backlog.lines()), default=flow.FOREVER)
            self.mta.spool.note_late(max(0.0, self.mta.clock() - oldest) if oldest != flow.FOREVER else 0.0)
            await asyncio.sleep(LATE_EVERY)

    async def _refresh_policies(self) -> None:
        """MTA-STS policies in use are fetched again in time; the first look tells whether the resolver validates."""
        await self.resolution.resolver.look_ahead(self.mta.clock())
        while not self._is_stopping:
            await asyncio.sleep(POLICIES_EVERY * (0.5 + random.random()))
            await self.resolution.policies.refresh()

    def _oldest(self, line: Line) -> float:
        """Since when the oldest ready mail of a destination waits, where a peer could help."""
        if not line.ready:
            return flow.FOREVER
        status = self.mta.pool.status(line.destination.key)
        is_hopeless = status is not None and status.is_hopeless
        return flow.FOREVER if is_hopeless else self.mta.backlog.counts(line).oldest_ready

    def _spawn(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.events.internal_error("worker", error)
            if self._is_stopping:
                self._end(FENCED)


def _contexts(
    config: EngineConfig, certificates: Mapping[str, tuple[bytes, bytes]], secrets: Mapping[str, bytes]
) -> dict[str, ssl.SSLContext]:
    """A context for each listener that has certificates. BadPair: one cannot be used. A CA for clients that has not
    come yet certifies nobody."""
    contexts: dict[str, ssl.SSLContext] = {}
    for listener in config.listeners:
        served = [
            ServedCertificate(config.certificates[name].dns_names, (Pair(*certificates[name]),))
            for name in listener.certificates
            if name in certificates
        ]
        if served:
            ca = secrets.get(key_of(listener.client_ca), b"") if listener.client_ca is not None else b""
            contexts[listener.name] = server_context(served, ca)
    return contexts


def _listener(config: EngineConfig, info: SocketInfo) -> Listener | None:
    return next((one for one in config.listeners if one.name == info.listener), None)


def _words(fields: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())


async def serve(start: WorkerStart) -> int:
    """Run until the supervisor says stop, or goes away, or this worker is fenced. The exit status."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # the supervisor's, which passes them on as words
    worker = Worker(start)
    status = await worker.ended
    outbox_of(worker.loop).flush()  # a fenced worker's last 451s
    worker.channel.tell("stats", await worker.stats(None))
    worker.events.close()
    sys.stdout.flush()
    return status
