"""How much one client, and all of them, may do at a time. A client is an IPv4 address or an IPv6 /64.

Rules
- Pure: `now` in seconds is passed in. Counts are of this worker and listener. Limits of a client are the fleet's:
  this worker lets in what its portion of them is (schedule/slices.py). A rate of which less than one a minute is ours
  is one in as many minutes as it takes. Who was let in before the portion shrank stays, and counts.
- Memory is bounded: open sessions are counted by client (as many entries as sessions); rates hold RATE_CLIENTS
  clients a minute at most. Beyond them a client that is not yet held passes: the limit on all sessions still holds.
- A rate is counted over a sliding minute: what is left of the minute before, plus this one.
"""

from __future__ import annotations

from posthof_crds.engine import ListenerLimits
from posthof_pod.listen.networks import client_key
from posthof_pod.replies import Reply
from posthof_pod.schedule.slices import Portion

RATE_CLIENTS = 50_000
MINUTE = 60.0
STRESS = 0.9  # of the sessions allowed

FULL = Reply(421, "4.3.2", "Too many sessions, try again later")
TOO_MANY_SESSIONS = Reply(421, "4.7.0", "Too many sessions from your address")
TOO_FAST = Reply(421, "4.7.0", "Too many connections from your address in a minute")
OF_A_CLIENT = frozenset((TOO_MANY_SESSIONS, TOO_FAST))
TOO_MUCH_MAIL = Reply(450, "4.7.1", "Too many messages from your address in a minute")


class Rate:
    """Events per client and sliding minute."""

    def __init__(self, period: float = MINUTE, clients: int = RATE_CLIENTS) -> None:
        self._period = period
        self._clients = clients
        self._begun = 0.0  # of the current period
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def admits(self, key: str, limit: int, now: float) -> bool:
        """Counts one event of `key` if fewer than `limit` happened in the last minute. 0: no limit, not counted."""
        if not limit:
            return True
        self._follow(now)
        left = 1.0 - (now - self._begun) / self._period
        count = self._now.get(key, 0)
        if count + self._before.get(key, 0) * left > limit - 1:
            return False
        if count or len(self._now) < self._clients:
            self._now[key] = count + 1
        return True

    def stretch(self, period: float) -> None:
        """Count over so many seconds from now on."""
        self._period = period

    def _follow(self, now: float) -> None:
        passed = now - self._begun
        if passed >= 2 * self._period:
            self._before, self._now, self._begun = {}, {}, now
        elif passed >= self._period:
            self._before, self._now, self._begun = self._now, {}, self._begun + self._period

    def __len__(self) -> int:
        return len(self._now) + len(self._before)


class Clients:
    """The open sessions of one listener, and the rates of those who make them."""

    def __init__(self, limits: ListenerLimits, portion: Portion | None = None) -> None:
        """`portion`: what of the limits of a client is this worker's; None: everything."""
        self.limits = limits
        self.portion = Portion() if portion is None else portion
        self.total = 0
        self._sessions: dict[str, int] = {}
        self._connections = Rate()
        self._messages = Rate()

    @property
    def is_stressed(self) -> bool:
        """Above 90% of the sessions allowed: time-outs are short."""
        return self.total > self.limits.sessions * STRESS

    @property
    def timeout(self) -> float:
        """Seconds a session may be silent, now."""
        limits = self.limits
        return min(limits.stress_timeout, limits.timeout) if self.is_stressed else limits.timeout

    def enter(self, client: str, now: float) -> Reply | None:
        """A session begins; None: it is counted, and `leave` must follow."""
        limits, key = self.limits, client_key(client)
        if self.total >= limits.sessions:
            return FULL
        count = self._sessions.get(key, 0)
        if limits.client_sessions and count >= self.portion.of(limits.client_sessions, key):
            return TOO_MANY_SESSIONS
        if limits.client_session_rate and not self._admits(self._connections, key, limits.client_session_rate, now):
            return TOO_FAST
        self.total += 1
        self._sessions[key] = count + 1
        return None

    def leave(self, client: str) -> None:
        """A session that was let in has ended."""
        key = client_key(client)
        self.total -= 1
        count = self._sessions[key] - 1
        if count:
            self._sessions[key] = count
        else:
            del self._sessions[key]

    def move(self, client: str, to: str, now: float) -> Reply | None:
        """A front end named the real client. On a reply the session is still counted as `client`."""
        self.leave(client)
        reply = self.enter(to, now)
        if reply is not None:
            self.total += 1
            key = client_key(client)
            self._sessions[key] = self._sessions.get(key, 0) + 1
        return reply

    def message(self, client: str, now: float) -> Reply | None:
        """A MAIL command."""
        limit = self.limits.client_message_rate
        if not limit or self._admits(self._messages, client_key(client), limit, now):
            return None
        return TOO_MUCH_MAIL

    def _admits(self, rate: Rate, key: str, limit: int, now: float) -> bool:
        """Whether this worker's part of a rate allows one more."""
        ours = limit * self.portion.width
        if ours >= 1.0:
            rate.stretch(MINUTE)
            return rate.admits(key, int(ours + 1e-9), now)
        if not ours:
            return False
        rate.stretch(MINUTE / ours / 2)  # with a limit of one the period after an event admits none
        return rate.admits(key, 1, now)
