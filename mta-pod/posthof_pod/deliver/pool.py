"""The dispatcher: which session sends what, one task per session.

Owns: sites, sessions, routes in force, and the moment a unit leaves the backlog. What a message says and what its
replies mean is `attempt`'s (flow.py); when to try again is flow's too.

Rules
- Decided by assign.py and schedule/concurrency.py on numbers; this file counts and acts.
- What becomes ready in one turn of the loop is shared out in the next one: `kick` costs a flag, and what one sync of
  the spool released leaves in one batch, pipelined, instead of message by message over as many sessions.
- A try opens a session on up to 5 addresses, at most 2 of which may answer and refuse (greeting, EHLO, TLS, AUTH; or
  break before the first message, whose units `attempt` gave back). After a failure a site opens one at a time. When
  the last of those being opened fails and none stands, what is ready for the site goes back as a group with that
  host's reply: a twentieth of the queue and 20 at least, in their order, so that a long queue for a host that is down
  costs little; the others stay ready and have their turn within 20 probes (decision 0008). A site that is down gets
  one probe, with pauses (Window).
- A site's limits are the fleet's: what this worker may use of them says its `portion` (schedule/slices.py), which
  moves with the clock and the fleet. Sessions beyond it end after their batch, idle ones at once.
- Messages and connections per minute come out of the site's buckets (schedule/rates.py); what waits for one is fed by
  the tick.
- Sessions of the worker are bounded by `capacity`; sites that wait for room get one place each in turn, an idle
  session of another site makes room, and busy ones end after their batch.
- Maildirs are a site without connections: up to 8 batches at once.
- Every unit taken comes back: `attempt` says done, defer or give_back for each; what it leaves when it raises goes to
  `failed` with INTERNAL.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Protocol

from posthof_pod.deliver import assign
from posthof_pod.deliver.connection import Unreachable
from posthof_pod.deliver.site import LOCAL_SITE, Connection, Session, Setback, Site, SiteStatus
from posthof_pod.model import Destination, DestinationKind, Host, Reason, Route, Taken
from posthof_pod.replies import Failure, Permanent, Temporary
from posthof_pod.schedule.backlog import Backlog, State
from posthof_pod.schedule.concurrency import Window
from posthof_pod.schedule.line import Line
from posthof_pod.schedule.slices import Portion

TICK = 0.25  # seconds between looks at due times, idle sessions and probes
TIDY = 60.0  # seconds between removals of what nothing needs any more
LOCAL_SESSIONS = 8
MOST_RESOLVING = 256  # routes looked up at once
SENT_BACK = 20  # units of a destination that go back when no host answered, at least
SENT_BACK_SHARE = 20  # of a longer queue: one in so many of all that wait for it
FAIL_GROUP = 50  # units sent back in one turn of the loop
FAIL_GROUPS = 2  # at once: with a thousand hosts down, each would hold a group in memory and make the turn longer
AFTER_FAULT = 300.0  # seconds until a unit whose end was lost by a fault of ours is tried again
FOREVER = float("inf")


class RouteSource(Protocol):
    """resolve.mx.Resolver."""

    async def route(self, destination: Destination, now: float) -> Route:
        """Raises Temporary, Permanent."""


class Watcher(Protocol):
    """observe.events.Events, as far as the pool speaks to it."""

    def site_down(self, site: str, reason: Reason, reply: str) -> None: ...
    def site_up(self, site: str) -> None: ...
    def internal_error(self, where: str, error: BaseException) -> None: ...


class _Target:
    """Where one line leads."""

    __slots__ = ("destination", "is_resolving", "route", "site", "until")

    def __init__(self, destination: Destination) -> None:
        self.destination = destination  # what the route was made of
        self.site: Site | None = None
        self.route: Route | None = None  # not used by a session yet
        self.until = 0.0
        self.is_resolving = False

    def is_good(self, destination: Destination, now: float) -> bool:
        """The site is known, and still that of this destination (a new configuration makes a new value)."""
        same = self.destination is destination or self.destination == destination
        return self.site is not None and now < self.until and same


class Pool:
    """All outgoing sessions of a worker."""

    def __init__(
        self,
        backlog: Backlog,
        resolver: RouteSource,
        *,
        connect: Callable[[Host, Destination], Awaitable[Connection]],
        attempt: Callable[[list[Taken], Connection | None], Awaitable[bool]],
        failed: Callable[[list[Taken], Setback], Awaitable[None]],
        watcher: Watcher,
        capacity: int,
        clock: Callable[[], float],
        portion: Portion | None = None,
    ) -> None:
        """`connect` raises Unreachable. `attempt`: True to go on with this connection. `clock`: unix seconds.
        `portion`: what of the sites' limits is ours; None: everything."""
        self._backlog = backlog
        self._resolver = resolver
        self._connect = connect
        self._attempt = attempt
        self._failed = failed
        self._watcher = watcher
        self.capacity = capacity
        self._clock = clock
        self._portion = Portion() if portion is None else portion
        self._edition = self._portion.edition  # of the portion that the sites know
        self._targets: dict[Line, _Target] = {}
        self._sites: dict[str, Site] = {}
        self._waiting: deque[Site] = deque()  # for capacity
        self._open = 0  # sessions that count against it
        self.begun = 0  # units given to sessions since the start
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_resolve: deque[Line] = deque()
        self._resolving = 0
        self._sending_back = asyncio.Semaphore(FAIL_GROUPS)
        self._ended = asyncio.Event()  # a session, since somebody began to wait for it
        self._is_kicked = False
        self._is_draining = False
        self._timer: asyncio.TimerHandle | None = None
        self._tidied = clock()
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- the outside ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to serve the backlog. Called in the loop."""
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(TICK, self._tick)
        self.kick()

    def kick(self) -> None:
        """Something became ready. Cheap; called as often as wanted."""
        loop = self._loop
        if self._is_kicked or self._is_draining or loop is None:
            return
        self._is_kicked = True
        loop.call_soon(self._turn)

    @property
    def resolver(self) -> RouteSource:
        """Where routes come from. Another one makes every route looked up again."""
        return self._resolver

    @resolver.setter
    def resolver(self, resolver: RouteSource) -> None:
        self._resolver = resolver
        for target in self._targets.values():
            target.route = None
            if target.site is None or not target.site.is_local:
                target.until = 0.0

    async def drain(self, patience: float) -> bool:
        """Start nothing new and let what runs end, for `patience` seconds at most; then it is cancelled. Whether all
        ended by itself: no message was left between its dot and the reply."""
        self._is_draining = True
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        self._to_resolve.clear()
        for site in self._sites.values():
            for session in site.sessions:
                if session.connection is None and not site.is_local and session.task is not None:
                    session.task.cancel()
            while site.idle:
                site.idle.pop().give([])
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        running = list(self._tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        return not running

    def status(self, destination_key: str) -> SiteStatus | None:
        """The site a destination leads to, None while that is not known."""
        line = self._backlog.find_line(destination_key)
        target = self._targets.get(line) if line is not None else None
        return target.site.status(self._clock()) if target is not None and target.site is not None else None

    def share(self) -> None:
        """The portion has changed: sites follow."""
        self._edition = self._portion.edition
        for site in self._sites.values():
            site.follow(self._portion)
            self._trim(site)
        self.kick()

    async def within(self) -> None:
        """Returns once no site has more sessions than are ours."""
        while not self.is_within:
            self._ended.clear()
            await self._ended.wait()

    @property
    def is_within(self) -> bool:
        """Whether no site has more sessions than are ours."""
        return all(len(site.sessions) <= site.most for site in self._sites.values() if not site.is_local)

    @property
    def open_sessions(self) -> int:
        """Sessions with other hosts, those being opened included."""
        return self._open

    @property
    def busy_share(self) -> float:
        """Share of the sessions we may have that have work, or are being opened."""
        idle = sum(len(site.idle) for site in self._sites.values() if not site.is_local)
        return (self._open - idle) / self.capacity if self.capacity else 0.0

    def free(self) -> tuple[int, float]:
        """Ready units that wait for nothing but a worker, and since when the oldest of them does (inf: none is).
        Those that wait for their destination, or for its route, are not among them."""
        now = self._clock()
        count, since = 0, FOREVER
        for line in self._backlog.lines():
            target = self._targets.get(line) if line.ready else None
            site = target.site if target is not None else None
            if site is None or site.is_failing or site.window.is_down or site.is_held_back(now):
                continue
            count += line.ready
            since = min(since, self._backlog.counts(line).oldest_ready)
        return count, since

    # --- decide: from ready units to sessions -----------------------------------------------------------------

    def _turn(self) -> None:
        """What was kicked since the last turn."""
        self._is_kicked = False
        if self._is_draining:
            return
        now = self._clock()
        for line in self._backlog.drain_woken():
            self._place(line, now)
        if self._waiting:
            self._share_out(now)
            self._make_room()

    def _place(self, line: Line, now: float) -> None:
        """Bring a line with ready units to its site, finding that first where it is not known any more."""
        target = self._targets.get(line)
        if target is None:
            target = self._targets[line] = _Target(line.destination)
            if line.destination.kind is DestinationKind.LOCAL:
                target.site = self._site(LOCAL_SITE, line.destination)
                target.until = FOREVER
        if target.is_resolving:
            return
        if target.site is not None and (target.site.is_local or target.is_good(line.destination, now)):
            target.site.join(line)
            self._feed(target.site, now)
            return
        target.is_resolving = True
        self._to_resolve.append(line)
        self._resolve_more()

    def _feed(self, site: Site, now: float) -> None:
        """Give idle sessions work, and open more where that is not enough."""
        if site.is_failing or not site.may_send(now):
            return
        if site.idle:
            self._feed_idle(site, now)
        if site.next_line() is None or site.is_waiting:
            return
        demand = self._demand(site, now)
        room = demand if site.is_local else min(demand, self.capacity - self._open if not self._waiting else 0)
        for _ in range(room):
            self._begin(site, now)
        if demand > room:
            site.is_waiting = True
            self._waiting.append(site)

    def _feed_idle(self, site: Site, now: float) -> None:
        while site.idle and site.next_line() is not None and site.may_send(now):
            session = site.idle.pop()
            if not session.is_usable:
                session.give([])
            elif session.waiter is not None and not session.waiter.done():
                session.give(self._batch(site, session, now))

    def _demand(self, site: Site, now: float) -> int:
        """How many sessions the site should open."""
        allowed = min(site.window.allowed(now), site.most)
        if site.window.failures:  # one at a time
            allowed = min(allowed, len(site.sessions) - site.connecting + 1)
        if site.connects is not None:
            allowed = min(allowed, len(site.sessions) + site.connects.left(now))
        if len(site.sessions) >= allowed:
            return 0
        brisk = site.brisk(now)
        enough = 2 * allowed + (int(brisk * assign.SOON / site.pace) if site.pace > 0.0 else 0)
        ready = site.count_ready(enough)
        return assign.wanted(
            ready=ready if site.messages is None else min(ready, site.messages.left(now)),
            allowed=allowed,
            sessions=len(site.sessions),
            idle=len(site.idle),
            connecting=site.connecting,
            brisk=brisk,
            pace=site.pace,
        )

    def _share_out(self, now: float) -> None:
        """Give free capacity to the sites that wait for it, one session each in turn."""
        while self._waiting and self._open < self.capacity:
            site = self._waiting.popleft()
            site.is_waiting = False
            demand = 0 if site.is_failing or site.next_line() is None else self._demand(site, now)
            if demand and site.may_send(now):
                self._begin(site, now)
            if demand > 1:
                site.is_waiting = True
                self._waiting.append(site)

    def _trim(self, site: Site) -> None:
        """End idle sessions that are not ours any more."""
        excess = 0 if site.is_local else len(site.sessions) - site.most
        for session in site.idle[: max(0, excess)]:
            self._end_idle(session)

    def _end_idle(self, session: Session) -> None:
        session.site.idle.remove(session)
        session.give([])

    def _make_room(self) -> None:
        """End an idle session, the longest idle first, for each site that waits for capacity."""
        count = len(self._waiting)
        idle = [session for site in self._sites.values() if not site.is_local for session in site.idle]
        for session in sorted(idle, key=lambda one: one.idle_since)[:count]:
            self._end_idle(session)

    def _batch(self, site: Site, session: Session, now: float) -> list[Taken]:
        """Take from the line whose turn it is what this session should send next."""
        line = site.next_line()
        if line is None:
            return []
        if site.is_local:
            count = min(line.ready, assign.LOCAL_BATCH)
        else:
            left = site.limits.messages_per_connection - session.sent
            count = assign.batch(
                ready=line.ready,
                allowed=min(int(site.window.limit), max(1, site.most)),
                pace=site.pace,
                most=max(1, min(assign.BATCH, left)),
            )
            if site.messages is not None and not (count := site.messages.take(count, now)):
                return []  # it idles until the tick feeds it
        take = self._backlog.take
        takens = [taken for _ in range(count) if (taken := take(line, now)) is not None]
        site.turn()
        session.sent += len(takens)
        self.begun += len(takens)
        session.busy_since = now
        return takens

    # --- routes -----------------------------------------------------------------------------------------------

    def _resolve_more(self) -> None:
        while self._to_resolve and self._resolving < MOST_RESOLVING:
            self._resolving += 1
            self._spawn(self._resolve(self._to_resolve.popleft()))

    async def _resolve(self, line: Line) -> None:
        """Find the site of a line; what is ready goes back if there is no route."""
        target = self._targets[line]
        target.destination = line.destination
        try:
            route = await self._resolver.route(target.destination, self._clock())
        except (Temporary, Permanent) as failure:
            await self._send_back(line, _no_route(failure), line.ready)
        except Exception as error:
            self._watcher.internal_error("resolve", error)
            await self._send_back(line, _internal(error), line.ready)
        else:
            site = self._site(route.site, line.destination)
            if target.site is not None and target.site is not site:
                target.site.leave(line)
            target.site, target.route, target.until = site, route, route.until
        finally:
            target.is_resolving = False
            self._resolving -= 1
            self._resolve_more()
        self._again(line)

    def _again(self, line: Line) -> None:
        """A line may be placed once more."""
        if line.ready and not self._is_draining:
            now = self._clock()
            self._place(line, now)
            self._share_out(now)

    def _site(self, key: str, destination: Destination) -> Site:
        site = self._sites.get(key)
        if site is None:
            limits = destination.limits
            if key == LOCAL_SITE:
                window = Window(LOCAL_SESSIONS, LOCAL_SESSIONS)
            else:
                window = Window(limits.connections_start, limits.connections, destination.retry.intervals[0])
            site = self._sites[key] = Site(key, limits, window)
            site.follow(self._portion)
        elif site.limits != destination.limits and key != LOCAL_SITE:
            site.limits = destination.limits
            site.window.most = max(1, site.limits.connections)
            site.window.limit = min(site.window.limit, float(site.window.most))
            site.follow(self._portion)
        return site

    # --- act: the life of a session ----------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _begin(self, site: Site, now: float) -> None:
        """Start a session; the caller made sure that it may exist."""
        session = Session(site, site.next_line(), now)
        site.sessions.add(session)
        if site.connects is not None:
            site.connects.take(1, now)
        site.connecting += 1
        self._open += not site.is_local
        session.task = self._spawn(self._live(session))

    async def _live(self, session: Session) -> None:
        """Open, work, idle, end."""
        site = session.site
        is_connecting = True
        try:
            if not site.is_local:
                session.connection = await self._find_host(session)
            site.connecting -= 1
            is_connecting = False
            if site.is_local or session.connection is not None:
                await self._work(session)
        except Exception as error:
            self._watcher.internal_error("session", error)
        finally:
            site.connecting -= is_connecting
            self._forget(session)
            if session.connection is not None:
                session.connection.abort()

    def _forget(self, session: Session) -> None:
        """The session is over: its place is free."""
        site = session.site
        if session not in site.sessions:
            return
        site.sessions.discard(session)
        if session in site.idle:
            site.idle.remove(session)
        self._open -= not site.is_local
        self._ended.set()
        if not self._is_draining and (self._waiting or site.lines):
            now = self._clock()
            self._feed(site, now)
            self._share_out(now)

    async def _work(self, session: Session) -> None:
        """Send batches until there is a reason to end."""
        site = session.site
        takens = self._batch(site, session, self._clock())
        while True:
            if not takens:
                takens = await self._rest(session)
                if not takens:
                    break
            can_go_on = await self._try(session, takens)
            if not can_go_on or not self._may_go_on(session):
                break
            takens = [] if site.is_failing else self._batch(site, session, self._clock())
        if session in site.idle:
            site.idle.remove(session)
        connection, session.connection = session.connection, None
        if connection is not None and connection.is_usable:
            await connection.quit()  # its place is free when the peer has seen it go
        elif connection is not None:
            connection.abort()
        self._forget(session)

    async def _rest(self, session: Session) -> list[Taken]:
        """Wait for work as an idle session. []: end."""
        loop = self._loop
        if self._is_draining or loop is None:
            return []
        waiter: asyncio.Future[list[Taken]] = loop.create_future()
        session.waiter = waiter
        session.idle_since = self._clock()
        session.site.idle.append(session)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                for taken in waiter.result():
                    self._backlog.give_back(taken.unit)
            raise

    async def _try(self, session: Session, takens: list[Taken]) -> bool:
        """One batch. Returns whether the connection can be used again."""
        site = session.site
        began = session.busy_since
        try:
            can_go_on = await self._attempt(takens, session.connection)
        except Exception as error:
            self._watcher.internal_error("attempt", error)
            if left := self._still_taken(takens):
                await self._report(left, _internal(error))
            return False
        except asyncio.CancelledError:
            for taken in self._still_taken(takens):
                self._backlog.give_back(taken.unit)
            raise
        finally:
            session.busy_since = 0.0
        if self._backlog.woken:
            self.kick()
        if not can_go_on and not session.is_usable:
            await self._broke(session, takens)
            return False
        window = site.window
        site.measured(self._clock() - began, len(takens))
        site.false_starts = 0
        window.passed(
            len(takens), is_full=not site.idle and bool(site.lines) and len(site.sessions) >= int(window.limit)
        )
        return can_go_on and session.is_usable

    async def _broke(self, session: Session, takens: list[Taken]) -> None:
        """The session ended. Twice before a first message, its units given back: as if it had not opened."""
        site = session.site
        is_still = self._backlog.is_still
        returned = sum(is_still(taken, State.READY) for taken in takens)
        put_off = sum(is_still(taken, State.DEFERRED) for taken in takens)
        if put_off:
            site.window.broken()
        if returned + put_off < len(takens) or session.sent > len(takens):
            return  # something was sent, or the peer closed while it idled, or its limit of messages is reached
        if session.host is not None:
            site.shun(session.host, self._clock())
        if put_off:
            return
        for taken in takens:
            if (line := self._backlog.find_line(taken.destination.key)) is not None and line.ready:
                site.join(line)
        site.false_starts += 1
        if site.false_starts >= assign.MOST_FULL_SESSIONS:
            site.false_starts = 0
            site.connecting += 1  # it counts as one that is still being opened
            try:
                await self._not_opened(session, _broken(session.host))
            finally:
                site.connecting -= 1

    def _may_go_on(self, session: Session) -> bool:
        site = session.site
        if self._is_draining:
            return False
        if site.is_local:
            return True
        if session.sent >= site.limits.messages_per_connection or len(site.sessions) > site.most:
            return False
        return not assign.must_yield(
            sent=session.sent,
            sessions=len(site.sessions),
            waiting=len(self._waiting),
            capacity=self.capacity,
            sites=len(self._sites),
        )

    # --- act: opening, and what happens when it fails -----------------------------------------------------------

    async def _find_host(self, session: Session) -> Connection | None:
        """A connection to one of the site's hosts. None: the site's ready units were sent back, or it has moved."""
        site = session.site
        setback: Setback | None = None
        try:
            route = await self._route_of(session)
            if route is None:
                return None
            full = 0
            for host in site.in_order(route, self._clock())[: assign.MOST_ADDRESSES]:
                try:
                    connection = await self._connect(host, self._line_of(session).destination)
                except Unreachable as error:
                    site.shun(host, self._clock())
                    setback = _worse(setback, _unreachable(error))
                    full += assign.is_full_session(error.reason)
                    if full >= assign.MOST_FULL_SESSIONS:
                        break
                else:
                    session.host = host
                    self._opened(site)
                    return connection
        except (Temporary, Permanent) as failure:
            setback = _no_route(failure)
        except Exception as error:
            self._watcher.internal_error("connect", error)
            setback = _internal(error)
        if setback is not None:
            await self._not_opened(session, setback)
        return None

    def _line_of(self, session: Session) -> Line:
        if session.line is None:
            raise ValueError("a local session follows no line")
        return session.line

    async def _route_of(self, session: Session) -> Route | None:
        """The addresses for a new session: in a new random order each time. None: they are another site's now."""
        line = self._line_of(session)
        target = self._targets.get(line)
        if target is not None and target.route is not None:
            route, target.route = target.route, None
            return route
        route = await self._resolver.route(line.destination, self._clock())
        if route.site == session.site.key:
            return route
        if target is not None:
            session.site.leave(line)
            target.until = 0.0
            self._again(line)
        return None

    def _opened(self, site: Site) -> None:
        was_down = site.window.opened()
        site.last = None
        if was_down:
            self._watcher.site_up(site.key)
            self._spawn(self._wake_site(site))

    async def _wake_site(self, site: Site) -> None:
        """The site answers again: what waits only because it did not becomes ready."""
        for line, target in list(self._targets.items()):
            while target.site is site and not self._is_draining:
                woken = self._backlog.wake_line(line, assign.ANSWERED_NOT, self._clock())
                self.kick()
                if not woken:
                    break
                await asyncio.sleep(0)

    async def _not_opened(self, session: Session, setback: Setback) -> None:
        """On none of the hosts. The last session that tried sends back what is ready, if none stands."""
        site = session.site
        now = self._clock()
        site.last, site.last_at = setback, now
        standing = len(site.sessions) - site.connecting
        was_down = site.window.is_down
        site.window.failed(now, began=session.began, open_=standing)
        if standing:
            return
        if site.window.is_down and not was_down:
            self._watcher.site_down(site.key, setback.reason, setback.reply)
        if site.connecting > 1:
            return
        site.is_failing = True
        try:
            for line in list(site.lines):
                share = max(SENT_BACK, (line.ready + line.deferred) // SENT_BACK_SHARE)
                await self._send_back(line, setback, line.ready if setback.is_permanent else share)
        finally:
            site.is_failing = False

    async def _send_back(self, line: Line, setback: Setback, left: int) -> None:
        """So many of what is ready for one destination end their try with this setback."""
        while left > 0 and line.ready and not self._is_draining:
            async with self._sending_back:
                now = self._clock()
                takens = [
                    taken
                    for _ in range(min(left, line.ready, FAIL_GROUP))
                    if (taken := self._backlog.take(line, now)) is not None
                ]
                left -= len(takens)
                await self._report(takens, setback)
            await asyncio.sleep(0)

    async def _report(self, takens: list[Taken], setback: Setback) -> None:
        """Tell `failed`; what it leaves by a fault of its own waits for a while, so that nothing is lost or spins."""
        try:
            await self._failed(takens, setback)
        except Exception as error:
            self._watcher.internal_error("failed", error)
            due = self._clock() + AFTER_FAULT
            for taken in self._still_taken(takens):
                self._backlog.defer(taken.unit, due, taken.attempts, taken.notified, reason=Reason.INTERNAL)

    def _still_taken(self, takens: list[Taken]) -> list[Taken]:
        return [taken for taken in takens if self._backlog.is_still(taken, State.TAKEN)]

    # --- time ---------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Due times, idle sessions, probes; four times a second."""
        if self._loop is None or self._is_draining:
            return
        now = self._clock()
        self._timer = self._loop.call_later(TICK, self._tick)
        self._backlog.wake_due(now)
        self._portion.move(now)
        if self._portion.edition != self._edition:
            self.share()
        for site in list(self._sites.values()):
            for session in [one for one in site.idle if self._is_idle_too_long(one, now)]:
                self._end_idle(session)
            if site.lines:
                self._feed(site, now)
        if now - self._tidied > TIDY:
            self._tidy(now)
        self._turn()

    @staticmethod
    def _is_idle_too_long(session: Session, now: float) -> bool:
        return not session.is_usable or now - session.idle_since >= session.site.limits.idle

    def _tidy(self, now: float) -> None:
        """Forget what nothing needs: routes of empty lines, sites without sessions, hosts that failed long ago."""
        self._tidied = now
        for line, target in list(self._targets.items()):
            if line.is_empty and not target.is_resolving:
                del self._targets[line]
        used = {target.site for target in self._targets.values()}
        for key, site in list(self._sites.items()):
            site.shunned = {place: until for place, until in site.shunned.items() if until > now}
            is_idle = site not in used and not site.sessions and not site.lines and not site.window.is_down
            if is_idle and site.is_rested(now):
                del self._sites[key]
        self._backlog.drop_empty_lines(lambda line: line in self._targets)


def _worse(old: Setback | None, new: Setback) -> Setback:
    """Which of two hosts' failures is told."""
    if old is None or assign.weight(new.reason, new.is_permanent) > assign.weight(old.reason, old.is_permanent):
        return new
    return old


def _unreachable(error: Unreachable) -> Setback:
    return Setback(error.reason, error.code, error.enhanced, error.reply, error.host, error.is_permanent)


_BY_STATUS = {"4.4.3": Reason.DNS_FAILED, "4.7.5": Reason.TLS_POLICY, "4.7.8": Reason.AUTH_FAILED}


def _no_route(failure: Failure) -> Setback:
    reply = failure.reply
    reason = _BY_STATUS.get(reply.status, Reason.NO_ROUTE)
    text = f"{reply.text}: {failure.reason}"
    return Setback(reason, reply.code, reply.status, text, "", isinstance(failure, Permanent))


def _internal(error: BaseException) -> Setback:
    return Setback(Reason.INTERNAL, 451, "4.3.0", f"internal error ({type(error).__name__})", "", False)


def _broken(host: Host | None) -> Setback:
    place = f"{host.name}[{host.address}]:{host.port}" if host is not None else ""
    return Setback(Reason.PEER_CLOSED, 0, "4.4.2", "the session broke before the first message", place, False)
