"""What became of TLS, session by session, for the reports other domains ask for (TLS-RPT, RFC 8460 section 4).

Owns: the counts since they were last taken. One entry for a policy, in it one for each way a session failed. Counts
and not sessions: a million sessions a day with one provider are one entry.

Rules
- Only mail that goes Direct counts: the policy domain is the recipient's.
- A session that came about counts once as a success, if it has what was demanded; what failed on the way to it (or
  instead of it) counts as a failure. Mail that then went in plain text is no success.
- What could not be found out before any session (a policy that cannot be fetched) is a failure too.
- Bounded: more than `MOST` policies are not counted, and more than `MOST_WAYS` ways of one count as the last.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from posthof_pod.deliver.opening import Fault
from posthof_pod.model import Destination, DestinationKind, Host, PolicyType, TLSFault
from posthof_pod.resolve.stspolicy import Policy

MOST = 20_000
MOST_WAYS = 100


class Way(msgspec.Struct, frozen=True, array_like=True):
    """How sessions failed. Empty where no session was tried."""

    kind: str  # RFC 8460 4.3
    mx: str = ""  # the host's name
    address: str = ""  # its address
    source: str = ""  # ours
    why: str = ""


class Row(msgspec.Struct, array_like=True):
    """One policy's sessions."""

    domain: str  # the recipient's: whom the report goes to
    type: str  # PolicyType
    text: tuple[str, ...]
    mx: tuple[str, ...]
    successes: int
    failures: list[tuple[Way, int]]


Key = tuple[str, str, tuple[str, ...], tuple[str, ...]]  # domain, policy type, policy, its patterns


class Ledger:
    """Counts. Take them with `take`."""

    def __init__(self) -> None:
        self._successes: dict[Key, int] = {}
        self._failures: dict[Key, dict[Way, int]] = {}

    def session(
        self, destination: Destination, host: Host, faults: Iterable[Fault], *, source: str, is_success: bool
    ) -> None:
        """A session was opened, or could not be. `faults`: what TLS did not do."""
        if destination.kind is not DestinationKind.DIRECT or destination.name.startswith("["):
            return
        demand = host.demand
        key: Key = (destination.name, str(PolicyType.NONE), (), ())
        if demand is not None:
            key = (destination.name, str(demand.policy), demand.text, demand.mx)
        if is_success:
            self._count_success(key)
        for fault in faults:
            self._count(key, Way(str(fault.kind), host.name, host.address, source, fault.why[:200]))

    def policy_failed(self, domain: str, kind: str, why: str) -> None:
        """An MTA-STS policy could not be had (RFC 8460 4.3.2.2)."""
        self._count((domain, str(PolicyType.STS), (), ()), Way(kind, why=why[:200]))

    def outside(self, policy: Policy, host: str) -> None:
        """An MX host that the policy does not name."""
        key = (policy.domain, str(PolicyType.STS), policy.lines(), policy.mx)
        self._count(key, Way(str(TLSFault.VALIDATION), host, why="the MX host is not in the policy"))

    def take(self) -> list[Row]:
        """The counts since the last time."""
        rows = [
            Row(*key, self._successes.get(key, 0), list(self._failures.get(key, {}).items()))
            for key in dict.fromkeys([*self._successes, *self._failures])
        ]
        self._successes, self._failures = {}, {}
        return rows

    def _count_success(self, key: Key) -> None:
        if key in self._successes or len(self._successes) < MOST:
            self._successes[key] = self._successes.get(key, 0) + 1

    def _count(self, key: Key, way: Way) -> None:
        ways = self._failures.get(key)
        if ways is None:
            if len(self._failures) >= MOST:
                return
            ways = self._failures[key] = {}
        if way not in ways and len(ways) >= MOST_WAYS:
            way = next(reversed(ways))
        ways[way] = ways.get(way, 0) + 1
