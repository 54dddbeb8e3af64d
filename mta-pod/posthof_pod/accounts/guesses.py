"""Who guesses passwords: a delay that grows, then a block, by client and by account. Pure, `now` is passed in.

Rules
- A name that nobody has is counted like one that somebody has: neither words nor time tell who exists.
- An attempt counts as wrong from its beginning until it proves right: a hundred at once are a hundred.
- A block ends by itself: one attempt is forgiven every FORGIVEN seconds. While it lasts nothing is checked, so a
  right password says no more than a wrong one.
- A client that logged in as this account lately is not blocked for what others do: nobody is locked out of an
  account by guessing at it, and no office for one telephone with an old password.
- A client that is not known (its address may be a node's) is never blocked; the account still is.
- Memory is bounded: REMEMBERED names and clients of each sort; the one heard of longest ago is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

CLIENT_LIMIT = 10.0  # wrong attempts of one client (an IPv4 address, an IPv6 /64)
ACCOUNT_LIMIT = 20.0  # at one account
FORGIVEN = 90.0  # seconds
FAMILIAR = 30 * 86400.0  # seconds for which a login is remembered
REMEMBERED = 50_000
DELAY = 1.0  # seconds before the first wrong answer; each one more doubles it
DELAY_MAX = 8.0

K = TypeVar("K", bound=Hashable)


class _Levels(Generic[K]):
    """How full each one's bucket is; it leaks."""

    def __init__(self, remembered: int) -> None:
        self._remembered = remembered
        self._levels: OrderedDict[K, tuple[float, float]] = OrderedDict()  # key -> level, when

    def at(self, key: K, now: float) -> float:
        level, when = self._levels.get(key, (0.0, now))
        return max(0.0, level - (now - when) / FORGIVEN)

    def add(self, key: K, amount: float, now: float) -> None:
        level = max(0.0, self.at(key, now) + amount)
        self._levels[key] = (level, now)
        self._levels.move_to_end(key)
        if level == 0.0:
            del self._levels[key]
        elif len(self._levels) > self._remembered:
            self._levels.popitem(last=False)

    def __len__(self) -> int:
        return len(self._levels)


class Guesses:
    """`share`: of how many workers this is one; each takes its part of the limits, and 3 attempts at least."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self.share = 1
        self._remembered = remembered
        self._clients: _Levels[str] = _Levels(remembered)
        self._accounts: _Levels[str] = _Levels(remembered)
        self._familiar: OrderedDict[tuple[str, str], float] = OrderedDict()

    def attempt(self, client: str, account: str, now: float) -> float | None:
        """An attempt begins. None: blocked; else the seconds a wrong answer waits, from its beginning. `client`: its
        key, "" where it is not known. `account`: a user name, "" where none is guessed at (a token)."""
        of_client = self._clients.at(client, now) if client else 0.0
        of_account = self._accounts.at(account, now) if account else 0.0
        is_blocked = of_client > self._limit(CLIENT_LIMIT) - 1 or of_account > self._limit(ACCOUNT_LIMIT) - 1
        if is_blocked and not self._is_familiar(client, account, now):
            return None
        self._count(client, account, 1.0, now)
        return min(DELAY_MAX, DELAY * float(2 ** int(min(of_client + of_account, 8.0))))

    def right(self, client: str, account: str, now: float) -> None:
        """The attempt was right: it does not count, and the client is known from now on."""
        self._count(client, account, -1.0, now)
        if client and account:
            self._familiar[client, account] = now
            self._familiar.move_to_end((client, account))
            if len(self._familiar) > self._remembered:
                self._familiar.popitem(last=False)

    def undone(self, client: str, account: str, now: float) -> None:
        """The attempt was not judged: our own fault, or the client cancelled before it proved anything."""
        self._count(client, account, -1.0, now)

    def _count(self, client: str, account: str, amount: float, now: float) -> None:
        if client:
            self._clients.add(client, amount, now)
        if account:
            self._accounts.add(account, amount, now)

    def _limit(self, limit: float) -> float:
        return max(3.0, limit / self.share)

    def _is_familiar(self, client: str, account: str, now: float) -> bool:
        known = self._familiar.get((client, account)) if client else None
        return known is not None and now - known < FAMILIAR

    def __len__(self) -> int:
        return len(self._clients) + len(self._accounts) + len(self._familiar)
