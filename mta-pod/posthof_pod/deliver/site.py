"""What the pool knows of a site and of its sessions. State only; `pool.py` acts on it.

A site is a set of hosts with one policy (`resolve.mx.site_key`); several destinations may share one. The Maildirs of
this machine are one site without hosts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple, Protocol

from posthof_crds.engine import DestinationLimits
from posthof_pod.model import Host, Reason, Route, Taken
from posthof_pod.schedule.concurrency import Window
from posthof_pod.schedule.line import Line
from posthof_pod.schedule.rates import Bucket
from posthof_pod.schedule.slices import Portion

LOCAL_SITE = "local"
SHUN_FOR = 60.0  # seconds a host that failed stands behind the others
_SMOOTH = 0.2  # weight of the newest measurement of the pace


class Connection(Protocol):
    """What the pool needs of deliver/connection.py."""

    @property
    def is_usable(self) -> bool: ...
    async def quit(self) -> None: ...
    def abort(self) -> None: ...


class Setback(NamedTuple):
    """Why a try ended before any message was spoken of: no route, no connection, no session."""

    reason: Reason
    code: int  # the peer's, or the resolver's in SMTP's terms; 0: none
    enhanced: str
    reply: str  # the peer's full reply or our words
    host: str  # "mx.example.org[192.0.2.1]:25", "" where none was reached
    is_permanent: bool


class SiteStatus(NamedTuple):
    """For metrics and `posthof queue`. Times are unix seconds."""

    site: str
    sessions: int
    idle: int
    connecting: int
    limit: int
    pace: float  # seconds a message lately took
    is_down: bool
    next_probe: float  # 0.0: not down
    last: Setback | None
    last_at: float
    is_held_back: bool = False  # what is ready waits for the destination, not for us
    is_hopeless: bool = False  # and a peer with a share of its own could do no more


class Session:
    """One task with at most one connection. `waiter` is set while it is idle."""

    __slots__ = ("began", "busy_since", "connection", "host", "idle_since", "line", "sent", "site", "task", "waiter")

    def __init__(self, site: Site, line: Line | None, began: float) -> None:
        self.site = site
        self.line = line  # whose route it follows; None: local
        self.began = began
        self.connection: Connection | None = None
        self.host: Host | None = None
        self.task: asyncio.Task[None] | None = None
        self.waiter: asyncio.Future[list[Taken]] | None = None
        self.idle_since = 0.0
        self.busy_since = 0.0
        self.sent = 0  # units

    @property
    def is_usable(self) -> bool:
        return self.connection is None or self.connection.is_usable

    def give(self, takens: list[Taken]) -> bool:
        """Wake an idle session with work, or to end it ([]). False: it was cancelled meanwhile."""
        waiter = self.waiter
        self.waiter = None
        if waiter is None or waiter.done():
            return False
        waiter.set_result(takens)
        return True


class Site:
    """Sessions, window and lines of one site."""

    __slots__ = (
        "_members",
        "connecting",
        "connects",
        "false_starts",
        "idle",
        "is_failing",
        "is_waiting",
        "key",
        "last",
        "last_at",
        "limits",
        "lines",
        "messages",
        "most",
        "pace",
        "sessions",
        "shunned",
        "window",
    )

    def __init__(self, key: str, limits: DestinationLimits, window: Window) -> None:
        self.key = key
        self.limits = limits
        self.window = window
        self.most = limits.connections  # sessions that are ours of the fleet's
        self.messages: Bucket | None = None  # None: no limit per minute
        self.connects: Bucket | None = None
        self.lines: deque[Line] = deque()  # with ready units, in turn
        self._members: set[Line] = set()
        self.sessions: set[Session] = set()
        self.idle: list[Session] = []  # the latest last: it is used first, the others time out
        self.connecting = 0
        self.false_starts = 0  # sessions in a row that broke before their first message
        self.is_failing = False  # what is ready is being sent back: nothing new is started
        self.is_waiting = False  # in the pool's queue for capacity
        self.pace = 0.0
        self.shunned: dict[str, float] = {}  # address:port -> until when
        self.last: Setback | None = None
        self.last_at = 0.0

    @property
    def is_local(self) -> bool:
        return self.key == LOCAL_SITE

    def follow(self, portion: Portion) -> None:
        """The limits, or what is ours of them, have changed."""
        if self.is_local:
            return
        limits = self.limits
        self.most = portion.of(limits.connections, self.key)
        self.messages = Bucket.follow(self.messages, limits.message_rate, portion.width)
        self.connects = Bucket.follow(self.connects, limits.connection_rate, portion.width)

    def may_send(self, now: float) -> bool:
        """Whether no rate forbids the next message now."""
        return self.messages is None or self.messages.left(now) > 0

    def is_rested(self, now: float) -> bool:
        """Whether a new site would send no more in the next minute than this one may."""
        return all(bucket is None or bucket.is_full(now) for bucket in (self.messages, self.connects))

    def is_held_back(self, now: float) -> bool:
        """Whether what is ready waits for the destination: for its answers, its limit of sessions, or a rate."""
        allowed = min(self.window.allowed(now), self.most)
        return not self.is_local and (len(self.sessions) >= allowed or not self.may_send(now))

    def is_hopeless(self, now: float) -> bool:
        """Whether peers could not help: it is held back by more than our share of its limits."""
        allowed = self.window.allowed(now)
        is_ours_whole = self.most >= self.limits.connections
        return self.window.is_down or (self.is_held_back(now) and (is_ours_whole or allowed < self.most))

    def join(self, line: Line) -> None:
        """A destination of this site has ready units."""
        if line not in self._members:
            self._members.add(line)
            self.lines.append(line)

    def next_line(self) -> Line | None:
        """The destination whose turn it is; lines that ran empty leave."""
        while self.lines:
            if self.lines[0].ready:
                return self.lines[0]
            self._members.discard(self.lines.popleft())
        return None

    def turn(self) -> None:
        """The first line had its turn."""
        if self.lines[0].ready:
            self.lines.rotate(-1)
        else:
            self._members.discard(self.lines.popleft())

    def leave(self, line: Line) -> None:
        """The destination has another site now."""
        if line in self._members:
            self._members.discard(line)
            self.lines.remove(line)

    def count_ready(self, enough: int) -> int:
        """Ready units of all lines, counted until there are `enough`."""
        count = 0
        for line in self.lines:
            count += line.ready
            if count >= enough:
                break
        return count

    def brisk(self, now: float) -> int:
        """Sessions at work that are not overdue: their present batch began no longer ago than it should take."""
        patience = max(0.1, 20 * self.pace)
        return sum(1 for session in self.sessions if session.busy_since and now - session.busy_since < patience)

    def measured(self, seconds: float, messages: int) -> None:
        """A batch took that long."""
        each = seconds / messages
        self.pace = each if self.pace == 0.0 else self.pace + _SMOOTH * (each - self.pace)

    def shun(self, host: Host, now: float) -> None:
        self.shunned[f"{host.address}:{host.port}"] = now + SHUN_FOR

    def in_order(self, route: Route, now: float) -> list[Host]:
        """The route's hosts, those that failed within the last minute behind the others."""
        if not self.shunned:
            return list(route.hosts)
        return sorted(route.hosts, key=lambda host: self.shunned.get(f"{host.address}:{host.port}", 0.0) > now)

    def status(self, now: float) -> SiteStatus:
        is_down = self.window.is_down
        return SiteStatus(
            self.key,
            len(self.sessions),
            len(self.idle),
            self.connecting,
            self.window.allowed(now) if is_down else int(self.window.limit),
            self.pace,
            is_down,
            self.window.next_probe if is_down else 0.0,
            self.last,
            self.last_at,
            self.is_held_back(now),
            self.is_hopeless(now),
        )
